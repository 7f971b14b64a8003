"""With write-back each version in the bucket is what some close or fsync has left, never a mixture
of two, nor half a change: whatever is written while it waits and while it is being sent."""

import os
import random
from collections.abc import Awaitable, Callable

import pytest
import trio

from s3mount.core.config import MountConfig
from s3mount.filesystem import open_file
from s3mount.store.memory import MemoryStore
from tests.model.bucket import attributes_of, contents, leftovers
from tests.model.mounted import KIB, Client, mounted, with_writeback

PART = 4 * KIB
SIZES = (1, 100, 3 * KIB, 5 * KIB, 2 * PART, 20 * KIB)
DELAYS = (0.0, 0.0, 0.05, 0.3, 1.0)
LARGEST = 80 * KIB


@pytest.fixture
def config(config: MountConfig) -> MountConfig:
    return with_writeback(config, durability="journal", spool_limit=2048 * KIB)


def watch(store: MemoryStore, key: str) -> list[bytes]:
    """Every version that the key gets from now on."""
    versions: list[bytes] = []

    def stored(operation: str, at: str) -> None:
        if at == key and operation in {"PutObject", "CompleteMultipartUpload", "CopyObject"}:
            versions.append(store.objects[key].data)

    store.after = stored
    return versions


def letters(letter: str, length: int) -> bytes:
    return letter.encode() * length


async def test_a_write_between_two_parts_is_no_part_of_what_is_being_sent(
    store: MemoryStore, config: MountConfig, autojump_clock: object
) -> None:
    async def slow(operation: str, key: str) -> None:
        await trio.sleep(1.0 if operation == "UploadPart" else 0.0)

    config = with_writeback(config, bytes_in_flight=PART)  # one after the other
    old, new = letters("a", 10 * PART), letters("b", 10 * PART)
    async with mounted(store, config) as client:
        versions = watch(store, "f")
        store.before = slow
        await client.write("f", old)
        await trio.sleep(3)
        assert not versions
        handle = await client.open("f", os.O_WRONLY)
        for at in range(10):
            await client.fs.write(handle, at * PART, new[:PART])
            await trio.sleep(1)
        await trio.sleep(10)
        assert versions == [old]
        await client.close(handle)
        assert not await client.fs.drain(60.0)
        assert versions == [old, new]


@pytest.mark.parametrize("pause", [0.2, 0.9])  # before the PUT begins, and while it runs
async def test_what_a_close_left_is_sent_with_the_mtime_of_then(
    store: MemoryStore,
    config: MountConfig,
    pause: float,
    monkeypatch: pytest.MonkeyPatch,
    autojump_clock: object,
) -> None:
    async def slow(operation: str, key: str) -> None:
        await trio.sleep(1.0)

    monkeypatch.setattr(open_file, "now_ns", lambda: int(trio.current_time() * 1e9))
    async with mounted(store, config) as client:
        versions = watch(store, "f")
        store.before = slow
        await client.write("f", letters("a", KIB))
        closed_at = (await client.stat("f")).attributes.mtime_ns
        await trio.sleep(pause)
        handle = await client.open("f", os.O_WRONLY)
        await client.fs.write(handle, 0, b"b")
        assert (await client.stat("f")).attributes.mtime_ns > closed_at
        await trio.sleep(20)
        assert versions == [letters("a", KIB)]
        assert attributes_of(store.objects["f"]).mtime_ns == closed_at
        await client.close(handle)
    assert attributes_of(store.objects["f"]).mtime_ns > closed_at


async def test_bytes_cut_off_after_a_close_are_in_what_it_sends_and_not_in_what_follows(
    store: MemoryStore, config: MountConfig, autojump_clock: object
) -> None:
    async with mounted(store, config) as client:
        versions = watch(store, "f")
        await client.write("f", letters("a", 5 * PART))
        handle = await client.open("f", os.O_RDWR)
        number = client.handles[handle]
        await client.fs.setattr(number, size=PART + 100)
        await client.fs.setattr(number, size=4 * PART)
        await trio.sleep(2)
        assert versions == [letters("a", 5 * PART)]
        after = letters("a", PART + 100) + bytes(3 * PART - 100)
        assert await client.read_all(handle) == after
        await client.close(handle)
        assert not await client.fs.drain(60.0)
        assert versions[1:] == [after]


