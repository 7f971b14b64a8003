"""The thin HTTP client of the hot requests: one attempt of one request, in the calling thread.

Path and query are percent-encoded here and handed to a connection pool as they are: urllib3's
URL parser would drop `..` and take `//x` for a host.
"""

import http.client
import logging
import re
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

import urllib3
from botocore.credentials import ReadOnlyCredentials
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import (
    ConnectTimeoutError,
    HTTPError,
    NameResolutionError,
    NewConnectionError,
    ProtocolError,
    SSLError,
)

from s3mount import __version__
from s3mount.core.config import StoreConfig
from s3mount.store import errors
from s3mount.store.answers import error_fields, error_for, http_date
from s3mount.store.base import (
    Body,
    SlicedBody,
)
from s3mount.store.counts import Counts
from s3mount.store.endpoint import Connection, Endpoint, https_proxy
from s3mount.store.signing import Signer

log = logging.getLogger(__name__)

# One sendall's timeout covers all its bytes; 256 KiB within the read timeout of 20 s are
# 13 KB/s, so a slow line is not taken for a dead one. The loop costs 4 us a slice.
SEND_SLICE = 256 * 1024
READ_SLICE = 4 * 1024 * 1024  # the deadline is looked at in between; joining them costs a copy
_HOPS = 4  # redirects and renewals of credentials within one attempt
_DIAGNOSIS_HOLDS = 2.0  # seconds for which the reason found for one bodiless refusal serves all
# What new credentials may help against; a secret can change under the same key id.
_REFRESHABLE = frozenset(
    {
        "ExpiredToken",
        "ExpiredTokenException",
        "InvalidAccessKeyId",
        "InvalidClientTokenId",
        "InvalidToken",
        "SignatureDoesNotMatch",
        "TokenRefreshRequired",
    }
)
_SKEWED = frozenset({"RequestTimeTooSkewed", "RequestExpired"})
# Answers that are acted upon: what is gone is forgotten, what has changed is a conflict.
_MEANT = frozenset({404, 412})
# Less is the latency of an answer; services allow 15 minutes.
_LEAST_SKEW = 60.0
_REGION_IN_TEXT = re.compile(r"expecting '([a-z0-9-]+)'")


@dataclass(frozen=True, slots=True)
class Request:
    """One HTTP request to the bucket (`key` None) or to an object in it."""

    operation: str  # S3's name
    method: str
    key: str | None
    query: tuple[tuple[str, str], ...] = ()
    headers: Mapping[str, str] = field(default_factory=dict)  # names in lower case
    body: Body = field(default=b"", repr=False)
    about: str = ""  # what the log calls it where there is no key: a prefix, the first key
    silence: float = 1.0  # times the read timeout that the service may work before it answers

    @property
    def size(self) -> int:
        return body_size(self.body)


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    headers: Mapping[str, str]  # case-insensitive
    body: bytes = field(repr=False)
    asked_at: float  # time.monotonic()

    @property
    def request_id(self) -> str:
        return self.headers.get("x-amz-request-id", "")


def body_size(body: Body) -> int:
    return body.size if isinstance(body, SlicedBody) else memoryview(body).nbytes


def encode_path(key: str) -> str:
    """Percent-encoded; surrogates of undecodable bytes (listings may hold them) as those bytes."""
    return quote(key.encode("utf-8", "surrogateescape"), safe="/-_.~")


def encode_query(query: tuple[tuple[str, str], ...]) -> str:
    return "&".join(
        f"{name}={quote(value.encode('utf-8', 'surrogateescape'), safe='-_.~')}"
        for name, value in query
    )


def _acknowledge_at_once(connection: HTTPConnection) -> None:
    """A server that sends head and body of its answer apart, without TCP_NODELAY (Ceph's
    gateway does), waits with the second until the first is acknowledged: 40 ms late otherwise.
    """
    if connection.sock is not None:
        connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)


class _PlainConnection(HTTPConnection):
    """Sends with the read timeout: urllib3 would give the body the connect timeout."""

    send_timeout: float | None = None

    def send(self, data: Any) -> None:
        if self.sock is None:
            self.connect()
        if self.sock is not None:
            self.sock.settimeout(self.send_timeout)
        super().send(data)

    def getresponse(self) -> Any:
        _acknowledge_at_once(self)
        return super().getresponse()


