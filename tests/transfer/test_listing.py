"""Listings without a mount show what a mount shows, by few requests and within bounds."""

import tracemalloc
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from s3mount.core.config import MIB
from s3mount.core.location import parse_location
from s3mount.namespace import Inode, Namespace, StatCache
from s3mount.namespace.stat_cache import fingerprint
from s3mount.store import errors
from s3mount.store.memory import MemoryStore
from s3mount.transfer.entries import Entry
from s3mount.transfer.listing import Listed, Lister
from tests.unit.namespace_fixtures import DEFAULTS, Bench, entries_of

MARKER = {"content-type": "application/x-directory"}


async def listed(
    store: MemoryStore,
    where: str = "b",
    *,
    recursive: bool = False,
    attributes: bool = True,
    cache: StatCache | None = None,
    limit: int = 10**9,
) -> tuple[list[Entry], Listed]:
    found: list[Entry] = []

    def take(entries: Sequence[Entry]) -> bool:
        found.extend(entries)
        return len(found) < limit

    lister = Lister(store, DEFAULTS, cache, attributes=attributes)
    rest = await lister.view(parse_location(where), take, recursive=recursive)
    return found, rest


async def mounted_view(
    names: Namespace, inode: Inode, above: str = ""
) -> dict[str, tuple[int, int]]:
    """Mode and size by path, as programs see them."""
    view = {}
    for entry in await entries_of(names, inode):
        attributes = await names.attributes(entry.inode)
        path = above + entry.name
        view[path] = (attributes.mode, entry.inode.size)
        if entry.inode.is_directory:
            view |= await mounted_view(names, entry.inode, f"{path}/")
    return view


def shown(entries: Sequence[Entry]) -> dict[str, tuple[int, int]]:
    view = {}
    for entry in entries:
        assert entry.path not in view, "each name once"
        assert entry.attributes is not None
        view[entry.path] = (entry.attributes.mode, 0 if entry.is_directory else entry.size)
    return view


component = st.sampled_from(["a", "a-", "a.b", "b", "", ".", "..", "é", "z" * 256, "b_$folder$"])
keys = st.lists(component, min_size=1, max_size=3).map("/".join)
kinds = st.sampled_from(["data", "empty", "marker", "link", "octal directory", "octal file"])


def put(store: MemoryStore, key: str, kind: str) -> None:
    if kind == "marker":
        store.put_foreign(key, b"", {}, MARKER)
    elif kind == "octal directory":  # as S3 APU writes them
        store.put_foreign(key, b"", {"mode": "040750"}, MARKER)
    elif kind == "octal file":
        store.put_foreign(key, b"1", {"mode": "0100640"})
    elif kind == "link":
        store.put_foreign(key, b"target", {"mode": "41471"})
    else:
        store.put_foreign(key, b"data" if kind == "data" else b"")


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(keys, kinds, max_size=12), st.integers(1, 3), st.booleans())
async def test_it_is_the_view_of_a_mount(
    objects: dict[str, str], page_size: int, recursive: bool
) -> None:
    bench = Bench(page_size=page_size)
    for key, kind in objects.items():
        put(bench.store, key, kind)
    names = bench.namespace()
    expected = await mounted_view(names, names.root)
    entries, _ = await listed(bench.store, recursive=recursive)
    if not recursive:
        expected = {path: seen for path, seen in expected.items() if "/" not in path}
    seen = shown(entries)
    for path in seen.keys() & {key.removesuffix("_$folder$") for key in objects}:
        # Only a mount remembers that a legacy marker came after the directory it belongs to.
        if f"{path}/" not in objects and seen[path][0] == 0o040755:
            expected[path] = seen[path]
    assert seen == expected


async def test_attributes_that_a_mount_has_seen_are_not_asked_for_again(tmp_path: Path) -> None:
    bench = Bench()
    bench.put("d/", *(f"d/{n}" for n in range(50)), data=b"", mode="33184")
    bench.put("top", data=b"1", mode="33152")
    bench.clock.advance(10)  # nothing of it is racy any more
    cache = StatCache(tmp_path / "attributes", 1000)
    names = bench.namespace(stat_cache=cache)
    await mounted_view(names, names.root)
    await names.aclose()
    bench.requests()
    again = StatCache(tmp_path / "attributes", 1000, fingerprint=fingerprint(DEFAULTS))
    entries, _ = await listed(bench.store, recursive=True, cache=again)
    assert bench.requests() == {"ListObjectsV2": 1}
    assert {entry.path: entry.attributes.mode for entry in entries if entry.attributes} == {
        "d": 0o40640,  # of an inherited marker form: the type is the directory's
        "top": 0o100600,
        **{f"d/{n}": 0o100640 for n in range(50)},
    }


