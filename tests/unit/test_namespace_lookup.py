"""Names to inodes: what is known costs nothing, what is not costs as little as can be."""

import errno

import pytest
import trio

from s3mount.core.config import NamespaceConfig
from s3mount.core.errors import FilesystemError
from s3mount.namespace import ABSENT
from tests.unit.namespace_fixtures import DIRECTORY, FILE, Bench, errno_of, names_of


async def test_a_file_in_an_unlisted_directory_is_found_by_one_head_and_one_list() -> None:
    bench = Bench()
    bench.put("f", data=b"abc", mode="33184", uid="7", mtime="12.5")
    names = bench.namespace()
    inode = await names.lookup(names.root, "f")
    attributes = await names.attributes(inode)
    assert (inode.size, attributes.mode, attributes.uid) == (3, 0o100640, 7)
    assert attributes.mtime_ns == 12_500_000_000
    assert bench.requests() == {"HeadObject": 1, "ListObjectsV2": 1}


async def test_a_missing_name_in_a_listed_directory_costs_no_request() -> None:
    bench = Bench()
    bench.put("f", "d/g")
    names = bench.namespace()
    assert await names_of(names, names.root) == ["d", "f"]
    bench.requests()
    assert await errno_of(names, names.root, "nothing") == errno.ENOENT
    assert bench.requests() == {}


async def test_a_missing_name_is_remembered_for_the_ttl() -> None:
    bench = Bench()
    names = bench.namespace()
    assert await errno_of(names, names.root, "x") == errno.ENOENT
    assert bench.requests() == {"HeadObject": 1, "ListObjectsV2": 1}
    assert names.peek(names.root, "x") is ABSENT
    bench.put("x")
    bench.clock.advance(3.1)
    assert await errno_of(names, names.root, "x") is None


async def test_a_directory_made_here_is_known_to_be_empty() -> None:
    bench = Bench()
    names = bench.namespace()
    made = names.add(names.root, "d", DIRECTORY, directory=True)
    assert names.peek(made, "x") is ABSENT
    assert await names_of(names, made) == []
    assert bench.requests() == {}
    bench.put("d/x")
    bench.clock.advance(3.1)
    assert await errno_of(names, made, "x") is None


async def test_a_stale_listing_of_one_page_is_asked_for_again_once_for_all_names() -> None:
    bench = Bench()
    bench.put(*(f"f{number}" for number in range(200)), data=b"1")
    names = bench.namespace()
    await names_of(names, names.root)
    bench.clock.advance(3.1)
    bench.requests()
    for number in range(300):
        expected = None if number < 200 else errno.ENOENT
        assert await errno_of(names, names.root, f"f{number}") == expected
    assert bench.requests() == {"ListObjectsV2": 1}


async def test_a_listing_in_use_is_renewed_behind_before_it_is_stale() -> None:
    bench = Bench()
    bench.put("d/", *(f"d/f{number}" for number in range(20)), data=b"")
    names = bench.namespace()
    directory = await names.lookup(names.root, "d")
    await names_of(names, names.root)
    await names_of(names, directory)
    async with trio.open_nursery() as nursery:
        await nursery.start(names.run)
        bench.requests()
        for step in range(40):
            assert names.peek(directory, f"new{step}") is ABSENT  # never a wait
            assert names.peek(names.root, "d") is directory
            bench.clock.advance(0.25)
            await trio.testing.wait_all_tasks_blocked()
        # 10 s at a metadata-ttl of 3 s, renewed each 2.1 to 2.25 s, two directories.
        assert bench.requests()["ListObjectsV2"] in range(8, 11)
        nursery.cancel_scope.cancel()


async def test_a_listing_not_in_use_is_not_renewed() -> None:
    bench = Bench()
    bench.put("f", data=b"1")
    names = bench.namespace()
    await names_of(names, names.root)
    async with trio.open_nursery() as nursery:
        await nursery.start(names.run)
        bench.requests()
        bench.clock.advance(2.9)
        await trio.testing.wait_all_tasks_blocked()
        assert bench.requests() == {}
        nursery.cancel_scope.cancel()


async def test_a_directory_without_a_marker_needs_no_head() -> None:
    bench = Bench()
    bench.put("d/f", data=b"1")
    names = bench.namespace()
    directory = await names.lookup(names.root, "d")
    assert (await names.attributes(directory)).mode == 0o040755
    assert bench.requests() == {"HeadObject": 1, "ListObjectsV2": 1}  # of `d`, below `d/`


