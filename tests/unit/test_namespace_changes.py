"""What is done here: seen at once, at the right keys, and never undone by older answers."""

import dataclasses
import errno

import pytest
import trio

from s3mount.core.errors import FilesystemError
from s3mount.namespace import ABSENT, Version
from s3mount.store.base import ObjectInfo
from tests.unit.namespace_fixtures import DIRECTORY, FILE, Bench, Gate, errno_of, names_of


async def test_a_new_file_is_local_until_it_is_committed() -> None:
    bench = Bench()
    names = bench.namespace()
    pin = names.pin(names.root, "f")
    inode = names.add(names.root, "f", FILE, directory=False)
    assert [inode.is_local] == [True]
    assert (names.key(inode), names.stored_at(inode), inode.size) == ("f", "f", 0)
    inode.local_size = 12
    assert inode.size == 12
    assert await names.attributes(inode) == FILE
    inode.local_size = None
    names.committed(inode, Version("e", 12, 0.0), FILE, key="f")
    pin.release()
    assert not inode.is_local
    assert inode.size == 12
    assert names.peek(names.root, "f") is inode
    assert bench.requests() == {}


async def test_add_refuses_a_taken_name_and_a_key_too_long() -> None:
    bench = Bench()
    names = bench.namespace()
    parent = names.root
    for _ in range(5):
        parent = names.add(parent, "d" * 200, DIRECTORY, directory=True)
    with pytest.raises(FilesystemError) as caught:
        names.add(parent, "f" * 50, FILE, directory=False)
    assert caught.value.errno == errno.ENAMETOOLONG
    names.add(parent, "f", FILE, directory=False)
    with pytest.raises(FilesystemError) as caught:
        names.add(parent, "f", FILE, directory=False)
    assert caught.value.errno == errno.EEXIST


async def test_a_renamed_file_is_read_where_it_is_stored_until_committed() -> None:
    bench = Bench()
    bench.put("a", data=b"1")
    names = bench.namespace()
    inode = await names.lookup(names.root, "a")
    number = inode.number
    names.move(inode, names.root, "b")
    assert (names.key(inode), names.stored_at(inode), inode.number) == ("b", "a", number)
    assert names.peek(names.root, "a") is ABSENT
    assert names.peek(names.root, "b") is inode
    names.committed(inode, Version("e", 1, 0.0), FILE, key="b")
    assert (inode.storage_key, names.stored_at(inode)) == (None, "b")


async def test_a_rename_there_and_back_is_at_home_again_when_both_are_done() -> None:
    bench = Bench()
    bench.put("d/x", data=b"1")
    names = bench.namespace()
    directory = await names.lookup(names.root, "d")
    inode = await names.lookup(directory, "x")
    there = names.move(directory, names.root, "e")
    assert (inode.storage_key, directory.storage_key) == ("d/x", "d/")
    back = names.move(directory, names.root, "d")
    names.rehomed("d/", "e/", stamp=there)
    assert (inode.storage_key, directory.storage_key) == ("e/x", "e/")
    names.rehomed("e/", "d/", stamp=back)
    assert (inode.storage_key, directory.storage_key) == (None, None)


async def test_a_directory_made_in_the_place_of_a_renamed_one_does_not_move_with_it() -> None:
    bench = Bench()
    bench.put("d/x", data=b"1")
    names = bench.namespace()
    first = await names.lookup(names.root, "d")
    stamp = names.move(first, names.root, "e")
    second = names.add(names.root, "d", names.provisional(first), directory=True)
    names.move(second, names.root, "f")
    names.rehomed("d/", "e/", stamp=stamp)
    assert (first.storage_key, names.stored_at(second)) == (None, "d/")


