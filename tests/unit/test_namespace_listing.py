"""Reading directories: each name once, whatever the bucket holds and whatever happens meanwhile."""

import errno

import pytest
import trio
import trio.testing

from s3mount.core.config import NamespaceConfig
from s3mount.core.errors import FilesystemError
from s3mount.namespace import ABSENT, DirectoryEntry, Version, listing
from tests.unit.namespace_fixtures import (
    DIRECTORY,
    FILE,
    Bench,
    Gate,
    entries_of,
    errno_of,
    names_of,
)


@pytest.mark.parametrize("page_size", [1, 2, 3, 7, 1000])
async def test_a_name_is_shown_once_as_a_directory_however_far_its_slash_is(page_size: int) -> None:
    bench = Bench(page_size=page_size)
    bench.put("x", data=b"hidden")
    bench.put(*(f"x-{number}" for number in range(20)), "x/y", "x0", "x-1/z", "x!", data=b"1")
    names = bench.namespace()
    entries = await entries_of(names, names.root)
    shown = sorted((entry.name, entry.inode.is_directory) for entry in entries)
    expected = [(f"x-{number}", number == 1) for number in range(20)]
    assert shown == sorted([*expected, ("x", True), ("x0", False), ("x!", False)])
    assert names.report()["shadowed_samples"] == {
        "x": "a directory of the same name is shown",
        "x-1": "a directory of the same name is shown",
    }


@pytest.mark.parametrize("page_size", [1, 3, 1000])
async def test_keys_that_no_path_can_name_are_skipped_and_reported(page_size: int) -> None:
    bench = Bench(page_size=page_size)
    bad = ["/lead", "d//x", "d/./x", "d/../x", "d/" + "n" * 256, "d/a\0b", "//"]
    bench.put(*bad, "d/good", data=b"1")
    names = bench.namespace()
    assert await names_of(names, names.root) == ["d"]
    directory = await names.lookup(names.root, "d")
    assert await names_of(names, directory) == ["good"]
    report = names.report()
    assert report["unreachable"] == 6
    assert set(report["unreachable_samples"]) == {  # type: ignore[call-overload]
        "/",
        "d//",
        "d/./",
        "d/../",
        "d/" + "n" * 256,
        "d/a\0b",
    }


async def test_the_roots_own_marker_is_no_oddity() -> None:
    bench = Bench()
    bench.put("/", "f", mode="16832")
    names = bench.namespace()
    assert await names_of(names, names.root) == ["f"]
    assert names.report()["unreachable"] == 0


async def test_all_marker_forms_are_listed_as_directories_once() -> None:
    bench = Bench()
    bench.put("own/", "hadoop_$folder$", "implied/x", "both/", "both_$folder$", "file")
    bench.put("full_$folder$", "full/x", mode="16832")
    content = {"content-type": "application/x-directory"}
    bench.store.put_foreign("apu", b"", {"mode": "040750"}, content)
    bench.store.put_foreign("filled", b"", {"mode": "040750"}, content)
    bench.put("filled/x")
    names = bench.namespace()
    entries = {entry.name: entry.inode for entry in await entries_of(names, names.root)}
    assert {name: inode.is_directory for name, inode in entries.items()} == {
        "own": True,
        "hadoop": True,
        "implied": True,
        "both": True,
        "apu": True,
        "filled": True,
        "full": True,
        "file": False,
    }
    assert len(await names_of(names, names.root)) == 8
    bench.replaced.clear()  # apu looked like an empty file at first
    assert (await names.attributes(entries["filled"])).mode == 0o040750
    assert (await names.attributes(entries["full"])).mode == 0o040700
    assert entries["filled"].marker == "filled"
    assert entries["full"].marker == "full_$folder$"
    assert names.report()["shadowed"] == 0
    bench.clock.advance(5)
    again = {entry.name: entry.inode for entry in await entries_of(names, names.root)}
    assert again == entries
    assert bench.replaced == []


