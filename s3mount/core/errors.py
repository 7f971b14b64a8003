"""The error that the file system answers a program with."""

import errno
import os


class FilesystemError(Exception):
    """A filesystem call that fails with `errno`; `message` is for the log.

    Raised by core, namespace, writeback, readpath and filesystem. The store's own errors
    (store/errors.py) travel up as they are; fuse/errno.py turns both into errno values.
    """

    def __init__(self, number: int, message: str = "") -> None:
        super().__init__(message or os.strerror(number))
        self.errno = number

    def __str__(self) -> str:
        return f"[{errno.errorcode.get(self.errno, self.errno)}] {super().__str__()}"


class ConfigurationError(Exception):
    """An option or a combination of options that cannot work; the text names the remedy."""
