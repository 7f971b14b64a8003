"""An S3 service's answers over the bucket of a MemoryStore: what it is capable of, it honours.

`Dialect.answer` is a function from a request to an answer, without network: tests put it behind the
wire client itself (tests/memory_wire.py) or behind a socket (tests/servers/strict.py).
"""

import base64
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import formatdate
from urllib.parse import parse_qsl, quote, unquote, unquote_to_bytes, urlsplit
from xml.sax.saxutils import escape

from lxml import etree

from s3mount.store import base, errors, integrity
from s3mount.store.base import (
    KEPT_HEADERS,
    Condition,
    WriteHeaders,
)
from s3mount.store.memory import MemoryStore
from s3mount.store.memory_bucket import StoredObject
from tests.counting_proxy import Reply, error_reply, operation_of

_META = "x-amz-meta-"
_RANGE = re.compile(r"bytes=(\d+)-(\d*)")
_STORED = (*KEPT_HEADERS, "x-amz-tagging", "x-amz-acl")
_STATUS: dict[type[errors.StoreError], tuple[int, str]] = {
    errors.NotFound: (404, "NoSuchKey"),
    errors.NoSuchUpload: (404, "NoSuchUpload"),
    errors.NoSuchBucket: (404, "NoSuchBucket"),
    errors.PreconditionFailed: (412, "PreconditionFailed"),
    errors.InvalidRange: (416, "InvalidRange"),
    errors.InvalidPart: (400, "InvalidPart"),
    errors.EntityTooLarge: (400, "EntityTooLarge"),
    errors.InvalidRequest: (400, "InvalidRequest"),
}

Headers = dict[str, str]  # names in lower case


class _Refused(Exception):
    def __init__(self, status: int, code: str) -> None:
        super().__init__(code)
        self.status = status
        self.code = code


@dataclass(frozen=True)
class Asked:
    key: str
    query: Headers
    headers: Headers
    body: bytes


