"""Connections that the trio loop itself reads and writes: requests without a thread for each."""

import re
import select
import ssl
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass

import trio
from botocore.credentials import ReadOnlyCredentials

from s3mount.core.config import StoreConfig
from s3mount.core.errors import ConfigurationError
from s3mount.store.endpoint import Connection, Endpoint, https_proxy
from s3mount.store.errors import StoreError
from s3mount.store.request import Request, addressed
from s3mount.store.signing import Signer
from s3mount.store.wire import Wire

CONNECT_PATIENCE = 1.5
# An idle connection is closed after this, before services close it themselves (AWS: about 20 s).
IDLE_KEPT = 15.0
# Sources of credentials may block, so they are asked in a thread, not for each request.
CREDENTIALS_KEPT = 10.0
# After a failure everything goes the slow way for so long: it knows how to wait and retry.
PAUSE = 10.0
# A server's headers: 2 KB of metadata and a page of its own. More is not understood here.
MAX_HEAD = 64 * 1024
_FINAL_STATUS = re.compile("[2-5][0-9]{2}")  # 1xx: the answer comes after it
_NUMBER = re.compile("[0-9]{1,19}")
_NAME = re.compile("[!-9;-~]+")  # of a header
# What a connection that breaks or closes raises.
BROKEN = (OSError, trio.BrokenResourceError, trio.ClosedResourceError, EOFError)


class Unanswered(Exception):
    """To be asked the slow way. `slowed`: the service said 503; `sent`: it was asked at all."""

    def __init__(self, *, slowed: bool = False, sent: bool = True) -> None:
        self.slowed = slowed
        self.sent = sent


@dataclass(frozen=True, slots=True)
class Route:
    endpoint: Endpoint
    signer: Signer
    credentials: ReadOnlyCredentials | None
    tls: ssl.SSLContext | None
    learnt_at: float


@dataclass(frozen=True, slots=True)
class Head:
    """The beginning of an answer; `rest`: what came after it."""

    status: int
    headers: Mapping[str, str]  # names in lower case
    rest: bytes

    @property
    def keeps(self) -> bool:
        """The service leaves the connection open."""
        return self.headers.get("connection", "").lower() != "close"


class LoopClient:
    """`take` a connection, write, `read_head`, and `keep` it if its answer was read to the end.

    `wire` knows where the bucket is and signs, by the service's clock if need be.
    """

    def __init__(self, config: StoreConfig, connection: Connection, wire: Wire) -> None:
        self._config = config
        self._connection = connection
        self._wire = wire
        # Kept connections and when they were last used, the newest last.
        self._idle: deque[tuple[trio.abc.Stream, float]] = deque()
        self._route: Route | None = None
        self._resting_until = 0.0
        # Guards _route's making (a thread hop); nobody who holds it waits for the service.
        self._lock = trio.Lock()

    async def aclose(self) -> None:
        await self._close_idle(0.0)

    @property
    def resting(self) -> bool:
        """A request failed just now: the slow way is asked."""
        return time.monotonic() < self._resting_until

    def rest(self) -> None:
        self._resting_until = time.monotonic() + PAUSE
        self._route = None

    # -- connections

    async def take(self, route: Route) -> tuple[trio.abc.Stream, bool]:
        """A connection, and whether it was used before. Raises OSError, TooSlowError."""
        await self._close_idle(IDLE_KEPT)
        while self._idle:
            stream = self._idle.pop()[0]
            if not _is_dropped(stream):
                return stream, True
            await trio.aclose_forcefully(stream)
        return await self._connect(route), False

    def keep(self, stream: trio.abc.Stream) -> None:
        self._idle.append((stream, time.monotonic()))

    async def _close_idle(self, older_than: float) -> None:
        horizon = time.monotonic() - older_than
        while self._idle and self._idle[0][1] <= horizon:
            await trio.aclose_forcefully(self._idle.popleft()[0])

    # -- where to, and who asks

    async def route(self) -> Route:
        """Raises Unanswered where requests go by a proxy, or nowhere yet."""
        route = self._route
        if route is not None and time.monotonic() - route.learnt_at < CREDENTIALS_KEPT:
            return route
        async with self._lock:
            route = self._route
            if route is not None and time.monotonic() - route.learnt_at < CREDENTIALS_KEPT:
                return route
            self._route = await trio.to_thread.run_sync(
                self._resolve, route, abandon_on_cancel=True
            )
            return self._route

    def _resolve(self, old: Route | None) -> Route:
        """In a thread: all of this may ask the network or read files."""
        try:
            endpoint, signer = self._wire.route()
            credentials = self._connection.credentials()
        except (StoreError, ConfigurationError):
            raise Unanswered(sent=False) from None
        if https_proxy(endpoint) is not None and endpoint.scheme == "https":
            raise Unanswered(sent=False)
        now = time.monotonic()
        known = old is not None and old.endpoint == endpoint
        tls = old.tls if old is not None and known else self._tls(endpoint)
        return Route(endpoint, signer, credentials, tls, now)

    def _tls(self, endpoint: Endpoint) -> ssl.SSLContext | None:
        if endpoint.scheme != "https":
            return None
        if self._config.verify_tls:
            return ssl.create_default_context(cafile=self._connection.ca_bundle())
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        return context

    async def _connect(self, route: Route) -> trio.abc.Stream:
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


