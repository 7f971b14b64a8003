"""HEAD requests in the trio loop itself, on kept connections: no thread for each.

A walk over a tree asks for thousands of objects' metadata, a hundred at a time. A thread for each
costs 0.4 CPU ms, half of it in threads that wake each other; this way it is 0.15. Only the plain
case is handled here, an answer of 200 or 404 to a request that was sent once: whatever else comes
(redirects, expired credentials, 503, a broken connection) is left to wire.py and retry.py, which
ask again. HEAD changes nothing, so asking twice does no harm.
"""

import logging
import ssl
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass

import trio
from botocore.credentials import ReadOnlyCredentials

from s3mount.core.config import StoreConfig
from s3mount.core.errors import ConfigurationError
from s3mount.store.answers import object_info
from s3mount.store.base import LaneUse, ObjectInfo
from s3mount.store.counts import Counts
from s3mount.store.endpoint import Connection, Endpoint, https_proxy
from s3mount.store.errors import (
    NotFound,
    StoreError,
)
from s3mount.store.limit import AdaptiveLimiter
from s3mount.store.request import Request, addressed
from s3mount.store.signing import Signer
from s3mount.store.wire import Wire

log = logging.getLogger(__name__)

# Longer than any healthy answer takes; the slow way, with its own deadline, comes on top.
PATIENCE = 3.0
CONNECT_PATIENCE = 1.5
# An idle connection is closed after this, before services close it themselves (AWS: about 20 s).
IDLE_KEPT = 15.0
# HEADs at once for each thread of the metadata lane: they take none. 128 in flight ask for 10,000
# objects within 2.5 s at 30 ms a request.
HEADS_PER_THREAD = 2
# Sources of credentials may block, so they are asked in a thread, not for each request.
CREDENTIALS_KEPT = 10.0
# After a failure everything goes the slow way for so long: it knows how to wait and retry.
PAUSE = 10.0
# A server's headers: 2 KB of metadata and a page of its own. More is not understood here.
MAX_HEAD = 64 * 1024


class _Unanswered(Exception):
    """To be asked the slow way. `slowed`: the service said 503; `sent`: it was asked at all."""

    def __init__(self, *, slowed: bool = False, sent: bool = True) -> None:
        self.slowed = slowed
        self.sent = sent


@dataclass(frozen=True, slots=True)
class _Route:
    endpoint: Endpoint
    signer: Signer
    credentials: ReadOnlyCredentials | None
    tls: ssl.SSLContext | None
    learnt_at: float


