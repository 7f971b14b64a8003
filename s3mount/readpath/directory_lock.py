"""One mount at a time has a disk cache: only one process can keep its bound."""

import fcntl
import os
from pathlib import Path


def lock_directory(directory: Path) -> int | None:
    """The descriptor that holds the directory; None if another process does."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = directory.with_name(f"{directory.name}.lock")
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(path, flags, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor
