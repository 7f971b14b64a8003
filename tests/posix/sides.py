"""The same call on a mount and on a local disk."""

import contextlib
import ctypes
import errno
import os
import stat
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Call = Callable[[Path], Any]

# Longer than a tick of the clock that file times come from.
TICK = 0.012
_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True)
class Seen:
    """What lstat tells of a name; of directories neither size nor links, which differ."""

    mode: str
    owner: tuple[int, int]
    size: int | None
    links: int | None
    number: int
    mtime: int
    ctime: int

    @classmethod
    def of(cls, found: os.stat_result) -> "Seen":
        directory = stat.S_ISDIR(found.st_mode)
        return cls(
            oct(found.st_mode),
            (found.st_uid, found.st_gid),
            None if directory else found.st_size,
            None if directory else found.st_nlink,
            found.st_ino,
            found.st_mtime_ns,
            found.st_ctime_ns,
        )

    def comparable(self) -> tuple[Any, ...]:
        return self.mode, self.owner, self.size, self.links

    def since(self, before: "Seen | None") -> tuple[bool, bool] | None:
        """Whether mtime and ctime changed; None if it is another file."""
        if before is None or before.number != self.number:
            return None
        return self.mtime != before.mtime, self.ctime != before.ctime


class Sides:
    """`mounted` and `local` hold the same tree, if every change is made by `same`."""

    def __init__(self, mounted: Path, local: Path) -> None:
        self.mounted = mounted
        self.local = local
        self.calls = 0
        self.changed = False  # by the last call, on the local disk

    def same(self, call: Call, what: str = "") -> Any:
        """Makes the call on both; asserts that results or errno, states and changed times agree.

        Returns the result, or the name of the errno.
        """
        self.calls += 1
        if self.changed:
            tick()
        roots = (self.mounted, self.local)
        before = [look(root) for root in roots]
        got, wanted = (outcome(call, root) for root in roots)
        after = [look(root) for root in roots]
        self.changed = before[1] != after[1]
        assert got == wanted, f"{what}: {got}, locally {wanted}"
        states = [{name: seen.comparable() for name, seen in each.items()} for each in after]
        assert states[0] == states[1], what
        times = [
            {name: seen.since(old.get(name)) for name, seen in new.items()}
            for old, new in zip(before, after, strict=True)
        ]
        for name in times[1]:
            here, there = times[0][name], times[1][name]
            assert here == there, f"{what}: mtime, ctime of {name!r} changed: {here}, {there}"
        return got

    def both(self, call: Call) -> None:
        """Prepares: no comparison."""
        call(self.mounted)
        call(self.local)
        self.changed = True


def outcome(call: Call, root: Path) -> Any:
    try:
        return call(root)
    except OSError as error:
        return errno.errorcode[error.errno or 0]


def look(root: Path) -> dict[str, Seen]:
    found = {"": Seen.of(root.lstat())}
    for directory, directories, files in os.walk(root):
        for name in (*directories, *files):
            path = os.path.join(directory, name)
            found[os.path.relpath(path, root)] = Seen.of(os.lstat(path))
    return found


def tick() -> None:
    time.sleep(TICK)


@contextlib.contextmanager
def user(uid: int, gid: int, groups: tuple[int, ...] = ()) -> Iterator[None]:
    """This process asks as another user meanwhile."""
    before = os.getgroups()
    os.setgroups(groups)
    os.setegid(gid)
    os.seteuid(uid)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)
        os.setgroups(before)


def renameat2(old: Path | str, new: Path | str, flags: int) -> None:
    """rename(2) with flags; paths as they are, also with a slash at the end."""
    here = -100  # AT_FDCWD
    if _libc.renameat2(here, os.fsencode(old), here, os.fsencode(new), flags):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