async def test_a_renamed_directory_is_listed_where_it_is_stored_until_rehomed() -> None:
    bench = Bench()
    bench.put("d/known", "d/other", "d/sub/deep", data=b"1")
    names = bench.namespace()
    directory = await names.lookup(names.root, "d")
    known = await names.lookup(directory, "known")
    pins = [names.pin(names.root, "d"), names.pin(names.root, "e")]
    names.move(directory, names.root, "e")
    bench.clock.advance(10)
    assert await names_of(names, names.root) == ["e"]
    assert await names_of(names, directory) == ["known", "other", "sub"]
    other = await names.lookup(directory, "other")
    sub = await names.lookup(directory, "sub")
    deep = await names.lookup(sub, "deep")
    made = names.add(directory, "made", FILE, directory=False)
    keys = {names.key(one): names.stored_at(one) for one in (known, other, sub, deep, made)}
    assert keys == {
        "e/known": "d/known",
        "e/other": "d/other",
        "e/sub/": "d/sub/",
        "e/sub/deep": "d/sub/deep",
        "e/made": "e/made",
    }
    for key in ("known", "other", "sub/deep"):
        bench.put(f"e/{key}", data=b"1")
        bench.store.delete_foreign(f"d/{key}")
    assert other.version is not None
    copied = (other.version.etag, Version("changed", 1, 0.0))
    names.rehomed("d/", "e/", {"e/other": copied, "e/known": ("another", Version("x", 1, 0.0))})
    for pin in pins:
        pin.release()
    assert all(one.storage_key is None for one in (directory, known, other, sub, deep))
    assert other.version == Version("changed", 1, 0.0)
    assert names.peek(directory, "known") is known
    bench.clock.advance(10)
    assert await names_of(names, names.root) == ["e"]
    assert sorted(await names_of(names, directory)) == ["known", "made", "other", "sub"]


async def test_a_directory_renamed_while_it_is_listed_shows_each_name_once() -> None:
    bench = Bench(page_size=3)
    bench.put(*(f"d/{number}" for number in range(9)), data=b"x" * 5000)
    names = bench.namespace()
    directory = await names.lookup(names.root, "d")
    cursor = names.open_directory(directory)
    shown = [entry.name for entry in await cursor.read(0)]
    names.move(directory, names.root, "e")
    for number in range(9):
        bench.put(f"e/{number}", data=b"x" * 5000)
        bench.store.delete_foreign(f"d/{number}")
    names.rehomed("d/", "e/")
    position = len(shown)
    while entries := await cursor.read(position):
        shown += [entry.name for entry in entries]
        position = entries[-1].next_position
    assert shown == [str(number) for number in range(9)]
    assert bench.replaced == []


async def test_an_answer_about_the_old_place_says_nothing_about_the_new_one() -> None:
    bench = Bench()
    bench.put("d/x", data=b"1")
    names = bench.namespace()
    directory = await names.lookup(names.root, "d")
    inode = await names.lookup(directory, "x")
    names.move(directory, names.root, "e")
    bench.clock.advance(10)
    bench.store.delete_foreign("d/x")
    bench.put("e/x", data=b"1")
    gate = Gate(lambda operation, key: operation == "HeadObject")
    bench.store.before = gate
    async with trio.open_nursery() as nursery:
        nursery.start_soon(names.attributes, inode)
        await gate.arrived.wait()
        names.rehomed("d/", "e/")
        gate.open.set()
    assert not inode.detached
    assert names.stored_at(inode) == "e/x"


async def test_a_detached_inode_knows_its_last_keys() -> None:
    bench = Bench()
    bench.put("d/x", data=b"1")
    names = bench.namespace()
    directory = await names.lookup(names.root, "d")
    inode = await names.lookup(directory, "x")
    names.inodes.acquire(inode)
    names.detach(inode)
    assert (names.key(inode), names.stored_at(inode)) == ("d/x", "d/x")
    names.move(directory, names.root, "e")
    assert names.stored_at(inode) == "d/x"
    assert names.inodes[inode.number] is inode
    again = names.add(directory, "x", FILE, directory=False)
    assert again.number != inode.number
    names.inodes.forget(inode.number, 1)
    assert inode.number not in names.inodes


async def test_what_is_pinned_is_never_asked_about() -> None:
    bench = Bench()
    bench.put("f", data=b"1")
    names = bench.namespace()
    inode = await names.lookup(names.root, "f")
    pin = names.pin(names.root, "f")
    bench.store.delete_foreign("f")
    bench.clock.advance(100)
    bench.requests()
    assert await names.revalidate(inode) is inode
    assert (await names.attributes(inode)).mode == 0o100644
    assert await names.lookup(names.root, "f") is inode
    assert bench.requests() == {}
    pin.release()
    bench.clock.advance(100)
    assert await errno_of(names, names.root, "f") == errno.ENOENT


