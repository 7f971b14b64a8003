"""One HTTP exchange over kept connections, in the calling thread."""

import http.client
import re
import time
from collections.abc import Callable, Iterator
from typing import Any

import urllib3
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import (
    ConnectTimeoutError,
    HTTPError,
    NameResolutionError,
    NewConnectionError,
    ProtocolError,
    SSLError,
)

from s3mount.core.config import StoreConfig
from s3mount.core.errors import ConfigurationError
from s3mount.store import errors
from s3mount.store.base import Body, SlicedBody
from s3mount.store.connections import (
    Patience,
    PlainConnection,
    TlsConnection,
    TooSlow,
    patient,
)
from s3mount.store.counts import Counts
from s3mount.store.endpoint import Endpoint, https_proxy
from s3mount.store.handed import report_of_caller
from s3mount.store.request import Answer, Request

# One sendall's timeout covers all its bytes; 256 KiB within the read timeout of 20 s are
# 13 KB/s, so a slow line is not taken for a dead one. The loop costs 4 us a slice.
SEND_SLICE = 256 * 1024
MOST_BYTES = 512 * 1024 * 1024  # of an answer: a hundred times what is ever asked for
READ_SLICE = 4 * 1024 * 1024  # MOST_BYTES is looked at in between; joining them costs a copy

_LENGTH = re.compile("[0-9]{1,19}")


class _BodyTooLarge(Exception):
    """It may have no end."""


class Exchange:
    """`ca_bundle` tells the file of trusted certificates, None for the system's."""

    def __init__(
        self,
        config: StoreConfig,
        counts: Counts,
        threads: int,
        ca_bundle: Callable[[], str | None],
    ) -> None:
        """`threads` is the most that may ever call `send` at once: a connection for each."""
        self._config = config
        self._counts = counts
        self._threads = threads
        self._ca_bundle = ca_bundle

    def pool(self, endpoint: Endpoint) -> HTTPConnectionPool:
        """Raises ConfigurationError."""
        if endpoint.scheme == "http":
            plain = HTTPConnectionPool(endpoint.host, endpoint.port, maxsize=self._threads)
            plain.ConnectionCls = PlainConnection
            return plain
        if not self._config.verify_tls:
            urllib3.disable_warnings(urllib3.exceptions.InsecureRequestWarning)
        trust: dict[str, Any] = {
            "cert_reqs": "CERT_REQUIRED" if self._config.verify_tls else "CERT_NONE",
            "ca_certs": self._ca_bundle() if self._config.verify_tls else None,
            "maxsize": self._threads,
        }
        pool: HTTPConnectionPool
        if proxy := https_proxy(endpoint):
            try:
                manager = urllib3.ProxyManager(proxy, **trust)
            except ValueError as error:
                raise ConfigurationError(f"HTTPS_PROXY names no proxy: {error}") from error
            pool = manager.connection_from_host(endpoint.host, endpoint.port, "https")
        else:
            pool = HTTPSConnectionPool(endpoint.host, endpoint.port, **trust)
        pool.ConnectionCls = TlsConnection
        return pool

    def send(
        self,
        pool: HTTPConnectionPool,
        request: Request,
        target: str,
        headers: dict[str, str],
        deadline: float,
    ) -> Answer:
        """Whatever is answered. Raises StoreError where nothing is, or not all of it."""
        for name, value in headers.items():
            if not value.isascii():  # signed as UTF-8; http.client encodes as Latin-1
                headers[name] = value.encode().decode("latin-1")
        asked_at = time.monotonic()
        silence = self._config.read_timeout * request.silence
        patience = Patience(silence, deadline)
        read_timeout = max(0.01, min(silence, deadline - asked_at))
        connect_timeout = min(self._config.connect_timeout, read_timeout)
        body, size = self._framed(request, deadline)
        self._counts.add(request.operation)
        if size or request.method in {"PUT", "POST"}:
            headers["content-length"] = str(size)
        try:
            with patient(patience):
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
            data = _read(response, patience)
        except TooSlow as error:
            kind = errors.DeadlineExceeded if patience.is_over() else errors.ConnectionLost
            raise self._lost(kind, request, "the server is too slow") from error
        except _BodyTooLarge as error:
            raise self._lost(errors.CorruptAnswer, request, "the body is too large") from error
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


def _read(response: urllib3.BaseHTTPResponse, patience: Patience) -> bytes:
    """The whole body; raises IncompleteRead if it is short, TooSlow where patience ends,
    _BodyTooLarge beyond MOST_BYTES."""
    text = response.headers.get("content-length", "")
    length = int(text) if _LENGTH.fullmatch(text) else None
    patience.body_begins(length)
    if length is not None and length <= READ_SLICE:
        data = response.read()
        response.release_conn()
        return data
    pieces, left = [], MOST_BYTES
    while piece := response.read(READ_SLICE):
        pieces.append(piece)
        left -= len(piece)
        if left < 0:
            response.close()
            raise _BodyTooLarge
    response.release_conn()
    return b"".join(pieces)


def _slices(body: Body, deadline: float) -> Iterator[memoryview]:
    """Raises TooSlow once the deadline has passed."""
    report, handed = report_of_caller(), 0
    pieces: Iterator[Any] = body.slices() if isinstance(body, SlicedBody) else iter((body,))
    for piece in pieces:
        view = memoryview(piece).cast("B")
        for offset in range(0, view.nbytes, SEND_SLICE):
            if time.monotonic() > deadline:
                raise TooSlow
            if report is not None:
                report(handed)  # all before this slice
            part = view[offset : offset + SEND_SLICE]
            yield part
            handed += part.nbytes
    if report is not None:
        report(handed)
