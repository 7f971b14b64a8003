"""What a machine has at each step of a mount's life, and what of it a power cut leaves.

A step is a commit of the journal, a sync of the journal or of the spool, a request that changes
the bucket (just before it is carried out, and just after), or an answer to the program. At each
of them `Machine.step` takes an `Image`; the life itself goes on undisturbed.
"""

import os
import random
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import trio

from s3mount.core.config import MountConfig
from s3mount.filesystem.build import open_filesystem
from s3mount.store.memory import MemoryStore
from s3mount.store.memory_bucket import StoredObject, StoredUpload
from s3mount.writeback.chunk import Chunk
from s3mount.writeback.chunk_files import ChunkFiles
from s3mount.writeback.journal_records import JournalContents
from s3mount.writeback.sqlite_journal import GROUP_DELAY
from tests.model.dying import CHANGES
from tests.model.mounted import Client, KeptJournal, memory_store

SECTOR = 512  # what a disk writes as a whole

Bytes = Mapping[str, bytes]  # of chunk files, by name


@dataclass(frozen=True)
class Pace:
    """Seconds that one sync, and the way of one request in each direction, take."""

    disk: float = 0.01
    network: float = 0.0


@dataclass(frozen=True)
class Bucket:
    objects: Mapping[str, StoredObject]
    uploads: Mapping[str, StoredUpload]
    serial: int

    @classmethod
    def of(cls, store: MemoryStore) -> "Bucket":
        return cls(dict(store._objects), _copied(store.uploads), store._serial)

    def store(self) -> MemoryStore:
        """A service of its own that has the same."""
        store = memory_store()
        store._objects, store._ordered = dict(self.objects), None
        store.uploads, store._serial = _copied(self.uploads), self.serial
        return store


def _copied(uploads: Mapping[str, StoredUpload]) -> dict[str, StoredUpload]:
    return {key: replace(upload, parts=dict(upload.parts)) for key, upload in uploads.items()}


@dataclass(frozen=True)
class SpoolImage:
    """`now`: what programs see; `synced`: what an fdatasync has put on the disk, of the names that
    an fsync of the directory has."""

    now: Bytes
    synced: Bytes

    def after_a_cut(self, chance: random.Random | str) -> dict[str, bytes]:
        """'drop': what was synced; 'keep': all; by chance: of each sector the old or the new."""
        if chance == "drop":
            return dict(self.synced)
        if chance == "keep":
            return dict(self.now)
        assert isinstance(chance, random.Random)
        left: dict[str, bytes] = {}
        for name in sorted(self.now.keys() | self.synced.keys()):
            now, synced = self.now.get(name), self.synced.get(name)
            if (now is None or synced is None) and chance.random() < 0.5:
                continue
            left[name] = _torn(now or b"", synced or b"", chance)
        return left


def _torn(now: bytes, synced: bytes, chance: random.Random) -> bytes:
    if now == synced:
        return now
    size = len(chance.choice((now, synced)))
    sectors = []
    for start in range(0, size, SECTOR):
        piece = chance.choice((now, synced))[start : start + SECTOR]
        sectors.append(piece.ljust(min(SECTOR, size - start), b"\0"))
    return b"".join(sectors)


@dataclass(frozen=True)
class Image:
    """`done`: steps of the script that were acknowledged. `journal`: as of the last sync, then as
    of each commit after that; the first of them holds `commits` commits."""

    what: str
    at: float  # trio time
    done: int
    bucket: Bucket
    journal: tuple[JournalContents, ...]
    commits: int
    spool: SpoolImage


@dataclass(frozen=True)
class Remains:
    """One thing that a cut may leave of an image."""

    image: Image
    kept: int  # commits of the journal behind its last sync
    how: str  # the spool
    journal: JournalContents
    spool: Mapping[str, bytes]

    @property
    def commits(self) -> int:
        return self.image.commits + self.kept

    def __str__(self) -> str:
        lost = len(self.image.journal) - 1 - self.kept
        return f"cut {self.image.what}; {lost} commits lost, {self.kept} kept; spool: {self.how}"


def remains(image: Image, kept: int, how: str | int) -> Remains:
    """`how`: see SpoolImage.after_a_cut; a number is a seed."""
    spool = image.spool.after_a_cut(how if isinstance(how, str) else random.Random(how))
    return Remains(image, kept, str(how), image.journal[kept], spool)


