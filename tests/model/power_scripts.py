"""Scripts of operations for mounts whose machine loses its power: what they do, step by step.

What each of them acknowledges says power_ledger.py.
"""

import os
from collections.abc import Callable, Sequence

import trio

from s3mount.store.memory import MemoryStore
from tests.model.mounted import KIB, Client
from tests.model.power_ledger import Step

PATIENCE = 3600.0
PART = 4 * KIB
ONE, TWO, THREE = b"1" * 3000, b"2" * 2000, b"3" * 1000
MIDDLE = b"M" * 4500  # one PUT, from a chunk file
LARGE, OTHER = b"".join(bytes([65 + n]) * PART for n in range(7)), b"o" * (6 * PART) + b"end"
NOW = 1_650_000_000_123456789
SCRIPTS: dict[str, list[Step]] = {
    "put": [("write", "a", MIDDLE), ("wait", 2), ("write", "a", MIDDLE[::-1] + b"x")],
    "two closes": [("write", "a", MIDDLE), ("write", "a", b"N" * 4600), ("write", "a", ONE)],
    "multipart": [("write", "a", LARGE), ("write", "a", OTHER), ("chmod", "a", 0o600)],
    "edits": [
        ("foreign", "a", LARGE),
        ("edit", "a", 9, THREE),
        ("edit", "a", 5 * PART, MIDDLE),
        ("chmod", "a", 0o600),
        ("wait", 2),
        ("edit", "a", 2 * PART, MIDDLE),
    ],
    "appends": [
        ("write", "a", ONE),
        ("write", "a", TWO, os.O_APPEND),
        ("write", "a", LARGE, os.O_APPEND),
        ("chmod", "a", 0o640),
        ("write", "a", THREE, os.O_APPEND),
    ],
    "renamed over": [
        ("write", "a", ONE),
        ("wait", 2),
        ("write", "b", MIDDLE),
        ("rename", "b", "a"),
        ("chmod", "a", 0o600),
        ("write", "b", TWO),
    ],
    "renamed over, edited": [
        ("write", "a", MIDDLE),
        ("rename", "a", "b"),
        ("edit", "b", 0, THREE),
        ("rename", "b", "c"),
        ("write", "a", TWO),
        ("drain",),
    ],
    "directories": [
        ("mkdir", "d"),
        ("write", "d/a", MIDDLE),
        ("symlink", "d/s", b"a"),
        ("rename", "d", "e"),
        ("write", "e/b", TWO),
        ("chmod", "e/a", 0o600),
        ("rename", "e", "d"),
        ("edit", "d/a", 10, THREE),
    ],
    "directories stored": [
        ("mkdir", "d"),
        ("write", "d/a", MIDDLE),
        ("write", "d/b", TWO),
        ("wait", 2),
        ("rename", "d", "e"),
        ("write", "e/b", THREE),
        ("unlink", "e/a"),
        ("mkdir", "d"),
        ("drain",),
    ],
    "attributes after close": [
        ("write", "a", MIDDLE),
        ("chmod", "a", 0o600),
        ("utimens", "a", NOW),
        ("write", "b", TWO),
        ("chmod", "b", 0o640),
        ("utimens", "b", NOW),
        ("chmod", "a", 0o644),
    ],
    "like rsync": [
        ("open_", "h", ".t"),
        ("pwrite", "h", 0, MIDDLE),
        ("close", "h"),
        ("utimens", ".t", NOW),
        ("chmod", ".t", 0o640),
        ("rename", ".t", "a"),
        ("open_", "h", ".u"),
        ("pwrite", "h", 0, TWO),
        ("close", "h"),
        ("utimens", ".u", NOW + 1),
        ("rename", ".u", "a"),
    ],
    "attributes, fsync": [
        ("write", "a", ONE),
        ("write", "b", ONE),
        ("wait", 2),
        ("chmod", "a", 0o600),
        ("chmod", "b", 0o600),
        ("open_", "h", "b"),
        ("pwrite", "h", 4, TWO),
        ("fsync", "h"),
        ("chmod", "a", 0o640),
        ("pwrite", "h", 0, b"ab"),
        ("close", "h"),
        ("fsyncdir",),
    ],
    "removed": [
        ("write", "a", MIDDLE),
        ("unlink", "a"),
        ("write", "a", TWO),
        ("unlink", "a"),
        ("write", "a", LARGE),
    ],
    "removed when stored": [
        ("write", "a", MIDDLE),
        ("wait", 2),
        ("unlink", "a"),
        ("write", "a", TWO),
        ("wait", 2),
        ("unlink", "a"),
        ("symlink", "a", b"t"),
        ("drain",),
    ],
    "symlinks": [
        ("symlink", "s", b"one"),
        ("write", "a", TWO),
        ("chmod", "a", 0o600),
        ("symlink", "t", b"two"),
        ("unlink", "s"),
        ("symlink", "s", b"three"),
        ("rename", "t", "s"),
    ],
    "truncated": [
        ("write", "a", LARGE),
        ("open_", "h", "a", os.O_TRUNC),
        ("pwrite", "h", 0, b"half"),
        ("wait", 2),
        ("pwrite", "h", 4, MIDDLE),
        ("close", "h"),
        ("truncate", "a", 100),
        ("write", "a", MIDDLE, os.O_APPEND),
    ],
    "fsync": [
        ("open_", "h", "a"),
        ("pwrite", "h", 0, MIDDLE),
        ("fsync", "h"),
        ("pwrite", "h", 100, LARGE),
        ("fsync", "h"),
        ("pwrite", "h", 0, THREE),
        ("close", "h"),
    ],
    "flushes": [
        ("open_", "h", "a"),
        ("pwrite", "h", 0, MIDDLE),
        ("flush", "h"),
        ("pwrite", "h", 10, TWO),
        ("fsync", "h"),
        ("wait", 1),
        ("pwrite", "h", 20, THREE),
        ("close", "h"),
        ("wait", 2),
    ],
    "attributes while it is written": [
        ("write", "a", ONE),
        ("wait", 2),
        ("open_", "h", "a"),
        ("chmod", "a", 0o600),
        ("wait", 0.2),
        ("pwrite", "h", 9, MIDDLE),
        ("chmod", "a", 0o640),
        ("close", "h"),
        ("chmod", "a", 0o600),
        ("open_", "h", "a", os.O_TRUNC),
        ("pwrite", "h", 0, TWO),
        ("utimens", "a", NOW),
        ("fsync", "h"),
        ("close", "h"),
        ("drain",),
    ],
    "unlinked while open": [
        ("open_", "h", "a"),
        ("pwrite", "h", 0, MIDDLE),
        ("unlink", "a"),
        ("write", "a", TWO),
        ("pwrite", "h", 9, ONE),
        ("close", "h"),
        ("rename", "a", "b"),
        ("write", "a", MIDDLE),
    ],
    "swapped": [
        ("write", "a", MIDDLE),
        ("write", "b", TWO),
        ("wait", 1),
        ("rename", "a", "t"),
        ("rename", "b", "a"),
        ("rename", "t", "b"),
        ("edit", "a", 3, THREE),
        ("chmod", "b", 0o600),
        ("drain",),
    ],
    "a file for a directory": [
        ("mkdir", "d"),
        ("write", "d/f", MIDDLE),
        ("wait", 1),
        ("unlink", "d/f"),
        ("rmdir", "d"),
        ("write", "d", TWO),
        ("wait", 1),
        ("unlink", "d"),
        ("mkdir", "d"),
        ("write", "d/f", ONE),
    ],
    "large, renamed twice": [
        ("write", "a", LARGE),
        ("rename", "a", "b"),
        ("chmod", "b", 0o600),
        ("write", "a", OTHER),
        ("rename", "a", "b"),
        ("edit", "b", 2 * PART, ONE),
        ("rename", "b", "c"),
        ("drain",),
    ],
    "held open": [
        ("foreign", "a", LARGE),
        ("open_", "h", "a"),
        ("pwrite", "h", 100, TWO),
        ("fsync", "h"),
        ("rename", "a", "b"),
        ("pwrite", "h", 5 * PART, ONE),
        ("chmod", "b", 0o600),
        ("wait", 1),
        ("close", "h"),
        ("unlink", "b"),
        ("write", "b", MIDDLE),
    ],
    "closed states": [
        ("write", "a", MIDDLE),
        ("open_", "h", "a", os.O_TRUNC),
        ("pwrite", "h", 0, ONE),
        ("rename", "a", "b"),
        ("wait", 1),
        ("pwrite", "h", 3000, LARGE),
        ("close", "h"),
        ("truncate", "b", 5000),
        ("truncate", "b", 0),
        ("edit", "b", 0, MIDDLE),
    ],
    "deletes": [
        ("write", "a", MIDDLE),
        ("write", "b", ONE),
        ("mkdir", "d"),
        ("wait", 1),
        ("unlink", "a"),
        ("rmdir", "d"),
        ("symlink", "d", b"x"),
        ("unlink", "b"),
        ("mkdir", "b"),
        ("write", "b/a", TWO),
        ("fsyncdir",),
    ],
    "hidden and renamed back": [
        ("write", "a", MIDDLE),
        ("wait", 1),
        ("rename", "a", "a~"),
        ("write", "a", TWO),
        ("unlink", "a"),
        ("rename", "a~", "a"),
        ("chmod", "a", 0o600),
        ("edit", "a", 0, THREE),
    ],
    "leaving": [
        ("write", "a", ONE),
        ("write", "b", TWO),
        ("wait", 2),
        ("chmod", "a", 0o600),
        ("rename", "b", "c"),
        ("mkdir", "d"),
        ("write", "d/f", MIDDLE),
        ("unlink", "a"),
        ("drain",),
    ],
    "moved into a new directory": [
        ("write", "a", MIDDLE),
        ("wait", 1),
        ("mkdir", "d"),
        ("rename", "a", "d/a"),
        ("edit", "d/a", 0, TWO),
        ("mkdir", "a"),
        ("rename", "d", "a/d"),
        ("write", "a/d/a", ONE),
    ],
}


