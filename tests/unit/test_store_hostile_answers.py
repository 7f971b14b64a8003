"""What no service should answer, and broken ones and proxies do: it costs that one request."""

import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote

import pytest
from urllib3 import HTTPHeaderDict

from s3mount.core.config import StoreConfig
from s3mount.core.errors import ConfigurationError
from s3mount.store import errors, exchange, results
from s3mount.store.answers import http_date, iso_date, object_info
from s3mount.store.base import Part
from s3mount.store.counts import Counts
from s3mount.store.endpoint import Connection, Endpoint, https_proxy
from s3mount.store.listing import parse_list, parse_parts, parse_uploads
from s3mount.store.loop_client import LoopClient
from s3mount.store.open import open_store
from s3mount.store.quick_head import QuickHead
from s3mount.store.reachable import require_bucket
from s3mount.store.request import Answer, Request
from s3mount.store.wire import Wire
from tests.unit.tiny_server import OK, TinyServer, config_for

GET = Request("GetObject", "GET", "k")


def wire_for(server: TinyServer) -> Wire:
    config = config_for(server, read_timeout=100.0)
    return Wire(config, Connection(config), Counts(), 4)


def send(wire: Wire) -> Answer:
    return wire.send(GET, time.monotonic() + 1000.0)


@pytest.mark.parametrize(
    "date",
    [
        "Mon, 01 Jan 99999999999 00:00:00 GMT",
        "Mon, 01 Jan 2020 00:00:00 +99999999999999999999",
        "Fri, 31 Dec 9999 23:59:59 GMT",
        "Mon, 01 Jan 1900 00:00:00 GMT",
        "0001-01-01T00:00:00Z",
        "9999-12-31T23:59:59Z",
    ],
)
def test_a_date_that_no_file_can_have_is_nonsense(date: str) -> None:
    assert http_date(date) == iso_date(date) == 0.0


def test_a_folded_header_is_one_line_for_it_is_sent_again() -> None:
    headers = {"ETag": '"a\r\n b"', "x-amz-meta-a": "x\r\n\ty", "Content-Type": "text/plain;\n a=b"}
    info = object_info("k", headers, 0.0, 1)
    assert info.etag == "a  b"
    assert info.metadata == {"a": "x y"}
    assert info.headers["content-type"] == "text/plain;  a=b"


@pytest.mark.parametrize("text", ["voil\u00e0", "\u0105\u0c05", "\u00a0a\u0085"])
def test_metadata_in_utf_8_keep_their_first_and_last_bytes(text: str) -> None:
    """Read as Latin-1, some of them are blanks or controls."""
    raw = text.encode().decode("latin-1")
    info = object_info(
        "k", {"ETag": "x", "x-amz-meta-a": raw, "x-amz-meta-b": f"\t{raw}\n"}, 0.0, 1
    )
    assert info.metadata == {"a": text, "b": text}


def test_a_range_of_absurd_numbers_is_corrupt() -> None:
    headers = HTTPHeaderDict({"content-range": "bytes 0-9/" + "9" * 5000, "etag": "x"})
    with pytest.raises(errors.CorruptAnswer, match="Content-Range"):
        results.get_result("k", 0, 10, Answer(206, headers, b"0123456789", 0.0))


@pytest.mark.parametrize("checksum", ["a", "\u00e9"])
def test_a_part_whose_checksum_is_none_proves_nothing_of_the_whole(checksum: str) -> None:
    body = (
        b"<CompleteMultipartUploadResult><ETag>x</ETag><ChecksumCRC32C>y-1</ChecksumCRC32C>"
        b"</CompleteMultipartUploadResult>"
    )
    answer = Answer(200, HTTPHeaderDict(), body, 0.0)
    result, proved = results.completed("k", [Part(1, "e", 5, checksum)], answer)
    assert (result.etag, proved) == ("x", False)


def listing(key: str, directory: str) -> bytes:
    return (
        "<ListBucketResult><EncodingType>url</EncodingType><IsTruncated>false</IsTruncated>"
        f"<Contents><Key>{quote(key)}</Key><Size>1</Size>"
        "<LastModified>2026-11-20T11:00:00Z</LastModified></Contents>"
        f"<CommonPrefixes><Prefix>{quote(directory)}</Prefix></CommonPrefixes></ListBucketResult>"
    ).encode()


