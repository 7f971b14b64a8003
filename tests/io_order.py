"""Records in which order files are written and synced, and what else is said to happen."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest


@dataclass
class IoOrder:
    """`events`: ('write' | 'syncing' | 'sync', name of the file) from any thread, and those of
    `note`."""

    events: list[tuple[str, str]] = field(default_factory=list)

    def note(self, what: str, name: str = "") -> None:
        self.events.append((what, name))

    def index(self, what: str, name: str = "", *, after: int = -1) -> int:
        """Where the first such event after event `after` is; `name`: how the file's begins."""
        for number in range(after + 1, len(self.events)):
            happened, to = self.events[number]
            if happened == what and to.startswith(name):
                return number
        raise AssertionError(f"no {what} {name} after {after}: {self.events}")

    def last(self, what: str, name: str = "", *, before: int) -> int:
        for number in range(before - 1, -1, -1):
            happened, to = self.events[number]
            if happened == what and to.startswith(name):
                return number
        raise AssertionError(f"no {what} {name} before {before}: {self.events}")

    def is_synced(self, written: int, name: str, *, before: int) -> bool:
        """Whether a sync of that file begins after event `written` and ends before the other."""
        events = self.events[written + 1 : before]
        if ("syncing", name) not in events:
            return False
        return ("sync", name) in events[events.index(("syncing", name)) :]

    def unsynced(self, before: int, name: str = "") -> set[str]:
        """Files that were written before that event and not synced between the two."""
        dirty: set[str] = set()
        for happened, to in self.events[:before]:
            if happened == "write" and to.startswith(name):
                dirty.add(to)
            elif happened == "sync":
                dirty.discard(to)
        return dirty


@contextmanager
def recorded(below: Path, patch: pytest.MonkeyPatch) -> Iterator[IoOrder]:
    """What happens to files below a directory, noted when it begins (writes, 'syncing') or is done
    ('sync')."""
    order = IoOrder()

    def name_of(fd: int) -> str | None:
        path = Path(os.readlink(f"/proc/self/fd/{fd}"))
        return path.name if path.is_relative_to(below) else None

    def wrapped(begin: str, done: str | None, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(fd: int, *rest: Any) -> Any:
            name = name_of(fd)
            if name is not None:
                order.note(begin, name)
            result = real(fd, *rest)
            if name is not None and done is not None:
                order.note(done, name)
            return result

        return call

    with patch.context() as patched:
        for name in ("pwrite", "pwritev", "ftruncate"):
            patched.setattr(os, name, wrapped("write", None, getattr(os, name)))
        for name in ("fsync", "fdatasync"):
            patched.setattr(os, name, wrapped("syncing", "sync", getattr(os, name)))
        yield order
