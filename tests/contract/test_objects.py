"""The contract of single objects: put, head, get, copy, delete. Every store keeps it."""

import time

import pytest

from s3mount.store import errors
from s3mount.store.base import (
    Condition,
    ObjectStore,
    SlicedBody,
    WriteHeaders,
)

NOTHING = WriteHeaders()
ODD_KEYS = [
    "plain",
    "with blank",
    "plus+sign",
    "percent%41",
    "percent%zz",
    "a/b/c",
    "dir/",
    "ünïcödé/日本語/🎈",
    "..",
    "a/../b",
    "./x",
    "a//b",
    "//double",
    "/lead",
    "tab\there",
    "q?a=b&c#d",
    "!$'()*,;:@=~",
    'quote"back\\slash',
    "<xml>&amp;",
    "[brackets]{braces}^`|",
    "trailing blank ",
    "x" * 1024,
]


def without_newlines(store_name: str) -> bool:
    """moto's web framework takes no newline in a path."""
    return store_name in {"moto", "strict"}


def odd_keys(store_name: str) -> list[str]:
    return ODD_KEYS if without_newlines(store_name) else [*ODD_KEYS, "new\nline", "cr\rhere"]


async def test_an_object_comes_back_as_it_was_put(store: ObjectStore) -> None:
    headers = WriteHeaders(
        {"mode": "33188", "mtime": "1.5", "a-b": "c d"},
        {"content-type": "text/plain", "cache-control": "max-age=3"},
    )
    before = time.time()
    result = await store.put("k", b"hello", headers)
    got = await store.get("k")
    assert got.data == b"hello"
    assert got.start == 0
    assert got.info.key == "k"
    assert got.info.size == 5
    assert got.info.etag == result.etag
    assert dict(got.info.metadata) == dict(headers.metadata)
    assert got.info.headers["content-type"] == "text/plain"
    assert got.info.headers["cache-control"] == "max-age=3"
    after = time.time()
    assert before - 5 < got.info.last_modified < after + 5
    assert got.info.last_modified == int(got.info.last_modified)
    assert before - 5 < got.info.answered_at < after + 5
    assert 0 < got.info.asked_at <= time.monotonic()


async def test_head_tells_what_get_tells(store: ObjectStore) -> None:
    await store.put("k", b"hello", WriteHeaders({"uid": "7"}))
    head, got = await store.head("k"), (await store.get("k")).info
    assert (head.size, head.etag, head.last_modified) == (got.size, got.etag, got.last_modified)
    assert dict(head.metadata) == dict(got.metadata) == {"uid": "7"}
    assert head.headers == got.headers


async def test_odd_keys_are_stored_listed_and_deleted_as_they_are(
    store: ObjectStore, store_name: str
) -> None:
    keys = odd_keys(store_name)
    for key in keys:
        await store.put(key, key.encode(), NOTHING)
    for key in keys:
        assert (await store.get(key)).data == key.encode()
        assert (await store.head(key)).size == len(key.encode())
    page = await store.list("", delimiter="")
    assert [found.key for found in page.objects] == sorted(keys, key=str.encode)
    assert await store.delete_many(keys) == []
    assert (await store.list("", delimiter="")).objects == []


async def test_odd_keys_can_be_copied_and_deleted_singly(
    store: ObjectStore, store_name: str
) -> None:
    for key in odd_keys(store_name):
        await store.put(key, key.encode(), NOTHING)
        await store.copy(key, "copy")
        assert (await store.get("copy")).data == key.encode()
        await store.delete(key)
        with pytest.raises(errors.NotFound):
            await store.head(key)


async def test_what_is_not_there_is_not_found(store: ObjectStore) -> None:
    with pytest.raises(errors.NotFound) as caught:
        await store.head("missing")
    assert caught.value.key == "missing"
    assert not caught.value.transient
    with pytest.raises(errors.NotFound):
        await store.get("missing")
    with pytest.raises(errors.NotFound):
        await store.copy("missing", "target")