async def test_an_info_somebody_else_got_counts_like_our_own() -> None:
    bench = Bench()
    bench.put("f", data=b"old")
    names = bench.namespace()
    inode = await names.lookup(names.root, "f")
    bench.clock.advance(5)
    same = (await bench.store.get("f")).info
    assert names.observe(inode, same) is inode
    assert inode.seen_at == bench.clock.now
    bench.put("f", data=b"newer")
    bench.clock.advance(1)
    new = names.observe(inode, (await bench.store.get("f")).info)
    assert new is not inode
    assert (inode.detached, new.size, bench.replaced) == (True, 5, ["f"])
    late = ObjectInfo("f", 3, same.etag, same.last_modified, asked_at=bench.clock.now - 3)
    assert names.observe(new, late) is new


async def test_a_directorys_times_changed_here_are_not_turned_back_by_its_marker() -> None:
    bench = Bench()
    bench.put("d/", mode="16877", mtime="100", ctime="100")
    names = bench.namespace()
    directory = await names.lookup(names.root, "d")
    attributes = await names.attributes(directory)
    assert attributes.mtime_ns == 100 * 10**9
    directory.attributes = dataclasses.replace(attributes, mtime_ns=10**18, ctime_ns=10**18)
    bench.clock.advance(10)
    assert (await names.attributes(directory)).mtime_ns == 10**18
    bench.put("d/", mode="16832", mtime="200", ctime="200")
    bench.clock.advance(10)
    await names_of(names, directory)
    assert (await names.attributes(directory)).mode == 0o040700


async def test_the_ctime_of_a_directory_renamed_here_is_not_turned_back_by_its_marker() -> None:
    """As its rename leaves it: the marker still has the older ctime, mtime is the same."""
    bench = Bench()
    bench.put("d/", mode="16877", mtime="100", ctime="100")
    names = bench.namespace()
    directory = await names.lookup(names.root, "d")
    attributes = await names.attributes(directory)
    directory.attributes = dataclasses.replace(attributes, ctime_ns=10**18)
    bench.clock.advance(10)
    found = await names.attributes(directory)
    assert (found.mtime_ns, found.ctime_ns) == (100 * 10**9, 10**18)


async def test_a_directory_emptied_here_stays_while_its_marker_is_on_its_way() -> None:
    bench = Bench()
    bench.put("d/x", data=b"1")
    names = bench.namespace()
    directory = await names.lookup(names.root, "d")
    inode = await names.lookup(directory, "x")
    pin = names.pin(names.root, "d")
    names.detach(inode)
    bench.store.delete_foreign("d/x")
    bench.clock.advance(10)
    assert await names_of(names, names.root) == ["d"]
    assert await names.is_empty(directory)
    bench.put("d/")
    names.committed(directory, Version("m", 0, 0.0), DIRECTORY, key="d/")
    pin.release()
    bench.clock.advance(10)
    assert await names_of(names, names.root) == ["d"]
    assert await names.lookup(names.root, "d") is directory
    assert directory.marker == "d/"


async def test_attributes_of_a_file_renamed_before_they_were_known_are_still_learnt() -> None:
    bench = Bench()
    bench.put("f", data=b"x" * 5000, mode="33152")
    names = bench.namespace()
    assert await names_of(names, names.root) == ["f"]
    inode = await names.lookup(names.root, "f")
    assert inode.attributes is None
    pins = [names.pin(names.root, "f"), names.pin(names.root, "g")]
    names.move(inode, names.root, "g")
    assert (await names.attributes(inode)).mode == 0o100600
    for pin in pins:
        pin.release()


async def test_after_a_rename_that_came_to_nothing_each_name_is_what_the_bucket_has() -> None:
    bench = Bench()
    bench.put("a", "d/x", data=b"same")
    names = bench.namespace()
    file = await names.lookup(names.root, "a")
    directory = await names.lookup(names.root, "d")
    inner = await names.lookup(directory, "x")
    pins = [names.pin(names.root, name) for name in ("a", "b", "d", "e")]
    names.move(file, names.root, "b")
    names.move(directory, names.root, "e")
    bench.store.delete_foreign("a")
    bench.store.delete_foreign("d/x")
    bench.put("b", "e/x", data=b"same")
    for pin in pins:
        pin.release()
    bench.clock.advance(10)
    assert await names_of(names, names.root) == ["b", "e"]
    assert names.stored_at(await names.lookup(names.root, "b")) == "b"
    assert names.stored_at(await names.lookup(names.root, "e")) == "e/"
    assert await names_of(names, directory) == ["x"]
    assert names.stored_at(inner) == "e/x"
