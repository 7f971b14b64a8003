"""A spool and an uploader of small parts over a store in memory, and a writer that keeps the
books the way the filesystem does."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import trio

from s3mount.core.config import WritebackConfig
from s3mount.core.part_schedule import PartSchedule
from s3mount.store.base import (
    ALWAYS,
    Condition,
    PutResult,
    WriteHeaders,
)
from s3mount.store.memory import MemoryStore
from s3mount.writeback.journal import Journal
from s3mount.writeback.spool import Spool
from s3mount.writeback.uploader import BaseObject, FileUpload, Uploader

KIB = 1024
PART = 256 * KIB  # one chunk each
MINIMUM = 64 * KIB
HEADERS = WriteHeaders({"mode": "33188"})


def configured(directory: Path, **changes: Any) -> WritebackConfig:
    settings: dict[str, Any] = {
        "spool_dir": directory / "spool",
        "spool_limit": 8 * PART,
        "disk_reserve": 0,
        "part_size": PART,
        "single_put_limit": PART,
        "min_part_size": MINIMUM,
        "copy_part_size": 4 * PART,
        "max_parts": 1000,
        "bytes_in_flight": 4 * PART,
    }
    return WritebackConfig(**{**settings, **changes})


def scheduled(config: WritebackConfig) -> PartSchedule:
    return PartSchedule(
        config.part_size, config.max_parts, config.max_object_size, config.equal_parts
    )


def pattern(start: int, length: int, salt: int = 0) -> bytes:
    """Bytes that tell where they belong."""
    first, last = start // 8, (start + length) // 8 + 1
    data = b"".join((word * 2654435761 + salt).to_bytes(8, "big") for word in range(first, last))
    return data[start - first * 8 :][:length]


def disk_bytes(config: WritebackConfig) -> int:
    """What the chunk files take on the disk."""
    return sum(path.stat().st_blocks * 512 for path in config.spool_dir.glob("chunk-*"))


@dataclass
class Rig:
    config: WritebackConfig
    store: MemoryStore
    spool: Spool
    uploader: Uploader

    def writer(self, key: str = "f") -> "Writer":
        return Writer(self, key)


@asynccontextmanager
async def rig(
    directory: Path,
    store: MemoryStore | None = None,
    *,
    journal: Journal | None = None,
    **changes: Any,
) -> AsyncIterator[Rig]:
    config = configured(directory, **changes)
    schedule = scheduled(config)
    store = store or MemoryStore(minimum_part_size=MINIMUM)
    async with Spool(config, schedule) as spool, trio.open_nursery() as nursery:
        uploader = Uploader(store, spool, config, schedule, journal)
        await nursery.start(uploader.run)
        yield Rig(config, store, spool, uploader)
        nursery.cancel_scope.cancel()


@dataclass
class Writer:
    """One file as its open_file sees it; `expected` is what a program would read."""

    rig: Rig
    key: str
    headers: WriteHeaders = HEADERS
    expected: bytearray = field(default_factory=bytearray)
    base: BaseObject | None = None
    visible: int = 0
    base_reads: list[tuple[int, int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.file = self.rig.spool.create_file()
        self.upload: FileUpload = self.rig.uploader.upload_for(self.file)
        self.lock = trio.Lock()  # one commit at a time, each on the base that the last one made

    def on_object(self, data: bytes) -> "Writer":
        """The file is an edit of an object with these bytes."""
        stored = self.rig.store.put_foreign(self.key, data)
        self.base = BaseObject(self.key, stored.etag, len(data))
        self.visible = len(data)
        self.expected = bytearray(data)
        return self

    async def write(self, offset: int, data: bytes) -> None:
        if not self.file.try_write(offset, data):
            await self.file.write(offset, data)
        end = offset + len(data)
        self.expected.extend(bytes(max(0, end - len(self.expected))))
        self.expected[offset:end] = data
        self.upload.wrote(len(self.expected), lambda: (self.key, self.headers))

    def truncate(self, size: int) -> None:
        self.file.truncate(size)
        self.visible = min(self.visible, size)
        self.expected.extend(bytes(max(0, size - len(self.expected))))
        del self.expected[size:]

    async def read_base(self, offset: int, length: int) -> bytes:
        assert self.base is not None
        self.base_reads.append((offset, length))
        got = await self.rig.store.get(self.base.key, offset, length, if_match=self.base.etag)
        return got.data

    async def commit(self, condition: Condition = ALWAYS, key: str | None = None) -> PutResult:
        async with self.lock:
            self.key = key or self.key
            size = len(self.expected)
            stamp = self.file.write_count
            result = await self.upload.commit(
                self.key,
                self.headers,
                size=size,
                base=self.base,
                visible=self.visible,
                condition=condition,
                read_base=self.read_base,
            )
            self.base = BaseObject(self.key, result.etag, size)
            cut = self.file.lowest_size_since(stamp)
            self.visible = size if cut is None else min(size, cut)
            return result

    def read(self) -> bytes:
        """What a program reads now: spooled bytes over the base over zeros."""
        answer = bytearray(len(self.expected))
        if self.base is not None:
            shown = self.rig.store.objects[self.base.key].data[: self.visible]
            answer[: len(shown)] = shown
        for start, end in self.file.present.within(0, len(answer)):
            answer[start:end] = self.file.read(start, end - start)
        return bytes(answer)

    @property
    def stored(self) -> bytes:
        return self.rig.store.objects[self.key].data