class Script:
    """Runs steps on a client; `acknowledged()` is called after each."""

    def __init__(self, steps: Sequence[Step], store: MemoryStore) -> None:
        self._steps = steps
        self._store = store
        self._handles: dict[str, int] = {}

    async def run(self, client: Client, acknowledged: Callable[[], None]) -> None:
        for name, *arguments in self._steps:
            await getattr(self, f"_{name}")(client, *arguments)
            acknowledged()

    async def _foreign(self, client: Client, path: str, data: bytes) -> None:
        times = {"mtime": "1600000000.123456789", "ctime": "1600000001.5"}
        owner = {"mode": str(0o100644), "uid": "1000", "gid": "1001"}
        self._store.put_foreign(path, data, {**owner, **times, "colour": "red"})

    async def _write(self, client: Client, path: str, data: bytes, flags: int = 0) -> None:
        await client.write(path, data, flags, step=1000)

    async def _edit(self, client: Client, path: str, offset: int, data: bytes) -> None:
        await client.edit(path, offset, data)

    async def _truncate(self, client: Client, path: str, size: int) -> None:
        await client.setattr(path, size=size)

    async def _rename(self, client: Client, old: str, new: str) -> None:
        await client.rename(old, new)

    async def _unlink(self, client: Client, path: str) -> None:
        await client.unlink(path)

    async def _rmdir(self, client: Client, path: str) -> None:
        await client.rmdir(path)

    async def _symlink(self, client: Client, path: str, target: bytes) -> None:
        await client.symlink(path, target)

    async def _mkdir(self, client: Client, path: str) -> None:
        await client.mkdir(path)

    async def _chmod(self, client: Client, path: str, mode: int) -> None:
        await client.setattr(path, mode=mode)

    async def _utimens(self, client: Client, path: str, mtime: int) -> None:
        await client.setattr(path, mtime_ns=mtime)

    async def _open_(self, client: Client, handle: str, path: str, flags: int = 0) -> None:
        if await client.exists(path):
            self._handles[handle] = await client.open(path, os.O_RDWR | flags)
        else:
            self._handles[handle] = await client.create(path, os.O_RDWR)

    async def _pwrite(self, client: Client, handle: str, offset: int, data: bytes) -> None:
        await client.fs.write(self._handles[handle], offset, data)

    async def _flush(self, client: Client, handle: str) -> None:
        await client.fs.flush(self._handles[handle])

    async def _fsync(self, client: Client, handle: str) -> None:
        await client.fs.fsync(self._handles[handle], False)

    async def _close(self, client: Client, handle: str) -> None:
        await client.close(self._handles[handle])

    async def _read(self, client: Client, path: str) -> None:
        await client.read(path)

    async def _wait(self, client: Client, seconds: float) -> None:
        await trio.sleep(seconds)

    async def _drain(self, client: Client) -> None:
        assert not await client.fs.drain(PATIENCE)

    async def _fsyncdir(self, client: Client) -> None:
        await client.fsyncdir()
