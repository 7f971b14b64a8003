"""HEADs without threads: what they answer, and what they leave to the slow way."""

import socket
import time
from collections.abc import Callable

import pytest
import trio

from s3mount.store import errors, loop_client, quick_head
from s3mount.store.counts import Counts
from s3mount.store.endpoint import Connection
from s3mount.store.loop_client import LoopClient
from s3mount.store.open import open_store
from s3mount.store.quick_head import QuickHead
from s3mount.store.request import Request
from s3mount.store.wire import Wire
from tests.unit.tiny_server import OK, TinyServer, config_for, hung_up, make_authority, until


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quick_head, "PATIENCE", 100.0)
    monkeypatch.setattr(loop_client, "CONNECT_PATIENCE", 100.0)


HEAD = Request("HeadObject", "HEAD", "a b%c/\u00e9")


def quick_for(server: TinyServer, scheme: str = "http", **fields: object) -> QuickHead:
    # Patience for a busy machine: it is no longer than a part of these.
    config = config_for(server, scheme, read_timeout=200.0, request_deadline=1000.0, **fields)
    connection, counts = Connection(config), Counts()
    client = LoopClient(config, connection, Wire(config, connection, counts, 4))
    return QuickHead(config, client, counts)


async def test_one_connection_serves_many_signed_requests(
    serve: Callable[..., TinyServer],
) -> None:
    server = serve(OK.replace(b"ETag", b"X-Amz-Meta-Mode: 33188\r\neTag"))
    quick = quick_for(server)
    for _ in range(3):
        found = await quick.ask(HEAD)
        assert found is not None
        assert (found.key, found.etag, found.size) == ("a b%c/\u00e9", "abc", 4)
        assert found.metadata == {"mode": "33188"}
    assert server.connections == 1
    assert server.heads[0].startswith(b"HEAD /bucket/a%20b%25c/%C3%A9 HTTP/1.1\r\nhost: 127.0.0.1:")
    assert b"AWS4-HMAC-SHA256 Credential=AK/" in server.heads[2]
    await quick.aclose()


async def test_many_at_once_take_a_connection_each_and_leave_them_for_the_next(
    serve: Callable[..., TinyServer],
) -> None:
    server = serve(OK)
    quick = quick_for(server, metadata_concurrency=4)

    async def ask() -> None:
        assert await quick.ask(HEAD) is not None

    for _ in range(2):
        async with trio.open_nursery() as nursery:
            for _ in range(20):
                nursery.start_soon(ask)
    assert len(server.heads) == 40
    assert server.connections <= 8
    await quick.aclose()


async def test_a_missing_object_is_not_found(serve: Callable[..., TinyServer]) -> None:
    quick = quick_for(serve(b"HTTP/1.1 404 Not Found\r\nx-amz-request-id: r1\r\n\r\n"))
    with pytest.raises(errors.NotFound) as caught:
        await quick.ask(HEAD)
    assert (caught.value.key, caught.value.request_id) == (HEAD.key, "r1")
    await quick.aclose()


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 503 Slow Down\r\n\r\n",
        b"HTTP/1.1 403 Forbidden\r\n\r\n",
        b"HTTP/1.1 301 Moved\r\nx-amz-bucket-region: eu-west-1\r\n\r\n",
        b"HTTP/1.1 500 Oops\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n",  # without an ETag
        b"HTTP/1.0 200 OK\r\nETag: a\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nno header at all\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"x: " + b"y" * 70000 + b"\r\n\r\n",
    ],
)
async def test_whatever_else_comes_is_left_to_the_slow_way(
    serve: Callable[..., TinyServer], answer: bytes
) -> None:
    quick = quick_for(serve(answer))
    assert await quick.ask(HEAD) is None
    await quick.aclose()