async def test_many_lookups_in_an_unlisted_directory_switch_to_listing_it() -> None:
    bench = Bench()
    bench.put(*(f"f{number:04}" for number in range(500)), data=b"1")
    names = bench.namespace()
    for number in range(500):
        assert await errno_of(names, names.root, f"f{number:04}") is None
    assert sum(bench.requests().values()) < 20


async def test_the_first_page_of_a_huge_directory_answers_for_its_names_only() -> None:
    bench = Bench(page_size=10)
    bench.put(*(f"f{number:03}" for number in range(100)), data=b"1")
    names = bench.namespace()
    for _ in range(8):
        await errno_of(names, names.root, f"none{_}")
    bench.requests()
    assert await errno_of(names, names.root, "f0035") == errno.ENOENT
    assert await errno_of(names, names.root, "f003x") == errno.ENOENT
    assert await errno_of(names, names.root, "f003") is None
    assert await errno_of(names, names.root, "f050") is None
    assert bench.requests()["ListObjectsV2"] < 5


async def test_concurrent_lookups_of_one_name_are_one() -> None:
    bench = Bench()
    bench.put("f", data=b"abc")
    names = bench.namespace()
    numbers = []

    async def look() -> None:
        numbers.append((await names.lookup(names.root, "f")).number)

    async with trio.open_nursery() as nursery:
        for _ in range(50):
            nursery.start_soon(look)
    assert len(set(numbers)) == 1
    assert bench.requests() == {"HeadObject": 1, "ListObjectsV2": 1}


async def test_all_marker_forms_are_directories() -> None:
    bench = Bench()
    bench.put("own/", mode="16877")
    bench.store.put_foreign(
        "apu", b"", {"mode": "040750"}, {"content-type": "application/x-directory"}
    )
    bench.put("hadoop_$folder$")
    bench.put("implied/x")
    names = bench.namespace()
    found = {}
    for name in ("own", "apu", "hadoop", "implied"):
        inode = await names.lookup(names.root, name)
        found[name] = (inode.is_directory, oct((await names.attributes(inode)).mode), inode.marker)
    assert found == {
        "own": (True, "0o40755", "own/"),
        "apu": (True, "0o40750", "apu"),
        "hadoop": (True, "0o40755", "hadoop_$folder$"),
        "implied": (True, "0o40755", None),
    }
    assert names.marker_key(await names.lookup(names.root, "hadoop")) == "hadoop_$folder$"


async def test_a_legacy_marker_is_found_behind_many_names_with_the_same_beginning() -> None:
    bench = Bench()
    bench.put(*(f"d{number:02}" for number in range(50)), "d_$folder$")
    names = bench.namespace()
    assert (await names.lookup(names.root, "d")).is_directory
    assert bench.requests() == {"HeadObject": 2, "ListObjectsV2": 1}


async def test_a_file_written_here_with_a_legacy_name_stays_a_file() -> None:
    bench = Bench()
    bench.put("x_$folder$", mode="33188")
    names = bench.namespace()
    assert not (await names.lookup(names.root, "x_$folder$")).is_directory
    assert await errno_of(names, names.root, "x") == errno.ENOENT
    assert await names_of(bench.namespace(), names.root) == ["x_$folder$"]


async def test_without_compat_dir_a_legacy_marker_is_a_file() -> None:
    bench = Bench()
    bench.put("x_$folder$", "d/y")
    names = bench.namespace(NamespaceConfig(compat_dir=False))
    assert await errno_of(names, names.root, "x") == errno.ENOENT
    assert (await names.lookup(names.root, "d")).is_directory
    assert not (await names.lookup(names.root, "x_$folder$")).is_directory


async def test_a_file_beside_a_directory_of_its_name_is_shadowed_and_reported() -> None:
    bench = Bench()
    bench.put("x", data=b"data")
    bench.put("x/y")
    names = bench.namespace()
    assert (await names.lookup(names.root, "x")).is_directory
    assert list(names.report()["shadowed_samples"]) == ["x"]  # type: ignore[call-overload]


async def test_a_new_version_of_another_host_is_a_new_inode() -> None:
    bench = Bench()
    bench.put("f", data=b"old")
    names = bench.namespace()
    old = await names.lookup(names.root, "f")
    names.inodes.acquire(old)
    bench.put("f", data=b"newer")
    bench.clock.advance(1.5)
    new = await names.revalidate(old)
    assert new is not old
    assert (new.size, old.size) == (5, 3)
    assert new.number != old.number
    assert old.detached
    assert bench.replaced == ["f"]
    assert await names.lookup(names.root, "f") is new
    assert await names.revalidate(old) is new
    assert names.inodes[old.number] is old
    names.inodes.forget(old.number, 1)
    with pytest.raises(FilesystemError) as caught:
        names.inodes[old.number]
    assert caught.value.errno == errno.ESTALE


