"""Handles of files: one for each open(2)."""

import os

from s3mount.filesystem.open_file import OpenFile
from s3mount.readpath import ObjectReader, ReadPath, RemoteObject


class FileHandle:
    """What belongs to one open(2): its flags, its way of reading, what it wrote since a FLUSH."""

    def __init__(self, file: OpenFile, flags: int, readpath: ReadPath) -> None:
        self.file = file
        self.append = bool(flags & os.O_APPEND)
        self.writable = flags & os.O_ACCMODE != os.O_RDONLY
        self.wrote = False  # since the last FLUSH
        self.emptied = False  # by its O_TRUNC, and nothing of it was sent by a FLUSH since
        # The errno that every close of it answers, for what it wrote was refused for good: other
        # hosts were faster, or it was given up by request.
        self.lost = 0
        # A FLUSH after a WRITE was answered: if it is written again, it is shared by processes
        # that end one after the other; then RELEASE sends the rest (design.md 4).
        self.flushed = False
        self._readpath = readpath
        self._reader: ObjectReader | None = None
        self._remote: RemoteObject | None = None

    def reader_of(self, remote: RemoteObject) -> ObjectReader:
        """This handle's reader of the version; a new one after a commit changed it."""
        if self._reader is None or self._remote is not remote:
            self.close_reader()
            self._reader = self._readpath.open(remote)
            self._remote = remote
        return self._reader

    def close_reader(self) -> None:
        if self._reader is not None:
            self._reader.close()
        self._reader = self._remote = None