async def test_a_legacy_marker_beside_a_file_hides_nothing() -> None:
    bench = Bench()
    bench.put("x", "x_$folder$", data=b"")
    bench.put("x", data=b"data")
    names = bench.namespace()
    entries = await entries_of(names, names.root)
    assert [(entry.name, entry.inode.is_directory) for entry in entries] == [("x", False)]
    assert list(names.report()["shadowed_samples"]) == ["x_$folder$"]  # type: ignore[call-overload]


async def test_types_that_a_listing_does_not_tell_are_known_when_readdir_answers() -> None:
    bench = Bench()
    bench.put("link", data=b"target", mode="41471")
    bench.put("fifo", mode="4516")
    bench.put("device", mode="25008", rdev="259")
    bench.put("big", data=b"x" * 5000, mode="33152")
    names = bench.namespace()
    found = {entry.name: entry for entry in await entries_of(names, names.root)}
    modes = {name: entry.inode.attributes.mode for name, entry in found.items() if entry.certain}  # type: ignore[union-attr]
    assert modes == {"link": 0o120777, "fifo": 0o010644, "device": 0o060660}
    assert names.provisional(found["big"].inode).mode == 0o100644
    assert bench.requests() == {"ListObjectsV2": 1, "HeadObject": 3}


async def test_attributes_of_large_files_are_fetched_behind() -> None:
    bench = Bench()
    bench.put("big", data=b"x" * 5000, mode="33152")
    names = bench.namespace()
    async with trio.open_nursery() as nursery:
        await nursery.start(names.run)
        entries = await entries_of(names, names.root)
        assert entries[0].certain is False
        await trio.testing.wait_all_tasks_blocked()
        assert names.certain(entries[0].inode)
        assert names.provisional(entries[0].inode).mode == 0o100600
        nursery.cancel_scope.cancel()


async def test_the_second_listing_of_known_files_costs_only_lists() -> None:
    bench = Bench()
    bench.put(*(f"f{number}" for number in range(1000)), data=b"1", mode="33152")
    bench.clock.advance(60)
    names = bench.namespace()
    await entries_of(names, names.root)
    assert bench.requests() == {"ListObjectsV2": 1, "HeadObject": 1000}
    bench.clock.advance(60)
    entries = await entries_of(names, names.root)
    assert all(entry.certain for entry in entries)
    for entry in entries:
        inode = await names.lookup(names.root, entry.name)
        assert (await names.attributes(inode)).mode == 0o100600
    assert bench.requests() == {"ListObjectsV2": 1}


async def test_attributes_of_an_object_changed_just_now_are_asked_for_again() -> None:
    """The racy rule: another change within the same second would look the same."""
    bench = Bench()
    bench.put("f", data=b"1", mode="33152")
    names = bench.namespace()
    await entries_of(names, names.root)
    bench.put("f", data=b"1", mode="33188")
    bench.clock.advance(4)
    entries = await entries_of(names, names.root)
    assert entries[0].inode.attributes is not None
    assert entries[0].inode.attributes.mode == 0o100644


async def test_a_head_that_fails_leaves_the_entry_uncertain_and_the_listing_whole() -> None:
    bench = Bench()
    bench.put("a", "b", data=b"1")

    def fail(operation: str, key: str) -> None:
        if (operation, key) == ("HeadObject", "a"):
            raise FilesystemError(errno.EACCES)

    bench.store.before = fail
    names = bench.namespace()
    entries = await entries_of(names, names.root)
    assert [(entry.name, entry.certain) for entry in entries] == [("a", False), ("b", True)]