class _TlsConnection(HTTPSConnection):
    """As _PlainConnection."""

    send_timeout: float | None = None

    def send(self, data: Any) -> None:
        if self.sock is None:
            self.connect()
        if self.sock is not None:
            self.sock.settimeout(self.send_timeout)
        super().send(data)

    def getresponse(self) -> Any:
        _acknowledge_at_once(self)
        return super().getresponse()


class _BodyTooSlow(Exception):
    """The deadline passed while a body was being sent or read."""


class Wire:
    """Sends requests; all state is shared by the threads and guarded by `_lock` or immutable."""

    def __init__(
        self, config: StoreConfig, connection: Connection, counts: Counts, threads: int
    ) -> None:
        """`threads` is the most that may ever call `send` at once: a connection for each."""
        self._config = config
        self._counts = counts
        self._connection = connection
        self._threads = threads
        self._lock = threading.Lock()  # guards _route; held for no I/O but the first resolving
        self._route: tuple[Endpoint, Signer, HTTPConnectionPool] | None = None
        # Guards the two after it, and is held while the reason is asked for: many HEADs are
        # refused at once when a token expires.
        self._diagnosing = threading.Lock()
        self._diagnosed_at = -_DIAGNOSIS_HOLDS
        self._diagnosis: dict[str, str] = {}

    def send(self, request: Request, deadline: float) -> Answer:
        """Any 2xx answer, its body complete. `deadline` is of time.monotonic().

        Follows redirects to the bucket's region (learnt once) and renews credentials that were
        refused. Raises StoreError; `ambiguous` where the request may have been carried out.
        """
        for _ in range(_HOPS):
            route = self._routed()
            credentials = self._connection.credentials()
            answer = self._attempt(route, credentials, request, deadline)
            if 200 <= answer.status < 300:
                return answer
            fields = self._fields(request, answer, deadline)
            if not (
                self._relocated(route[0], request, answer, fields)
                or self._renewed(request, credentials, fields)
                or self._set_clock(route[1], answer, fields)
            ):
                break
        key = request.about if request.key is None else request.key
        if answer.status in _MEANT and answer.body and not fields:
            # Cut, or a proxy's page: a file is not gone because somebody else says 404.
            raise errors.CorruptAnswer(
                f"{answer.status} without an error of S3 in it",
                operation=request.operation,
                key=key,
                ambiguous=True,
            )
        raise error_for(
            request.operation,
            key,
            answer.status,
            fields.get("Code", ""),
            fields.get("Message", ""),
            answer.request_id or fields.get("RequestId", ""),
        )

    def close(self) -> None:
        with self._lock:
            if self._route is not None:
                self._route[2].close()
            self._route = None

    # -- where to

    def route(self) -> tuple[Endpoint, Signer]:
        """As found out so far; the first time it may block."""
        endpoint, signer, _ = self._routed()
        return endpoint, signer

    def _routed(self) -> tuple[Endpoint, Signer, HTTPConnectionPool]:
        route = self._route
        if route is None:
            with self._lock:
                if self._route is None:
                    endpoint = self._connection.endpoint()
                    self._route = endpoint, Signer(endpoint.region), self._pool(endpoint)
                route = self._route
        return route

    def _pool(self, endpoint: Endpoint) -> HTTPConnectionPool:
        silence = {"send_timeout": self._config.read_timeout}
        if endpoint.scheme == "http":
            plain = HTTPConnectionPool(endpoint.host, endpoint.port, maxsize=self._threads)
            plain.ConnectionCls = type("Plain", (_PlainConnection,), silence)
            return plain
        if not self._config.verify_tls:
            urllib3.disable_warnings(urllib3.exceptions.InsecureRequestWarning)
        trust: dict[str, Any] = {
            "cert_reqs": "CERT_REQUIRED" if self._config.verify_tls else "CERT_NONE",
            "ca_certs": self._connection.ca_bundle() if self._config.verify_tls else None,
            "maxsize": self._threads,
        }
        pool: HTTPConnectionPool
        if proxy := https_proxy(endpoint):
            manager = urllib3.ProxyManager(proxy, **trust)
            pool = manager.connection_from_host(endpoint.host, endpoint.port, "https")
        else:
            pool = HTTPSConnectionPool(endpoint.host, endpoint.port, **trust)
        pool.ConnectionCls = type("Tls", (_TlsConnection,), silence)
        return pool

    def _forget_route(self, endpoint: Endpoint) -> None:
        """Idle connections of the old route are closed by their pool's finalizer."""
        with self._lock:
            if self._route is not None and self._route[0] == endpoint:
                self._route = None

    def _relocated(
        self, endpoint: Endpoint, request: Request, answer: Answer, fields: Mapping[str, str]
    ) -> bool:
        """Did the answer tell that the bucket is elsewhere? Then it is asked there next."""
        code = fields.get("Code", "")
        if answer.status not in {301, 302, 307, 308} and code not in {
            "AuthorizationHeaderMalformed",
            "PermanentRedirect",
            "TemporaryRedirect",
            "IllegalLocationConstraintException",
        }:
            return False
        region = answer.headers.get("x-amz-bucket-region") or fields.get("Region")
        if not region and (found := _REGION_IN_TEXT.search(fields.get("Message", ""))):
            region = found[1]
        if region and region != endpoint.region:
            self._connection.use_region(region)
        elif location := answer.headers.get("location"):
            self._connection.use_location(location)
        elif host := fields.get("Endpoint"):
            self._connection.use_location(f"{endpoint.scheme}://{host}")
        else:
            return False
        self._forget_route(endpoint)
        return True

    def _renewed(
        self,
        request: Request,
        credentials: ReadOnlyCredentials | None,
        fields: Mapping[str, str],
    ) -> bool:
        if fields.get("Code") not in _REFRESHABLE:
            # A HEAD does not say why; the LIST that asked for it may have had newer ones.
            return request.method == "HEAD" and self._connection.credentials() != credentials
        return self._connection.reload_credentials(credentials)

    def _set_clock(self, signer: Signer, answer: Answer, fields: Mapping[str, str]) -> bool:
        """The service took our time for wrong: from now on it is told its own."""
        theirs = http_date(answer.headers.get("date", ""))
        if fields.get("Code") not in _SKEWED or not theirs:
            return False
        skew = theirs - time.time()
        if abs(skew - signer.skew) < _LEAST_SKEW:
            return False
        log.warning(
            "this machine's clock is %.0f s %s the service's, which refuses its requests: they are"
            " signed with the service's time; set the clock (timedatectl set-ntp true)",
            abs(skew),
            "behind" if skew > 0 else "ahead of",
        )
        signer.skew = skew
        return True

    def _fields(self, request: Request, answer: Answer, deadline: float) -> dict[str, str]:
        """The error's fields. HEAD has no body, so a refusal's reason (expired token, other
        region) is looked for by a LIST without keys, once for all who are refused together."""
        if request.method != "HEAD" or answer.status not in {301, 307, 400, 401, 403}:
            return error_fields(answer.body)
        with self._diagnosing:
            if time.monotonic() - self._diagnosed_at >= _DIAGNOSIS_HOLDS:
                query = (("list-type", "2"), ("max-keys", "0"))
                look = Request("ListObjectsV2", "GET", None, query)
                credentials = self._connection.credentials()
                seen = self._attempt(self._routed(), credentials, look, deadline)
                fields = error_fields(seen.body)
                # A LIST may be denied for another reason than the HEAD was.
                self._diagnosis = fields if fields.get("Code") != "AccessDenied" else {}
                self._diagnosed_at = time.monotonic()
            return self._diagnosis

    # -- one exchange

    def _attempt(
        self,
        route: tuple[Endpoint, Signer, HTTPConnectionPool],
        credentials: ReadOnlyCredentials | None,
        request: Request,
        deadline: float,
    ) -> Answer:
        endpoint, signer, pool = route
        path = endpoint.base_path + "/"
        if request.key is not None:
            path += encode_path(request.key)
        elif not endpoint.base_path:
            path = "/"
        else:
            path = endpoint.base_path
        target = f"{path}?{encode_query(request.query)}" if request.query else path
        headers = {"host": endpoint.authority, **request.headers}
        if credentials is not None:
            url = f"{endpoint.scheme}://{endpoint.authority}{target}"
            signer.sign(credentials, request.method, url, headers)
        headers["user-agent"] = f"s3mount/{__version__}"
        for name, value in headers.items():
            if not value.isascii():  # signed as UTF-8; http.client encodes as Latin-1
                headers[name] = value.encode().decode("latin-1")
        return self._exchange(pool, request, target, headers, deadline)

    def _exchange(
        self,
        pool: HTTPConnectionPool,
        request: Request,
        target: str,
        headers: dict[str, str],
        deadline: float,
    ) -> Answer:
        asked_at = time.monotonic()
        silence = self._config.read_timeout * request.silence
        read_timeout = max(0.01, min(silence, deadline - asked_at))
        connect_timeout = min(self._config.connect_timeout, read_timeout)
        body, size = self._framed(request, deadline)
        self._counts.add(request.operation)
        if size or request.method in {"PUT", "POST"}:
            headers["content-length"] = str(size)
        try:
            response = pool.urlopen(
                request.method,
                target,
                body=body,
                headers=headers,
                retries=False,
                redirect=False,
                assert_same_host=False,
                timeout=urllib3.Timeout(connect=connect_timeout, read=read_timeout),
                preload_content=False,
                decode_content=False,
            )
            data = _read(response, deadline)
        except _BodyTooSlow as error:
            raise self._lost(errors.DeadlineExceeded, request, "the body is too slow") from error
        except (HTTPError, OSError) as error:
            raise self._translated(error, request) from error
        self._counts.add("BytesOut", size)
        self._counts.add("BytesIn", len(data))
        return Answer(response.status, response.headers, data, asked_at)

    @staticmethod
    def _framed(request: Request, deadline: float) -> tuple[Any, int]:
        """The body as urllib3 wants it, and its Content-Length (so never chunked encoding)."""
        body, size = request.body, request.size
        if not size:
            return None, 0
        if isinstance(body, bytes) and size <= SEND_SLICE:
            return body, size
        return _slices(body, deadline), size

    def _translated(self, error: Exception, request: Request) -> errors.StoreError:
        """The typed error of a connection that failed."""
        if isinstance(error, SSLError) and "CERTIFICATE_VERIFY_FAILED" in str(error):
            return self._lost(errors.InvalidRequest, request, f"TLS: {error}", ambiguous=False)
        unsent = (ConnectTimeoutError, NewConnectionError, NameResolutionError, SSLError)
        if isinstance(error, unsent):
            return self._lost(errors.ConnectionLost, request, _brief(error), ambiguous=False)
        if isinstance(error, ProtocolError) and any(
            isinstance(argument, http.client.IncompleteRead) for argument in error.args
        ):
            return self._lost(errors.CorruptAnswer, request, f"the answer is cut: {_brief(error)}")
        return self._lost(errors.ConnectionLost, request, _brief(error))

    @staticmethod
    def _lost(
        kind: type[errors.StoreError], request: Request, message: str, *, ambiguous: bool = True
    ) -> errors.StoreError:
        key = request.about if request.key is None else request.key
        return kind(message, operation=request.operation, key=key, ambiguous=ambiguous)


