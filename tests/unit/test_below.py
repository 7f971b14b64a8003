"""What the rename of a directory holds in memory."""

import errno

import pytest

from s3mount.core.errors import FilesystemError
from s3mount.store.memory import MemoryStore
from s3mount.writeback import below
from s3mount.writeback.below import all_below


async def test_it_lists_all_but_what_is_known_in_the_same_version() -> None:
    store = MemoryStore(page_size=2)
    for key in ("a/1", "a/2", "a/3", "a/4", "b/1"):
        store.put_foreign(key, key.encode())
    first = await all_below(store, "a/")
    assert [one.key for one in first] == ["a/1", "a/2", "a/3", "a/4"]
    known = {one.key: one.etag for one in first[:3]}
    store.put_foreign("a/2", b"new")
    assert [one.key for one in await all_below(store, "a/", known)] == ["a/2", "a/4"]


@pytest.mark.parametrize("known", [0, 5])
async def test_a_tree_without_end_is_an_error_with_a_remedy(
    monkeypatch: pytest.MonkeyPatch, known: int
) -> None:
    monkeypatch.setattr(below, "MOST_OBJECTS", 10)
    store = MemoryStore(page_size=3)
    for number in range(100):
        store.put_foreign(f"a/{number:03}", b"x")
    before = {f"b/{number}": "etag" for number in range(known)}
    with pytest.raises(FilesystemError, match="s3mount mv") as caught:
        await all_below(store, "a/", before)
    assert caught.value.errno == errno.EFBIG
    assert store.counts()["ListObjectsV2"] == (10 - known) // 3 + 1
