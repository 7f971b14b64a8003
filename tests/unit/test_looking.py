"""Whether what is at a key is what a request of ours wrote whose answer was lost."""

from collections.abc import Mapping
from dataclasses import replace

import pytest

from s3mount.core.metadata import Attributes, encode
from s3mount.store import integrity
from s3mount.store.base import (
    ALWAYS,
    LARGE_BODY,
    WriteHeaders,
)
from s3mount.store.memory import ALL_CAPABILITIES, NO_CAPABILITIES, MemoryStore
from s3mount.writeback.looking import find_ours

ATTRIBUTES = Attributes(0o100644, 1, 2, 1_700_000_000_123_456_789, 1_700_000_000_987_654_321, 0)
HEADERS = WriteHeaders(encode(ATTRIBUTES, {"colour": "red"}))
DATA = b"some bytes"
MD5 = integrity.md5(DATA)


async def stored(data: bytes, metadata: Mapping[str, str] = HEADERS.metadata) -> MemoryStore:
    store = MemoryStore()
    await store.put("k", data, WriteHeaders(metadata), condition=ALWAYS)
    return store


async def test_nothing_there_is_not_ours() -> None:
    assert await find_ours(MemoryStore(), "k", 0, HEADERS, [integrity.md5(b"")]) is None


async def test_what_was_put_is_ours_with_its_etag() -> None:
    found = await find_ours(await stored(DATA), "k", len(DATA), HEADERS, [MD5])
    assert found is not None
    assert found.etag == MD5


async def test_metadata_tells_where_etags_do_not() -> None:
    """Encrypted, for example."""
    store = MemoryStore(capabilities=NO_CAPABILITIES)
    await store.put("k", DATA, HEADERS)
    found = await find_ours(store, "k", len(DATA), HEADERS, ["of-the-parts-2"])
    assert found is not None
    assert found.etag == MD5  # the one that counts from now on


async def test_another_size_is_not_ours() -> None:
    assert await find_ours(await stored(DATA), "k", len(DATA) + 1, HEADERS, [MD5]) is None


@pytest.mark.parametrize("changed", ["mode", "uid", "gid", "mtime_ns", "ctime_ns"])
async def test_the_same_bytes_with_other_attributes_are_not_ours(changed: str) -> None:
    """Two hosts make the same empty lock file: each has the ETag that the other expects."""
    other = replace(ATTRIBUTES, **{changed: getattr(ATTRIBUTES, changed) + 1})
    store = await stored(b"", encode(other))
    assert await find_ours(store, "k", 0, HEADERS, [integrity.md5(b"")]) is None


async def test_an_attribute_that_was_not_sent_is_not_ours() -> None:
    """An extended attribute set and removed within a tick of the clock: the same times."""
    more = replace(ATTRIBUTES, xattrs={"user.x": b"1"})
    store = await stored(DATA, encode(more, {"colour": "red"}))
    assert await find_ours(store, "k", len(DATA), HEADERS, [MD5]) is None


async def test_where_etags_tell_an_earlier_version_of_the_same_time_is_not_taken_for_it() -> None:
    """While an upload is under way mtime stands still."""
    assert await find_ours(await stored(DATA), "k", len(DATA), HEADERS, ["other"]) is None


async def test_where_etags_of_large_bodies_tell_nothing_the_metadata_does() -> None:
    store = MemoryStore(capabilities=replace(ALL_CAPABILITIES, large_md5_etags=False))
    for size, is_ours in ((LARGE_BODY, False), (LARGE_BODY + 1, True)):
        await store.put("k", bytes(size), HEADERS)
        found = await find_ours(store, "k", size, HEADERS, ["other"])
        assert (found is not None) is is_ours


async def test_what_was_to_be_replaced_is_not_what_was_to_be_written() -> None:
    assert await find_ours(await stored(DATA), "k", len(DATA), HEADERS, replaced=MD5) is None


async def test_what_lost_others_metadata_is_not_what_was_to_be_written() -> None:
    """A version published early, before it was known what the object carried."""
    store = await stored(DATA, encode(ATTRIBUTES))
    assert await find_ours(store, "k", len(DATA), HEADERS, [MD5]) is None


async def test_the_same_bytes_without_our_attributes_are_not_ours() -> None:
    store = await stored(DATA, {"colour": "red"})
    assert await find_ours(store, "k", len(DATA), HEADERS, [MD5]) is None


async def test_without_attributes_of_ours_the_etag_must_be_right() -> None:
    store = await stored(DATA, {"mtime": "1700000000.000000000"})
    plain = WriteHeaders({"mtime": "1700000000.000000000"})
    assert await find_ours(store, "k", len(DATA), plain, [MD5]) is not None
    assert await find_ours(store, "k", len(DATA), plain) is None
    assert await find_ours(store, "k", len(DATA), plain, [integrity.md5(b"other")]) is None