async def test_names_come_once_while_entries_come_and_go() -> None:
    bench = Bench(page_size=50)
    bench.put(*(f"f{number:03}" for number in range(300)), data=b"1")
    names = bench.namespace()
    cursor = names.open_directory(names.root)
    shown = []
    position = 0
    step = 0
    while entries := await cursor.read(position):
        taken = entries[: 7 + step % 5]
        shown += [entry.name for entry in taken]
        position = taken[-1].next_position
        # What was shown goes, as rm -r does it; others come, before and behind the reader.
        names.detach(await names.lookup(names.root, taken[0].name))
        names.add(names.root, f"a{step:03}", FILE, directory=False)
        names.add(names.root, f"z{step:03}", FILE, directory=False)
        bench.put(f"g{step:03}")
        bench.store.delete_foreign(f"f{299 - step:03}")
        step += 1
    assert len(shown) == len(set(shown))
    assert {f"f{number:03}" for number in range(200)} <= set(shown)


async def test_a_name_removed_before_its_turn_is_left_out() -> None:
    bench = Bench()
    bench.put("a", "b", "c", data=b"1")
    names = bench.namespace()
    cursor = names.open_directory(names.root)
    first = await cursor.read(0)
    names.detach(first[1].inode)
    assert [entry.name for entry in await cursor.read(0)] == ["a", "c"]
    assert [entry.name for entry in await cursor.read(1)] == ["c"]
    assert await cursor.read(3) == []


async def test_a_listing_sent_before_a_change_here_does_not_undo_it() -> None:
    bench = Bench()
    bench.put("gone", "moved", "kept", data=b"1")
    names = bench.namespace()
    gone = await names.lookup(names.root, "gone")
    moved = await names.lookup(names.root, "moved")
    gate = Gate(lambda operation, key: operation == "ListObjectsV2")
    bench.store.after = gate
    shown: list[str] = []

    async def read() -> None:
        shown.extend(await names_of(names, names.root))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(read)
        await gate.arrived.wait()
        bench.clock.advance(0.1)
        names.detach(gone)
        names.move(moved, names.root, "here")
        names.add(names.root, "made", FILE, directory=False)
        made = names.add(names.root, "dir", DIRECTORY, directory=True)
        names.committed(made, Version("e", 0, 0.0), DIRECTORY, key="dir/")
        gate.open.set()
    assert sorted(shown) == ["dir", "here", "kept", "made"]
    assert names.peek(names.root, "gone") is ABSENT
    assert names.peek(names.root, "moved") is ABSENT
    assert names.peek(names.root, "made") is not ABSENT
    assert names.peek(names.root, "dir") is made


async def test_a_head_sent_before_a_change_here_does_not_undo_it() -> None:
    bench = Bench()
    bench.put("f", data=b"1")
    names = bench.namespace()
    inode = await names.lookup(names.root, "f")
    bench.clock.advance(5)
    bench.put("f", data=b"foreign")
    gate = Gate(lambda operation, key: operation == "HeadObject")
    bench.store.after = gate
    async with trio.open_nursery() as nursery:
        nursery.start_soon(names.revalidate, inode)
        await gate.arrived.wait()
        bench.clock.advance(0.1)
        names.committed(inode, Version("mine", 9, 0.0), FILE, key="f")
        gate.open.set()
    assert not inode.detached
    assert inode.size == 9
    assert names.peek(names.root, "f") is inode


async def test_readers_of_one_directory_share_its_listing() -> None:
    bench = Bench(page_size=10)
    bench.put(*(f"f{number:03}" for number in range(100)), data=b"x" * 5000)
    names = bench.namespace()
    results: list[list[str]] = []

    async def read() -> None:
        results.append(await names_of(names, names.root))

    async with trio.open_nursery() as nursery:
        for _ in range(5):
            nursery.start_soon(read)
    assert all(result == [f"f{number:03}" for number in range(100)] for result in results)
    assert bench.requests() == {"ListObjectsV2": 10}


async def test_names_that_others_removed_go_and_new_ones_come_after_the_ttl() -> None:
    bench = Bench()
    bench.put("a", "b/x", data=b"1")
    names = bench.namespace()
    assert await names_of(names, names.root) == ["a", "b"]
    bench.store.delete_foreign("a")
    bench.store.delete_foreign("b/x")
    bench.put("c", data=b"1")
    assert await names_of(names, names.root) == ["a", "b"]
    bench.clock.advance(3.1)
    assert await names_of(names, names.root) == ["c"]
    assert sorted(bench.replaced) == ["a", "b"]