def message(route: Route, request: Request, *, length: int | None = None) -> bytes:
    """The request as it is sent, without its body of `length` bytes."""
    target, headers = addressed(request, route.endpoint, route.signer, route.credentials)
    if length is not None:
        headers["content-length"] = str(length)
    lines = [f"{request.method} {target} HTTP/1.1"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def _is_dropped(stream: trio.abc.Stream) -> bool:
    """The service has closed this idle connection, or sent what nobody asked for."""
    below = stream.transport_stream if isinstance(stream, trio.SSLStream) else stream
    if not isinstance(below, trio.SocketStream):
        return False
    waiting = select.poll()
    waiting.register(below.socket.fileno(), select.POLLIN | select.POLLRDHUP)
    return bool(waiting.poll(0))


async def read_body(stream: trio.abc.Stream, head: Head) -> bytes:
    """That of an answer of a few KiB, as far as it comes. Raises Unanswered for nonsense."""
    if "transfer-encoding" in head.headers:
        data = head.rest
        while not data.endswith(b"0\r\n\r\n") and len(data) < MAX_HEAD:
            if not (piece := await stream.receive_some(16 * 1024)):
                break
            data += piece
        return _joined(data)
    body, length = head.rest, head.headers.get("content-length", "")
    while _NUMBER.fullmatch(length) and len(body) < min(int(length), MAX_HEAD):
        if not (piece := await stream.receive_some(16 * 1024)):
            break
        body += piece
    return body


def _joined(chunks: bytes) -> bytes:
    """The body that came in these chunks."""
    body = b""
    while chunks:
        size, _, rest = chunks.partition(b"\r\n")
        try:
            length = int(size.partition(b";")[0], 16)
        except ValueError:
            raise Unanswered from None
        if not length:
            break
        body += rest[:length]
        chunks = rest[length + 2 :]
    return body


async def read_head(stream: trio.abc.Stream) -> Head:
    """Raises EOFError when the connection ends before, Unanswered for what is not HTTP/1.1."""
    data = b""
    while (end := data.find(b"\r\n\r\n")) < 0:
        piece = await stream.receive_some(16 * 1024)
        if not piece:
            raise EOFError
        data += piece
        if len(data) > MAX_HEAD:
            raise Unanswered
    first, *lines = data[:end].decode("latin-1").split("\r\n")
    version, _, rest = first.partition(" ")
    code = rest[:3]
    if version != "HTTP/1.1" or not _FINAL_STATUS.fullmatch(code):
        raise Unanswered
    headers: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon or not _NAME.fullmatch(name):
            raise Unanswered
        headers[name.lower()] = value.strip(" \t")
    return Head(int(code), headers, data[end + 4 :])