@pytest.mark.parametrize(
    ("prefix", "key", "directory"),
    [
        ("a/", "b/x", "a/d/"),
        ("a/", "", "a/d/"),
        ("", "", "d/"),  # its DELETE would be the bucket's
        ("a/", "a/x", "b/"),
        ("a/", "a/x", "a/d"),
    ],
)
def test_a_listing_of_what_was_not_asked_for_is_corrupt(
    prefix: str, key: str, directory: str
) -> None:
    good = parse_list(listing("a/x", "a/d/"), "a/", None, 0.0, 0.0)
    assert ([one.key for one in good.objects], list(good.prefixes)) == (["a/x"], ["a/d/"])
    with pytest.raises(errors.CorruptAnswer, match="it lists"):
        parse_list(listing(key, directory), prefix, None, 0.0, 0.0)


def parts(number: str, marker: str) -> bytes:
    return (
        f"<ListPartsResult><IsTruncated>true</IsTruncated><NextPartNumberMarker>{marker}"
        f"</NextPartNumberMarker><Part><PartNumber>{number}</PartNumber><ETag>e</ETag>"
        "<Size>5</Size></Part></ListPartsResult>"
    ).encode()


def test_a_listing_of_parts_that_leads_nowhere_is_corrupt() -> None:
    assert parse_parts(parts("7", "7"), "k", 6) == ([Part(7, "e", 5)], 7)
    for number, marker in (
        ("7", "6"),
        ("7", "-1"),
        ("7", "10001"),
        ("0", "7"),
        ("10001", "7"),
        ("9" * 30, "7"),
    ):
        with pytest.raises(errors.CorruptAnswer, match="no listing of parts"):
            parse_parts(parts(number, marker), "k", 6)


def test_a_listing_of_uploads_that_repeats_itself_is_corrupt() -> None:
    body = (
        b"<ListMultipartUploadsResult><IsTruncated>true</IsTruncated><NextKeyMarker>a/k"
        b"</NextKeyMarker><NextUploadIdMarker>U</NextUploadIdMarker><Upload><Key>a/k</Key><UploadId>"
        b"U</UploadId><Initiated>2026-11-20T11:00:00Z</Initiated></Upload>"
        b"</ListMultipartUploadsResult>"
    )
    uploads, following = parse_uploads(body, "a/")
    assert ([one.key for one in uploads], following) == (["a/k"], ("a/k", "U"))
    with pytest.raises(errors.CorruptAnswer, match="repeats its markers"):
        parse_uploads(body, "a/", ("a/k", "U"))
    assert parse_uploads(body, "b/")[0] == []


@pytest.mark.parametrize("length", ["five", "-5", "5, 5", "9" * 5000, "\u00b2"])
def test_a_body_without_a_length_that_can_be_is_an_answer_or_a_typed_error(
    serve: Callable[..., TinyServer], length: str
) -> None:
    server = serve(f"HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\nhello".encode("latin-1"))
    server.hangs_up = True
    wire = wire_for(server)
    with suppress(errors.TransientError):
        assert send(wire).body == b"hello"
    wire.close()


def test_a_body_without_end_is_given_up(
    serve: Callable[..., TinyServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exchange, "MOST_BYTES", 1000)
    server = serve(
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
        + b"64\r\n%b\r\n" % (b"x" * 100) * 30
    )
    server.hangs_up = True
    monkeypatch.setattr(exchange, "READ_SLICE", 500)
    wire = wire_for(server)
    with pytest.raises(errors.CorruptAnswer, match="too large"):
        send(wire)
    wire.close()


async def test_a_server_that_is_no_s3_is_not_called_unreachable(
    serve: Callable[..., TinyServer],
) -> None:
    page = b"<html>Welcome to nginx</html>"
    server = serve(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(page), page))
    config = config_for(server, retries=0)
    store = open_store(config)
    with pytest.raises(ConfigurationError, match="does not answer as S3 does"):
        await require_bucket(store, config, "")
    await store.aclose()


