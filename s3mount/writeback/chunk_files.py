"""The directory that holds the chunk files: whose it is, which files are in it."""

import contextlib
import errno
import fcntl
import os
import re
from collections.abc import Collection
from pathlib import Path

import trio

from s3mount.core.errors import ConfigurationError, FilesystemError
from s3mount.writeback.chunk import SpoolDiskError
from s3mount.writeback.lock import Lock

PREFIX = "chunk-"
_NAME = re.compile(r"chunk-(\d{6,18})")
# The process or the system has no more descriptors, or the disk no more room: wait, as for room.
_NONE_LEFT = {errno.EMFILE, errno.ENFILE, errno.ENOSPC, errno.EDQUOT}
_NEW = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW


def valid_name(name: str) -> bool:
    """Whether `name`, read from a journal, can be that of a chunk file: never a path."""
    return _NAME.fullmatch(name) is not None


class ChunkFiles:
    """`kept`: files that a record of an earlier process names, with the bytes they take on the
    disk. `uncertain`: files whose names a power cut may still undo (see `settle`)."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.kept: dict[str, int] = {}
        self.uncertain: set[str] = set()
        self._serial = 0
        self._lock = -1
        self._settling = Lock()  # one fsync of the directory for all that wait for it

    @property
    def is_open(self) -> bool:
        return self._lock >= 0

    def open(self, keep: Collection[str]) -> None:
        """Makes the private directory ours; chunk files of a dead process go but for `keep`.

        Raises ConfigurationError when a living process has it.
        """
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.directory.chmod(0o700)
        self._lock = os.open(self.directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(self._lock)
            self._lock = -1
            raise ConfigurationError(
                f"the spool {self.directory} is in use by another mount; give each its own"
            ) from None
        self._remove_all_but(keep)
        for path in self.directory.glob(f"{PREFIX}*"):
            self.kept[path.name] = path.lstat().st_blocks * 512
            match = _NAME.fullmatch(path.name)
            # A new file never gets the name of one that a record may still name.
            self._serial = max(self._serial, int(match[1]) if match else 0)

    def close(self, keep: Collection[str]) -> None:
        if self._lock >= 0:
            self._remove_all_but(keep)
            os.close(self._lock)
            self._lock = -1

    def _remove_all_but(self, keep: Collection[str]) -> None:
        for path in self.directory.glob(f"{PREFIX}*"):
            if path.name not in keep:
                path.unlink(missing_ok=True)

    def create(self) -> tuple[int, str] | None:
        """(descriptor, name) of a new, empty file; None where there is no room for one. Raises
        SpoolDiskError."""
        self._serial += 1
        name = f"{PREFIX}{self._serial:06}"
        try:
            fd = os.open(self.directory / name, _NEW, 0o600)
        except FileExistsError:  # one that a power cut had taken was made again by `reopen`
            return self.create()
        except OSError as error:
            if error.errno in _NONE_LEFT:
                return None
            raise SpoolDiskError("create", name, error) from error
        self.uncertain.add(name)
        return fd, name

    def reopen(self, name: str) -> tuple[int, bool]:
        """(descriptor, whether it was there) of a kept file; one that is gone is there again,
        empty, so that its bytes are found missing when they are needed. Raises SpoolDiskError."""
        if not valid_name(name):
            raise FilesystemError(errno.EIO, f"{name!r} is no name of a chunk file")
        path = self.directory / name
        try:
            try:
                return os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW), True
            except FileNotFoundError:
                self.uncertain.add(name)
                return os.open(path, _NEW, 0o600), False
        except OSError as error:
            raise SpoolDiskError("open", name, error) from error

    def remove(self, name: str) -> None:
        """In a worker thread or not."""
        self.uncertain.discard(name)
        with contextlib.suppress(OSError):  # it is removed at the next start at the latest
            Path(self.directory, name).unlink(missing_ok=True)

    async def settle(self, names: Collection[str]) -> None:
        """Afterwards no power cut undoes the creation of these files. Raises SpoolDiskError."""
        async with self._settling:
            if self.uncertain.isdisjoint(names):
                return
            settled = self.uncertain.copy()
            try:
                await trio.to_thread.run_sync(self._sync_directory)
            except OSError as error:
                raise SpoolDiskError("sync", str(self.directory), error) from error
            self.uncertain -= settled

    def _sync_directory(self) -> None:
        fd = os.open(self.directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
