"""Small PUTs without threads: what is sent, and what becomes of whatever is answered."""

from collections.abc import Callable, Iterator

import pytest
import trio

from s3mount.store import errors, loop_client
from s3mount.store.base import ObjectStore, WriteHeaders
from s3mount.store.open import open_store
from s3mount.store.quick_put import QUICK_BODY
from s3mount.store.retry import lost_attempts
from tests.unit.tiny_server import TinyServer, config_for, hung_up

STORED = b'HTTP/1.1 200 OK\r\nETag: "abc"\r\nContent-Length: 0\r\n\r\n'
HEADERS = WriteHeaders(metadata={"mode": "33188"})


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Being slow to connect is a reason for the slow way, and a busy machine is slow."""
    monkeypatch.setattr(loop_client, "CONNECT_PATIENCE", 30.0)


@pytest.fixture
def server() -> Iterator[TinyServer]:
    server = TinyServer(STORED, reads_bodies=True)
    yield server
    server.close()


@pytest.fixture
def threads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The operations that were sent from a thread."""
    seen: list[str] = []
    original = trio.to_thread.run_sync

    async def counted(work: Callable[..., object], *rest: object, **named: object) -> object:
        if "Lanes" in work.__qualname__:
            seen.append(work.__qualname__)
        return await original(work, *rest, **named)  # type: ignore[arg-type]

    monkeypatch.setattr("trio.to_thread.run_sync", counted)
    return seen


def store_for(server: TinyServer, **fields: object) -> ObjectStore:
    fields.setdefault("read_timeout", 20.0)
    return open_store(config_for(server, "http", **fields))


async def test_small_puts_share_a_connection_and_take_no_thread(
    server: TinyServer, threads: list[str]
) -> None:
    store = store_for(server)
    for number in range(3):
        stored = await store.put(f"a {number}", b"x" * number, HEADERS)
        assert stored.etag == "abc"
    assert server.connections == 1
    assert server.bodies == [b"", b"x", b"xx"]
    assert server.heads[1].startswith(b"PUT /bucket/a%201 HTTP/1.1\r\nhost: ")
    lowered = server.heads[2].lower()
    assert b"\r\ncontent-length: 2\r\n" in lowered
    assert b"\r\nx-amz-meta-mode: 33188\r\n" in lowered
    assert b"aws4-hmac-sha256 credential=ak/" in lowered
    assert threads == []
    assert store.counts()["PutObject"] == 3
    assert store.counts()["BytesOut"] == 3
    await store.aclose()


async def test_larger_ones_go_by_a_thread(server: TinyServer, threads: list[str]) -> None:
    store = store_for(server)
    await store.put("k", bytes(QUICK_BODY + 1), HEADERS)
    assert len(threads) == 1
    await store.aclose()


async def test_a_refusal_that_tells_what_to_do_better_is_done_better_by_a_thread(
    server: TinyServer, threads: list[str]
) -> None:
    body = b"<Error><Code>PermanentRedirect</Code><Region>eu-west-9</Region></Error>"
    server.answer = b"HTTP/1.1 301 No\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)
    server.answers_then = STORED
    store = store_for(server)
    with lost_attempts() as lost:
        assert (await store.put("k", b"body", HEADERS)).etag == "abc"
    assert not lost
    assert server.bodies == [b"body", b"body"]
    assert b"/us-east-1/s3/" in server.heads[0]
    assert b"/eu-west-9/s3/" in server.heads[1]
    assert len(threads) == 1
    await store.aclose()


