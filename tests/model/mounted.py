"""A FileSystem over a MemoryStore, in virtual time and without threads, and a path-wise client.

Work that belongs in threads runs in line here, so that trio's MockClock may jump whenever all
tasks wait, and a run depends on nothing but its seed.
"""

import contextlib
import itertools
import os
import random
import stat
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar
from unittest.mock import patch

import trio
import trio.testing

from s3mount.core.config import (
    AttributeDefaults,
    MountConfig,
    NamespaceConfig,
    ReadConfig,
    StoreConfig,
    WritebackConfig,
)
from s3mount.core.errors import FilesystemError
from s3mount.filesystem.build import open_filesystem
from s3mount.filesystem.filesystem import FileSystem
from s3mount.filesystem.stat import DirEntry, Stat
from s3mount.store.base import ObjectStore
from s3mount.store.memory import MemoryStore
from s3mount.writeback.journal import MemoryJournal

T = TypeVar("T")
KIB = 1024
UID, GID = 1000, 1001
ROOT = 1
EPOCH = 1_700_000_000.0  # what the service's clock shows when virtual time is 0
TTL = 3.0


async def _in_line(
    work: Callable[..., T], *args: Any, limiter: trio.CapacityLimiter | None = None, **_: Any
) -> T:
    if limiter is None:
        await trio.lowlevel.checkpoint()
        return work(*args)
    async with limiter:
        return work(*args)


@contextlib.contextmanager
def threads_in_line() -> Iterator[None]:
    with patch("trio.to_thread.run_sync", _in_line):
        yield


def run(work: Callable[[], Any]) -> None:
    """`work()` in virtual time; what it raises comes as it is, not in a group."""
    with threads_in_line():
        try:
            trio.run(work, clock=trio.testing.MockClock(autojump_threshold=0))
        except BaseExceptionGroup as group:
            error: BaseException = group
            while isinstance(error, BaseExceptionGroup):
                error = error.exceptions[0]
            raise error from None


def service_clock() -> float:
    return EPOCH + trio.current_time()


def ticking() -> Callable[[], float]:
    """Virtual time of which no two moments are the same, as on a real clock."""
    ticks = itertools.count()
    return lambda: trio.current_time() + next(ticks) * 1e-7


def memory_store(**options: Any) -> MemoryStore:
    """A service in virtual time that takes parts of 4 KiB."""
    options.setdefault("minimum_part_size", 4 * KIB)
    return MemoryStore(clock=service_clock, monotonic=ticking(), **options)


def tiny_config(directory: Path, prefix: str = "", **writeback: Any) -> MountConfig:
    """Parts of 4 KiB, so that files of some 50 KiB go all the ways that large ones go."""
    settings: dict[str, Any] = {
        "spool_dir": directory / "spool",
        "spool_limit": 256 * KIB,
        "disk_reserve": 0,
        "part_size": 4 * KIB,
        "min_part_size": 4 * KIB,
        "max_part_size": 256 * KIB,
        "max_parts": 1000,
        "max_object_size": 2048 * KIB,
        "max_copy_size": 48 * KIB,
        "copy_part_size": 8 * KIB,
        "single_put_limit": 8 * KIB,
        "bytes_in_flight": 64 * KIB,
    }
    return MountConfig(
        mountpoint=directory / "mnt",
        prefix=prefix,
        store=StoreConfig(bucket="b"),
        defaults=AttributeDefaults(uid=UID, gid=GID),
        namespace=NamespaceConfig(metadata_ttl=TTL),
        writeback=WritebackConfig(**{**settings, **writeback}),
        read=ReadConfig(
            memory_limit=256 * KIB,
            first_request=4 * KIB,
            random_request=2 * KIB,
            max_window=64 * KIB,
            max_request=16 * KIB,
            small_object=6 * KIB,
            sibling_window=4,
        ),
        cache_dir=directory,
    )


