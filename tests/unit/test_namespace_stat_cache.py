"""Attributes on disk: by version, bounded, and never trusted where they cannot be sure."""

import stat
from dataclasses import replace
from pathlib import Path

import trio

from s3mount.core.metadata import Attributes
from s3mount.namespace import StatCache, Version
from s3mount.namespace.stat_cache import Row
from s3mount.store.base import ListedObject
from tests.unit.namespace_fixtures import FILE, Bench, entries_of

MODIFIED = 1_700_000_000.0


def row(key: str, number: int = 5, *, answered_at: float = MODIFIED + 10) -> Row:
    attributes = Attributes(0o100640, 1, 2, -3, 4, 5, 6, {"user.x": b"\0\xff"})
    return Row.of(key, Version("etag", 7, MODIFIED), attributes, answered_at, number)


async def test_what_is_stored_is_loaded_by_the_next_process(tmp_path: Path) -> None:
    first = StatCache(tmp_path / "cache" / "stat.db", 1000)
    await first.store([row("d/a"), row("d/b/"), row("d/c/deep"), row("top", 2**63 - 1)])
    await first.aclose()
    second = StatCache(tmp_path / "cache" / "stat.db", 1000)
    loaded = await second.load("d/")
    assert loaded == {"a": row("d/a"), "b/": row("d/b/")}
    assert await second.load("d/", "b") == {"b/": row("d/b/")}
    assert await second.load("d/", "a", "a") == {"a": row("d/a")}
    assert (await second.load(""))["top"].number == 2**63 - 1
    await second.aclose()
    assert stat.S_IMODE((tmp_path / "cache" / "stat.db").stat().st_mode) == 0o600


def test_a_row_of_an_object_modified_just_before_the_answer_is_racy() -> None:
    assert row("a", answered_at=MODIFIED + 1).racy
    assert row("a", answered_at=0.0).racy
    assert not row("a", answered_at=MODIFIED + 2).racy


def test_a_row_matches_its_version_only() -> None:
    listed = ListedObject("a", 7, "etag", MODIFIED + 0.5)
    assert row("a").matches(listed)
    assert not row("a").matches(ListedObject("a", 8, "etag", MODIFIED))
    assert not row("a").matches(ListedObject("a", 7, "other", MODIFIED))
    assert not row("a").matches(ListedObject("a", 7, "etag", MODIFIED + 1))


async def test_the_number_of_rows_is_bounded_oldest_first(tmp_path: Path) -> None:
    cache = StatCache(tmp_path / "stat.db", 500)
    for start in range(0, 3000, 500):
        await cache.store([row(f"d/{number:04}") for number in range(start, start + 500)])
    loaded = await cache.load("d/")
    assert 500 <= len(loaded) <= 1500
    assert "2999" in loaded
    assert "0000" not in loaded
    await cache.aclose()


async def test_rows_of_other_options_are_dropped(tmp_path: Path) -> None:
    first = StatCache(tmp_path / "stat.db", 500, fingerprint="uid=1")
    await first.store([row("a")])
    await first.aclose()
    second = StatCache(tmp_path / "stat.db", 500, fingerprint="uid=2")
    assert await second.load("") == {}
    await second.aclose()


async def test_a_damaged_file_is_set_aside(tmp_path: Path) -> None:
    path = tmp_path / "stat.db"
    path.write_bytes(b"this is no database" * 1000)
    cache = StatCache(path, 500)
    assert await cache.load("") == {}
    await cache.store([row("a")])
    assert await cache.load("") == {"a": row("a")}
    await cache.aclose()
    assert (tmp_path / "stat.db.damaged").read_bytes().startswith(b"this is no database")