async def test_ranges_are_cut_at_the_end(store: ObjectStore) -> None:
    await store.put("k", b"0123456789", NOTHING)
    for start, length, expected in [
        (0, None, b"0123456789"),
        (3, None, b"3456789"),
        (0, 4, b"0123"),
        (3, 4, b"3456"),
        (8, 100, b"89"),
        (9, 1, b"9"),
        (0, 0, b""),
        (5, 0, b""),
    ]:
        got = await store.get("k", start, length)
        assert (got.start, got.data, got.info.size) == (start, expected, 10)


async def test_a_range_behind_the_end_is_invalid(store: ObjectStore) -> None:
    await store.put("k", b"0123456789", NOTHING)
    for start in (10, 11):
        with pytest.raises(errors.InvalidRange):
            await store.get("k", start, 1)


async def test_an_empty_object_answers_no_bytes(store: ObjectStore) -> None:
    await store.put("empty", b"", WriteHeaders({"mode": "1"}))
    for length in (None, 0, 1, 100):
        got = await store.get("empty", 0, length)
        assert (got.data, got.info.size) == (b"", 0)
        assert dict(got.info.metadata) == {"mode": "1"}
    with pytest.raises(errors.InvalidRange):
        await store.get("empty", 1, 1)


async def test_get_if_match_refuses_another_version(store: ObjectStore) -> None:
    first = (await store.put("k", b"first", NOTHING)).etag
    assert (await store.get("k", if_match=first)).data == b"first"
    await store.put("k", b"second", NOTHING)
    with pytest.raises(errors.PreconditionFailed):
        await store.get("k", if_match=first)
    with pytest.raises(errors.PreconditionFailed):
        await store.get("k", 2, 2, if_match=first)


async def test_get_if_none_match_tells_that_nothing_changed(store: ObjectStore) -> None:
    first = (await store.put("k", b"first", NOTHING)).etag
    with pytest.raises(errors.NotModified):
        await store.get("k", if_none_match=first)
    await store.put("k", b"second", NOTHING)
    assert (await store.get("k", if_none_match=first)).data == b"second"


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
async def test_any_kind_of_buffer_can_be_put(
    store: ObjectStore, kind: type[bytes | bytearray | memoryview]
) -> None:
    data = bytes(range(256)) * 8192  # 2 MiB: sent in slices
    await store.put("k", kind(data), NOTHING)
    assert (await store.get("k")).data == data


async def test_a_sliced_body_arrives_whole(store: ObjectStore) -> None:
    data = bytes(range(256)) * 12_000
    body = SlicedBody(len(data), lambda offset, length: data[offset : offset + length], 1_000_000)
    await store.put("k", body, NOTHING)
    assert (await store.get("k")).data == data


async def test_put_replaces_bytes_metadata_and_headers(store: ObjectStore) -> None:
    await store.put("k", b"old", WriteHeaders({"mode": "1"}, {"content-type": "text/plain"}))
    await store.put("k", b"new one", WriteHeaders({"uid": "2"}, {"content-type": "image/png"}))
    got = await store.get("k")
    assert got.data == b"new one"
    assert dict(got.info.metadata) == {"uid": "2"}
    assert got.info.headers["content-type"] == "image/png"


async def test_conditions_are_honoured_where_the_capabilities_say_so(store: ObjectStore) -> None:
    can = await store.capabilities()
    assert can.put_if_absent
    assert can.put_if_match
    first = await store.put("k", b"first", NOTHING, condition=Condition(absent=True))
    with pytest.raises(errors.PreconditionFailed):
        await store.put("k", b"other", NOTHING, condition=Condition(absent=True))
    second = await store.put("k", b"second", NOTHING, condition=Condition(etag=first.etag))
    with pytest.raises(errors.PreconditionFailed):
        await store.put("k", b"third", NOTHING, condition=Condition(etag=first.etag))
    got = await store.get("k")
    assert (got.data, got.info.etag) == (b"second", second.etag)


async def test_if_match_on_a_key_that_vanished_fails(store: ObjectStore) -> None:
    etag = (await store.put("k", b"first", NOTHING)).etag
    await store.delete("k")
    with pytest.raises((errors.PreconditionFailed, errors.NotFound)):
        await store.put("k", b"second", NOTHING, condition=Condition(etag=etag))


