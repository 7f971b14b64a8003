"""The contract of listings and of deleting many."""

import pytest

from s3mount.store import errors
from s3mount.store.base import (
    ObjectStore,
    WriteHeaders,
)

NOTHING = WriteHeaders()


async def put_all(store: ObjectStore, keys: list[str]) -> None:
    for key in keys:
        await store.put(key, b"x", NOTHING)


async def all_pages(
    store: ObjectStore, prefix: str, max_keys: int, delimiter: str = "/"
) -> tuple[list[str], list[str], int]:
    """Keys, common prefixes, number of pages."""
    keys: list[str] = []
    prefixes: list[str] = []
    token, pages = None, 0
    while True:
        page = await store.list(prefix, delimiter=delimiter, token=token, max_keys=max_keys)
        assert len(page.objects) + len(page.prefixes) <= max_keys
        keys += [found.key for found in page.objects]
        prefixes += page.prefixes
        pages += 1
        token = page.next_token
        if token is None:
            return keys, prefixes, pages


async def test_a_listing_shows_size_etag_and_date_as_head_does(store: ObjectStore) -> None:
    await store.put("k", b"hello", NOTHING)
    [listed] = (await store.list("")).objects
    head = await store.head("k")
    assert (listed.key, listed.size, listed.etag) == ("k", head.size, head.etag)
    assert listed.last_modified == head.last_modified
    assert listed.storage_class == "STANDARD"


async def test_a_delimiter_folds_what_lies_below(store: ObjectStore) -> None:
    await put_all(store, ["a", "b/1", "b/2", "b/c/3", "c/", "d"])
    page = await store.list("")
    assert [found.key for found in page.objects] == ["a", "d"]
    assert list(page.prefixes) == ["b/", "c/"]
    below = await store.list("b/")
    assert [found.key for found in below.objects] == ["b/1", "b/2"]
    assert list(below.prefixes) == ["b/c/"]
    assert below.next_token is None
    assert below.answered_at > 0
    assert below.asked_at > 0


async def test_a_prefix_that_is_a_marker_lists_itself(store: ObjectStore) -> None:
    await put_all(store, ["d/", "d/x"])
    assert [found.key for found in (await store.list("d/")).objects] == ["d/", "d/x"]


async def test_nothing_below_a_prefix_is_an_empty_page(store: ObjectStore) -> None:
    await put_all(store, ["a"])
    page = await store.list("missing/")
    assert (list(page.objects), list(page.prefixes), page.next_token) == ([], [], None)


@pytest.mark.parametrize("max_keys", [1, 2, 3, 7])
async def test_pages_hold_every_name_once_in_order(store: ObjectStore, max_keys: int) -> None:
    names = ["a", "b/1", "b/2", "b/3", "c", "d/1", "d b", "d+b", "e%41", "f/", "g/x/y", "ü"]
    await put_all(store, names)
    keys, prefixes, pages = await all_pages(store, "", max_keys)
    assert keys == sorted(["a", "c", "d b", "d+b", "e%41", "ü"])
    assert prefixes == ["b/", "d/", "f/", "g/"]
    assert pages >= -(-10 // max_keys)
    keys, prefixes, _ = await all_pages(store, "", max_keys, delimiter="")
    assert keys == sorted(names)
    assert prefixes == []


async def test_start_after_skips_up_to_that_key(store: ObjectStore) -> None:
    await put_all(store, ["a", "b", "c d", "e"])
    page = await store.list("", start_after="b")
    assert [found.key for found in page.objects] == ["c d", "e"]
    page = await store.list("", start_after="c d", delimiter="")
    assert [found.key for found in page.objects] == ["e"]


async def test_more_than_1000_keys_are_listed_and_deleted_in_batches(store: ObjectStore) -> None:
    names = [f"many/{number:05}" for number in range(1003)]
    await put_all(store, names)
    keys, _, pages = await all_pages(store, "many/", 1000)
    assert keys == names
    assert pages == 2
    with pytest.raises(errors.InvalidRequest):
        await store.delete_many(names)
    before = store.counts().get("DeleteObjects", 0)
    assert await store.delete_many(names[:1000]) == []
    assert store.counts()["DeleteObjects"] == before + 1
    assert [found.key for found in (await store.list("many/")).objects] == names[1000:]


async def test_check_bucket_is_one_small_request(store: ObjectStore) -> None:
    await put_all(store, ["p/a", "p/b"])
    before = store.counts().get("ListObjectsV2", 0)
    await store.check_bucket("p/")
    assert store.counts()["ListObjectsV2"] == before + 1