async def test_a_directory_that_others_removed_stays_while_something_in_it_is_only_here() -> None:
    bench = Bench()
    bench.put("d/x", data=b"1")
    names = bench.namespace()
    directory = await names.lookup(names.root, "d")
    made = names.add(directory, "new", FILE, directory=False)
    bench.store.delete_foreign("d/x")
    bench.clock.advance(5)
    assert await names_of(names, names.root) == ["d"]
    assert await names.lookup(names.root, "d") is directory
    assert await names_of(names, directory) == ["new"]
    assert await names.lookup(directory, "new") is made


async def test_a_listing_that_fails_in_the_middle_goes_on_at_the_next_read() -> None:
    bench = Bench(page_size=2)
    bench.put("a", "b", "c", "d", data=b"1")
    names = bench.namespace()
    cursor = names.open_directory(names.root)
    assert [entry.name for entry in await cursor.read(0)] == ["a"]  # b waits for b/

    def fail(operation: str, key: str) -> None:
        raise FilesystemError(errno.EIO)

    bench.store.before = fail
    with pytest.raises(FilesystemError):
        await cursor.read(1)
    bench.store.before = None
    rest = []
    position = 1
    while entries := await cursor.read(position):
        rest += [entry.name for entry in entries]
        position = entries[-1].next_position
    assert rest == ["b", "c", "d"]


async def test_is_empty_looks_behind_tombstones_and_counts_what_no_path_can_name() -> None:
    bench = Bench()
    bench.put("e/", "f/", "f/x", "g/", "g//x", "h/x", "i/", "i/y/")
    names = bench.namespace()
    empty = {}
    for name in "efghi":
        empty[name] = await names.is_empty(await names.lookup(names.root, name))
    assert empty == {"e": True, "f": False, "g": False, "h": False, "i": False}
    directory = await names.lookup(names.root, "f")
    inode = await names.lookup(directory, "x")
    pin = names.pin(directory, "x")
    names.detach(inode)
    bench.clock.advance(10)
    assert await names.is_empty(directory)
    names.add(directory, "new", FILE, directory=False)
    assert not await names.is_empty(directory)
    pin.release()


async def test_forgotten_names_are_asked_for_again() -> None:
    bench = Bench()
    bench.put("a", data=b"1")
    names = bench.namespace()
    await names_of(names, names.root)
    bench.put("b", data=b"1")
    assert await errno_of(names, names.root, "b") == errno.ENOENT
    names.forget_names(names.root)
    assert await errno_of(names, names.root, "b") is None


async def test_a_directory_of_ten_thousand_entries_is_read_page_by_page() -> None:
    bench = Bench()
    bench.put(*(f"f{number:05}" for number in range(10_000)), data=b"x" * 5000)
    names = bench.namespace()
    cursor = names.open_directory(names.root)
    assert (await cursor.read(0))[0].name == "f00000"
    assert bench.requests() == {"ListObjectsV2": 1}
    assert await names_of(names, names.root) == [f"f{number:05}" for number in range(10_000)]
    assert bench.requests() == {"ListObjectsV2": 9}


async def test_above_the_bound_the_names_used_longest_ago_go() -> None:
    bench = Bench()
    bench.put(*(f"{name}/f{number:02}" for name in "abc" for number in range(50)), data=b"1")
    names = bench.namespace(NamespaceConfig(max_inodes=100, attributes="listing"))
    directories = {}
    for name in "abc":
        directories[name] = await names.lookup(names.root, name)
        names.inodes.acquire(directories[name])
        await names_of(names, directories[name])
        bench.clock.advance(0.1)
    held = await names.lookup(directories["a"], "f00")
    bench.clock.advance(0.1)
    names.inodes.acquire(held)
    await names.lookup(directories["a"], "f01")
    dropped: list[tuple[int, str]] = []
    names.drop_names = lambda parent, name: dropped.append((parent, name))
    names.bound()
    assert len(names.inodes) <= 100
    assert dropped == [(names.root.number, "b")]
    sizes = [len(one.directory.entries) for one in directories.values() if one.directory]
    assert sizes == [50, 0, 37]
    assert names.inodes[held.number] is held
    assert await errno_of(names, directories["b"], "f07") is None