class QuickHead:
    """`ask` answers, or returns None where the request should go the slow way."""

    def __init__(
        self, config: StoreConfig, connection: Connection, wire: Wire, counts: Counts
    ) -> None:
        """`wire` knows where the bucket is and signs, by the service's clock if need be."""
        self._config = config
        self._connection = connection
        self._wire = wire
        self._counts = counts
        self._limiter = AdaptiveLimiter(HEADS_PER_THREAD * config.metadata_concurrency)
        # Kept connections and when they were last used, the newest last.
        self._idle: deque[tuple[trio.abc.Stream, float]] = deque()
        self._patience = min(PATIENCE, config.read_timeout / 2, config.request_deadline / 10)
        self._route: _Route | None = None
        self._resting_until = 0.0
        # Guards _route's making (a thread hop); nobody who holds it waits for the service.
        self._lock = trio.Lock()

    async def ask(self, request: Request) -> ObjectInfo | None:
        """Raises NotFound."""
        async with self._limiter.capacity:
            if time.monotonic() < self._resting_until:
                return None
            try:
                with trio.fail_after(self._patience):
                    found = await self._exchange(request)
            except _Unanswered as failure:
                if failure.slowed:
                    self._counts.add("SlowDowns")
                    self._limiter.slowed(time.monotonic())
                self._rest(failure.sent)
                return None
            except (OSError, trio.BrokenResourceError, trio.ClosedResourceError, trio.TooSlowError):
                self._rest(True)
                return None
            self._limiter.succeeded()
            return found

    def use(self) -> LaneUse:
        return self._limiter.use()

    async def aclose(self) -> None:
        await self._close_idle(0.0)

    async def _close_idle(self, older_than: float) -> None:
        horizon = time.monotonic() - older_than
        while self._idle and self._idle[0][1] <= horizon:
            await trio.aclose_forcefully(self._idle.popleft()[0])

    def _rest(self, sent: bool) -> None:
        if sent:
            self._counts.add("Retries")
        self._resting_until = time.monotonic() + PAUSE
        self._route = None

    # -- where to, and who asks

    async def _learn(self) -> _Route:
        async with self._lock:
            route = self._route
            if route is not None and time.monotonic() - route.learnt_at < CREDENTIALS_KEPT:
                return route
            self._route = await trio.to_thread.run_sync(
                self._resolve, route, abandon_on_cancel=True
            )
            return self._route

    def _resolve(self, old: _Route | None) -> _Route:
        """In a thread: all of this may ask the network or read files."""
        try:
            endpoint, signer = self._wire.route()
            credentials = self._connection.credentials()
        except (StoreError, ConfigurationError):
            raise _Unanswered(sent=False) from None
        if https_proxy(endpoint) is not None and endpoint.scheme == "https":
            raise _Unanswered(sent=False)
        now = time.monotonic()
        known = old is not None and old.endpoint == endpoint
        tls = old.tls if old is not None and known else self._tls(endpoint)
        return _Route(endpoint, signer, credentials, tls, now)

    def _tls(self, endpoint: Endpoint) -> ssl.SSLContext | None:
        if endpoint.scheme != "https":
            return None
        if self._config.verify_tls:
            return ssl.create_default_context(cafile=self._connection.ca_bundle())
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        return context

    async def _connect(self, route: _Route) -> trio.abc.Stream:
        host = route.endpoint.host.strip("[]")
        with trio.fail_after(CONNECT_PATIENCE):
            stream: trio.abc.Stream = await trio.open_tcp_stream(host, route.endpoint.port)
        if route.tls is not None:
            secured = trio.SSLStream(stream, route.tls, server_hostname=host)
            try:
                await secured.do_handshake()
            except BaseException:
                await trio.aclose_forcefully(stream)
                raise
            stream = secured
        return stream

    # -- one exchange

    async def _exchange(self, request: Request) -> ObjectInfo:
        route = self._route
        if route is None or time.monotonic() - route.learnt_at >= CREDENTIALS_KEPT:
            route = await self._learn()
        message = _message(route, request)
        while True:
            await self._close_idle(IDLE_KEPT)
            kept = bool(self._idle)
            stream = self._idle.pop()[0] if kept else await self._connect(route)
            asked_at = time.monotonic()
            self._counts.add(request.operation)
            try:
                await stream.send_all(message)
                head, clean = await _read_head(stream)
            except (OSError, trio.BrokenResourceError, EOFError):
                await trio.aclose_forcefully(stream)
                if kept:
                    continue  # the service had closed the idle connection
                raise _Unanswered from None
            except BaseException:
                # Cancelled: an answer may still come, which must not be another request's.
                with trio.CancelScope(shield=True):
                    await trio.aclose_forcefully(stream)
                raise
            break
        status, headers = head
        understood = status in {200, 404} and "transfer-encoding" not in headers
        if understood and clean and headers.get("connection", "").lower() != "close":
            self._idle.append((stream, time.monotonic()))
        else:
            await trio.aclose_forcefully(stream)
        if status == 404:
            raise NotFound(
                "",
                operation=request.operation,
                key=request.key or "",
                status=404,
                request_id=headers.get("x-amz-request-id", ""),
            )
        if not understood:
            raise _Unanswered(slowed=status == 503)
        try:
            return object_info(request.key or "", headers, asked_at)
        except StoreError:
            raise _Unanswered from None


def _message(route: _Route, request: Request) -> bytes:
    target, headers = addressed(request, route.endpoint, route.signer, route.credentials)
    lines = [f"{request.method} {target} HTTP/1.1"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


async def _read_head(stream: trio.abc.Stream) -> tuple[tuple[int, Mapping[str, str]], bool]:
    """Status and headers (names in lower case), and whether nothing came after them.

    Raises EOFError when the connection ends before, _Unanswered for what is not HTTP/1.1.
    """
    data = b""
    while (end := data.find(b"\r\n\r\n")) < 0:
        piece = await stream.receive_some(16 * 1024)
        if not piece:
            raise EOFError
        data += piece
        if len(data) > MAX_HEAD:
            raise _Unanswered
    first, *lines = data[:end].decode("latin-1").split("\r\n")
    version, _, rest = first.partition(" ")
    code = rest[:3]
    if version != "HTTP/1.1" or not code.isdigit():
        raise _Unanswered
    headers: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon or line[:1] in {" ", "\t"}:
            raise _Unanswered
        headers[name.lower()] = value.strip(" \t")
    return (int(code), headers), len(data) == end + 4
