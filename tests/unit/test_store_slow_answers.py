"""Answers that drip: each request ends in its time all the same.

The server sends no byte before the client's clock was looked at once more, and each look is a
second: nobody waits, and no machine is too slow for it.
"""

import contextlib
import itertools
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import trio

from s3mount.store import buckets, connections, errors, exchange
from s3mount.store.base import WriteHeaders
from s3mount.store.counts import Counts
from s3mount.store.endpoint import Connection
from s3mount.store.open import open_store
from s3mount.store.request import Answer, Request
from s3mount.store.wire import Wire
from tests.unit.tiny_server import TinyServer, config_for, make_authority

GET = Request("GetObject", "GET", "k")
SILENCE, DEADLINE = 20.0, 60.0  # the defaults
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


class Clock:
    """What the client takes for the module `time`."""

    def __init__(self) -> None:
        self.now = 0.0
        self.looks = threading.Semaphore(0)

    def monotonic(self) -> float:
        self.now += 1.0
        self.looks.release()
        return self.now


class Dripping(TinyServer):
    """Answers `at_once`, then `drops`, one for each look at the clock."""

    def __init__(
        self,
        clock: Clock,
        at_once: bytes,
        drops: Iterator[bytes],
        context: ssl.SSLContext | None = None,
    ) -> None:
        self._clock = clock
        self._drops = drops
        self.sent = 0
        super().__init__(at_once, context)

    def _serve(self, client: socket.socket) -> None:
        with contextlib.suppress(OSError):
            if self._context is not None:
                client = self._context.wrap_socket(client, server_side=True)
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with client:
                client.recv(64 * 1024)
                client.sendall(self.answer)
                for drop in self._drops:
                    if not self._clock.looks.acquire(timeout=100):
                        return
                    client.sendall(drop)
                    self.sent += 1
                client.recv(1)


def endless(text: bytes) -> Iterator[bytes]:
    return (bytes([one]) for one in itertools.cycle(text))


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(connections, "time", clock)
    monkeypatch.setattr(exchange, "time", clock)
    return clock


@contextlib.contextmanager
def wire_to(server: TinyServer, scheme: str = "http", **fields: object) -> Iterator[Wire]:
    config = config_for(server, scheme, **fields)
    wire = Wire(config, Connection(config), Counts(), 4)
    try:
        yield wire
    finally:
        wire.close()
        server.close()


def ask(server: TinyServer, request: Request = GET, deadline: float = DEADLINE) -> Answer:
    with wire_to(server) as wire:
        return wire.send(request, deadline)