async def test_a_directory_with_more_names_than_the_bound_is_listed_whole() -> None:
    """Whoever reads it sees each name, a seek back too; none of them counts as removed."""
    bench = Bench()
    files = [f"f{number:04}" for number in range(3000)]
    bench.put(*files, data=b"1")
    names = bench.namespace(NamespaceConfig(max_inodes=100, attributes="listing"))
    cursor = names.open_directory(names.root)
    seen: list[str] = []
    while entries := await cursor.read(len(seen)):
        seen += [entry.name for entry in entries]
        bench.clock.advance(0.01)
        names.bound()
        assert len(names.inodes) < 2000  # what has been read goes
    assert seen == files
    assert [entry.name for entry in await cursor.read(500)] == files[500:628]
    names.bound()
    bench.clock.advance(0.01)
    assert await errno_of(names, names.root, "f0001") is None
    assert await errno_of(names, names.root, "f2999") is None
    assert not await names.is_empty(names.root)


async def test_a_directory_without_end_is_an_error_before_it_has_taken_all_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(listing, "MOST_NAMES", 50)
    bench = Bench(page_size=10)
    bench.put(*(f"large/f{number:03}" for number in range(90)), "small/a", "small/b", data=b"1")
    names = bench.namespace(NamespaceConfig(attributes="listing"))
    large = await names.lookup(names.root, "large")
    bench.requests()
    with pytest.raises(FilesystemError, match="more than 50 names; `s3mount ls`") as caught:
        await entries_of(names, large)
    assert caught.value.errno == errno.EFBIG
    assert bench.requests() == {"ListObjectsV2": 6}
    assert await errno_of(names, large, "f085") is None  # a name is found all the same
    assert await names_of(names, await names.lookup(names.root, "small")) == ["a", "b"]


async def test_what_was_made_here_of_late_is_not_taken_for_removed_above_the_bound() -> None:
    bench = Bench()
    names = bench.namespace(NamespaceConfig(max_inodes=10))
    for number in range(50):
        name = f"f{number}"
        inode = names.add(names.root, name, FILE, directory=False)
        pin = names.pin(names.root, name)
        bench.put(name, data=b"1")
        names.committed(inode, Version(bench.store.objects[name].etag, 1, 0.0), FILE, key=name)
        pin.release()
    names.bound()
    for number in range(50):
        assert await errno_of(names, names.root, f"f{number}") is None


async def test_a_type_whose_answer_a_rename_overtook_is_asked_for_again() -> None:
    bench = Bench()
    bench.put("old", data=b"target", mode="41471")
    names = bench.namespace(NamespaceConfig())
    root = names.root
    inode = await names.lookup(root, "old")
    inode.attributes = None  # as after a crash: only the rename's record is known
    pin = names.pin(root, "new")
    names.move(inode, root, "new")
    bench.put("new", data=b"target", mode="41471")
    names.stored(inode, "new")  # the copy is there, the delete of the source is under way
    gate = Gate(lambda operation, key: operation == "HeadObject")
    bench.store.before = gate
    bench.clock.advance(1)
    listed: list[DirectoryEntry] = []

    async def read() -> None:
        listed.extend(await entries_of(names, root))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(read)
        await gate.arrived.wait()
        bench.clock.advance(1)
        bench.store.delete_foreign("old")
        pin.release()
        bench.clock.advance(1)
        gate.open.set()
    (entry,) = [one for one in listed if one.name == "new"]
    assert entry.inode.attributes is not None
    assert entry.inode.attributes.mode == 0o120777