@pytest.mark.parametrize("chunked", [False, True])
async def test_what_is_refused_for_good_is_asked_once(
    server: TinyServer, threads: list[str], chunked: bool
) -> None:
    body = b"<Error><Code>EntityTooLarge</Code><RequestId>r1</RequestId></Error>"
    if chunked:
        head = b"Transfer-Encoding: chunked"
        body = b"5;x=y\r\n%s\r\n%x\r\n%s\r\n0\r\n\r\n" % (body[:5], len(body) - 5, body[5:])
    else:
        head = b"Content-Length: %d" % len(body)
    server.answer = b"HTTP/1.1 400 No\r\n%s\r\n\r\n%s" % (head, body)
    store = store_for(server)
    with pytest.raises(errors.EntityTooLarge) as caught:
        await store.put("k", b"body", HEADERS)
    assert not caught.value.ambiguous
    assert caught.value.request_id == "r1"
    assert len(server.heads) == 1
    server.answer = STORED
    await store.put("k", b"body", HEADERS)
    assert threads == []  # nothing is wrong with the service
    await store.aclose()


async def test_a_broken_connection_may_have_carried_it_out(
    server: TinyServer, threads: list[str]
) -> None:
    server.answer = b""
    server.hangs_up = True
    store = store_for(server, retries=0)
    with lost_attempts() as lost, pytest.raises(errors.ConnectionLost) as caught:
        await store.put("k", b"body", HEADERS)
    assert caught.value.ambiguous
    assert lost == [caught.value]
    assert len(server.heads) == 1
    assert threads == []
    await store.aclose()


async def test_an_answer_that_never_comes_is_waited_for_as_long_as_any(
    server: TinyServer,
) -> None:
    server.answer = b""
    store = store_for(server, retries=0, read_timeout=0.2)
    with pytest.raises(errors.ConnectionLost) as caught:
        await store.put("k", b"body", HEADERS)
    assert caught.value.ambiguous
    await store.aclose()


@pytest.mark.parametrize(
    ("status", "code", "kind", "ambiguous"),
    [
        (b"503", b"SlowDown", errors.SlowDown, False),
        (b"500", b"InternalError", errors.ServerError, True),
    ],
)
async def test_failures_of_the_service_are_told_as_the_slow_way_tells_them(
    server: TinyServer, status: bytes, code: bytes, kind: type[errors.StoreError], ambiguous: bool
) -> None:
    body = b"<Error><Code>%s</Code><RequestId>r1</RequestId></Error>" % code
    server.answer = b"HTTP/1.1 %s Oops\r\nContent-Length: %d\r\n\r\n%s" % (status, len(body), body)
    store = store_for(server, retries=0)
    with pytest.raises(kind) as caught:
        await store.put("k", b"body", HEADERS)
    found = caught.value
    assert (found.code, found.request_id, found.ambiguous) == (code.decode(), "r1", ambiguous)
    assert len(server.heads) == 1
    await store.aclose()


async def test_after_a_failure_the_slow_way_is_taken_for_a_while(
    server: TinyServer, threads: list[str]
) -> None:
    server.answer = b"HTTP/1.1 503 Slow Down\r\nContent-Length: 0\r\n\r\n"
    server.answers_then = STORED
    store = store_for(server)
    await store.put("k", b"body", HEADERS)
    await store.put("k", b"body", HEADERS)
    assert len(threads) == 2
    assert store.counts()["SlowDowns"] == 1
    await store.aclose()


async def test_a_connection_that_the_service_closed_is_not_used_for_a_change(
    server: TinyServer, threads: list[str]
) -> None:
    """Else it would not be known whether the change was made."""
    server.hangs_up = True
    store = store_for(server)
    with lost_attempts() as lost:
        for number in range(3):
            await store.put(f"k{number}", b"body", HEADERS)
            await hung_up(server, number + 1)
    assert not lost
    assert server.connections == 3
    assert len(server.heads) == 3
    assert threads == []
    await store.aclose()


async def test_a_cancelled_put_is_seen_to_its_end(server: TinyServer) -> None:
    """A retry by somebody else could overtake it."""
    store = store_for(server)
    with trio.move_on_after(0) as scope:
        assert (await store.put("k", b"body", HEADERS)).etag == "abc"
        await trio.sleep_forever()
    assert scope.cancelled_caught
    assert server.bodies == [b"body"]
    await store.aclose()
