"""The model test's driver with crashes: the mount is dropped, and another one takes its journal up.

What is left of it is what kill -9 leaves: the journal and the spool as they are at that moment,
and the bucket. Requests on their way may still have been carried out, or not; nothing that the
dying tasks do reaches anything.

The reference falls back to what was acknowledged. Of a file that is written and not closed then
that is what its last close left, or nothing.
"""

import contextlib
import errno
import os
import random
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import trio

from s3mount.core.config import MountConfig
from s3mount.core.errors import FilesystemError
from s3mount.filesystem.build import open_filesystem
from s3mount.filesystem.filesystem import FileSystem
from s3mount.filesystem.open_file import OpenFile
from s3mount.filesystem.records import FileRecords
from s3mount.store.errors import ConnectionLost
from s3mount.store.memory import MemoryStore
from s3mount.writeback.journal_records import JournalContents
from tests.model.acting import PATIENCE, NothingToDo, Operation, counts, difference
from tests.model.driver import Driver
from tests.model.mounted import EPOCH, Client, KeptJournal
from tests.model.reference import Handle, Node
from tests.model.unreliable import UnreliableStore

_real_time = time.time
TICK = 4  # milliseconds
# How long after its begin a recovery is killed as well: in the middle of it, mostly.
SOON = (0.0, 0.01, 0.1, 0.3, 0.7, 2.0)
# An upload whose id was never learnt is aborted an hour later.
LEFT_UPLOADS = 6400.0
# What failed then is tried again, every ten minutes.
TRIED_AGAIN = 600.0
TRIES = 20
LEAVING = LEFT_UPLOADS + TRIES * TRIED_AGAIN


def _time() -> float:
    """This machine's clock is the service's."""
    try:
        return EPOCH + trio.current_time()
    except RuntimeError:
        return _real_time()


@contextmanager
def one_clock() -> Iterator[None]:
    with patch("time.time", _time):
        yield


def _tick(_: int) -> int:
    """What is done at once has the same times, as within one tick of the kernel's clock."""
    return int(_time() * 1000) // TICK * TICK * 1_000_000


@contextmanager
def one_tick() -> Iterator[None]:
    """The times of files are those of the run's clock, so that it depends on its seed alone."""
    with patch("time.clock_gettime_ns", _tick):
        yield


class MortalStore:
    """Of one mount's life: afterwards no request of it takes effect."""

    def __init__(self, store: MemoryStore) -> None:
        self._store = store
        self.dead = False

    def __getattr__(self, name: str) -> Any:
        if self.dead:
            raise ConnectionLost("the mount is dead", operation=name)
        return getattr(self._store, name)


class MortalJournal(KeptJournal):
    """Likewise."""

    dead = False

    def _do(self, call: Any) -> None:
        if self.dead:
            raise FilesystemError(errno.EIO, "the mount is dead")
        super()._do(call)


