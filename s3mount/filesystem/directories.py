"""The mount's own directories: private, and locked against a second process."""

import fcntl
import os
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from s3mount.core.config import MountConfig
from s3mount.core.errors import ConfigurationError
from s3mount.writeback.journal_log import sync_directory

_ANOTHER = "; choose another one with --cache-dir"
LOCK_INTERVAL = 0.1
LOCK_PROGRESS = 2.0  # between two reports of how far the previous mount is


def check_directories(config: MountConfig) -> None:
    """Makes the mount's own directories, 0700; raises ConfigurationError with the remedy.

    One inside the mount would wait for itself; one of somebody else (in /tmp anyone may have made
    it first) would show them what is in the bucket.
    """
    shared = config.shared_dir
    ours = [config.cache_dir, config.writeback.spool_dir, config.read.disk_dir]
    if shared is not None:  # from the top: each is made private before the next is made in it
        ours = [shared, config.cache_dir.parent, *ours]
    for directory in ours:
        if directory is None:
            continue
        if Path(os.path.realpath(directory)).is_relative_to(config.mountpoint):
            raise ConfigurationError(
                f"the cache directory {directory} is inside the mount point"
                f" {config.mountpoint}{_ANOTHER}"
            )
        make_private(directory)


def make_private(directory: Path) -> None:
    """Made, if it is not there, and 0700; raises ConfigurationError."""
    try:
        _make(directory)
        found = directory.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
            raise ConfigurationError(
                f"the cache directory {directory} belongs to somebody else{_ANOTHER}"
            )
        if found.st_mode & 0o077:
            directory.chmod(0o700)
    except OSError as error:
        raise ConfigurationError(
            f"the cache directory {directory} cannot be used ({error.strerror}){_ANOTHER}"
        ) from None


def _make(directory: Path) -> None:
    """A power cut does not take it away again, with the journal that is synced in it."""
    missing = [each for each in (directory, *directory.parents) if not each.exists()]
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    for each in missing:
        sync_directory(each.parent)


@contextmanager
def locked(
    directory: Path, say: Callable[[str], None], rest: Callable[[], str] = lambda: ""
) -> Iterator[None]:
    """Holds the lock of a mount's cache directory; waits while an earlier mount drains.

    `rest` asks that one what it still has to send, '' if it does not answer; `say` is told.
    """
    with _lock_file(directory) as lock:
        told, tell_at = "", 0.0
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= tell_at:
                    text = _waiting(lock, rest())
                    if text != told:
                        say(text)
                    told, tell_at = text, time.monotonic() + LOCK_PROGRESS
                time.sleep(LOCK_INTERVAL)
        _sign(lock)
        yield


@contextmanager
def locked_now(directory: Path) -> Iterator[bool]:
    """As locked; False where another process has the lock."""
    with _lock_file(directory) as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        _sign(lock)
        yield True


def _lock_file(directory: Path) -> IO[str]:
    """Raises ConfigurationError."""
    path = directory / "lock"
    try:
        return path.open("a+", errors="replace")
    except OSError as error:
        raise ConfigurationError(
            f"the lock file {path} cannot be opened ({error.strerror}): remove it{_ANOTHER}"
        ) from None


def _sign(lock: IO[str]) -> None:
    lock.truncate(0)
    lock.write(f"{os.getpid()}\n")
    lock.flush()


def _waiting(lock: IO[str], rest: str) -> str:
    lock.seek(0)
    text = f"waiting for the previous mount (process {lock.read().strip()}), which is still leaving"
    return f"{text}: {rest}" if rest else text