async def test_names_alone_cost_no_request_but_for_what_may_be_a_marker() -> None:
    bench = Bench(page_size=100)
    bench.put(*(f"k{n:03}" for n in range(250)), data=b"1")
    bench.put("empty", "sub/x")
    entries, _ = await listed(bench.store, attributes=False)
    assert len(entries) == 252
    assert bench.requests() == {"ListObjectsV2": 3, "HeadObject": 1}


async def test_whoever_has_enough_asks_for_no_more_pages() -> None:
    bench = Bench(page_size=10)
    bench.put(*(f"k{n:03}" for n in range(500)), data=b"1")
    entries, _ = await listed(bench.store, attributes=False, limit=15)
    assert 15 <= len(entries) <= 20  # the last one is certain with the next page
    assert bench.requests()["ListObjectsV2"] <= 3


async def test_what_cannot_be_shown_is_counted() -> None:
    bench = Bench()
    bench.put("a//b", "a//c", "a/../d", "f", "f/g", data=b"1")
    bench.put("//", "ok")
    entries, rest = await listed(bench.store, recursive=True)
    assert [entry.path for entry in entries] == ["a", "f", "f/g", "ok"]
    assert (rest.unreachable, rest.shadowed) == (4, 1)


async def test_the_attributes_of_the_buckets_root_are_not_a_name() -> None:
    bench = Bench()
    bench.put("/", "ok")
    for recursive in (False, True):
        entries, rest = await listed(bench.store, recursive=recursive)
        assert ([entry.path for entry in entries], rest.unreachable) == (["ok"], 0)


async def test_objects_that_may_not_be_read_are_listed_with_defaults_and_counted() -> None:
    def refuse(operation: str, key: str) -> None:
        if operation == "HeadObject":
            raise errors.AccessDenied("no", operation=operation, key=key)

    bench = Bench()
    bench.put("a", "b", data=b"1", mode="33152")
    bench.store.before = refuse
    entries, rest = await listed(bench.store)
    assert shown(entries) == {"a": (0o100644, 1), "b": (0o100644, 1)}
    assert rest.failures == 2
    assert isinstance(rest.first_failure, errors.AccessDenied)


@pytest.mark.parametrize(
    ("where", "found", "paths"),
    [
        ("b:/d", True, ["x"]),
        ("b:/d/", True, ["x"]),
        ("b:/d/x", True, ["d/x"]),
        ("b:/d/x/", False, []),
        ("b:/marker", True, []),
        ("b:/slash", True, []),
        ("b:/d/*", False, []),
        ("b:/nothing", False, []),
    ],
)
async def test_a_file_is_shown_itself_and_of_a_directory_what_is_in_it(
    where: str, found: bool, paths: list[str]
) -> None:
    bench = Bench()
    bench.put("d/x", data=b"1")
    bench.put("slash/")
    put(bench.store, "marker", "octal directory")
    entries, rest = await listed(bench.store, where)
    assert ([entry.path for entry in entries], rest.found) == (paths, found)


async def test_many_names_need_no_more_memory_than_their_pages() -> None:
    """At 100 keys a page: kept, they would be 5 MB."""
    bench = Bench(page_size=100)
    count = 10_000
    for n in range(count):
        bench.store.put_foreign(f"d{n % 30:03}/file-{n:06}", b"1")
    seen, peak = 0, 0

    def take(entries: Sequence[Entry]) -> bool:
        nonlocal seen, peak
        seen += len(entries)
        peak = max(peak, tracemalloc.get_traced_memory()[0])
        return True

    lister = Lister(bench.store, DEFAULTS, None, attributes=False)
    await listed(bench.store, attributes=False, limit=1)  # the store sorts its keys
    tracemalloc.start()
    try:
        await lister.view(parse_location("b"), take, recursive=True)
    finally:
        tracemalloc.stop()
    assert seen == count + 30
    assert peak < MIB