class RelaunchingDriver(Driver):
    def __init__(
        self, store: MemoryStore, config: MountConfig, shuffle: random.Random | None
    ) -> None:
        super().__init__(store, config, shuffle)
        self.contents = JournalContents()  # of the journal of the life before
        self.lives = 0
        # What a file may have after a crash (None: it may be absent), if that is not its content.
        self.unsure: dict[Node, list[bytes | None]] = {}
        # What was released without a close that waits, and with which content.
        self._behind: dict[Node, tuple[FileRecords, bytes]] = {}

    async def run(self, operations: list[Operation]) -> None:
        left = iter(operations)
        with one_clock():
            while await self._one_life(left):
                pass
            await self._one_life(iter(()))

    # -- a life

    async def _one_life(self, left: Iterator[Operation]) -> bool:
        """Until a crash or a remount; False: the operations are at their end."""
        if isinstance(self.store, UnreliableStore):
            await self.store.settled()
        store, journal = MortalStore(self.store), MortalJournal(self.contents)
        config = self._config_of_life()
        fs = await open_filesystem(
            config, store, clock=self.store.monotonic, shuffle=self.shuffle, journal=journal
        )
        crashed = False
        try:
            async with trio.open_nursery() as nursery:
                await nursery.start(fs.run)
                self.client = Client(fs)
                with trio.fail_after(PATIENCE):
                    await fs.recover()
                crashed = await self._live(left)
                # From here to the cancellation without an await: it is one moment.
                if crashed:
                    self._die(fs, store, journal)
                else:
                    await fs.aclose()
                    self.contents = journal.load()
                nursery.cancel_scope.cancel()
        finally:
            with contextlib.suppress(Exception):
                fs.state.spool.close()
        return crashed or self._more

    def _config_of_life(self) -> MountConfig:
        spool = self._directory_of_life() / "spool"
        return replace(self.config, writeback=replace(self.config.writeback, spool_dir=spool))

    def _directory_of_life(self) -> Path:
        return self.config.cache_dir / f"life-{self.lives}"

    def _die(self, fs: FileSystem, store: MortalStore, journal: MortalJournal) -> None:
        store.dead = journal.dead = True
        self.contents = journal.load()
        before = self._directory_of_life() / "spool"
        self.lives += 1
        after = self._directory_of_life() / "spool"
        shutil.copytree(before, after)
        shutil.rmtree(self._directory_of_life().parent / f"life-{self.lives - 1}")

    async def _live(self, left: Iterator[Operation]) -> bool:
        """True: it ends in a crash."""
        self._more = True
        if self._crashes_soon:
            self._crashes_soon -= 1
            pause = random.Random(self.serial + self._crashes_soon).choice(SOON)
            self._say(f"another crash {pause} s later")
            await trio.sleep(pause)
            return True
        await self._settle_reference()
        await self._compare_all()
        for name, *numbers in left:
            if name == "crash":
                self._say("crash()")
                counts[name] += 1
                self._fall_back()
                self._crashes_soon = max(0, numbers[0] - 8)
                return True
            if name == "remount":
                with trio.fail_after(PATIENCE + LEAVING):
                    await self._before_remount()
                counts[name] += 1
                return False
            try:
                with trio.fail_after(PATIENCE):
                    await getattr(self, f"op_{name}")(*numbers)
            except NothingToDo:
                continue
            counts[name] += 1
        with trio.fail_after(PATIENCE + LEAVING):
            await self._before_remount()
        self._more = False
        return False

    _crashes_soon = 0
    _more = True

    async def _before_remount(self) -> None:
        for handle in list(self.handles):
            await self._close(handle)
        await self._drain()
        await trio.sleep(LEFT_UPLOADS)
        for _ in range(TRIES):
            if not self.client.fs.state.journal.load().uploads:
                break
            await trio.sleep(TRIED_AGAIN)
        await super()._before_remount()
        left = self.client.fs.state.journal.load().uploads
        assert not left, f"uploads left: {left}"

    # -- what is acknowledged

    def _writers(self, node: Node) -> list[Handle]:
        return [
            handle
            for handle in self.handles
            if handle.node is node and handle.flags & os.O_ACCMODE != os.O_RDONLY
        ]

    def _is_safe(self, node: Node) -> None:
        self.unsure.pop(node, None)

    def _may_be_stored(self, node: Node) -> None:
        if node in self.unsure:
            self.unsure[node].append(bytes(node.content))

    def _is_changing(self, node: Node, before: bytes | None) -> None:
        """What it was until now is what is left of it."""
        self.unsure.setdefault(node, [before])

    async def _write_all(self, handle: Handle, offset: int, data: bytes, step: int) -> None:
        self._is_changing(handle.node, bytes(handle.node.content))
        await super()._write_all(handle, offset, data, step)
        self._may_be_sent(handle)

    def _may_be_sent(self, handle: Handle) -> None:
        """A PUT that is tried again sends what is there then, but not with write-back."""
        file = self._open_file(handle)
        if file is not None and file.put is not None and not file.state.writes_back:
            self._may_be_stored(handle.node)

    def _open_file(self, handle: Handle) -> OpenFile | None:
        fs = self.client.fs
        return fs.state.open_files.get(fs.inode(self.client.handles[handle.number]))

    async def _release(self, handle: Handle) -> None:
        file = self._open_file(handle)
        await super()._release(handle)
        last = not any(other.node is handle.node for other in self.handles)
        if not last and handle.flags & os.O_ACCMODE == os.O_RDONLY:
            return
        if file is not None and file.records.behind:
            # Without a FLUSH nobody waited: with write-back the bytes go to the disk first.
            self._may_be_stored(handle.node)
            self._behind[handle.node] = file.records, bytes(handle.node.content)
        else:
            self._is_safe(handle.node)

    def _settle_behind(self) -> None:
        """What nobody waited for is safe by now, if it is."""
        for node, (records, content) in self._behind.items():
            if not records.behind and node.content == content:
                self._is_safe(node)
        self._behind = {}

    def _keep(self, number: int, node: Node, flags: int) -> Handle:
        """A handle of a file that was created, truncated or opened; called at once."""
        if node not in self._known:
            self._known.add(node)
            self._is_changing(node, None)
        elif flags & os.O_TRUNC:
            self._is_changing(node, self._last_content.get(node))
        return super()._keep(number, node, flags)

    async def op_open(self, file: int, flags: int, _: int, __: int) -> None:
        self._remember()
        await super().op_open(file, flags, _, __)

    async def op_write_file(self, directory: int, name: int, size: int, step: int) -> None:
        self._remember()
        node = self.tree.get(self._name(directory, name))
        if node is not None and node.is_file:
            self._is_changing(node, bytes(node.content))
        await super().op_write_file(directory, name, size, step)

    async def op_create(self, directory: int, name: int, exclusive: int, _: int) -> None:
        self._remember()
        await super().op_create(directory, name, exclusive, _)

    def _remember(self) -> None:
        self._known = {node for _, node in self.tree.walk()}
        self._last_content = {
            node: bytes(node.content) for _, node in self.tree.walk() if node.is_file
        }

    _known: set[Node] = set()  # noqa: RUF012 (replaced, never changed)
    _last_content: dict[Node, bytes] = {}  # noqa: RUF012 (the same)

    async def op_flush(self, handle: int, _: int, __: int, ___: int) -> None:
        chosen = self._handle(handle)
        await super().op_flush(handle, _, __, ___)
        self._may_be_stored(chosen.node)

    async def op_fsync(self, handle: int, _: int, __: int, ___: int) -> None:
        chosen = self._handle(handle, writable=True)
        await super().op_fsync(handle, _, __, ___)
        self._is_safe(chosen.node)

    async def op_drain(self, _: int, __: int, ___: int, ____: int) -> None:
        await super().op_drain(_, __, ___, ____)
        for handle in self.handles:
            self._is_safe(handle.node)

    async def op_truncate(self, file: int, size: int, _: int, __: int) -> None:
        node = self.tree.find(self._file(file))
        self._is_changing(node, bytes(node.content))
        try:
            await super().op_truncate(file, size, _, __)
        finally:
            if not self._writers(node):
                self._is_safe(node)

    async def op_ftruncate(self, handle: int, size: int, _: int, __: int) -> None:
        chosen = self._handle(handle, writable=True)
        self._is_changing(chosen.node, bytes(chosen.node.content))
        await super().op_ftruncate(handle, size, _, __)
        self._may_be_sent(chosen)

    # -- after a crash

    def _fall_back(self) -> None:
        """No handle is left; of what was not closed only what was closed before."""
        self.handles.clear()
        self._settle_behind()
        self._lost = {node: allowed for node, allowed in self.unsure.items() if self._path_of(node)}
        self.unsure.clear()

    _lost: dict[Node, list[bytes | None]] = {}  # noqa: RUF012 (replaced, never changed)

    async def _settle_reference(self) -> None:
        """What the file system shows of files that were being written, if it may show that."""
        for node, allowed in self._lost.items():
            path = self._path_of(node)
            assert path is not None
            got = await self.client.read(path) if await self.client.exists(path) else None
            if got is None:
                assert None in allowed or self._took_a_name(node), f"{path!r} is gone"
                parent, name = self.tree.parent(path)
                del parent.children[name]
                node.linked = False
                continue
            assert got in allowed or self._took_a_name(node), (
                f"{path!r} after a crash: {difference(got, allowed[0] or b'')}"
            )
            node.content[:] = got
            found = (await self.client.stat(path)).attributes
            node.mode, node.uid, node.gid = found.mode, found.uid, found.gid
            node.rdev = found.rdev
            node.mtime, node.xattrs = (
                found.mtime_ns,
                {name.encode(): value for name, value in found.xattrs.items()},
            )
            node.foreign, node.content_type = {}, None
        self._lost = {}

    def _took_a_name(self, node: Node) -> bool:
        """A file that was never stored and was renamed over another one: that one may be back."""
        return node in self._over

    _over: set[Node] = set()  # noqa: RUF012

    async def _rename(self, old: str, new: str, *, no_replace: bool) -> None:
        node, target = self.tree.get(old), self.tree.get(new)
        await super()._rename(old, new, no_replace=no_replace)
        if node is not None and target is not None and node in self.unsure:
            self._over = self._over | {node}
