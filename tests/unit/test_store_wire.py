"""The wire client against servers of a few lines: TLS, silence, connections, addressing."""

import contextlib
import logging
import socket
import ssl
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from s3mount.core.config import StoreConfig
from s3mount.core.errors import ConfigurationError
from s3mount.store import base, errors
from s3mount.store.base import WriteHeaders
from s3mount.store.counts import Counts
from s3mount.store.endpoint import Connection, Endpoint
from s3mount.store.headers import RequestHeaders
from s3mount.store.request import Answer, Request
from s3mount.store.wire import Wire
from tests.unit.tiny_server import OK, TinyServer, config_for, make_authority


def wire_for(config: StoreConfig) -> Wire:
    return Wire(config, Connection(config), Counts(), 4)


def send(wire: Wire, request: Request, seconds: float = 100.0) -> Answer:
    return wire.send(request, time.monotonic() + seconds)


GET = Request("GetObject", "GET", "k")


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ssl.SSLContext]:
    return make_authority(tmp_path_factory.mktemp("tls"))


def test_https_with_our_own_authority(
    serve: Callable[..., TinyServer], authority: tuple[Path, ssl.SSLContext]
) -> None:
    bundle, context = authority
    server = serve(context=context)
    wire = wire_for(config_for(server, "https", ca_bundle=str(bundle)))
    assert send(wire, GET).body == b"data"
    wire.close()