class Dialect:
    """`missing`: the bucket is not there, for as long as it is set."""

    def __init__(self, store: MemoryStore) -> None:
        self.store = store
        self.missing = False

    def answer(self, method: str, target: str, headers: Headers, body: bytes) -> Reply:
        """`target`: path-style, percent-encoded, with the query."""
        operation = operation_of(method, target, headers)
        parts = urlsplit(target)
        raw = parts.path.lstrip("/").partition("/")[2]
        key = unquote_to_bytes(raw).decode("utf-8", "surrogateescape")
        query = dict(parse_qsl(parts.query, keep_blank_values=True))
        try:
            reply = self._carry_out(operation, Asked(key, query, headers, body))
        except _Refused as refused:
            reply = error_reply(refused.status, refused.code)
        except errors.StoreError as error:
            status, code = next(_STATUS[kind] for kind in type(error).__mro__ if kind in _STATUS)
            reply = error_reply(status, error.code or code)
        if method == "HEAD" and not reply.status.startswith("2"):
            reply = Reply(reply.status, reply.headers, b"")
        reply.headers.append(("Date", formatdate(self.store.clock(), usegmt=True)))
        reply.headers.append(("x-amz-request-id", "REQ"))
        return reply

    def _carry_out(self, operation: str, asked: Asked) -> Reply:
        if self.missing:
            raise _Refused(404, "NoSuchBucket")
        name = re.sub("(?<=[a-z])(?=[A-Z])", "_", operation).lower()
        reply: Reply = getattr(self, f"_{name}")(asked)
        return reply

    # -- reading

    def _head_object(self, asked: Asked) -> Reply:
        stored = self.store._find("HeadObject", asked.key, asked.query.get("versionId"))
        length = [("Content-Length", str(len(stored.data)))]
        return Reply("200 OK", self._shown(stored) + length, b"")

    def _get_object(self, asked: Asked) -> Reply:
        stored = self.store._find("GetObject", asked.key, asked.query.get("versionId"))
        if "if-match" in asked.headers and asked.headers["if-match"].strip('"') != stored.etag:
            raise _Refused(412, "PreconditionFailed")
        if asked.headers.get("if-none-match", "").strip('"') == stored.etag:
            return Reply("304 Not Modified", self._shown(stored), b"")
        shown, size = self._shown(stored), len(stored.data)
        if asked.headers.get("x-amz-checksum-mode") == "ENABLED" and self._can.checks_crc32c:
            shown.append(("x-amz-checksum-crc32c", integrity.crc32c(stored.data)))
        found = _RANGE.fullmatch(asked.headers.get("range", ""))
        if found is None:
            return Reply("200 OK", shown, stored.data)
        first, last = int(found[1]), int(found[2]) if found[2] else size - 1
        if first >= size:
            raise _Refused(416, "InvalidRange")
        last = min(last, size - 1)
        shown.append(("Content-Range", f"bytes {first}-{last}/{size}"))
        return Reply("206 Partial Content", shown, stored.data[first : last + 1])

    def _shown(self, stored: StoredObject) -> list[tuple[str, str]]:
        info = self.store._info(stored, 0.0)
        shown = [
            ("ETag", f'"{stored.etag}"'),
            ("Last-Modified", formatdate(stored.last_modified, usegmt=True)),
            *((f"{_META}{name}", value) for name, value in stored.metadata.items()),
            *info.headers.items(),
        ]
        if stored.version_id is not None:
            shown.append(("x-amz-version-id", stored.version_id))
        return shown

    def _list_objects_v2(self, asked: Asked) -> Reply:
        page = self.store._page(
            asked.query.get("prefix", ""),
            asked.query.get("delimiter", ""),
            asked.query.get("start-after", ""),
            _token(asked.query.get("continuation-token")),
            min(int(asked.query.get("max-keys", "1000")), self.store.page_size),
            0.0,
        )
        pieces = ["<EncodingType>url</EncodingType>"]
        token = page.next_token
        pieces.append(f"<IsTruncated>{'false' if token is None else 'true'}</IsTruncated>")
        if token is not None:
            pieces.append(_element("NextContinuationToken", _encoded(token)))
        for found in page.objects:
            pieces.append(
                f"<Contents><Key>{_encoded(found.key)}</Key><Size>{found.size}</Size>"
                f"<ETag>&quot;{found.etag}&quot;</ETag>"
                f"<LastModified>{_iso(found.last_modified)}</LastModified>"
                f"<StorageClass>{found.storage_class}</StorageClass></Contents>"
            )
        for prefix in page.prefixes:
            pieces.append(f"<CommonPrefixes><Prefix>{_encoded(prefix)}</Prefix></CommonPrefixes>")
        return _xml("ListBucketResult", *pieces)

    # -- writing

    def _put_object(self, asked: Asked) -> Reply:
        self._check_digest(asked)
        can = self._can
        self.store._check_condition(
            "PutObject",
            asked.key,
            _condition(asked.headers),
            absent=can.put_if_absent,
            match=can.put_if_match,
        )
        return self._written(
            self.store._store(asked.key, asked.body, _write_headers(asked.headers))
        )

    def _written(self, stored: StoredObject) -> Reply:
        shown = [("ETag", f'"{stored.etag}"')]
        if stored.version_id is not None:
            shown.append(("x-amz-version-id", stored.version_id))
        return Reply("200 OK", shown, b"")

    def _check_digest(self, asked: Asked) -> None:
        md5, crc = asked.headers.get("content-md5"), asked.headers.get("x-amz-checksum-crc32c")
        if self._can.checks_md5 and md5 is not None:
            ours = base64.b64encode(bytes.fromhex(integrity.md5(asked.body))).decode()
            if ours != md5:
                raise _Refused(400, "BadDigest")
        if self._can.checks_crc32c and crc not in {None, integrity.crc32c(asked.body)}:
            raise _Refused(400, "BadDigest")

    def _delete_object(self, asked: Asked) -> Reply:
        self.store._remove(asked.key)
        return Reply("204 No Content", [], b"")

    def _delete_objects(self, asked: Asked) -> Reply:
        self._check_digest(asked)
        for found in etree.fromstring(asked.body, None).iter("{*}Key"):
            self.store._remove(found.text or "")
        return _xml("DeleteResult")

    def _copy_object(self, asked: Asked) -> Reply:
        found = self._source(asked)
        replace = asked.headers.get("x-amz-metadata-directive") == "REPLACE"
        written = _write_headers(asked.headers) if replace else None
        stored = self.store._store_copy(found, asked.key, written)
        return _xml("CopyObjectResult", f"<ETag>&quot;{stored.etag}&quot;</ETag>")

    def _source(self, asked: Asked) -> StoredObject:
        raw = asked.headers["x-amz-copy-source"].lstrip("/").partition("/")[2]
        match = None
        if self._can.copy_source_if_match and "x-amz-copy-source-if-match" in asked.headers:
            match = asked.headers["x-amz-copy-source-if-match"].strip('"')
        return self.store._source("CopyObject", unquote(raw, errors="surrogateescape"), match)

    def _get_object_tagging(self, asked: Asked) -> Reply:
        tags = self.store._tags(self.store._find("GetObjectTagging", asked.key))
        pieces = (
            f"<Tag>{_element('Key', name)}{_element('Value', value)}</Tag>"
            for name, value in tags.items()
        )
        return _xml("Tagging", f"<TagSet>{''.join(pieces)}</TagSet>")

    def _put_object_tagging(self, asked: Asked) -> Reply:
        self._check_digest(asked)
        tags = [[child.text or "" for child in tag] for tag in etree.fromstring(asked.body)[0]]
        self.store._tag(asked.key, {tag[0]: tag[1] for tag in tags})
        return Reply("200 OK", [], b"")

    # -- multipart uploads

    def _create_multipart_upload(self, asked: Asked) -> Reply:
        upload_id = self.store.begin_upload(asked.key, _write_headers(asked.headers))
        return _xml("InitiateMultipartUploadResult", f"<UploadId>{upload_id}</UploadId>")

    def _upload_part(self, asked: Asked) -> Reply:
        self._check_digest(asked)
        part = self._add_part(asked, asked.body)
        return Reply("200 OK", [("ETag", f'"{part.etag}"')], b"")

    def _add_part(self, asked: Asked, data: bytes) -> base.Part:
        number, upload_id = int(asked.query["partNumber"]), asked.query["uploadId"]
        return self.store._add_part("UploadPart", asked.key, upload_id, number, data)

    def _upload_part_copy(self, asked: Asked) -> Reply:
        if not self._can.part_copy:
            raise _Refused(501, "NotImplemented")
        data = self._source(asked).data
        found = _RANGE.fullmatch(asked.headers.get("x-amz-copy-source-range", "bytes=0-"))
        assert found is not None
        last = int(found[2]) if found[2] else len(data) - 1
        if last >= len(data):
            raise _Refused(416, "InvalidRange")
        part = self._add_part(asked, data[int(found[1]) : last + 1])
        return _xml("CopyPartResult", f"<ETag>&quot;{part.etag}&quot;</ETag>")

    def _complete_multipart_upload(self, asked: Asked) -> Reply:
        can = self._can
        upload = self.store._upload("CompleteMultipartUpload", asked.key, asked.query["uploadId"])
        self.store._check_condition(
            "CompleteMultipartUpload",
            asked.key,
            _condition(asked.headers),
            absent=can.complete_if_absent,
            match=can.complete_if_match,
        )
        parts = [
            base.Part(
                int(each.findtext("{*}PartNumber") or 0),
                (each.findtext("{*}ETag") or "").strip('"'),
                0,
            )
            for each in etree.fromstring(asked.body, None).iter("{*}Part")
        ]
        stored = self.store._finish_upload(upload, parts)
        checksum = integrity.composite_crc32c(
            [integrity.crc32c(upload.parts[part.number][1]) for part in parts]
        )
        return _xml(
            "CompleteMultipartUploadResult",
            f"<ETag>&quot;{stored.etag}&quot;</ETag>",
            f"<ChecksumCRC32C>{checksum}</ChecksumCRC32C>" if can.checks_crc32c else "",
        )

    def _abort_multipart_upload(self, asked: Asked) -> Reply:
        self.store._upload("AbortMultipartUpload", asked.key, asked.query["uploadId"])
        del self.store.uploads[asked.query["uploadId"]]
        return Reply("204 No Content", [], b"")

    def _list_parts(self, asked: Asked) -> Reply:
        upload = self.store._upload("ListParts", asked.key, asked.query["uploadId"])
        after = int(asked.query.get("part-number-marker", "0"))
        pieces = [
            f"<Part><PartNumber>{number}</PartNumber><ETag>&quot;{etag}&quot;</ETag>"
            f"<Size>{len(data)}</Size></Part>"
            for number, (etag, data) in sorted(upload.parts.items())
            if number > after
        ]
        return _xml("ListPartsResult", "<IsTruncated>false</IsTruncated>", *pieces)

    def _list_multipart_uploads(self, asked: Asked) -> Reply:
        pieces = [
            f"<Upload>{_element('Key', upload.key)}<UploadId>{upload.upload_id}</UploadId>"
            f"<Initiated>{_iso(upload.initiated)}</Initiated></Upload>"
            for upload in sorted(self.store.uploads.values(), key=lambda found: found.key)
            if upload.key.startswith(asked.query.get("prefix", ""))
        ]
        return _xml("ListMultipartUploadsResult", "<IsTruncated>false</IsTruncated>", *pieces)

    def _create_bucket(self, asked: Asked) -> Reply:
        return Reply("200 OK", [], b"")

    @property
    def _can(self) -> base.Capabilities:
        return self.store._capabilities


def _condition(headers: Headers) -> Condition:
    match = headers.get("if-match")
    return Condition(
        absent=headers.get("if-none-match") == "*",
        etag=None if match is None else match.strip('"'),
    )


def _write_headers(headers: Headers) -> WriteHeaders:
    metadata = {
        name[len(_META) :]: value.encode("latin-1").decode()
        for name, value in headers.items()
        if name.startswith(_META)
    }
    return WriteHeaders(metadata, {name: headers[name] for name in _STORED if name in headers})


def _xml(root: str, *pieces: str) -> Reply:
    body = f'<?xml version="1.0" encoding="UTF-8"?><{root}>{"".join(pieces)}</{root}>'
    return Reply("200 OK", [("Content-Type", "application/xml")], body.encode())


def _element(name: str, text: str) -> str:
    return f"<{name}>{escape(text)}</{name}>"


def _encoded(key: str) -> str:
    return quote(key.encode("utf-8", "surrogateescape"), safe="/-_.~")


def _token(sent: str | None) -> str | None:
    return None if sent is None else unquote(sent, errors="surrogateescape")


def _iso(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z")
