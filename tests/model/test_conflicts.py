"""Two hosts change one object (ruling 12), on services with and without conditional writes.

The other host writes at one of two moments: *before the last look*, where every service's answer
tells of it, or *in the window* between that look and the commit, where only a condition that the
service honours does.
"""

import errno
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from s3mount.core.config import MountConfig
from s3mount.core.errors import FilesystemError
from s3mount.filesystem import open_file
from s3mount.filesystem.conflict import conflict_name, free_name
from s3mount.filesystem.filesystem import FileSystem
from s3mount.store import errors
from s3mount.store.base import Capabilities
from s3mount.store.memory import (
    ALL_CAPABILITIES,
    CEPH_CAPABILITIES,
    NO_CAPABILITIES,
    MemoryStore,
)
from tests.model.bucket import leftovers
from tests.model.mounted import TTL, Client, memory_store, mounted, tiny_config

SERVICES = {"all": ALL_CAPABILITIES, "ceph": CEPH_CAPABILITIES, "none": NO_CAPABILITIES}
SMALL, LARGE = 3_000, 60_000  # one PUT; many parts of 4 KiB
THEIRS = b"theirs\n"
ATTRIBUTES = {"mode": str(0o100644), "uid": "1000", "gid": "1001", "mtime": "1600000000"}


