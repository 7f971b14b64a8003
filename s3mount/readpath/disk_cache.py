"""What was read, on disk: survives restarts, bounded in bytes, never trusted unchecked.

Layout below the cache's directory (0700): one directory per version, named by a hash of namespace,
key, ETag and size; in it one file (0600) per answer, named START-LENGTH. A file is MAGIC, the CRC
of the checksums, one CRC per CHUNK bytes of data, then the data. Files are written under another
name and renamed, without fsync: what a power cut leaves damaged, the CRCs show.
"""

import contextlib
import hashlib
import logging
import os
import re
import shutil
import struct
import zlib
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

import trio

from s3mount.core.config import MIB
from s3mount.readpath.directory_lock import lock_directory
from s3mount.readpath.intervals import IntervalIndex
from s3mount.readpath.remote import Identity

_LOG = logging.getLogger(__name__)

MAGIC = b"s3mount1"
CHUNK = 128 * 1024
# Answers that wait for the disk keep their memory; a slow disk caches less instead.
MAX_QUEUED = 16 * MIB
# How often it is looked whether the mount that has the directory has ended.
LOCK_INTERVAL = 10.0
# Left free on the disk, which the spool shares.
DISK_RESERVE = 512 * MIB

_NAME = re.compile(r"(\d+)-(\d+)")
_DIGEST = re.compile(r"[0-9a-f]{40}")


class DamagedEntry(Exception):
    """The file is not what was written."""


class DiskEntry:
    """Bytes [start, end) of one version, in one file."""

    __slots__ = ("digest", "end", "start")

    def __init__(self, digest: str, start: int, end: int) -> None:
        self.digest = digest
        self.start = start
        self.end = end

    @property
    def file_size(self) -> int:
        return _header_size(self.end - self.start) + self.end - self.start


