"""Listings and DeleteObjects as XML: whatever a service sends is read right or refused."""

from urllib.parse import quote
from xml.sax.saxutils import escape

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lxml import etree

from s3mount.store import base, errors
from s3mount.store.answers import error_for, http_date, iso_date
from s3mount.store.listing import (
    delete_body,
    parse_delete,
    parse_list,
    parse_uploads,
    xml_can_carry,
)

NAMESPACE = 'xmlns="http://s3.amazonaws.com/doc/2006-03-01/"'


def listing(
    keys: list[str],
    prefixes: list[str] | None = None,
    *,
    encode: bool = True,
    token: str | None = None,
    namespace: str = NAMESPACE,
) -> bytes:
    def text(value: str) -> str:
        raw = value.encode("utf-8", "surrogateescape")
        return quote(raw, safe="/") if encode else escape(value)

    pieces = [f'<?xml version="1.0" encoding="UTF-8"?><ListBucketResult {namespace}>']
    if encode:
        pieces.append("<EncodingType>url</EncodingType>")
    pieces.append(f"<IsTruncated>{'true' if token else 'false'}</IsTruncated>")
    if token:
        pieces.append(f"<NextContinuationToken>{token}</NextContinuationToken>")
    for key in keys:
        pieces.append(
            f"<Contents><Key>{text(key)}</Key><Size>5</Size><ETag>&quot;abc&quot;</ETag>"
            "<LastModified>2026-11-20T11:00:00.789Z</LastModified></Contents>"
        )
    for prefix in prefixes or []:
        pieces.append(f"<CommonPrefixes><Prefix>{text(prefix)}</Prefix></CommonPrefixes>")
    pieces.append("</ListBucketResult>")
    return "".join(pieces).encode("utf-8", "surrogateescape")


def read(body: bytes, token: str | None = None) -> base.ListPage:
    return parse_list(body, "", token, 1.0, 2.0)


KEYS = st.text(
    st.characters(codec="utf-8") | st.characters(min_codepoint=0, max_codepoint=127),
    min_size=1,
)


@given(st.lists(KEYS), st.lists(KEYS.map(lambda key: f"{key}/")))
def test_any_key_survives_an_encoded_listing(keys: list[str], prefixes: list[str]) -> None:
    page = read(listing(keys, prefixes))
    assert [found.key for found in page.objects] == keys
    assert list(page.prefixes) == prefixes


def test_entries_are_read_in_full() -> None:
    page = read(listing(["k"], token="next"))
    assert page.objects == [base.ListedObject("k", 5, "abc", 1795172400.0)]
    assert page.next_token == "next"
    assert (page.answered_at, page.asked_at) == (1.0, 2.0)


def test_a_listing_without_namespace_is_read_too() -> None:
    assert [found.key for found in read(listing(["k"], namespace="")).objects] == ["k"]


def test_blanks_sent_as_plus_are_blanks_and_real_plus_signs_stay() -> None:
    body = listing(["a b+c"]).replace(b"a%20b", b"a+b")
    assert [found.key for found in read(body).objects] == ["a b+c"]


def test_bytes_that_are_not_utf_8_become_surrogates() -> None:
    assert [found.key for found in read(listing(["bad\udcff"])).objects] == ["bad\udcff"]


def test_a_service_that_ignores_the_encoding_is_read_raw() -> None:
    page = read(listing(["a%41", "b+c d"], encode=False))
    assert [found.key for found in page.objects] == ["a%41", "b+c d"]


@pytest.mark.parametrize("raw", [b"\x01", b"&#x01;", b"&#1;", b"&#xFFFF;", b"&#xD800;", b"\xff"])
def test_raw_keys_that_xml_forbids_are_left_out_not_breaking_the_rest(raw: bytes) -> None:
    body = listing(["good", "CONTROL", "other"], ["CONTROL/", "d/"], encode=False)
    page = read(body.replace(b"CONTROL", b"bad" + raw + b"key"))
    assert [found.key for found in page.objects] == ["good", "other"]
    assert list(page.prefixes) == ["d/"]


@given(st.integers(min_value=0, max_value=2000))
def test_a_cut_listing_is_always_refused(end: int) -> None:
    body = listing([f"key{number}" for number in range(10)], ["a/"], token="t")
    if end < len(body):
        with pytest.raises(errors.CorruptAnswer):
            read(body[:end])


