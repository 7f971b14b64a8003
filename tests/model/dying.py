"""Scripts of operations on a mount that dies at its n-th step, for every n, and what is left then.

A step is a commit of the journal (the mount dies before it) or a request that changes the bucket
(the mount dies when it was carried out, and never hears of it). What is left is what kill -9
leaves: journal, spool and bucket of that moment.
"""

import os
import shutil
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import trio

from s3mount.core.config import MountConfig
from s3mount.core.errors import FilesystemError
from s3mount.filesystem.build import open_filesystem
from s3mount.store.errors import ConnectionLost
from s3mount.store.memory import MemoryStore
from s3mount.writeback.journal_records import JournalContents
from s3mount.writeback.recoverable import Recoverable, RecoverableFile
from tests.model.bucket import files, leftovers
from tests.model.mounted import Client, KeptJournal

CHANGES = frozenset(
    {
        "put",
        "copy",
        "delete",
        "delete_many",
        "create_upload",
        "upload_part",
        "upload_part_copy",
        "complete_upload",
        "abort_upload",
    }
)
PATIENCE = 3600.0
A_WHILE = 5.0
# An upload whose id was never learnt is aborted an hour later.
LEFT_UPLOADS = 4400.0

Step = tuple[Any, ...]  # the name of an operation, its arguments


class Fate:
    """`die()` is called at step `at`, and the steps are counted."""

    def __init__(self, at: int | None) -> None:
        self.steps = 0
        self.what = ""
        self.dead = False
        self.die: Callable[[], None] = lambda: None
        self._at = at

    def step(self, what: str) -> None:
        """Raises where the mount is dead."""
        if not self.dead and self.steps == self._at:
            self.what = what
            self.die()
            self.dead = True
        self.steps += 1


class DyingStore:
    def __init__(self, store: MemoryStore, fate: Fate) -> None:
        self._store = store
        self._fate = fate

    def __getattr__(self, name: str) -> Any:
        if self._fate.dead:
            raise ConnectionLost("the mount is dead", operation=name)
        found = getattr(self._store, name)
        if name not in CHANGES:
            return found

        async def change(*args: Any, **options: Any) -> Any:
            try:
                return await found(*args, **options)
            finally:
                self._fate.step(f"after {name} {args[0]!r}")
                if self._fate.dead:
                    raise ConnectionLost("the mount is dead", operation=name)

        return change


class DyingJournal(KeptJournal):
    def __init__(self, contents: JournalContents, fate: Fate) -> None:
        super().__init__(contents)
        self._fate = fate

    @contextmanager
    def transaction(self) -> Iterator[None]:
        if self._open is None:
            self._live("commit")
        with super().transaction():
            yield

    def _do(self, call: Any) -> None:
        if self._open is None:
            self._live(f"commit of {call}")
        super()._do(call)

    def _live(self, what: str) -> None:
        self._fate.step(what)
        if self._fate.dead:
            raise FilesystemError(5, "the mount is dead")


@dataclass
class Expected:
    """What may be found, by name; None: it need not be there."""

    names: dict[str, int] = field(default_factory=dict)
    content: dict[int, bytes] = field(default_factory=dict)
    allowed: dict[int, tuple[bytes | None, ...]] = field(default_factory=dict)

    def copy(self) -> "Expected":
        return Expected(dict(self.names), dict(self.content), dict(self.allowed))

    def fits(self, found: dict[str, bytes]) -> bool:
        if not found.keys() <= self.names.keys():
            return False
        return all(found.get(name) in self.allowed[node] for name, node in self.names.items())

    def changed(self, node: int, content: bytes) -> None:
        """Not closed yet."""
        self.content[node] = content
        self.allowed[node] = (*self.allowed.get(node, ()), content)

    def closed(self, node: int) -> None:
        self.allowed[node] = (self.content[node],)


def _over(content: bytes, offset: int, data: bytes) -> bytes:
    return content[:offset].ljust(offset, b"\0") + data + content[offset + len(data) :]