async def test_after_a_failure_it_rests(
    serve: Callable[..., TinyServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    server = serve(b"HTTP/1.1 503 Slow Down\r\n\r\n")
    quick = quick_for(server)
    assert await quick.ask(HEAD) is None
    server.answer = OK
    assert await quick.ask(HEAD) is None
    assert len(server.heads) == 1
    monkeypatch.setattr(loop_client, "PAUSE", 0.0)
    quick._failed(True)
    assert await quick.ask(HEAD) is not None
    await quick.aclose()


async def test_a_body_that_should_not_be_there_is_not_taken_for_the_next_answer(
    serve: Callable[..., TinyServer],
) -> None:
    server = serve(OK + b"data")
    quick = quick_for(server)
    for _ in range(3):
        found = await quick.ask(HEAD)
        assert found is None or found.etag == "abc"
    await quick.aclose()


async def test_a_cancelled_request_does_not_leave_its_answer_to_another(
    serve: Callable[..., TinyServer],
) -> None:
    server = serve(OK)
    quick = quick_for(server)
    assert await quick.ask(HEAD) is not None
    server.answer = b""  # never answers
    async with trio.open_nursery() as nursery:
        nursery.start_soon(quick.ask, HEAD)
        await until(lambda: len(server.heads) == 2)
        nursery.cancel_scope.cancel()
    server.answer = OK
    assert await quick.ask(HEAD) is not None
    assert server.connections == 2
    await quick.aclose()


async def test_a_connection_that_the_service_closed_is_replaced(
    serve: Callable[..., TinyServer],
) -> None:
    server = serve(OK)
    server.hangs_up = True
    quick = quick_for(server)
    for number in range(3):
        assert await quick.ask(HEAD) is not None
        await hung_up(server, number + 1)
    assert server.connections == 3
    await quick.aclose()


async def test_old_idle_connections_are_closed(
    serve: Callable[..., TinyServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    server = serve(OK)
    quick = quick_for(server)
    assert await quick.ask(HEAD) is not None
    monkeypatch.setattr(loop_client, "IDLE_KEPT", 0.0)
    assert await quick.ask(HEAD) is not None
    assert server.connections == 2
    await quick.aclose()


async def test_nobody_listening_is_left_to_the_slow_way(serve: Callable[..., TinyServer]) -> None:
    with socket.socket() as unused:  # bound and not listening: nobody else gets its port
        unused.bind(("127.0.0.1", 0))
        quick = quick_for(serve(OK), endpoint_url="http://{}:{}".format(*unused.getsockname()))
        started = time.monotonic()
        assert await quick.ask(HEAD) is None
        assert time.monotonic() - started < quick_head.PATIENCE
        await quick.aclose()


async def test_https_with_our_own_authority(
    serve: Callable[..., TinyServer], tmp_path_factory: pytest.TempPathFactory
) -> None:
    bundle, context = make_authority(tmp_path_factory.mktemp("tls"))
    server = serve(OK, context)
    quick = quick_for(server, "https", ca_bundle=str(bundle))
    for _ in range(2):
        assert await quick.ask(HEAD) is not None
    assert server.connections == 1
    await quick.aclose()


async def test_an_unknown_authority_is_left_to_the_slow_way_which_tells_why(
    serve: Callable[..., TinyServer], tmp_path_factory: pytest.TempPathFactory
) -> None:
    _, context = make_authority(tmp_path_factory.mktemp("tls"))
    server = serve(OK, context)
    store = open_store(config_for(server, "https"))
    with pytest.raises(errors.InvalidRequest, match="CERTIFICATE_VERIFY_FAILED"):
        await store.head("k")
    await store.aclose()


async def test_the_store_gives_the_same_answer_both_ways(serve: Callable[..., TinyServer]) -> None:
    server = serve(OK)
    store = open_store(config_for(server))
    quick = await store.head("k")
    server.answer = b"HTTP/1.1 503 Slow Down\r\n\r\n"
    server.answers_then = OK
    slow = await store.head("k")
    assert (quick.etag, quick.size, quick.metadata) == (slow.etag, slow.size, slow.metadata)
    await store.aclose()