def test_a_listing_that_is_none_or_contradicts_itself_is_refused() -> None:
    whole = listing(["k"], token="t")
    for body, token in (
        (whole, "t"),  # repeats the token it was asked with
        (whole.replace(b"<NextContinuationToken>t</NextContinuationToken>", b""), None),
        (whole.replace(b"<IsTruncated>true</IsTruncated>", b""), None),
        (whole.replace(b"<Size>5</Size>", b"<Size>five</Size>"), None),
        (whole.replace(b"<Size>5</Size>", b"<Size>-5</Size>"), None),
        (whole.replace(b"<Size>5</Size>", b"<Size>9223372036854775808</Size>"), None),
        (whole.replace(b"<Size>5</Size>", b""), None),
        (b"<html><body>Welcome</body></html>", None),
        (b"", None),
    ):
        with pytest.raises(errors.CorruptAnswer):
            read(body, token)


def test_entities_are_not_expanded() -> None:
    evil = b'<!DOCTYPE x [<!ENTITY e SYSTEM "file:///etc/passwd">]>'
    body = listing(["k"]).replace(b"<ListBucketResult", evil + b"<ListBucketResult", 1)
    body = body.replace(b"<Key>k</Key>", b"<Key>k&e;</Key>")
    assert all("root" not in found.key for found in read(body).objects)


@given(st.lists(KEYS.filter(xml_can_carry), min_size=1))
def test_a_delete_body_names_each_key_exactly(keys: list[str]) -> None:
    root = etree.fromstring(delete_body(keys))
    assert [element.text for element in root.iter("{*}Key")] == keys


def test_keys_that_xml_cannot_carry_are_known() -> None:
    assert all(xml_can_carry(key) for key in ("a", "\n", "\r", "\t", "ü", "🎈", "<&>"))
    assert not any(xml_can_carry(key) for key in ("\x00", "\x1b", "\ufffe", "a\udcff"))


def test_failed_deletes_are_told_by_key_and_code() -> None:
    error = "<Error><Key>a&amp;b</Key><Code>AccessDenied</Code><Message>m</Message></Error>"
    gone = "<Error><Key>c</Key><Code>NoSuchKey</Code></Error>"
    body = f"<DeleteResult {NAMESPACE}><Deleted><Key>x</Key></Deleted>{error}{gone}</DeleteResult>"
    [failure] = parse_delete(body.encode())
    assert failure.key == "a&b"
    assert isinstance(failure.error, errors.AccessDenied)
    with pytest.raises(errors.CorruptAnswer):
        parse_delete(body.encode()[:-5])
    with pytest.raises(errors.SlowDown):
        parse_delete(b"<Error><Code>SlowDown</Code></Error>")


def test_pending_uploads_are_read_page_by_page() -> None:
    upload = (
        "<Upload><Key>k%41</Key><UploadId>U1</UploadId>"
        "<Initiated>2026-11-20T11:00:00.000Z</Initiated><Initiator><ID>me</ID></Initiator></Upload>"
    )
    markers = "<NextKeyMarker>k%41</NextKeyMarker><NextUploadIdMarker>U1</NextUploadIdMarker>"
    body = (
        f"<ListMultipartUploadsResult {NAMESPACE}><IsTruncated>true</IsTruncated>{markers}{upload}"
        "</ListMultipartUploadsResult>"
    )
    uploads, following = parse_uploads(body.encode(), "")
    assert uploads == [base.Upload("k%41", "U1", 1795172400.0, "me")]
    assert following == ("k%41", "U1")


def test_dates_are_whole_seconds_and_nonsense_is_zero() -> None:
    assert http_date("Fri, 20 Nov 2026 11:00:00 GMT") == 1795172400.0
    assert iso_date("2026-11-20T11:00:00.999Z") == 1795172400.0
    assert http_date("yesterday") == iso_date("yesterday") == http_date("") == 0.0


def test_an_error_without_a_body_is_typed_by_its_status() -> None:
    for status, kind in (
        (403, errors.AccessDenied),
        (404, errors.NotFound),
        (412, errors.PreconditionFailed),
        (416, errors.InvalidRange),
        (429, errors.SlowDown),
        (503, errors.SlowDown),
        (500, errors.ServerError),
        (418, errors.InvalidRequest),
    ):
        assert type(error_for("HeadObject", "k", status, "", "", "")) is kind
    assert type(error_for("ListObjectsV2", "", 404, "", "", "")) is errors.NoSuchBucket