class Script:
    """Runs steps on a client, and says what is expected after each."""

    def __init__(self, steps: Sequence[Step], store: MemoryStore) -> None:
        self.steps = steps
        self._store = store
        self.done = 0
        now = Expected()
        self._open: dict[str, int] = {}  # handle name -> node
        self.expected = [now]
        for name, *arguments in steps:
            now = now.copy()
            getattr(self, f"expect_{name}")(now, *arguments)
            self.expected.append(now)

    def fits(self, found: dict[str, bytes], done: int) -> bool:
        return any(one.fits(found) for one in self.expected[done : done + 2])

    async def run(self, client: Client) -> None:
        self.handles: dict[str, int] = {}
        for name, *arguments in self.steps:
            await getattr(self, f"do_{name}")(client, *arguments)
            self.done += 1

    def _new(self, now: Expected, path: str, content: bytes) -> int:
        node = now.names[path] = len(now.content)
        now.content[node], now.allowed[node] = content, (None,)
        return node

    def expect_write(self, now: Expected, path: str, data: bytes, flags: int = 0) -> None:
        node = now.names.get(path)
        if node is None:
            node = self._new(now, path, b"")
        old = now.content[node] if flags else b""
        now.content[node] = old + data if flags & os.O_APPEND else _over(old, 0, data)
        now.closed(node)

    async def do_write(self, client: Client, path: str, data: bytes, flags: int = 0) -> None:
        await client.write(path, data, flags, step=1000)

    def expect_foreign(self, now: Expected, path: str, data: bytes) -> None:
        now.closed(self._new(now, path, data))

    async def do_foreign(self, client: Client, path: str, data: bytes) -> None:
        """An object of an earlier mount, with metadata of others as well."""
        times = {"mtime": "1600000000.123456789", "ctime": "1600000001.5"}
        owner = {"mode": str(0o100644), "uid": "1000", "gid": "1001"}
        self._store.put_foreign(path, data, {**owner, **times, "colour": "red"})

    def expect_edit(self, now: Expected, path: str, offset: int, data: bytes) -> None:
        node = now.names[path]
        now.content[node] = _over(now.content[node], offset, data)
        now.closed(node)

    async def do_edit(self, client: Client, path: str, offset: int, data: bytes) -> None:
        await client.edit(path, offset, data)

    def expect_truncate(self, now: Expected, path: str, size: int) -> None:
        node = now.names[path]
        now.content[node] = now.content[node][:size].ljust(size, b"\0")
        now.closed(node)

    async def do_truncate(self, client: Client, path: str, size: int) -> None:
        await client.setattr(path, size=size)

    def expect_rename(self, now: Expected, old: str, new: str) -> None:
        now.names[new] = now.names.pop(old)

    async def do_rename(self, client: Client, old: str, new: str) -> None:
        await client.rename(old, new)

    def expect_unlink(self, now: Expected, path: str) -> None:
        del now.names[path]

    async def do_unlink(self, client: Client, path: str) -> None:
        await client.unlink(path)

    def expect_chmod(self, now: Expected, path: str, mode: int) -> None:
        pass

    async def do_chmod(self, client: Client, path: str, mode: int) -> None:
        await client.setattr(path, mode=mode)

    def expect_wait(self, now: Expected, seconds: float) -> None:
        pass

    async def do_wait(self, client: Client, seconds: float) -> None:
        await trio.sleep(seconds)

    def expect_refuse(self, now: Expected, *operations: str) -> None:
        pass

    async def do_refuse(self, client: Client, *operations: str) -> None:
        """From now on these requests have no answer, in this life."""

        def refuse(operation: str, key: str) -> None:
            if operation in operations:
                raise ConnectionLost("down", operation=operation, key=key)

        self._store.before = refuse

    def expect_delay(self, now: Expected, operation: str, seconds: float) -> None:
        pass

    async def do_delay(self, client: Client, operation: str, seconds: float) -> None:
        """From now on these requests take so long, in this life."""

        async def delay(asked: str, key: str) -> None:
            await trio.sleep(seconds if asked == operation else 0.0)

        self._store.before = delay

    # -- step by step

    def expect_open(self, now: Expected, handle: str, path: str, flags: int = 0) -> None:
        node = now.names.get(path)
        if node is None:
            node = self._new(now, path, b"")
        elif flags & os.O_TRUNC:
            now.content[node] = b""  # and half of it is never published
        self._open[handle] = node

    async def do_open(self, client: Client, handle: str, path: str, flags: int = 0) -> None:
        if await client.exists(path):
            self.handles[handle] = await client.open(path, os.O_RDWR | flags)
        else:
            self.handles[handle] = await client.create(path, os.O_RDWR)

    def expect_pwrite(self, now: Expected, handle: str, offset: int, data: bytes) -> None:
        node = self._open[handle]
        now.changed(node, _over(now.content[node], offset, data))

    async def do_pwrite(self, client: Client, handle: str, offset: int, data: bytes) -> None:
        await client.fs.write(self.handles[handle], offset, data)

    def expect_read(self, now: Expected, handle: str) -> None:
        pass

    async def do_read(self, client: Client, handle: str) -> None:
        await client.read_all(self.handles[handle])

    def expect_fsync(self, now: Expected, handle: str) -> None:
        now.closed(self._open[handle])

    async def do_fsync(self, client: Client, handle: str) -> None:
        await client.fs.fsync(self.handles[handle], False)

    def expect_flush(self, now: Expected, handle: str) -> None:
        now.closed(self._open[handle])

    async def do_flush(self, client: Client, handle: str) -> None:
        await client.fs.flush(self.handles[handle])

    def expect_close(self, now: Expected, handle: str) -> None:
        now.closed(self._open.pop(handle))

    async def do_close(self, client: Client, handle: str) -> None:
        await client.close(self.handles[handle])


