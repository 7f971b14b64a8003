"""Files that were written and never closed when a mount died: kept here, published nowhere.

Each is a sparse file NAME.data, the bytes at their offsets, and NAME.json, which is written last:
without it the data file is half of an export. Synchronous; for worker threads and the command.
"""

import contextlib
import json
import os
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from s3mount.writeback.journal_records import FileRecord, Ranges
from s3mount.writeback.spool_restore import export

_LATEST = 2.0**33  # seconds: the year 2242
COPY_STEP = 4 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class RecoverableFile:
    """`ranges` are there; what lies between them is zeros, or what the object with the ETag
    `base` has, if there is one. `in_upload`: an unfinished upload has more of it."""

    name: str
    key: str
    size: int
    ranges: Ranges
    base: str | None
    changed_at: float  # seconds since the epoch
    in_upload: str | None = None

    @property
    def bytes(self) -> int:
        return sum(end - start for start, end in self.ranges)


class Recoverable:
    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def _data(self, name: str) -> Path:
        return self.directory / f"{name}.data"

    def _json(self, name: str) -> Path:
        return self.directory / f"{name}.json"

    def add(self, record: FileRecord, spool: Path, upload_id: str | None) -> RecoverableFile | None:
        """Exports what is readable of the record; None if that is nothing. Raises OSError.

        Done again after a crash it finds what was done.
        """
        if not record.spool.present and not record.spool.dropped:
            return None
        name = f"{int(record.changed_at):x}-{record.id:x}"
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        done = self.find(name)
        if done is not None and done.key == record.key:
            return done
        self._data(name).unlink(missing_ok=True)
        try:
            ranges = export(record.spool, spool, self._data(name))
            entry = RecoverableFile(
                name,
                record.key,
                record.size,
                ranges,
                None if record.base is None else record.base.etag,
                record.changed_at,
                upload_id if record.spool.dropped else None,
            )
            self._write_json(entry)
        except OSError:
            with contextlib.suppress(OSError):
                self._data(name).unlink(missing_ok=True)
            raise
        return entry

    def add_upload(self, key: str, size: int, upload_id: str, changed_at: float) -> RecoverableFile:
        """A file that lost against another host's, and of which an unfinished upload has bytes
        that are nowhere else: while it is listed here nobody aborts that. Raises OSError."""
        name = f"upload-{sha256(upload_id.encode()).hexdigest()[:12]}"
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._data(name).touch(mode=0o600)
        entry = RecoverableFile(name, key, size, (), None, changed_at, upload_id)
        self._write_json(entry)
        return entry

    def _write_json(self, entry: RecoverableFile) -> None:
        path = self._json(entry.name)
        half = path.with_suffix(".half")
        with half.open("w") as file:
            json.dump(asdict(entry), file, indent=1)
            file.flush()
            os.fsync(file.fileno())
        half.rename(path)
        descriptor = os.open(self.directory, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def find(self, name: str) -> RecoverableFile | None:
        try:
            fields: dict[str, Any] = json.loads(self._json(name).read_text())
            fields["ranges"] = tuple((start, end) for start, end in fields["ranges"])
            found = RecoverableFile(**fields)
        except (OSError, ValueError, TypeError, KeyError, RecursionError):
            return None
        return found if _makes_sense(found, name) else None

    def list(self) -> list[RecoverableFile]:
        """The oldest first."""
        found = [self.find(path.stem) for path in sorted(self.directory.glob("*.json"))]
        return sorted((one for one in found if one is not None), key=lambda one: one.changed_at)

    def save(self, entry: RecoverableFile, target: Path) -> None:
        """Writes the file, with holes where nothing is known. Raises OSError: FileExistsError
        where there is one already."""
        with open(target, "xb") as out, self._data(entry.name).open("rb") as data:
            for start, end in entry.ranges:
                data.seek(start)
                out.seek(start)
                for piece in _pieces(data.read, end - start):
                    out.write(piece)
            out.truncate(entry.size)
            out.flush()
            os.fsync(out.fileno())

    def drop(self, entry: RecoverableFile) -> None:
        """For good."""
        self._json(entry.name).unlink(missing_ok=True)
        self._data(entry.name).unlink(missing_ok=True)


def _makes_sense(found: RecoverableFile, name: str) -> bool:
    """As it was written: its name is that of the files that are read and deleted by it."""
    numbers = [found.size, *(number for pair in found.ranges for number in pair)]
    return (
        found.name == name
        and all(isinstance(number, int) and number >= 0 for number in numbers)
        and isinstance(found.key, str)
        and isinstance(found.base, str | None)
        and isinstance(found.in_upload, str | None)
        and isinstance(found.changed_at, int | float)
        and 0 <= found.changed_at < _LATEST
    )


def _pieces(read: Any, length: int) -> Iterator[bytes]:
    while length:
        piece = read(min(COPY_STEP, length))
        if not piece:
            raise OSError("the saved data file is shorter than it was")
        length -= len(piece)
        yield piece


def all_below(cache: Path) -> list[Recoverable]:
    """Those of every mount that has its files below `cache`."""
    patterns = ("recoverable", "*/recoverable", "*/mounts/*/recoverable")
    found = sorted(path for pattern in patterns for path in cache.glob(pattern) if path.is_dir())
    return [Recoverable(path) for path in found]


def when_written(entry: RecoverableFile) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(entry.changed_at))


def describe(entry: RecoverableFile) -> str:
    return f"{entry.key!r}: {entry.bytes} of {entry.size} bytes, last written {when_written(entry)}"