async def test_a_cache_that_cannot_be_written_is_done_without(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    cache = StatCache(tmp_path / "file" / "stat.db", 500)
    await cache.store([row("a")])
    assert await cache.load("") == {}
    await cache.aclose()


async def test_what_sqlite_cannot_hold_is_done_without(tmp_path: Path) -> None:
    """A size of a broken server, a key that is not UTF-8: no reason to end the mount."""
    cache = StatCache(tmp_path / "stat.db", 500)
    await cache.store([row("a")])
    await cache.store([row("b"), replace(row("large"), size=1 << 70)])
    await cache.store([row("not utf-8 \udcff")])
    assert await cache.load("", "not utf-8 \udcff") == {}
    await cache.store([row("c")])
    assert await cache.load("", "a", "c") == {name: row(name) for name in "abc"}
    await cache.aclose()


async def test_keys_that_are_not_utf_8_are_unreachable_and_no_name_beside_them_is(
    tmp_path: Path,
) -> None:
    bench = Bench()
    bench.put("a", "\udcfe", "m", "n/o", "z\udcff", data=b"1")
    names = bench.namespace(stat_cache=StatCache(tmp_path / "stat.db", 500))
    assert [entry.name for entry in await entries_of(names, names.root)] == ["a", "m", "n"]
    await names.aclose()


async def test_after_a_restart_a_listing_of_known_files_costs_only_lists(tmp_path: Path) -> None:
    bench = Bench(page_size=100)  # the last name of a page comes out with the next one
    bench.put(*(f"f{number:03}" for number in range(300)), data=b"1", mode="33152")
    bench.put("link", data=b"target", mode="41471")
    bench.store.put_foreign(
        "apu", b"", {"mode": "040750"}, {"content-type": "application/x-directory"}
    )
    bench.clock.advance(60)
    shown = []
    for _ in range(2):
        cache = StatCache(tmp_path / "stat.db", 10_000)
        names = bench.namespace(stat_cache=cache)
        entries = await entries_of(names, names.root)
        shown.append(
            [
                (entry.name, entry.inode.number, await names.attributes(entry.inode))
                for entry in entries
            ]
        )
        await names.aclose()
        counted = bench.requests()
        if len(shown) == 1:
            assert counted["HeadObject"] >= 302
    assert shown[0] == shown[1]
    assert counted == {"ListObjectsV2": 4}
    modes = {name: oct(attributes.mode) for name, _, attributes in shown[1]}
    assert (modes["link"], modes["apu"], modes["f000"]) == ("0o120777", "0o40750", "0o100600")


async def test_a_marker_seen_in_its_own_listing_is_known_after_a_restart(tmp_path: Path) -> None:
    bench = Bench()
    bench.put("d/", mode="16832")
    bench.clock.advance(60)
    for heads in (1, 0):
        names = bench.namespace(stat_cache=StatCache(tmp_path / "stat.db", 10_000))
        directory = await names.lookup(names.root, "d")
        bench.requests()
        assert await entries_of(names, directory) == []
        assert (await names.attributes(directory)).mode == 0o040700
        assert bench.requests().get("HeadObject", 0) == heads
        await names.aclose()


async def test_what_was_written_here_is_known_after_a_restart_only_if_it_is_not_racy(
    tmp_path: Path,
) -> None:
    bench = Bench()
    bench.put("f", data=b"1", mode="33188")
    stored = bench.store.objects["f"]
    numbers: list[int] = []
    for answered_at, heads in ((stored.last_modified, 1), (stored.last_modified + 5, 0)):
        names = bench.namespace(stat_cache=StatCache(tmp_path / "stat.db", 10_000))
        if not numbers:
            other = names.add(names.root, "g", FILE, directory=False)
            names.move(other, names.root, "f")
            inode = other
        else:
            inode = (await entries_of(names, names.root))[0].inode
        version = Version(stored.etag, 1, stored.last_modified)
        names.committed(inode, version, FILE, key="f", answered_at=answered_at)
        numbers.append(inode.number)
        await names.aclose()
        bench.clock.advance(10)
        bench.requests()
        again = bench.namespace(stat_cache=StatCache(tmp_path / "stat.db", 10_000))
        entry = (await entries_of(again, again.root))[0]
        assert entry.inode.number == numbers[0]
        assert bench.requests().get("HeadObject", 0) == heads
        await again.aclose()


async def test_a_walk_over_known_directories_costs_only_lists(tmp_path: Path) -> None:
    bench = Bench(page_size=30)
    bench.put(*(f"d{d:02}/f{f}" for d in range(20) for f in range(10)), data=b"1", mode="33152")
    bench.put(*(f"d{d:02}/" for d in range(20)), mode="16832")
    bench.clock.advance(60)
    for _ in range(2):
        names = bench.namespace(stat_cache=StatCache(tmp_path / "stat.db", 10_000))
        async with trio.open_nursery() as nursery:
            await nursery.start(names.run)
            bench.requests()
            for directory in await entries_of(names, names.root):
                for entry in await entries_of(names, directory.inode):
                    assert (await names.attributes(entry.inode)).mode == 0o100600
                assert (await names.attributes(directory.inode)).mode == 0o040700
            nursery.cancel_scope.cancel()
        await names.aclose()
        counted = bench.requests()
    # Listing the directory above shows no versions of markers: those are asked for.
    assert counted["HeadObject"] <= 20
    assert counted["ListObjectsV2"] <= 12