class Mortal:
    """One run of a script, with a death at step `at`, and a recovery."""

    def __init__(self, store: MemoryStore, config: MountConfig, at: int | None) -> None:
        self.store = store
        self.fate = Fate(at)
        self.config = config
        self._after = config.cache_dir / "after"

    async def live(self, steps: Sequence[Step]) -> int:
        """Answers how many steps the life had, once it was checked what is left of it."""
        script = Script(steps, self.store)
        config = _in(self.config, self.config.cache_dir / "before")
        journal = DyingJournal(JournalContents(), self.fate)
        with trio.CancelScope() as scope:
            self.fate.die = lambda: self._die(scope, script, journal, config)
            served = DyingStore(self.store, self.fate)
            try:
                async with _running(served, config, journal, self.store.monotonic) as client:
                    with trio.fail_after(PATIENCE):
                        await script.run(client)
                    assert not await client.fs.drain(PATIENCE)
                    await trio.sleep(A_WHILE)
                    assert leftovers(client.fs, self.store) == []
            except BaseException:
                if not self.fate.dead:
                    raise
        if self.fate.dead:
            script.done = self._done
            await self._recover(script)
        assert script.fits(files(self.store), script.done), self._tell(script)
        assert not self.store.uploads, self._tell(script)
        return self.fate.steps

    def _die(
        self, scope: trio.CancelScope, script: Script, journal: DyingJournal, config: MountConfig
    ) -> None:
        """What the dying tasks do from now on counts for nothing."""
        self._left, self._done = journal.load(), script.done
        self.store.before = None
        shutil.copytree(config.writeback.spool_dir, self._after / "spool")
        scope.cancel()

    async def _recover(self, script: Script) -> None:
        journal = KeptJournal(self._left)
        config = _in(self.config, self._after)
        async with _running(self.store, config, journal, self.store.monotonic) as client:
            await client.fs.recover()
            shown = {name: await client.read(name) for name in await client.ls()}
            assert script.fits(shown, script.done), self._tell(script, shown)
            left = await client.fs.drain(PATIENCE)
            assert not left, (self._tell(script), client.fs.status())
            await trio.sleep(LEFT_UPLOADS if journal.load().uploads else A_WHILE)
            assert client.fs.status()["failures"] == [], self._tell(script)
            if not self._kept_in_uploads():
                assert leftovers(client.fs, self.store) == [], self._tell(script)
                return
        # An upload has some of what was never closed: it goes once that was dropped.
        for entry in self._kept_in_uploads():
            self._recoverable.drop(entry)
        async with _running(
            self.store, config, KeptJournal(journal.load()), self.store.monotonic
        ) as client:
            await client.fs.recover()
            await trio.sleep(A_WHILE)
            assert leftovers(client.fs, self.store) == [], self._tell(script)

    @property
    def _recoverable(self) -> Recoverable:
        return Recoverable(self._after / "recoverable")

    def _kept_in_uploads(self) -> list[RecoverableFile]:
        return [entry for entry in self._recoverable.list() if entry.in_upload is not None]

    def _tell(self, script: Script, found: dict[str, bytes] | None = None) -> str:
        short = {name: _short(data) for name, data in (found or files(self.store)).items()}
        return f"died {self.fate.what}, {script.done} operations were done: {short}"


def _short(data: bytes) -> str:
    runs = [f"{data[start : start + 1]!r}" for start in range(0, len(data), 1024)]
    return f"{len(data)} bytes, of each KiB the first: {' '.join(runs)}"


def _in(config: MountConfig, directory: Path) -> MountConfig:
    directory.mkdir(exist_ok=True)
    writeback = replace(config.writeback, spool_dir=directory / "spool")
    return replace(config, cache_dir=directory, writeback=writeback)


@asynccontextmanager
async def _running(
    store: Any, config: MountConfig, journal: KeptJournal, clock: Callable[[], float]
) -> AsyncIterator[Client]:
    fs = await open_filesystem(config, store, clock=clock, journal=journal)
    try:
        async with trio.open_nursery() as nursery:
            await nursery.start(fs.run)
            yield Client(fs)
            nursery.cancel_scope.cancel()
    finally:
        fs.state.spool.close()
