"""A local file as the source of an object's bytes: one state of it, or an error, never a mixture.

All functions block: they are called in worker threads.
"""

import errno
import os
import stat
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Self

from s3mount.core.errors import FilesystemError
from s3mount.core.metadata import NO_XATTRS, USER_XATTRS

# A clock tick of the kernel's file times, and some: two changes within one show the same time, so
# a file that changed just now is only read when the tick is over. (Kernels before 6.13; 4 ms.)
TICK_NS = 20_000_000


class FileChanged(FilesystemError):
    """Somebody wrote to the file, or replaced it, while it was read."""

    def __init__(self, path: str) -> None:
        super().__init__(errno.EAGAIN, f"{path!r} changed while it was read")


class LocalFile:
    """An open regular file. `stat`: of the state whose bytes `read` answers.

    A change is seen by size, mtime and ctime. (Stores through a mapping that was made before are
    seen when the kernel writes them back, as with every other tool that copies files.)
    """

    def __init__(
        self, path: str | bytes | os.PathLike[str], *, follow: bool = False, content_up_to: int = -1
    ) -> None:
        """Opens it; a file of at most `content_up_to` bytes is read at once (`content`).

        `follow`: a symlink is followed. Raises OSError (ELOOP, where it is one and is not to be
        followed), FileChanged, FilesystemError EINVAL where it is no regular file.
        """
        self.name = os.fsdecode(path)
        # O_NONBLOCK: what has become a fifo since it was listed has no writer to wait for.
        flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | (0 if follow else os.O_NOFOLLOW)
        self._fd = os.open(path, flags)
        try:
            self.stat = self._settled()
            self.content: bytes | None = None
            if self.size <= content_up_to:
                self.content = self.read(0, self.size)
                self.check()
        except BaseException:
            self.close()
            raise

    def _settled(self) -> os.stat_result:
        found = os.fstat(self._fd)
        if not stat.S_ISREG(found.st_mode):
            raise FilesystemError(errno.EINVAL, f"{self.name!r} is no regular file any more")
        age = time.time_ns() - max(found.st_ctime_ns, found.st_mtime_ns)
        if 0 <= age < TICK_NS:
            time.sleep((TICK_NS - age) / 1e9)
            found = os.fstat(self._fd)
        return found

    @property
    def size(self) -> int:
        return self.stat.st_size

    def read(self, start: int, length: int) -> bytes:
        """Bytes [start, start + length); raises FileChanged where the file has fewer by now."""
        data = os.pread(self._fd, length, start)
        if len(data) < length:  # 2 GiB at a time at most, or the end
            pieces, position = [data], start + len(data)
            while data and position < start + length:
                data = os.pread(self._fd, start + length - position, position)
                pieces.append(data)
                position += len(data)
            data = b"".join(pieces)
        if len(data) != length:
            raise FileChanged(self.name)
        return data

    def check(self) -> None:
        """Raises FileChanged unless all that was read so far is of the state `stat`."""
        now, then = os.fstat(self._fd), self.stat
        if (now.st_size, now.st_mtime_ns, now.st_ctime_ns) != (
            then.st_size,
            then.st_mtime_ns,
            then.st_ctime_ns,
        ):
            raise FileChanged(self.name)

    def xattrs(self) -> Mapping[str, bytes]:
        """Raises OSError. A change of them is seen by `check`, as it changes the ctime."""
        return xattrs_of(self._fd)

    def close(self) -> None:
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def xattrs_of(file: int | bytes) -> Mapping[str, bytes]:
    """Extended attributes that are the user's own ('user.'): none where the file system has none.
    The system's are of this machine. Raises OSError."""
    try:
        names = [name for name in os.listxattr(file) if name.startswith(USER_XATTRS)]
    except OSError as error:
        if error.errno == errno.ENOTSUP:
            return NO_XATTRS
        raise
    found: dict[str, bytes] = {}
    for name in names:
        try:
            found[name] = os.getxattr(file, name)
        except OSError as error:
            if error.errno != errno.ENODATA:  # removed since they were listed
                raise
    return found or NO_XATTRS