class Machine:
    """One life of a mount in `directory`, from what `left` has, if that is given. Images are taken
    while it is `watched`."""

    def __init__(
        self,
        directory: Path,
        config: MountConfig,
        pace: Pace,
        left: Remains | None = None,
        *,
        watched: bool = True,
    ) -> None:
        self.images: list[Image] = []
        self.done = 0
        self.acknowledged: list[int] = []  # commits of the journal by then, for each that is done
        writeback = replace(config.writeback, spool_dir=directory / "spool")
        self.config = replace(config, cache_dir=directory, writeback=writeback)
        self.pace = pace
        self._spool = directory / "spool"
        self._spool.mkdir(parents=True)
        self._synced: dict[str, bytes] = {}
        self._names: set[str] = set()
        self._taking = watched
        self.store = memory_store() if left is None else left.image.bucket.store()
        self.journal = VolatileJournal(JournalContents() if left is None else left.journal, self)
        if left is not None:
            for name, data in left.spool.items():
                (self._spool / name).write_bytes(data)
            self._synced, self._names = dict(left.spool), set(left.spool)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Client]:
        with self._disk():
            fs = await open_filesystem(
                self.config,
                VolatileStore(self.store, self),
                clock=self.store.monotonic,
                journal=self.journal,
            )
            try:
                async with trio.open_nursery() as nursery:
                    await nursery.start(fs.run)
                    yield Client(fs)
                    self._taking = False
                    await fs.aclose()
                    nursery.cancel_scope.cancel()
            finally:
                fs.state.spool.close()

    def acknowledge(self) -> None:
        self.done += 1
        self.acknowledged.append(self.journal.commits)
        self.step(f"after operation {self.done}")

    def step(self, what: str) -> None:
        if self._taking:
            image = Image(
                what,
                trio.current_time(),
                self.done,
                Bucket.of(self.store),
                tuple(self.journal.versions),
                self.journal.synced,
                SpoolImage(
                    self.chunk_files(), {name: self._synced.get(name, b"") for name in self._names}
                ),
            )
            if not self.images or not _same(image, self.images[-1]):
                self.images.append(image)

    def chunk_files(self) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in self._spool.glob("chunk-*")}

    # -- the spool's disk

    @contextmanager
    def _disk(self) -> Iterator[None]:
        async def in_line(
            work: Callable[..., Any],
            *args: Any,
            limiter: trio.CapacityLimiter | None = None,
            **_: Any,
        ) -> Any:
            owner = getattr(work, "__self__", None)
            if isinstance(owner, Chunk) and work.__name__ == "fdatasync":
                return await self._sync_chunk(owner)
            if isinstance(owner, ChunkFiles) and work.__name__ == "_sync_directory":
                return await self._sync_directory()
            await trio.lowlevel.checkpoint()
            return work(*args)

        with patch("trio.to_thread.run_sync", in_line):
            yield

    async def _sync_chunk(self, chunk: Chunk) -> None:
        """What is written while it runs may be on the disk afterwards, or not."""
        data = os.pread(chunk.fd, 1 << 30, 0)
        await trio.sleep(self.pace.disk)
        self.step(f"when {chunk.name} is about to be synced")
        self._synced[chunk.name] = data

    async def _sync_directory(self) -> None:
        names = {path.name for path in self._spool.glob("chunk-*")}
        await trio.sleep(self.pace.disk)
        self.step("when the spool's directory is about to be synced")
        self._names = names


def _same(one: Image, other: Image) -> bool:
    """But for the moment."""
    return (
        one.done == other.done
        and one.commits == other.commits
        and len(one.journal) == len(other.journal)
        and one.bucket == other.bucket
        and one.spool == other.spool
    )


class VolatileStore:
    def __init__(self, store: MemoryStore, machine: Machine) -> None:
        self._store = store
        self._machine = machine

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._store, name)
        if name not in CHANGES:
            return found
        step, pause = self._machine.step, self._machine.pace.network

        async def change(*args: Any, **options: Any) -> Any:
            await trio.sleep(pause)
            step(f"before {name} {args[0]!r}")
            try:
                return await found(*args, **options)
            finally:
                step(f"after {name} {args[0]!r}")
                await trio.sleep(pause)

        return change


class VolatileJournal(KeptJournal):
    """Syncs as SqliteJournal does: in groups, and when it is asked to."""

    def __init__(self, contents: JournalContents, machine: Machine) -> None:
        super().__init__(contents)
        self.versions = [self.load()]  # see Image.journal
        self.synced = 0
        self._machine = machine
        self._synced_until = 0.0
        self._flight: trio.Event | None = None
        self._committed = trio.Event()

    @property
    def commits(self) -> int:
        return self.synced + len(self.versions) - 1

    # -- recording

    @contextmanager
    def transaction(self) -> Iterator[None]:
        if self._open is not None:
            yield
            return
        self._machine.step("before a commit")
        with super().transaction():
            yield
        self._has_committed()

    def _do(self, call: Callable[[], Any]) -> None:
        if self._open is not None:
            super()._do(call)
            return
        self._machine.step("before a commit")
        super()._do(call)
        self._has_committed()

    def _has_committed(self) -> None:
        self.versions.append(self.load())
        self._committed.set()

    # -- syncing

    @property
    def synced_until(self) -> float:
        return float("inf") if len(self.versions) == 1 else self._synced_until

    async def sync(self) -> None:
        target = self.commits
        await trio.lowlevel.checkpoint()
        while self.synced < target:
            if self._flight is not None:
                await self._flight.wait()
                continue
            flight = self._flight = trio.Event()
            try:
                await self._sync_now()
            finally:
                self._flight = None
                flight.set()

    async def _sync_now(self) -> None:
        serial, began = self.commits, trio.current_time()
        await trio.sleep(self._machine.pace.disk)
        self._machine.step("when the journal is about to be synced")
        del self.versions[: serial - self.synced]
        self.synced, self._synced_until = serial, began

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        task_status.started()
        while True:
            await self._committed.wait()
            self._committed = trio.Event()
            while len(self.versions) > 1:
                await trio.sleep(GROUP_DELAY)
                await self.sync()

    async def aclose(self) -> None:
        await self.sync()
