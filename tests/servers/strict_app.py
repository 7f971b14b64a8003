"""A program: moto behind a gate that honours every condition, checks every checksum, as AWS does.

Requests that change one key go through one after the other, so that "look, compare, change" is
one step: If-Match and If-None-Match on PUT, Complete, Copy (of source and target) and DELETE, with
quoted ETags. Bodies are compared with Content-MD5 and x-amz-checksum-*, the parts of a Complete
with what was uploaded. Prints its port; ends when its standard input does.
"""

import base64
import hashlib
import io
import logging
import re
import sys
import threading
import zlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from urllib.parse import parse_qs, quote, unquote

from moto.moto_server.werkzeug_app import (
    DomainDispatcherApplication,
    MotoRequestHandler,
    create_backend_app,
)
from werkzeug.serving import make_server

from s3mount.store.integrity import crc32c

Environment = dict[str, Any]
StartResponse = Callable[..., Any]
Application = Callable[[Environment, StartResponse], Iterable[bytes]]

CHECKSUMS: dict[str, Callable[[bytes], str]] = {
    "HTTP_CONTENT_MD5": lambda body: _base64(hashlib.md5(body).digest()),
    "HTTP_X_AMZ_CHECKSUM_CRC32C": crc32c,
    "HTTP_X_AMZ_CHECKSUM_CRC32": lambda body: _base64(zlib.crc32(body).to_bytes(4, "big")),
    "HTTP_X_AMZ_CHECKSUM_SHA1": lambda body: _base64(hashlib.sha1(body).digest()),
    "HTTP_X_AMZ_CHECKSUM_SHA256": lambda body: _base64(hashlib.sha256(body).digest()),
}
_PART = re.compile(rb"<Part>(.*?)</Part>", re.DOTALL)


def _base64(digest: bytes) -> str:
    return base64.b64encode(digest).decode()


class Refused(Exception):
    def __init__(self, status: str, code: str) -> None:
        super().__init__(code)
        self.status = status
        self.code = code


FAILED = ("412 Precondition Failed", "PreconditionFailed")