class DiskCache:
    """Blocks by version on disk, the least recently used dropped first.

    load() never waits for writes; store() never blocks. Until run() has read the directory
    nothing is found. Mounts of one bucket share the directory: its lock says whose it is, for only
    one can keep the bound; the others go without until it has ended.
    """

    def __init__(
        self, directory: Path, limit: int, namespace: str, *, reserve: int = DISK_RESERVE
    ) -> None:
        self.directory = directory
        self.limit = limit
        self.used = 0  # bytes of files
        self.damaged = 0
        self.skipped = 0  # answers not written because the disk was slow or full
        self._namespace = namespace
        self._reserve = reserve
        self._versions: dict[str, IntervalIndex[DiskEntry]] = {}
        self._recent: OrderedDict[DiskEntry, None] = OrderedDict()  # least recently used first
        self._jobs: deque[Callable[[], Awaitable[None]]] = deque()
        self._queued = 0  # bytes
        self._elsewhere = False  # another process has the directory
        self._work = trio.Event()
        self._idle = trio.Event()
        self._readers = trio.CapacityLimiter(8)
        self._writer = trio.CapacityLimiter(1)

    def digest(self, identity: Identity) -> str:
        key, etag, size = identity
        text = "\0".join((self._namespace, key, etag, str(size)))
        return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:40]

    # -- reading

    def split(self, identity: Identity, start: int, end: int) -> list[tuple[int, int]]:
        """[start, end) cut so that each piece lies within one file or is in none."""
        index = self._versions.get(self.digest(identity))
        if index is None:
            return [(start, end)]
        pieces = []
        while start < end:
            entry = index.find(start)
            stop = min(entry.end, end) if entry else index.next_start(start, end)
            pieces.append((start, stop))
            start = stop
        return pieces

    async def load(self, identity: Identity, start: int, end: int) -> bytes | None:
        """The bytes, checked; None if no single file holds them all undamaged."""
        index = self._versions.get(self.digest(identity))
        entry = index.find(start) if index else None
        if entry is None or entry.end < end:
            return None
        self._recent.move_to_end(entry)
        try:
            return await trio.to_thread.run_sync(
                _read_entry, self._path(entry), entry, start, end, limiter=self._readers
            )
        except FileNotFoundError:
            self._forget(entry)
        except (OSError, DamagedEntry) as error:
            _LOG.warning("dropping a damaged entry of the disk cache: %s", error)
            self.damaged += 1
            self._forget(entry)
            self._enqueue(partial(self._in_thread, _unlink, self._path(entry)))
        return None

    # -- changing

    def store(self, identity: Identity, start: int, data: bytes) -> None:
        """Writes `data` in the background; skipped where the disk does not keep up."""
        if self._queued + len(data) > MAX_QUEUED or not data or self._elsewhere:
            self.skipped += 1
            return
        self._queued += len(data)
        entry = DiskEntry(self.digest(identity), start, start + len(data))
        self._enqueue(partial(self._write, entry, data))

    def move(self, old: Identity, new: Identity) -> None:
        """The version has a new key or ETag from now on."""
        if old != new:
            self._enqueue(partial(self._move, self.digest(old), self.digest(new)))

    def drop(self, identity: Identity) -> None:
        digest = self.digest(identity)
        for entry in self._versions.get(digest, ()):
            self._forget(entry)
        self._enqueue(partial(self._in_thread, _remove_tree, self.directory / digest))

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Reads the directory, then writes in the background; ends by cancellation."""
        task_status.started()
        with contextlib.ExitStack() as held:
            await self._take(held)
            await self._run()

    async def _take(self, held: contextlib.ExitStack) -> None:
        while True:
            try:
                lock = await trio.to_thread.run_sync(lock_directory, self.directory)
            except OSError as error:
                _LOG.warning("no disk cache: %s", error)
                self.limit = 0
                return
            if lock is not None:
                held.callback(os.close, lock)
                self._elsewhere = False
                return
            if not self._elsewhere:
                _LOG.info("%s is in use by another mount: going on without", self.directory)
                self._elsewhere = True
                self._jobs.clear()
                self._queued = 0
                self._idle.set()
            await trio.sleep(LOCK_INTERVAL)

    async def _run(self) -> None:
        try:
            found = await trio.to_thread.run_sync(_scan, self.directory, limiter=self._writer)
        except OSError as error:
            _LOG.warning("no disk cache: %s", error)
            self.limit = 0
            found = []
        for entry in found:
            self._remember(entry)
        await self._shrink()
        while True:
            while self._jobs:
                await self._jobs.popleft()()
            self._idle.set()
            await self._work.wait()
            self._work = trio.Event()

    async def written(self) -> None:
        """Waits until everything stored so far is on disk (or skipped)."""
        await self._idle.wait()

    def _enqueue(self, job: Callable[[], Awaitable[None]]) -> None:
        if self._elsewhere:
            return
        self._jobs.append(job)
        if self._idle.is_set():
            self._idle = trio.Event()
        self._work.set()

    async def _in_thread(self, work: Callable[[Path], None], path: Path) -> None:
        try:
            await trio.to_thread.run_sync(work, path, limiter=self._writer)
        except OSError as error:
            _LOG.warning("disk cache: %s", error)

    async def _write(self, entry: DiskEntry, data: bytes) -> None:
        try:
            written = entry.file_size <= self.limit and await trio.to_thread.run_sync(
                _write_entry, self._path(entry), data, self._reserve, limiter=self._writer
            )
            if written:
                self._remember(entry)
            else:
                self.skipped += 1
        except OSError as error:
            self.skipped += 1
            _LOG.warning("not cached on disk: %s", error)
        finally:
            self._queued -= len(data)
        await self._shrink()

    async def _shrink(self) -> None:
        while self.used > self.limit and self._recent:
            entry = next(iter(self._recent))
            self._forget(entry)
            await self._in_thread(_unlink, self._path(entry))

    async def _move(self, old: str, new: str) -> None:
        try:
            await trio.to_thread.run_sync(
                _move_tree, self.directory / old, self.directory / new, limiter=self._writer
            )
        except OSError as error:
            _LOG.warning("disk cache: %s", error)
        for entry in self._versions.get(old, ()):
            self._forget(entry)
            self._remember(DiskEntry(new, entry.start, entry.end))

    # -- the index

    def _path(self, entry: DiskEntry) -> Path:
        return self.directory / entry.digest / f"{entry.start}-{entry.end - entry.start}"

    def _remember(self, entry: DiskEntry) -> None:
        index = self._versions.setdefault(entry.digest, IntervalIndex())
        swallowed = index.add(entry)
        if swallowed is None:
            known = index.find(entry.start)
            if known is None or (known.start, known.end) != (entry.start, entry.end):
                self._enqueue(partial(self._in_thread, _unlink, self._path(entry)))
            return
        for old in swallowed:
            del self._recent[old]
            self.used -= old.file_size
            self._enqueue(partial(self._in_thread, _unlink, self._path(old)))
        self._recent[entry] = None
        self.used += entry.file_size

    def _forget(self, entry: DiskEntry) -> None:
        """Does nothing the second time."""
        if entry not in self._recent:
            return
        del self._recent[entry]
        self.used -= entry.file_size
        index = self._versions[entry.digest]
        index.remove(entry)
        if not len(index):
            del self._versions[entry.digest]


# -- in worker threads


def _header_size(length: int) -> int:
    return len(MAGIC) + 4 + 4 * -(-length // CHUNK)


def _header(data: bytes) -> bytes:
    view = memoryview(data)
    checksums = [zlib.crc32(view[at : at + CHUNK]) for at in range(0, len(data), CHUNK)]
    packed = struct.pack(f">{len(checksums)}I", *checksums)
    return MAGIC + struct.pack(">I", zlib.crc32(packed)) + packed


def _write_entry(path: Path, data: bytes, reserve: int) -> bool:
    """False, and nothing written, where less than `reserve` bytes of the disk would stay free."""
    path.parent.mkdir(mode=0o700, exist_ok=True)
    disk = os.statvfs(path.parent)
    if disk.f_bavail * disk.f_frsize < reserve + len(data):
        return False
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(temporary, flags, 0o600)
    try:
        with open(descriptor, "wb", buffering=0) as file:
            for part in (_header(data), data):
                view = memoryview(part)
                while view:
                    view = view[file.write(view) or 0 :]
        temporary.rename(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    return True


def _read_entry(path: Path, entry: DiskEntry, start: int, end: int) -> bytes:
    """Reads and checks the chunks that [start, end) touches; marks the file as used now."""
    length = entry.end - entry.start
    with path.open("rb", buffering=0) as file:
        header_size = _header_size(length)
        header = file.read(header_size)
        packed = header[len(MAGIC) + 4 :]
        if (
            os.fstat(file.fileno()).st_size != entry.file_size
            or not header.startswith(MAGIC)
            or zlib.crc32(packed) != struct.unpack_from(">I", header, len(MAGIC))[0]
        ):
            raise DamagedEntry(str(path))
        checksums = struct.unpack(f">{len(packed) // 4}I", packed)
        first = (start - entry.start) // CHUNK
        base = first * CHUNK
        stop = min(-(-(end - entry.start) // CHUNK) * CHUNK, length)
        data = _pread(file.fileno(), stop - base, header_size + base)
        os.utime(file.fileno())
    view = memoryview(data)
    for number, at in enumerate(range(0, len(data), CHUNK), first):
        if zlib.crc32(view[at : at + CHUNK]) != checksums[number]:
            raise DamagedEntry(f"{path} at {number * CHUNK}")
    skip = start - entry.start - base
    if skip == 0 and len(data) == end - start:
        return data
    return data[skip : skip + end - start]


def _pread(descriptor: int, length: int, offset: int) -> bytes:
    data = os.pread(descriptor, length, offset)
    if len(data) != length:
        raise DamagedEntry("cut short")
    return data


def _scan(directory: Path) -> list[DiskEntry]:
    """All entries, the least recently used first. Removes what a killed writer left."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    directory.chmod(0o700)
    found: list[tuple[int, DiskEntry]] = []
    for version in os.scandir(directory):
        if not _DIGEST.fullmatch(version.name) or not version.is_dir(follow_symlinks=False):
            continue
        kept = 0
        for file in os.scandir(version.path):
            match = _NAME.fullmatch(file.name)
            entry = None
            if match and int(match[2]) > 0:
                entry = DiskEntry(version.name, int(match[1]), int(match[1]) + int(match[2]))
            status = file.stat(follow_symlinks=False)
            if entry is None or status.st_size != entry.file_size:
                Path(file.path).unlink(missing_ok=True)
                continue
            found.append((status.st_mtime_ns, entry))
            kept += 1
        if not kept:
            with contextlib.suppress(OSError):
                os.rmdir(version.path)
    found.sort(key=lambda item: item[0])
    return [entry for _, entry in found]


def _unlink(path: Path) -> None:
    path.unlink(missing_ok=True)
    with contextlib.suppress(OSError):  # still others in it
        path.parent.rmdir()


def _remove_tree(path: Path) -> None:
    shutil.rmtree(path, ignore_errors=True)


def _move_tree(old: Path, new: Path) -> None:
    if new.exists():
        shutil.rmtree(old, ignore_errors=True)
    elif old.exists():
        old.rename(new)