@pytest.mark.parametrize(
    ("begins", "goes_on"),
    [
        (b"HTTP/1.1 200 OK\r\nx-a: ", b"b"),
        (b"HTTP/1.1 200 OK\r\n", b"a:b\r\n"),
        (b"HTT", b"P"),
        (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
    ],
)
def test_a_head_that_drips_ends_with_the_silence_that_is_allowed(
    clock: Clock, begins: bytes, goes_on: bytes
) -> None:
    server = Dripping(clock, begins, endless(goes_on))
    with pytest.raises(errors.ConnectionLost, match="too slow"):
        ask(server)
    assert SILENCE / 2 < clock.now < SILENCE + 10
    assert server.sent <= clock.now


@pytest.mark.parametrize(
    ("begins", "goes_on"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n", b"x"),
        (b"HTTP/1.1 500 Oops\r\nContent-Length: 1000\r\n\r\n", b"<a>"),
        (b"HTTP/1.1 200 OK\r\n\r\n", b"x"),  # until the connection ends
        (CHUNKED, b"1\r\nx\r\n"),
        (CHUNKED + b"ff\r\n", b"x"),
        (CHUNKED + b"1;a=", b"b"),
        (CHUNKED + b"0\r\n", b"a: b\r\n"),
    ],
)
def test_a_small_body_that_drips_ends_with_the_deadline(
    clock: Clock, begins: bytes, goes_on: bytes
) -> None:
    server = Dripping(clock, begins, endless(goes_on))
    with pytest.raises(errors.DeadlineExceeded, match="too slow") as caught:
        ask(server)
    assert caught.value.ambiguous
    assert DEADLINE <= clock.now < DEADLINE + 10
    assert server.sent <= clock.now


def test_a_body_that_drips_by_tls_ends_with_the_deadline(clock: Clock, tmp_path: Path) -> None:
    bundle, context = make_authority(tmp_path)
    begins = b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n"
    server = Dripping(clock, begins, endless(b"x"), context)
    with (
        wire_to(server, "https", ca_bundle=str(bundle)) as wire,
        pytest.raises(errors.DeadlineExceeded),
    ):
        wire.send(GET, DEADLINE)
    assert clock.now < DEADLINE + 10


def test_a_large_body_that_drips_is_given_up_in_time_to_ask_again(clock: Clock) -> None:
    server = Dripping(clock, b"HTTP/1.1 200 OK\r\nContent-Length: 300000\r\n\r\n", endless(b"x"))
    with pytest.raises(errors.ConnectionLost, match="too slow") as caught:
        ask(server, deadline=1000.0)
    assert caught.value.transient
    assert SILENCE < clock.now < 2 * SILENCE


def test_a_large_body_whose_rate_falls_is_given_up(clock: Clock) -> None:
    fast = [bytes(2048)] * 50
    drops = itertools.chain(fast, endless(b"x"))
    server = Dripping(clock, b"HTTP/1.1 200 OK\r\nContent-Length: 300000\r\n\r\n", drops)
    with pytest.raises(errors.ConnectionLost, match="too slow"):
        ask(server, deadline=1000.0)
    assert len(fast) < clock.now < len(fast) + 3 * SILENCE


def test_a_large_body_over_a_slow_line_comes_to_its_end(clock: Clock) -> None:
    pieces = 150
    begins = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (2048 * pieces)
    body = [bytes([number]) * 2048 for number in range(pieces)]
    assert ask(Dripping(clock, begins, iter(body)), deadline=1000.0).body == b"".join(body)
    assert clock.now > pieces / 2  # it was slow


def test_what_the_service_works_at_for_long_may_be_kept_open_with_blanks(clock: Clock) -> None:
    """As services do for Complete and copies; these have a deadline of minutes."""
    drops = itertools.chain([b"1\r\n \r\n"] * 100, [b"4\r\n<a/>\r\n0\r\n\r\n"])
    complete = Request("CompleteMultipartUpload", "POST", "k", body=b"x", silence=3.0)
    answer = ask(Dripping(clock, CHUNKED, drops), complete, deadline=180.0)
    assert answer.body == b" " * 100 + b"<a/>"


class Taker:
    """A socket that takes all, and knows how long each time it might have taken for that."""

    def __init__(self) -> None:
        self.timeouts: list[float] = []

    def settimeout(self, seconds: float) -> None:
        self.timeouts.append(seconds)

    def sendall(self, data: bytes) -> None: ...

    def close(self) -> None: ...


@pytest.mark.parametrize("kind", [connections.PlainConnection, connections.TlsConnection])
def test_a_slice_that_nobody_takes_ends_with_the_deadline(
    clock: Clock, kind: type[connections.PlainConnection]
) -> None:
    """A socket's timeout covers all of a slice, but begins anew with each."""
    connection, taker = kind("h", 1), Taker()
    connection.sock = taker
    with connections.patient(connections.Patience(SILENCE, 30.0)):
        clock.now = 0.0
        connection.send(b"slice")
        clock.now = 24.0
        connection.send(b"slice")
        clock.now = 30.0
        with pytest.raises(connections.TooSlow):
            connection.send(b"slice")
    assert taker.timeouts == [SILENCE, 5.0]


async def test_a_handshake_that_never_ends_holds_no_small_put(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Its thread would give it up; the loop has to as well."""
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        server = TinyServer()
        server.close()
        server.port = deaf.getsockname()[1]
        store = open_store(
            config_for(server, "https", connect_timeout=0.1, retries=0, request_deadline=100.0)
        )
        with trio.fail_after(1000), pytest.raises(errors.ConnectionLost):
            await store.put("k", b"body", WriteHeaders())
        await store.aclose()


async def test_a_listing_of_buckets_that_drips_ends_with_the_deadline(
    monkeypatch: pytest.MonkeyPatch, serve: Callable[..., TinyServer]
) -> None:
    """boto3 would read on for as long as a byte comes now and then."""
    ended = threading.Event()
    monkeypatch.setattr(buckets, "_list", lambda config: ended.wait(100))
    config = config_for(serve(), request_deadline=0.05)
    with pytest.raises(errors.DeadlineExceeded, match="ListBuckets"):
        await buckets.list_buckets(config)
    ended.set()