def pattern(size: int) -> bytes:
    return bytes(range(1, 252)) * (size // 251 + 1)


@dataclass
class Bench:
    """A mount, and another host that writes `f` just before a request to it takes effect."""

    client: Client
    store: MemoryStore
    armed: str | None = None
    sizes: list[int] = field(default_factory=list)

    @property
    def fs(self) -> FileSystem:
        return self.client.fs

    def before(self, operation: str, key: str) -> None:
        if operation == self.armed and key == "f":
            self.armed = None
            self.store.put_foreign("f", THEIRS)

    def other_host_writes_before(self, operation: str) -> None:
        self.armed = operation

    @property
    def kept(self) -> dict[str, bytes]:
        return {key: o.data for key, o in self.store.objects.items() if ".conflict-" in key}

    @property
    def object(self) -> bytes:
        return self.store.objects["f"].data

    def assert_whole_is_kept(self, wanted: bytes) -> None:
        (kept,) = self.kept.values()
        assert kept == wanted
        (shown,) = self.fs.status()["conflicts"]
        assert shown["key"] == "f"
        assert list(shown["kept"]) == list(self.kept)


Start = Callable[[Capabilities], Awaitable[Bench]]


@pytest.fixture(params=SERVICES)
def service(request: pytest.FixtureRequest) -> Capabilities:
    return SERVICES[request.param]


@pytest.fixture
async def bench(service: Capabilities, config: MountConfig) -> AsyncIterator[Bench]:
    store = memory_store(capabilities=service)
    async with mounted(store, config) as client:
        bench = Bench(client, store)
        store.before = bench.before
        yield bench
        client.forget()
        store.before = None
    assert leftovers(client.fs, store) == []


def last_request(size: int) -> str:
    return "PutObject" if size == SMALL else "CompleteMultipartUpload"


def honoured(service: Capabilities, size: int) -> bool:
    return service.put_if_match if size == SMALL else service.complete_if_match


async def fails_with(number: int, call: Awaitable[object]) -> None:
    with pytest.raises(FilesystemError) as raised:
        await call
    assert raised.value.errno == number


# -- edits and appends ---------------------------------------------------------------------------


async def begin_edit(bench: Bench, size: int, *, append: bool) -> tuple[int, bytes]:
    """A handle with unsent changes, and what the file is to be."""
    before = pattern(size)[:size]
    bench.store.put_foreign("f", before, ATTRIBUTES)
    writer = await bench.client.open("f", os.O_RDWR | (os.O_APPEND if append else 0))
    assert await bench.client.read_all(writer) == before  # so that it is cached
    await bench.fs.write(writer, 0, b"OURS")
    return writer, before + b"OURS" if append else b"OURS" + before[4:]


@pytest.mark.parametrize("append", [False, True])
@pytest.mark.parametrize("size", [SMALL, LARGE])
async def test_an_edit_never_overwrites_what_was_written_before_its_last_look(
    bench: Bench, size: int, append: bool, autojump_clock: MockClock
) -> None:
    writer, wanted = await begin_edit(bench, size, append=append)
    bench.store.put_foreign("f", THEIRS)
    await fails_with(errno.ESTALE, bench.fs.flush(writer))
    assert bench.object == THEIRS
    bench.assert_whole_is_kept(wanted)
    await bench.client.release(writer)
    assert await bench.client.read("f") == THEIRS


@pytest.mark.parametrize("size", [SMALL, LARGE])
async def test_in_the_window_an_edit_is_safe_where_the_service_honours_conditions(
    bench: Bench, service: Capabilities, size: int, autojump_clock: MockClock
) -> None:
    writer, wanted = await begin_edit(bench, size, append=True)
    bench.other_host_writes_before(last_request(size))
    if honoured(service, size):
        await fails_with(errno.ESTALE, bench.fs.flush(writer))
        assert bench.object == THEIRS
        bench.assert_whole_is_kept(wanted)
    else:
        # The window that the README tells of: the other host's version is overwritten.
        await bench.fs.flush(writer)
        assert bench.object == wanted
        assert not bench.kept
    await bench.client.release(writer)


@pytest.mark.parametrize("size", [SMALL, LARGE])
async def test_an_edit_of_a_removed_file_is_kept_beside_the_hole(
    bench: Bench, size: int, autojump_clock: MockClock
) -> None:
    writer, wanted = await begin_edit(bench, size, append=False)
    bench.store.delete_foreign("f")
    await fails_with(errno.ESTALE, bench.fs.flush(writer))
    assert "f" not in bench.store.objects
    bench.assert_whole_is_kept(wanted)
    await bench.client.release(writer)


async def test_a_whole_rewrite_is_unconditional(bench: Bench, autojump_clock: MockClock) -> None:
    bench.store.put_foreign("f", b"old")
    writer = await bench.client.open("f", os.O_WRONLY | os.O_TRUNC)
    await bench.fs.write(writer, 0, b"ours")
    bench.other_host_writes_before("PutObject")
    await bench.client.close(writer)
    assert bench.object == b"ours"
    assert not bench.kept


# -- O_EXCL --------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [SMALL, LARGE])
@pytest.mark.parametrize("in_window", [False, True])
async def test_of_two_exclusive_creators_one_wins_and_the_others_bytes_are_kept(
    bench: Bench, service: Capabilities, size: int, in_window: bool, autojump_clock: MockClock
) -> None:
    ours = pattern(size)[:size]
    writer = await bench.client.create("f", os.O_WRONLY | os.O_EXCL)
    await bench.fs.write(writer, 0, ours)
    safe = service.put_if_absent if size == SMALL else service.complete_if_absent
    if in_window:
        bench.other_host_writes_before(last_request(size))
    else:
        bench.store.put_foreign("f", THEIRS)
    if safe or not in_window:
        await fails_with(errno.EEXIST, bench.fs.flush(writer))
        assert bench.object == THEIRS
        bench.assert_whole_is_kept(ours)
    else:
        await bench.fs.flush(writer)  # the README's window again
        assert bench.object == ours
    await bench.client.release(writer)


# -- attributes and renames ----------------------------------------------------------------------


async def test_attributes_for_a_version_that_was_replaced_are_dropped_and_told(
    bench: Bench, autojump_clock: MockClock
) -> None:
    bench.store.put_foreign("f", b"old", ATTRIBUTES)
    await bench.client.setattr("f", mode=0o600)
    bench.store.put_foreign("f", THEIRS)
    await trio.sleep(2)
    assert bench.object == THEIRS
    assert "mode" not in bench.store.objects["f"].metadata
    (failure,) = bench.fs.status()["failures"]
    assert "'f'" in failure


async def test_a_rename_moves_only_the_version_it_was_meant_for(
    bench: Bench, autojump_clock: MockClock
) -> None:
    bench.store.put_foreign("f", b"old", ATTRIBUTES)
    await bench.client.rename("f", "g")
    bench.store.put_foreign("f", THEIRS)
    await trio.sleep(2)
    assert bench.object == THEIRS
    assert "g" not in bench.store.objects
    (failure,) = bench.fs.status()["failures"]
    assert "'g'" in failure
    await trio.sleep(TTL + 1)
    assert await bench.client.read("f") == THEIRS


async def test_what_others_put_under_the_old_name_during_a_long_copy_stays(
    bench: Bench, autojump_clock: MockClock
) -> None:
    bench.store.put_foreign("f", b"old", ATTRIBUTES)
    await bench.client.rename("f", "g")
    before = bench.store.before

    async def slow_copy(operation: str, key: str) -> None:
        if operation == "CopyObject":
            await trio.sleep(20)

    def afterwards(operation: str, key: str) -> None:
        if operation == "CopyObject":
            bench.store.after = None
            bench.store.put_foreign("f", THEIRS)

    bench.store.before, bench.store.after = slow_copy, afterwards
    await trio.sleep(30)
    bench.store.before = before
    assert bench.store.objects["g"].data == b"old"
    assert bench.object == THEIRS
    await trio.sleep(TTL + 1)
    assert await bench.client.read("f") == THEIRS
    assert await bench.client.read("g") == b"old"


# -- handles of one mount ------------------------------------------------------------------------


async def test_every_handle_whose_bytes_lost_is_told(
    bench: Bench, autojump_clock: MockClock
) -> None:
    """Their bytes are in one conflict file; no close of them may return success."""
    writer, wanted = await begin_edit(bench, SMALL, append=True)
    second = await bench.client.open("f", os.O_WRONLY | os.O_APPEND)
    idle = await bench.client.open("f", os.O_WRONLY)
    await bench.fs.write(second, 0, b"AND OURS")
    bench.store.put_foreign("f", THEIRS)
    await fails_with(errno.ESTALE, bench.fs.flush(writer))
    await fails_with(errno.ESTALE, bench.fs.flush(writer))  # of a duplicate
    await fails_with(errno.ESTALE, bench.fs.fsync(second, False))
    await fails_with(errno.ESTALE, bench.fs.flush(second))
    await bench.fs.flush(idle)
    bench.assert_whole_is_kept(wanted + b"AND OURS")


async def test_what_another_handle_writes_while_a_put_looks_is_sent_with_its_time(
    bench: Bench, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a copy would follow for the time alone, and where another host edits what was put
    there both closes would be told ESTALE, though their bytes are in the bucket."""
    monkeypatch.setattr(open_file, "now_ns", lambda: int(trio.current_time() * 1e9))
    writer, wanted = await begin_edit(bench, SMALL, append=True)
    second = await bench.client.open("f", os.O_WRONLY | os.O_APPEND)

    async def meanwhile(operation: str, key: str) -> None:
        if operation == "HeadObject":
            bench.store.before = bench.before
            await trio.sleep(0.1)
            await bench.fs.write(second, 0, b"AND OURS")

    bench.store.before = meanwhile
    bench.other_host_writes_before("CopyObject")
    await bench.fs.flush(writer)
    await bench.fs.flush(second)
    shown = await bench.client.stat("f")
    assert bench.object == wanted + b"AND OURS"
    assert bench.store.counts().get("CopyObject", 0) == 0
    stored = bench.store.objects["f"].metadata["mtime"]
    assert stored == f"{shown.attributes.mtime_ns // 10**9}.{shown.attributes.mtime_ns % 10**9:09}"


@pytest.mark.parametrize("released", [False, True])
async def test_what_is_written_while_bytes_are_put_beside_is_kept_too(
    bench: Bench, released: bool, autojump_clock: MockClock
) -> None:
    writer, wanted = await begin_edit(bench, SMALL, append=True)
    second = await bench.client.open("f", os.O_WRONLY | os.O_APPEND)
    bench.store.put_foreign("f", THEIRS)

    async def meanwhile(operation: str, key: str) -> None:
        if operation == "PutObject" and ".conflict-" in key:
            bench.store.before = None
            await trio.sleep(1)

    bench.store.before = meanwhile
    async with trio.open_nursery() as nursery:
        nursery.start_soon(fails_with, errno.ESTALE, bench.fs.flush(writer))
        await trio.sleep(0.5)
        await bench.fs.write(second, 0, b"LATE")
        if released:  # a killed writer: RELEASE without FLUSH
            await bench.client.release(second)
    if not released:
        await fails_with(errno.ESTALE, bench.fs.flush(second))
    await bench.client.release(writer)
    await trio.sleep(1)
    assert list(bench.kept.values()) == [wanted, wanted + b"LATE"]
    assert bench.object == THEIRS


@pytest.mark.parametrize("reader", [False, True])
async def test_leaving_waits_until_a_killed_writers_bytes_are_beside(
    bench: Bench, reader: bool, autojump_clock: MockClock
) -> None:
    """The mount knows that the name is another host's by then, so that there is no PUT."""
    bench.store.put_foreign("f", b"old", ATTRIBUTES)
    writer = await bench.client.open("f", os.O_RDWR)
    assert await bench.client.read_all(writer) == b"old"
    if reader:
        await bench.client.open("f")
    bench.store.put_foreign("f", THEIRS)
    await trio.sleep(TTL + 1)
    assert await bench.client.read("f") == THEIRS
    failures = 3

    async def slow(operation: str, key: str) -> None:
        nonlocal failures
        if ".conflict-" in key:
            await trio.sleep(2)
            if failures:
                failures -= 1
                raise errors.AccessDenied("", operation=operation, key=key)

    bench.store.before = slow
    await bench.fs.write(writer, 0, b"OUR")
    await bench.client.release(writer)
    assert bench.fs.pending().files == 1
    left = await bench.fs.drain(100.0)
    assert not left, left
    bench.assert_whole_is_kept(b"OUR")
    assert failures == 0


# -- what is kept --------------------------------------------------------------------------------


@pytest.mark.parametrize("service", ["all"], indirect=True)
async def test_files_larger_than_memory_are_kept_in_parts(
    bench: Bench, autojump_clock: MockClock
) -> None:
    size = 200_000
    writer, wanted = await begin_edit(bench, size, append=True)
    bodies: list[tuple[str, str]] = []
    bench.store.put_foreign("f", THEIRS)
    bench.store.before = lambda operation, key: bodies.append((operation, key))
    await fails_with(errno.ESTALE, bench.fs.flush(writer))
    bench.assert_whole_is_kept(wanted)
    (name,) = bench.kept
    assert ("PutObject", name) not in bodies
    assert bodies.count(("UploadPart", name)) == -(-(size + 4) // 4096)
    await bench.client.release(writer)


@pytest.mark.parametrize("service", ["all"], indirect=True)
async def test_where_the_old_version_cannot_be_read_what_was_written_is_kept_alone(
    bench: Bench, autojump_clock: MockClock
) -> None:
    bench.store.put_foreign("f", pattern(LARGE)[:LARGE], ATTRIBUTES)
    writer = await bench.client.open("f", os.O_WRONLY)
    long = b"A long stretch. " * 1000
    await bench.fs.write(writer, 8, b"one")
    await bench.fs.write(writer, 20_000, long)
    bench.store.put_foreign("f", THEIRS)
    await fails_with(errno.ESTALE, bench.fs.flush(writer))
    kept = {key.rpartition(".at-")[2]: data for key, data in bench.kept.items()}
    assert kept == {"8": b"one", "20000": long}
    await bench.client.release(writer)


@pytest.mark.parametrize("service", ["all"], indirect=True)
async def test_an_outage_while_the_bytes_are_put_beside_leaves_them_whole(
    bench: Bench, autojump_clock: MockClock
) -> None:
    writer, wanted = await begin_edit(bench, LARGE, append=True)
    bench.store.put_foreign("f", THEIRS)
    left = 5

    def refuse(operation: str, key: str) -> None:
        nonlocal left
        if ".conflict-" in key and operation in {"UploadPart", "CompleteMultipartUpload"} and left:
            left -= 1
            raise errors.ConnectionLost("", operation=operation, key=key)

    bench.store.before = refuse
    await fails_with(errno.ESTALE, bench.fs.flush(writer))
    bench.assert_whole_is_kept(wanted)
    await bench.client.release(writer)


@pytest.mark.parametrize("service", ["all"], indirect=True)
async def test_two_conflicts_in_one_moment_do_not_overwrite_each_other(
    bench: Bench, tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with mounted(bench.store, tiny_config(tmp_path / "other")) as other:
        for number in range(3):
            await one_round(bench, other, b"%d" % number)
    wanted = [b"%d%s" % (number, name) for number in range(3) for name in (b"host-a", b"host-b")]
    assert sorted(bench.kept.values()) == sorted(wanted)
    assert bench.object == THEIRS


async def one_round(bench: Bench, other: Client, number: bytes) -> None:
    """Both mounts lose against a third host, each with its own bytes."""
    bench.store.put_foreign("f", b"old " + number, ATTRIBUTES)
    await trio.sleep(TTL + 1)
    writers = []
    for client, name in ((bench.client, b"host-a"), (other, b"host-b")):
        await client.read("f")
        writer = await client.open("f", os.O_RDWR)
        await client.fs.write(writer, 0, number + name)
        writers.append((client, writer))
    bench.store.put_foreign("f", THEIRS)

    async def close(client: Client, writer: int) -> None:
        await fails_with(errno.ESTALE, client.close(writer))

    async with trio.open_nursery() as nursery:
        for client, writer in writers:
            nursery.start_soon(close, client, writer)


def test_names_of_conflict_files_are_names() -> None:
    moment = 1_700_000_000_123_456
    assert conflict_name("d/file.txt", moment).startswith("d/file.txt.conflict-")
    assert conflict_name("d/file.txt", moment).endswith("-20231114T221320.123456Z")
    assert conflict_name("f", moment) != conflict_name("f", moment + 1)
    for name in ("n" * 255, "ü" * 127, "日" * 85):
        kept = conflict_name(f"d/{name}", moment) + ".at-5497558138880"
        assert len(kept.rpartition("/")[2].encode()) <= 255
        assert kept.startswith(f"d/{name[0]}")
    deep = "/".join(["d" * 250] * 4)
    kept = conflict_name(f"{deep}/{'n' * 20}", moment) + ".at-5497558138880"
    assert len(kept.encode()) <= 1024
    assert kept.startswith("d" * 250 + "/" + "d" * 250)


async def test_a_name_is_never_given_twice(config: MountConfig, autojump_clock: MockClock) -> None:
    async with mounted(memory_store(), config) as client:
        state = client.fs.state
        names = [await free_name(state, "f") for _ in range(1000)]
        assert len(set(names)) == 1000