async def test_revalidation_believes_an_answer_of_less_than_a_second_ago() -> None:
    bench = Bench()
    bench.put("f", data=b"old")
    names = bench.namespace()
    inode = await names.lookup(names.root, "f")
    bench.requests()
    bench.clock.advance(0.9)
    assert await names.revalidate(inode) is inode
    assert bench.requests() == {}
    bench.clock.advance(0.2)
    assert await names.revalidate(inode) is inode
    assert bench.requests() == {"HeadObject": 1}


async def test_revalidation_of_a_removed_file_is_enoent() -> None:
    bench = Bench()
    bench.put("f", data=b"old")
    names = bench.namespace()
    inode = await names.lookup(names.root, "f")
    bench.store.delete_foreign("f")
    bench.clock.advance(2)
    with pytest.raises(FilesystemError) as caught:
        await names.revalidate(inode)
    assert caught.value.errno == errno.ENOENT
    assert bench.replaced == ["f"]


async def test_other_metadata_on_the_same_bytes_is_the_same_inode_with_new_attributes() -> None:
    bench = Bench()
    bench.put("f", data=b"same", mode="33188")
    names = bench.namespace()
    inode = await names.lookup(names.root, "f")
    bench.clock.advance(5)
    bench.put("f", data=b"same", mode="33152")
    assert await names.lookup(names.root, "f") is inode
    assert (await names.attributes(inode)).mode == 0o100600


async def test_inode_numbers_are_the_same_after_a_remount() -> None:
    bench = Bench()
    bench.put("d/f", "g")
    numbers = []
    for _ in range(2):
        names = bench.namespace()
        directory = await names.lookup(names.root, "d")
        numbers.append(
            [directory.number, (await names.lookup(directory, "f")).number, names.root.number]
        )
    assert numbers[0] == numbers[1]
    assert numbers[0][2] == 1
    assert all(0 < number < 2**63 for number in numbers[0])


async def test_the_roots_attributes_are_those_of_its_marker() -> None:
    bench = Bench()
    bench.put("/", mode="16832", uid="5")
    bench.put("p/", mode="16893")
    names = bench.namespace()
    assert (await names.attributes(names.root)).mode == 0o040700
    inner = bench.namespace(prefix="p/")
    assert (await inner.attributes(inner.root)).mode == 0o040775
    assert (inner.key(inner.root), inner.marker_key(inner.root)) == ("p/", "p/")
    assert (names.key(names.root), names.marker_key(names.root)) == ("", "/")


async def test_with_listing_attributes_there_is_no_head() -> None:
    bench = Bench()
    bench.put("f", data=b"abc", mode="33152")
    names = bench.namespace(NamespaceConfig(attributes="listing"))
    await names_of(names, names.root)
    inode = await names.lookup(names.root, "f")
    assert (await names.attributes(inode)).mode == 0o100644
    assert (await names.attributes(names.root)).mode == 0o040755
    assert bench.requests() == {"ListObjectsV2": 1}


async def test_a_failed_lookup_is_not_remembered() -> None:
    bench = Bench()
    bench.put("f")
    names = bench.namespace()

    def fail(operation: str, key: str) -> None:
        if operation == "HeadObject":
            raise RuntimeError

    bench.store.before = fail
    with pytest.raises(RuntimeError):
        await names.lookup(names.root, "f")
    bench.store.before = None
    assert await errno_of(names, names.root, "f") is None


async def test_a_pinned_name_is_what_was_made_of_it_here() -> None:
    bench = Bench()
    bench.put("old", data=b"1")
    names = bench.namespace()
    old = await names.lookup(names.root, "old")
    names.detach(old)
    pins = [names.pin(names.root, "old"), names.pin(names.root, "new")]
    new = names.add(names.root, "new", FILE, directory=False)
    bench.clock.advance(10)
    assert await errno_of(names, names.root, "old") == errno.ENOENT
    assert await names_of(names, names.root) == ["new"]
    assert await names.lookup(names.root, "new") is new
    for pin in pins:
        pin.release()
        pin.release()
    bench.clock.advance(10)
    assert await errno_of(names, names.root, "old") is None
