"""A walk over sub-directories costs a flat LIST of the tree."""

import pytest

from s3mount.core.config import NamespaceConfig
from s3mount.namespace import Inode, Namespace
from tests.unit.namespace_fixtures import Bench, entries_of, names_of, running


async def walk(names: Namespace, inode: Inode, path: str = "") -> list[str]:
    """As find does it: a directory is read to its end, then its sub-directories in order."""
    found = []
    entries = await entries_of(names, inode)
    for entry in entries:
        found.append(path + entry.name)
        await names.attributes(await names.lookup(inode, entry.name))
        if entry.inode.is_directory:
            found += await walk(names, entry.inode, f"{path}{entry.name}/")
    return found


async def test_find_over_many_directories_costs_few_lists() -> None:
    bench = Bench()
    keys = [f"d{d:03}/f{f:02}" for d in range(200) for f in range(50)]
    bench.put(*keys, data=b"1")
    names = bench.namespace(NamespaceConfig(attributes="listing"))
    async with running(names):
        found = await walk(names, names.root)
    assert found == sorted({f"d{d:03}" for d in range(200)} | set(keys))
    assert bench.requests() == {"ListObjectsV2": 12}


@pytest.mark.parametrize("page_size", [1, 3, 10, 1000])
async def test_a_walk_shows_what_single_listings_show(page_size: int) -> None:
    bench = Bench(page_size=page_size)
    for name in "abcdefgh":
        bench.put(f"{name}/x", f"{name}/x-1", f"{name}/x/y", f"{name}/sub/deep/z", data=b"data")
        bench.put(f"{name}/", f"{name}/empty/", f"{name}/old_$folder$")
        bench.put(f"{name}//bad", f"{name}/./worse", f"{name}/sub/../z", f"{name}//b/c", data=b"1")
        bench.put(f"{name}x", data=b"between")
    results = []
    reports = []
    for prefetch in (False, True):
        names = bench.namespace(NamespaceConfig(prefetch_tree=prefetch))
        async with running(names):
            results.append(await walk(names, names.root))
        report = names.report()
        reports.append({key: report[key] for key in report if "able" in key or "shadow" in key})
    assert results[0] == results[1]
    assert "a/old" in results[0]
    assert "a/x/y" in results[0]
    assert reports[0]["unreachable"] == 24
    assert reports[0] == reports[1]


async def test_attributes_of_all_are_known_and_each_is_asked_for_once() -> None:
    bench = Bench()
    bench.put(*(f"d{d:02}/f{f}" for d in range(20) for f in range(10)), data=b"1", mode="33152")
    bench.put(*(f"d{d:02}/" for d in range(20)), mode="16832")
    bench.clock.advance(60)
    names = bench.namespace()
    async with running(names):
        await walk(names, names.root)
        modes = set()
        for d in range(20):
            directory = await names.lookup(names.root, f"d{d:02}")
            modes.add(oct((await names.attributes(directory)).mode))
            modes |= {
                oct((await names.attributes(entry.inode)).mode)
                for entry in await entries_of(names, directory)
            }
    assert modes == {"0o40700", "0o100600"}
    # The directories', the files', and one that says that the root has no marker.
    assert bench.requests()["HeadObject"] <= 20 + 200 + 1


async def test_changes_here_during_a_walk_stay() -> None:
    bench = Bench(page_size=20)
    bench.put(*(f"d{d:02}/f{f}" for d in range(20) for f in range(10)), data=b"x" * 5000)
    names = bench.namespace()
    async with running(names):
        directories = [entry.inode for entry in await entries_of(names, names.root)]
        pins = []
        for index, directory in enumerate(directories):
            assert len(await names_of(names, directory)) == 10
            if index + 3 < len(directories):
                victim = directories[index + 2]
                found = await names.lookup(victim, "f3")
                pins.append(names.pin(victim, "f3"))
                names.detach(found)
                pins.append(names.pin(victim, "new"))
                names.add(
                    victim, "new", found.attributes or names.provisional(found), directory=False
                )
        assert "f3" not in await names_of(names, directories[5])
        assert "new" in await names_of(names, directories[5])


async def test_a_huge_sub_directory_streams_instead() -> None:
    bench = Bench(page_size=10)
    bench.put("a/x", "c/x", "d/x", "e/x", data=b"x" * 5000)
    bench.put(*(f"b/{number:03}" for number in range(200)), data=b"x" * 5000)
    names = bench.namespace()
    async with running(names):
        directories = [entry.inode for entry in await entries_of(names, names.root)]
        await names_of(names, directories[0])
        bench.requests()
        cursor = names.open_directory(directories[1])
        assert (await cursor.read(0))[0].name == "000"
        assert bench.requests()["ListObjectsV2"] < 12
        assert len(await names_of(names, directories[1])) == 200


async def test_an_error_in_the_walk_is_no_error_of_the_reader() -> None:
    bench = Bench()
    bench.put(*(f"d{d:02}/f" for d in range(20)), data=b"x" * 5000)
    failed: list[str] = []

    def fail(operation: str, key: str) -> None:
        from s3mount.store.errors import ServerError

        if operation == "ListObjectsV2" and key == "" and failed:
            raise ServerError("no")
        failed.append(key)

    bench.store.before = fail
    names = bench.namespace()
    async with running(names):
        assert len(await walk(names, names.root)) == 40
