"""An entry of a listing as a line of `s3mount ls`."""

import functools
import grp
import json
import os
import pwd
import stat
import sys
import time
from collections.abc import Sequence
from typing import Any

import click

from s3mount.cli.texts import printable, size_text
from s3mount.core.metadata import NANOSECONDS
from s3mount.transfer.entries import Entry

_KINDS = {
    stat.S_IFREG: "file",
    stat.S_IFDIR: "directory",
    stat.S_IFLNK: "symlink",
    stat.S_IFIFO: "fifo",
    stat.S_IFSOCK: "socket",
    stat.S_IFCHR: "character device",
    stat.S_IFBLK: "block device",
}


class Lines:
    """Prints pages of entries; the columns are as wide as the widest so far."""

    def __init__(self, *, long: bool, human: bool, as_json: bool, flat: bool) -> None:
        self._long = long
        self._human = human
        self._json = as_json
        self._flat = flat
        self._widths: list[int] = []
        self._terminal = sys.stdout.isatty()

    def show(self, entries: Sequence[Entry]) -> None:
        if self._json:
            lines = [json.dumps(self._fields(entry)) for entry in entries]
        elif self._long:
            lines = self._aligned([self._columns(entry) for entry in entries])
        else:
            lines = [self._name(entry) for entry in entries]
        if lines:
            click.echo("\n".join(lines).encode("utf-8", "surrogateescape"))

    def _name(self, entry: Entry) -> str:
        name = f"{entry.path}/" if entry.is_directory else entry.path
        if entry.target is not None:
            name += f" -> {entry.target}"
        return printable(name) if self._terminal else name

    def _columns(self, entry: Entry) -> tuple[str, ...]:
        size = size_text(entry.size) if self._human else str(entry.size)
        listed, attributes = entry.listed, entry.attributes
        storage = "-" if listed is None else listed.storage_class
        if self._flat or attributes is None:
            when = "-" if listed is None else time_column(listed.last_modified)
            return size, when, storage, self._name(entry)
        when = "-" if entry.implied else time_column(attributes.mtime_ns / NANOSECONDS)
        return (
            stat.filemode(attributes.mode),
            user_name(attributes.uid),
            group_name(attributes.gid),
            size,
            when,
            storage,
            self._name(entry),
        )

    def _aligned(self, rows: list[tuple[str, ...]]) -> list[str]:
        """Sizes to the right, the rest to the left; the last column as it is."""
        if not rows:
            return []
        size_column = len(rows[0]) - 4
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        self._widths = list(map(max, widths, self._widths or widths))
        lines = []
        for row in rows:
            cells = [
                cell.rjust(width) if index == size_column else cell.ljust(width)
                for index, (cell, width) in enumerate(zip(row, self._widths, strict=True))
            ]
            lines.append("  ".join([*cells[:-1], row[-1]]))
        return lines

    def _fields(self, entry: Entry) -> dict[str, Any]:
        """What is not known is left out; times in seconds since the epoch."""
        fields: dict[str, Any] = {"path": entry.path, "key": entry.key, "size": entry.size}
        listed, attributes = entry.listed, entry.attributes
        if not self._flat:
            fields["type"] = "directory" if entry.is_directory else "file"
        if listed is not None:
            fields |= {
                "etag": listed.etag,
                "last_modified": listed.last_modified,
                "storage_class": listed.storage_class,
            }
        if attributes is not None:
            fields |= {
                "type": _KINDS.get(stat.S_IFMT(attributes.mode), "file"),
                "mode": f"{stat.S_IMODE(attributes.mode):04o}",
                "uid": attributes.uid,
                "gid": attributes.gid,
            }
            if not entry.implied:
                fields["mtime"] = attributes.mtime_ns / NANOSECONDS
        if entry.target is not None:
            fields["target"] = entry.target
        return fields


def time_column(moment: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(moment))


@functools.lru_cache(maxsize=1024)
def user_name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except (KeyError, OverflowError):
        return str(uid)


@functools.lru_cache(maxsize=1024)
def group_name(gid: int) -> str:
    try:
        return grp.getgrgid(gid).gr_name
    except (KeyError, OverflowError):
        return str(gid)


def shell_name(text: str) -> str:
    """A key in a message."""
    return printable(os.fsencode(text).decode(errors="replace"))