async def test_deleting_what_is_not_there_succeeds(store: ObjectStore) -> None:
    await store.delete("missing")
    assert await store.delete_many(["missing", "missing too"]) == []


async def test_a_copy_keeps_bytes_metadata_and_headers(store: ObjectStore) -> None:
    headers = WriteHeaders({"mode": "33188"}, {"content-type": "text/plain"})
    source = await store.put("source", b"data", headers)
    copied = await store.copy("source", "target", source_etag=source.etag)
    got = await store.get("target")
    assert got.data == b"data"
    assert got.info.etag == copied.etag
    assert dict(got.info.metadata) == {"mode": "33188"}
    assert got.info.headers["content-type"] == "text/plain"
    assert (await store.get("source")).data == b"data"


async def test_a_copy_onto_itself_replaces_metadata_and_headers(store: ObjectStore) -> None:
    old = WriteHeaders({"mode": "1", "foreign": "x"}, {"content-type": "text/plain"})
    etag = (await store.put("k", b"data", old)).etag
    new = WriteHeaders({"mode": "2"}, {"content-type": "text/css", "cache-control": "no-cache"})
    await store.copy("k", "k", source_etag=etag, replace=new)
    got = await store.get("k")
    assert got.data == b"data"
    assert dict(got.info.metadata) == {"mode": "2"}
    assert got.info.headers["content-type"] == "text/css"
    assert got.info.headers["cache-control"] == "no-cache"


async def test_a_copy_of_another_version_is_refused(store: ObjectStore) -> None:
    etag = (await store.put("source", b"first", NOTHING)).etag
    await store.put("source", b"second", NOTHING)
    with pytest.raises(errors.PreconditionFailed):
        await store.copy("source", "target", source_etag=etag)
    with pytest.raises(errors.NotFound):
        await store.head("target")


async def test_a_key_over_1024_bytes_is_refused_before_any_request(store: ObjectStore) -> None:
    before = dict(store.counts())
    for key in ("x" * 1025, "ü" * 513):
        with pytest.raises(errors.KeyTooLong):
            await store.put(key, b"", NOTHING)
        with pytest.raises(errors.KeyTooLong):
            await store.head(key)
    assert dict(store.counts()) == before


async def test_metadata_over_2_kib_is_refused_before_any_request(store: ObjectStore) -> None:
    await store.put("k", b"", WriteHeaders({"xattr": "x" * 2000}))
    assert (await store.head("k")).metadata["xattr"] == "x" * 2000
    before = dict(store.counts())
    with pytest.raises(errors.MetadataTooLarge):
        await store.put("k", b"", WriteHeaders({"xattr": "x" * 2048}))
    with pytest.raises(errors.MetadataTooLarge):
        await store.copy("k", "k", replace=WriteHeaders({"xattr": "x" * 2048}))
    assert dict(store.counts()) == before


async def test_requests_are_counted_by_name(store: ObjectStore) -> None:
    await store.put("k", b"12345", NOTHING)
    await store.get("k", 0, 3)
    with pytest.raises(errors.NotFound):
        await store.head("missing")
    counts = store.counts()
    assert counts["PutObject"] == counts["GetObject"] == counts["HeadObject"] == 1
    assert counts["BytesOut"] == 5
    assert counts["BytesIn"] == 3
    assert counts.get("Retries", 0) == counts.get("SlowDowns", 0) == 0


@pytest.mark.parametrize("key", ["plain", "a/with blank", "percent%41"])
async def test_tags_are_written_read_and_replaced(store: ObjectStore, key: str) -> None:
    tags = {"project": "s3 mount", "a/b:c": "+x=1-y_z.@"}
    await store.put(key, b"x", NOTHING)
    assert await store.tags(key) == {}
    await store.put_tags(key, tags)
    assert await store.tags(key) == tags
    assert (await store.head(key)).headers["x-amz-tagging-count"] == "2"
    await store.put_tags(key, {"one": ""})
    assert await store.tags(key) == {"one": ""}
    assert (await store.get(key)).data == b"x"
    with pytest.raises(errors.NotFound):
        await store.tags("missing")