class Writer:
    """Chooses at random what programs do to one file, one call after the other."""

    def __init__(self, client: Client, chance: random.Random, stored: list[bytes]) -> None:
        self.client = client
        self.chance = chance
        self.stored = stored
        self.content = bytearray(b"first")
        self.closed: set[bytes] = set()  # what some close or fsync has left
        self.handles: dict[int, bool] = {}  # whether it wrote since its last flush
        self._writes = 0

    async def step(self) -> None:
        steps: list[Callable[[], Awaitable[None]]] = [self.open, self.pause, self.cut_by_path]
        if self.handles:
            steps += [self.write] * 4 + [self.cut, self.close, self.flush, self.fsync, self.die]
        await self.chance.choice(steps)()

    async def pause(self) -> None:
        await trio.sleep(self.chance.choice((0.01, 0.2, 0.6, 3.0)))

    def left(self) -> None:
        self.closed.add(bytes(self.content))

    async def open(self) -> None:
        if len(self.handles) == 2:
            return
        anew = self.chance.random() < 0.25
        handle = await self.client.open("f", os.O_RDWR | (os.O_TRUNC if anew else 0))
        self.handles[handle] = False
        if anew:
            self.content.clear()

    def any(self) -> int:
        return self.chance.choice(list(self.handles))

    async def write(self) -> None:
        handle = self.any()
        self._writes += 1
        at = self.chance.choice((0, len(self.content), self.chance.randrange(LARGEST)))
        data = (self._writes.to_bytes(2, "big") * LARGEST)[: self.chance.choice(SIZES)]
        data = data[: max(0, LARGEST - at)]
        if data:
            await self.client.fs.write(handle, at, data)
            self.content.extend(bytes(max(0, at - len(self.content))))
            self.content[at : at + len(data)] = data
            self.handles[handle] = True

    def _resize(self, size: int) -> None:
        del self.content[size:]
        self.content.extend(bytes(size - len(self.content)))

    async def cut(self) -> None:
        size = self.chance.choice((0, len(self.content) // 2, len(self.content) + 3000))
        await self.client.fs.setattr(self.client.handles[self.any()], size=size)
        self._resize(size)
        self.handles = dict.fromkeys(self.handles, True)

    async def cut_by_path(self) -> None:
        if not self.handles:
            size = self.chance.choice((0, len(self.content) // 2, len(self.content) + 3000))
            await self.client.setattr("f", size=size)
            self._resize(size)
            self.left()

    async def flush(self) -> None:
        handle = self.any()
        if self.handles[handle]:
            self.left()
            await self.client.fs.flush(handle)
            self.handles[handle] = False

    async def fsync(self) -> None:
        self.left()
        await self.client.fs.fsync(self.any(), False)
        assert self.stored[-1:] in ([], [bytes(self.content)])

    async def close(self) -> None:
        await self.flush()
        await self.die()

    async def die(self) -> None:
        """As when the writer was killed."""
        handle = self.any()
        self.left()
        await self.client.release(handle)
        del self.handles[handle]


@pytest.mark.parametrize("spool", ["ample", "small"])
@pytest.mark.parametrize("seed", range(16))
async def test_whatever_programs_do_to_a_file_only_states_that_a_close_has_left_are_stored(
    store: MemoryStore, config: MountConfig, autojump_clock: object, seed: int, spool: str
) -> None:
    """A small spool makes it publish early: there the last state counts alone."""
    chance = random.Random(seed)
    if spool == "small":
        config = with_writeback(config, spool_limit=64 * KIB)

    async def slow(operation: str, key: str) -> None:
        await trio.sleep(chance.choice(DELAYS))

    async with mounted(store, config) as client:
        await client.write("f", b"first")
        assert not await client.fs.drain(60.0)
        versions = watch(store, "f")
        store.before = slow
        writer = Writer(client, chance, versions)
        for _ in range(120):
            await writer.step()
            half = [version for version in versions if version not in writer.closed]
            assert not half or spool == "small", [len(version) for version in half]
        assert await client.read("f") == bytes(writer.content)
        while writer.handles:
            await writer.die()
        assert not await client.fs.drain(600.0)
        assert versions[-1] in writer.closed
        assert contents(store) == {"f": bytes(writer.content)}
        assert versions
        await trio.sleep(5)
        assert leftovers(client.fs, store) == []