@dataclass
class Client:
    """What the kernel does for programs: walks paths, counts references, retries ESTALE."""

    fs: FileSystem
    held: dict[int, int] = field(default_factory=dict)  # number -> references
    handles: dict[int, int] = field(default_factory=dict)  # handle -> number

    def _hold(self, found: Stat) -> Stat:
        self.held[found.number] = self.held.get(found.number, 0) + 1
        return found

    def forget(self) -> None:
        """All that no handle keeps."""
        in_use = set(self.handles.values())
        gone = [(number, count) for number, count in self.held.items() if number not in in_use]
        for number, _ in gone:
            del self.held[number]
        self.fs.forget(gone)

    async def directory(self, path: str) -> int:
        return (await self.stat(path)).number if path else ROOT

    async def parent(self, path: str) -> tuple[int, bytes]:
        above, _, name = path.rpartition("/")
        return await self.directory(above), name.encode()

    async def stat(self, path: str) -> Stat:
        if not path:
            return await self.fs.getattr(ROOT)
        parent, name = await self.parent(path)
        return self._hold(await self.fs.lookup(parent, name))

    async def exists(self, path: str) -> bool:
        try:
            await self.stat(path)
        except FilesystemError as error:
            if error.errno == 2:
                return False
            raise
        return True

    async def mkdir(self, path: str, mode: int = 0o755) -> Stat:
        return self._hold(await self.fs.mkdir(*await self.parent(path), mode, UID, GID))

    async def symlink(self, path: str, target: bytes) -> Stat:
        return self._hold(await self.fs.symlink(*await self.parent(path), target, UID, GID))

    async def mknod(self, path: str, mode: int, rdev: int = 0) -> Stat:
        return self._hold(await self.fs.mknod(*await self.parent(path), mode, rdev, UID, GID))

    async def readlink(self, path: str) -> bytes:
        return await self.fs.readlink((await self.stat(path)).number)

    async def unlink(self, path: str) -> None:
        await self.fs.unlink(*await self.parent(path))

    async def rmdir(self, path: str) -> None:
        await self.fs.rmdir(*await self.parent(path))

    async def rename(self, old: str, new: str, flags: int = 0) -> None:
        old_parent, old_name = await self.parent(old)
        new_parent, new_name = await self.parent(new)
        await self.fs.rename(old_parent, old_name, new_parent, new_name, flags)

    async def create(self, path: str, flags: int = os.O_WRONLY, mode: int = 0o644) -> int:
        """O_CREAT of a name that is not there, or was there (open)."""
        handle, found = await self.fs.create(
            *await self.parent(path), stat.S_IFREG | mode, flags | os.O_CREAT, UID, GID
        )
        self._hold(found)
        self.handles[handle] = found.number
        return handle

    async def open(self, path: str, flags: int = os.O_RDONLY) -> int:
        for attempt in range(5):
            number = (await self.stat(path)).number
            try:
                handle = (await self.fs.open(number, flags)).handle
            except FilesystemError as error:
                if error.errno != 116 or attempt == 4:  # ESTALE
                    raise
                continue
            self.handles[handle] = number
            return handle
        raise AssertionError("unreachable")

    async def release(self, handle: int) -> None:
        await self.fs.release(handle)
        del self.handles[handle]

    async def close(self, handle: int) -> None:
        try:
            await self.fs.flush(handle)
        finally:
            await self.release(handle)

    async def write(self, path: str, data: bytes, flags: int = 0, step: int = 1 << 20) -> None:
        """`> path` (the default), or an open with other flags, at the file's beginning."""
        if await self.exists(path):
            handle = await self.open(path, os.O_WRONLY | (flags or os.O_TRUNC))
        else:
            handle = await self.create(path, os.O_WRONLY | flags)
        for start in range(0, len(data), step):
            await self.fs.write(handle, start, data[start : start + step])
        await self.close(handle)

    async def edit(self, path: str, offset: int, data: bytes) -> None:
        handle = await self.open(path, os.O_WRONLY)
        await self.fs.write(handle, offset, data)
        await self.close(handle)

    async def read(self, path: str, step: int = 128 * KIB) -> bytes:
        handle = await self.open(path)
        try:
            return await self.read_all(handle, step)
        finally:
            await self.release(handle)

    async def read_all(self, handle: int, step: int = 128 * KIB) -> bytes:
        pieces = []
        offset = 0
        while piece := bytes(await self.fs.read(handle, offset, step)):
            pieces.append(piece)
            offset += len(piece)
        return b"".join(pieces)

    async def setattr(self, path: str, **changes: int) -> Stat:
        return await self.fs.setattr((await self.stat(path)).number, **changes)

    async def entries(self, path: str = "") -> list[DirEntry]:
        handle = await self.fs.opendir(await self.directory(path))
        found: list[DirEntry] = []
        position = 0
        while batch := list(await self.fs.readdir(handle, position)):
            found += batch
            position = batch[-1].next_position
        await self.fs.releasedir(handle)
        return found

    async def ls(self, path: str = "") -> list[str]:
        return sorted(entry.name.decode() for entry in await self.entries(path))

    async def fsyncdir(self, path: str = "") -> None:
        handle = await self.fs.opendir(await self.directory(path))
        await self.fs.fsyncdir(handle)
        await self.fs.releasedir(handle)


class KeptJournal(MemoryJournal):
    """Of it the file system believes that it outlives the process; tests see to that."""

    durable = True


@contextlib.asynccontextmanager
async def mounted(
    store: MemoryStore,
    config: MountConfig,
    shuffle: random.Random | None = None,
    served: ObjectStore | None = None,
) -> AsyncIterator[Client]:
    """A running file system; at the end what is pending is sent, and nothing may be left over.

    `served`: another way to what is in `store`.
    """
    journal = KeptJournal()
    fs = await open_filesystem(
        config, served or store, clock=store.monotonic, shuffle=shuffle, journal=journal
    )
    async with trio.open_nursery() as nursery:
        await nursery.start(fs.run)
        client = Client(fs)
        try:
            yield client
        except Exception:
            nursery.cancel_scope.cancel()
            raise
        for handle in list(client.handles):
            await client.release(handle)
        left = await fs.drain(600.0)
        assert not left, left
        await trio.sleep(0.1)  # aborts of unlinked files' uploads end
        await fs.aclose()
        nursery.cancel_scope.cancel()


@contextlib.contextmanager
def scratch_directory() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="s3mount-model-") as name:
        yield Path(name)


def with_writeback(config: MountConfig, **changes: Any) -> MountConfig:
    return replace(config, writeback=replace(config.writeback, **changes))