def _brief(error: Exception) -> str:
    """The innermost message, without urllib3's pool and path around it."""
    inner = error.args[-1] if error.args else error
    while isinstance(inner, Exception) and inner.args and inner.args[-1] is not inner:
        last = inner.args[-1]
        if not isinstance(last, Exception):
            break
        inner = last
    return f"{type(error).__name__}: {inner}"


def _read(response: urllib3.BaseHTTPResponse, deadline: float) -> bytes:
    """The whole body; raises IncompleteRead if it is short, _BodyTooSlow after the deadline."""
    length = int(response.headers.get("content-length") or 0)
    if length <= READ_SLICE:
        data = response.read()
        response.release_conn()
        return data
    pieces = []
    while piece := response.read(READ_SLICE):
        pieces.append(piece)
        if time.monotonic() > deadline:
            response.close()
            raise _BodyTooSlow
    response.release_conn()
    return b"".join(pieces)


def _slices(body: Body, deadline: float) -> Iterator[memoryview]:
    """Raises _BodyTooSlow once the deadline has passed."""
    pieces: Iterator[Any] = body.slices() if isinstance(body, SlicedBody) else iter((body,))
    for piece in pieces:
        view = memoryview(piece).cast("B")
        for offset in range(0, view.nbytes, SEND_SLICE):
            if time.monotonic() > deadline:
                raise _BodyTooSlow
            yield view[offset : offset + SEND_SLICE]