def test_the_authority_may_come_from_the_environment(
    serve: Callable[..., TinyServer],
    authority: tuple[Path, ssl.SSLContext],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AWS_CA_BUNDLE", str(authority[0]))
    wire = wire_for(config_for(serve(context=authority[1]), "https"))
    assert send(wire, GET).body == b"data"
    wire.close()


def test_an_unknown_authority_is_refused_and_not_retried(
    serve: Callable[..., TinyServer], authority: tuple[Path, ssl.SSLContext]
) -> None:
    wire = wire_for(config_for(serve(context=authority[1]), "https"))
    with pytest.raises(errors.InvalidRequest, match="CERTIFICATE_VERIFY_FAILED") as caught:
        send(wire, GET)
    assert not caught.value.transient
    assert not caught.value.ambiguous
    wire.close()


def test_verification_can_be_switched_off(
    serve: Callable[..., TinyServer], authority: tuple[Path, ssl.SSLContext]
) -> None:
    wire = wire_for(config_for(serve(context=authority[1]), "https", verify_tls=False))
    assert send(wire, GET).body == b"data"
    wire.close()


def test_https_goes_through_the_proxy_of_the_environment(
    serve: Callable[..., TinyServer],
    authority: tuple[Path, ssl.SSLContext],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    server = serve(context=authority[1])
    asked: list[bytes] = []

    def relay(source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                target.sendall(data)

    def tunnel() -> None:
        client, _ = listener.accept()
        with client, socket.create_connection(("127.0.0.1", server.port)) as upstream:
            asked.append(client.recv(65536))
            client.sendall(b"HTTP/1.1 200 Connected\r\n\r\n")
            threading.Thread(target=relay, args=(upstream, client), daemon=True).start()
            relay(client, upstream)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=tunnel, daemon=True).start()
        monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{listener.getsockname()[1]}")
        monkeypatch.setenv("NO_PROXY", "")
        wire = wire_for(config_for(server, "https", ca_bundle=str(authority[0])))
        assert send(wire, replace(GET, key="..")).body == b"data"
        assert asked[0].startswith(b"CONNECT 127.0.0.1:")
        assert server.heads[0].startswith(b"GET /bucket/.. HTTP/1.1")
        wire.close()


def test_connections_are_kept_and_used_again(serve: Callable[..., TinyServer]) -> None:
    server = serve()
    wire = wire_for(config_for(server))
    for _ in range(5):
        assert send(wire, GET).body == b"data"
    assert server.connections == 1
    wire.close()


def test_path_and_query_reach_the_server_as_encoded(serve: Callable[..., TinyServer]) -> None:
    server = serve()
    wire = wire_for(config_for(server))
    for key in ("..", "a/../b", "//x", "a b+c%", "ü"):
        send(wire, Request("GetObject", "GET", key, (("versionId", "a+/="),)))
    lines = [head.split(b"\r\n")[0].split(b" ")[1].decode() for head in server.heads]
    assert lines == [
        "/bucket/..?versionId=a%2B%2F%3D",
        "/bucket/a/../b?versionId=a%2B%2F%3D",
        "/bucket///x?versionId=a%2B%2F%3D",
        "/bucket/a%20b%2Bc%25?versionId=a%2B%2F%3D",
        "/bucket/%C3%BC?versionId=a%2B%2F%3D",
    ]
    wire.close()


def test_a_server_that_is_not_there_leaves_no_doubt() -> None:
    with socket.socket() as unused:  # bound and not listening: nobody else gets its port
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
        config = StoreConfig(
            bucket="b", endpoint_url=f"http://127.0.0.1:{port}", access_key="A", secret_key="S"
        )
        wire = wire_for(config)
        with pytest.raises(errors.ConnectionLost) as caught:
            send(wire, Request("PutObject", "PUT", "k", body=b"data"))
    assert not caught.value.ambiguous
    assert "refused" in str(caught.value)
    wire.close()


def test_a_server_that_does_not_read_is_given_up() -> None:
    """The body is sent with the read timeout, slice by slice; never for ever."""
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        config = StoreConfig(
            bucket="b",
            endpoint_url=f"http://127.0.0.1:{deaf.getsockname()[1]}",
            access_key="A",
            secret_key="S",
            read_timeout=0.3,
        )
        wire = wire_for(config)
        started = time.monotonic()
        with pytest.raises(errors.ConnectionLost) as caught:
            send(wire, Request("UploadPart", "PUT", "k", body=bytes(50_000_000)))
        assert time.monotonic() - started < 60
        assert caught.value.ambiguous
        wire.close()


def test_a_body_that_passes_the_deadline_is_given_up(serve: Callable[..., TinyServer]) -> None:
    def slow(offset: int, length: int) -> bytes:
        time.sleep(0.05)
        return bytes(length)

    wire = wire_for(config_for(serve()))
    body = base.SlicedBody(100 * 1024, slow, 1024)
    with pytest.raises(errors.DeadlineExceeded):
        send(wire, Request("UploadPart", "PUT", "k", body=body), seconds=0.3)
    wire.close()


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (OK + b"da", errors.ConnectionLost),  # then silence
        (b"nonsense\r\n\r\n", errors.ConnectionLost),
        (b"HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n", errors.ServerError),
        (b"HTTP/1.1 503 Oops\r\nContent-Length: 4\r\n\r\nno!!", errors.SlowDown),
        (b"HTTP/1.1 403 No\r\nContent-Length: 4\r\n\r\n<<<<", errors.AccessDenied),
    ],
)
def test_nonsense_has_a_type(
    serve: Callable[..., TinyServer], answer: bytes, kind: type[errors.StoreError]
) -> None:
    silent = answer.startswith(OK)
    wire = wire_for(config_for(serve(answer), read_timeout=0.2 if silent else 30.0))
    with pytest.raises(kind) as caught:
        send(wire, GET)
    assert type(caught.value) is kind
    assert caught.value.transient == (kind is not errors.AccessDenied)
    wire.close()


def test_endpoints_are_those_of_boto3() -> None:
    def resolved(**fields: object) -> Endpoint:
        config = StoreConfig(bucket="bucket", access_key="A", secret_key="S")
        return Connection(replace(config, **fields)).endpoint()  # type: ignore[arg-type]

    amazon = "amazonaws.com"
    assert resolved(region="eu-west-1") == Endpoint(
        "https", f"bucket.s3.eu-west-1.{amazon}", 443, "", "eu-west-1"
    )
    assert resolved(region="eu-west-1", addressing_style="path") == Endpoint(
        "https", f"s3.eu-west-1.{amazon}", 443, "/bucket", "eu-west-1"
    )
    assert resolved(region="eu-west-1", bucket="dotted.bucket").base_path == "/dotted.bucket"
    assert resolved(endpoint_url="http://h:9000") == Endpoint(
        "http", "h", 9000, "/bucket", "us-east-1"
    )
    assert resolved(endpoint_url="http://h:9000", addressing_style="virtual") == Endpoint(
        "http", "bucket.h", 9000, "", "us-east-1"
    )
    assert resolved(endpoint_url="https://h/prefix/").base_path == "/prefix/bucket"
    ipv6 = resolved(endpoint_url="http://[::1]:80", region="x-1")
    assert (ipv6.host, ipv6.authority, ipv6.region) == ("[::1]", "[::1]", "x-1")