@pytest.mark.parametrize(
    "headers",
    [
        {"location": "http://[::1"},
        {"location": "http://127.0.0.1:99999/"},
        {"location": "http://exa mple/"},
        {"x-amz-bucket-region": "no/where"},
    ],
)
def test_a_redirect_to_nowhere_changes_nothing(
    serve: Callable[..., TinyServer], headers: dict[str, str]
) -> None:
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    server = serve(f"HTTP/1.1 307 Gone\r\n{lines}Content-Length: 0\r\n\r\n".encode())
    wire = wire_for(server)
    with pytest.raises(errors.InvalidRequest):
        send(wire)
    server.answer = OK + b"data"
    assert send(wire).body == b"data"
    wire.close()


@pytest.mark.parametrize(
    "answer",
    [
        OK.replace(b"200 OK", b"\xb2\xb3\xb9 OK"),
        OK.replace(b"200 OK", b"100 Continue"),
        OK.replace(b"ETag", b"x-amz-meta-\xfc: x\r\nETag"),
        OK.replace(b"ETag", b": x\r\nETag"),
    ],
)
async def test_a_head_that_the_loop_does_not_understand_goes_the_slow_way(
    serve: Callable[..., TinyServer], answer: bytes
) -> None:
    config = config_for(serve(answer), read_timeout=200.0, request_deadline=1000.0)
    connection, counts = Connection(config), Counts()
    quick = QuickHead(
        config, LoopClient(config, connection, Wire(config, connection, counts, 4)), counts
    )
    assert await quick.ask(Request("HeadObject", "HEAD", "k")) is None
    await quick.aclose()


def test_a_header_that_is_none_is_not_logged_with_a_traceback(
    serve: Callable[..., TinyServer], caplog: pytest.LogCaptureFixture
) -> None:
    wire = wire_for(serve(OK.replace(b"\r\n\r\n", b"\r\nx-amz-meta-\xfc: y\r\n\r\n") + b"data"))
    assert send(wire).body == b"data"
    assert [record for record in caplog.records if record.exc_info] == []
    wire.close()


@pytest.mark.parametrize("secret", ["line\n", "\udc80", "\x1b[31m"])
def test_credentials_that_no_request_can_carry_are_refused_and_not_shown(
    serve: Callable[..., TinyServer], secret: str
) -> None:
    for name in ("access_key", "secret_key", "session_token"):
        config = config_for(serve(), **{name: secret})
        with pytest.raises(errors.BadCredentials, match="copy them anew") as caught:
            Connection(config).credentials()
        assert secret not in str(caught.value)


@pytest.mark.parametrize("said", ["[]", "hello", "{}", '{"Version": 1}'])
def test_a_credential_process_that_says_nonsense_has_no_credentials(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str
) -> None:
    (tmp_path / "said").write_text(said)
    (tmp_path / "config").write_text(f"[default]\ncredential_process = cat {tmp_path / 'said'}\n")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    connection = Connection(StoreConfig(bucket="b", endpoint_url="http://s3.invalid"))
    for ask in (connection.credentials, connection.endpoint):
        with pytest.raises((errors.BadCredentials, ConfigurationError)):
            ask()


@pytest.mark.parametrize("proxy", ["socks9://x", "http://a b", "http://x:99999"])
def test_a_proxy_that_cannot_be_is_named(monkeypatch: pytest.MonkeyPatch, proxy: str) -> None:
    monkeypatch.setenv("HTTPS_PROXY", proxy)
    monkeypatch.delenv("https_proxy", raising=False)
    config = StoreConfig(
        bucket="b", endpoint_url="https://s3.invalid", access_key="A", secret_key="S"
    )
    wire = Wire(config, Connection(config), Counts(), 4)
    with pytest.raises(ConfigurationError, match="HTTPS_PROXY"):
        wire.send(GET, time.monotonic() + 1000.0)


def test_a_proxy_without_a_scheme_is_asked_by_http(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "proxy.invalid:3128")
    monkeypatch.delenv("https_proxy", raising=False)
    endpoint = Endpoint("https", "s3.invalid", 443, "", "us-east-1")
    assert https_proxy(endpoint) == "http://proxy.invalid:3128"


def test_an_empty_region_in_the_environment_is_none(
    serve: Callable[..., TinyServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_DEFAULT_REGION", "")
    server = serve()
    wire = wire_for(server)
    assert send(wire).body == b"data"
    assert b"/us-east-1/s3/" in server.heads[0]
    wire.close()