class Strict:
    def __init__(self, application: Application) -> None:
        self._application = application
        self._guard = threading.Lock()  # of the two below
        self._locks: dict[str, threading.Lock] = defaultdict(threading.Lock)
        self._checksums: dict[tuple[str, str], str] = {}  # (upload id, part number) -> CRC32C

    def __call__(self, environment: Environment, start: StartResponse) -> Iterable[bytes]:
        if environment["REQUEST_METHOD"] not in {"PUT", "POST", "DELETE"}:
            if "uploadId" in _query(environment):
                return self._list_parts(environment, start)
            return self._application(environment, start)
        try:
            body = self._body(environment)
            with self._locked(environment):
                self._check_conditions(environment)
                self._check_parts(environment, body)
                return list(self._application(environment, start))
        except Refused as refused:
            start(refused.status, [("Content-Type", "application/xml")])
            return [f"<Error><Code>{refused.code}</Code></Error>".encode()]

    def _body(self, environment: Environment) -> bytes:
        """Read, checked, and put back."""
        body: bytes = environment["wsgi.input"].read(int(environment.get("CONTENT_LENGTH") or 0))
        environment["wsgi.input"] = io.BytesIO(body)
        for name, digest in CHECKSUMS.items():
            told = environment.get(name)
            if told and told != digest(body):
                raise Refused("400 Bad Request", "BadDigest")
        return body

    @contextmanager
    def _locked(self, environment: Environment) -> Iterator[None]:
        """The key, and that of a copy's source."""
        paths = {_path(environment)}
        source = environment.get("HTTP_X_AMZ_COPY_SOURCE")
        if source:
            paths.add(_source_path(source))
        with ExitStack() as stack:
            for path in sorted(paths):
                with self._guard:
                    lock = self._locks[path]
                stack.enter_context(lock)
            yield

    def _check_conditions(self, environment: Environment) -> None:
        query = _query(environment)
        source = environment.get("HTTP_X_AMZ_COPY_SOURCE")
        wanted = environment.pop("HTTP_X_AMZ_COPY_SOURCE_IF_MATCH", None)
        if source and wanted is not None:
            etag = self._etag(environment, _source_path(source))
            if etag is None:
                raise Refused("404 Not Found", "NoSuchKey")
            if wanted.strip('"') != etag:
                raise Refused(*FAILED)
        if environment["REQUEST_METHOD"] == "PUT" and "partNumber" in query:
            return
        match = environment.pop("HTTP_IF_MATCH", None)
        none_match = environment.pop("HTTP_IF_NONE_MATCH", None)
        if match is None and none_match is None:
            return
        etag = self._etag(environment, _path(environment))
        if match is not None and etag is None:
            raise Refused("404 Not Found", "NoSuchKey")
        # Like AWS, and unlike others, only a quoted ETag is one.
        if match is not None and match not in {"*", f'"{etag}"'}:
            raise Refused(*FAILED)
        if none_match is not None and etag is not None and none_match in {"*", f'"{etag}"'}:
            raise Refused(*FAILED)

    def _check_parts(self, environment: Environment, body: bytes) -> None:
        query = _query(environment)
        upload = query.get("uploadId", "")
        if "partNumber" in query:
            told = environment.get("HTTP_X_AMZ_CHECKSUM_CRC32C")
            with self._guard:
                if told:
                    self._checksums[upload, query["partNumber"]] = told
                else:
                    self._checksums.pop((upload, query["partNumber"]), None)
        elif upload and environment["REQUEST_METHOD"] == "POST":
            for part in _PART.findall(body):
                number = re.search(rb"<PartNumber>(\d+)<", part)
                told = re.search(rb"<ChecksumCRC32C>(.*?)<", part)
                if number is None or told is None:
                    continue
                if self._checksums.get((upload, number[1].decode())) != told[1].decode():
                    raise Refused("400 Bad Request", "InvalidPart")

    def _list_parts(self, environment: Environment, start: StartResponse) -> Iterable[bytes]:
        """With the checksums, which moto leaves out."""
        upload = _query(environment)["uploadId"]
        status, headers, body = self._ask(environment)

        def add(found: re.Match[bytes]) -> bytes:
            checksum = self._checksums.get((upload, found[1].decode()))
            more = f"<ChecksumCRC32C>{checksum}</ChecksumCRC32C>" if checksum else ""
            return found[0] + more.encode()

        body = re.sub(rb"<PartNumber>(\d+)</PartNumber>", add, body)
        start(status, [h for h in headers if h[0].lower() != "content-length"])
        return [body]

    def _ask(self, environment: Environment) -> tuple[str, list[tuple[str, str]], bytes]:
        found: list[Any] = []
        body = b"".join(self._application(environment, lambda *answer: found.extend(answer[:2])))
        return found[0], found[1], body

    def _etag(self, environment: Environment, path: str) -> str | None:
        """Of what is at the path now, asked of moto itself."""
        asked = {
            name: value
            for name, value in environment.items()
            if not name.startswith(("HTTP_X_AMZ_COPY", "HTTP_IF_", "HTTP_CONTENT"))
        }
        asked |= {
            "REQUEST_METHOD": "HEAD",
            "PATH_INFO": unquote(path, "latin-1"),
            "RAW_URI": path,
            "REQUEST_URI": path,
            "QUERY_STRING": "",
            "CONTENT_LENGTH": "0",
            "wsgi.input": io.BytesIO(),
        }
        status, headers, _ = self._ask(asked)
        if not status.startswith("200"):
            return None
        return {name.lower(): value for name, value in headers}["etag"].strip('"')


def _path(environment: Environment) -> str:
    """As it was sent: quoted."""
    raw = environment.get("RAW_URI") or environment.get("REQUEST_URI")
    path = raw or quote(environment["PATH_INFO"].encode("latin-1"))
    return quote(unquote(str(path).partition("?")[0], "latin-1"), "/", "latin-1")


def _source_path(source: str) -> str:
    name = unquote(source.partition("?versionId=")[0], "latin-1")
    return quote("/" + name.lstrip("/"), "/", "latin-1")


def _query(environment: Environment) -> dict[str, str]:
    query = parse_qs(environment.get("QUERY_STRING", ""), keep_blank_values=True)
    return {name: values[0] for name, values in query.items()}


def main() -> None:
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    application = Strict(DomainDispatcherApplication(create_backend_app))
    server = make_server(
        "127.0.0.1", 0, application, threaded=True, request_handler=MotoRequestHandler
    )
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print(server.server_address[1], flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main()