def test_nonsense_settings_are_refused_with_a_reason() -> None:
    config = StoreConfig(bucket="b", access_key="A", secret_key="S")
    for fields in ({"endpoint_url": "no url"}, {"profile": "no-such-profile"}):
        with pytest.raises(ConfigurationError):
            Connection(replace(config, **fields)).endpoint()  # type: ignore[arg-type]


def test_no_secret_shows_in_any_text() -> None:
    config = StoreConfig(
        bucket="b", access_key="A", secret_key="SECRET", session_token="TOKEN",
        sse_customer_key=b"K" * 32,
    )  # fmt: skip
    wire = wire_for(config)
    texts = [repr(config), repr(wire), repr(Connection(config)), repr(RequestHeaders(config))]
    assert not any(secret in text for text in texts for secret in ("SECRET", "TOKEN", "KKK"))


def test_no_secret_shows_in_the_log_at_any_level(
    serve: Callable[..., TinyServer], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    config = config_for(
        serve(), secret_key="SECRET", session_token="TOKEN", sse_customer_key=b"K" * 32
    )
    wire = wire_for(config)
    assert send(wire, replace(GET, headers=RequestHeaders(config).read())).body == b"data"
    assert not any(word in caplog.text for word in ("SECRET", "TOKEN", "S0tLS0tL", "Signature"))
    wire.close()


def test_headers_follow_the_configuration() -> None:
    config = StoreConfig(
        bucket="b",
        requester_pays=True,
        acl="private",
        storage_class="STANDARD_IA",
        sse="aws:kms",
        sse_kms_key_id="key-1",
        extra_headers={"X-Extra": "1"},
    )
    headers = RequestHeaders(config)
    write = headers.write(
        WriteHeaders({"Mode": "1"}, {"content-type": "a/b", "x-amz-storage-class": "GLACIER"})
    )
    assert write == {
        "x-amz-request-payer": "requester",
        "x-amz-acl": "private",
        "x-amz-storage-class": "GLACIER",
        "x-amz-server-side-encryption": "aws:kms",
        "x-amz-server-side-encryption-aws-kms-key-id": "key-1",
        "x-extra": "1",
        "content-type": "a/b",
        "x-amz-meta-mode": "1",
    }
    assert headers.read() == headers.list() == {"x-amz-request-payer": "requester"}
    copy = headers.copy("b", "a b%/ü", None)
    assert copy["x-amz-copy-source"] == "/b/a%20b%25/%C3%BC"
    assert "x-amz-metadata-directive" not in copy
    replaced = headers.copy("b", "k", WriteHeaders({"n": "2"}))
    assert replaced["x-amz-metadata-directive"] == "REPLACE"
    assert headers.encrypted


def test_a_customers_key_goes_with_every_request_that_touches_bytes() -> None:
    headers = RequestHeaders(StoreConfig(bucket="b", sse_customer_key=b"k" * 32))
    name = "x-amz-server-side-encryption-customer-key-md5"
    assert headers.read()[name] == headers.write(WriteHeaders())[name]
    copy = headers.copy("b", "k", None)
    assert copy[name] == copy["x-amz-copy-source-server-side-encryption-customer-key-md5"]
    assert name not in headers.list()


def test_a_header_value_cannot_start_another_header() -> None:
    write = RequestHeaders(StoreConfig(bucket="b")).write(
        WriteHeaders({"evil": "a\r\nx-amz-acl: public-read"})
    )
    assert write == {"x-amz-meta-evil": "a x-amz-acl: public-read"}
