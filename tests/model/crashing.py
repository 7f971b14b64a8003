"""A driver whose mount dies, at any moment between two operations and in the middle of requests.

What the programs were told must be there after the next mount has taken the journal up. Of a file
that was being written more is known than that: it has the bytes of its last close, or, where an
upload was under way, newer ones; never anything else.
"""

import contextlib
import errno
import os
import random
from collections.abc import Iterator

import trio

from s3mount.core.config import MountConfig
from s3mount.core.errors import FilesystemError
from s3mount.filesystem.build import open_filesystem
from s3mount.filesystem.filesystem import FileSystem
from s3mount.store.memory import MemoryStore
from s3mount.writeback.journal_records import JournalContents
from tests.model.acting import PATIENCE, NothingToDo, Operation, counts, difference
from tests.model.bucket import leftovers
from tests.model.file_operations import FileOperations
from tests.model.mounted import Client, KeptJournal
from tests.model.name_operations import NameOperations
from tests.model.reference import Handle, Node


class CrashDriver(FileOperations, NameOperations):
    def __init__(
        self, store: MemoryStore, config: MountConfig, shuffle: random.Random | None
    ) -> None:
        super().__init__(store, config, shuffle)
        self.left = JournalContents()
        # Of each file its bytes as of the last close; of those being written what they were after
        # each operation since.
        self.closed: dict[Node, bytes] = {}
        self.since: dict[Node, list[bytes]] = {}

    async def run(self, operations: list[Operation]) -> None:
        """Each `kill` ends a mount; the last one is left in order."""
        left = iter([*operations, ("kill", 0, 0, 0, 0)])
        while await self._one_life(left):
            pass

    async def _one_life(self, operations: Iterator[Operation]) -> bool:
        journal = KeptJournal(self.left)
        fs = await open_filesystem(
            self.config,
            self.store,
            clock=self.store.monotonic,
            shuffle=self.shuffle,
            journal=journal,
        )
        async with trio.open_nursery() as nursery:
            await nursery.start(fs.run)
            self.client = Client(fs)
            with trio.fail_after(PATIENCE):
                await fs.recover()
                await self._check_recovered()
            for name, *numbers in operations:
                if name == "kill":
                    counts[name] += 1
                    self._say("kill()")
                    nursery.cancel_scope.cancel()
                    self.left = journal.load()
                    break
                with contextlib.suppress(NothingToDo), trio.fail_after(PATIENCE):
                    await getattr(self, f"op_{name}")(*numbers)
                    counts[name] += 1
                self._note()
            else:
                with trio.fail_after(PATIENCE):
                    await self._leave(fs)
                nursery.cancel_scope.cancel()
                return False
        die(fs)
        return True

    async def _leave(self, fs: FileSystem) -> None:
        for handle in list(self.handles):
            await self._close(handle)
        await self._drain()
        await trio.sleep(1.0)
        self._check_bucket()
        # What was asked for as the mount died is looked after when it is an hour old.
        for number, upload in list(self.store.uploads.items()):
            if not upload.parts:
                del self.store.uploads[number]
        left = leftovers(fs, self.store)
        assert not left, f"left over: {left}"
        await fs.aclose()

    # -- what is known of files being written

    def _note(self) -> None:
        """After each operation: what may be there if the mount dies now."""
        for handle in self.handles:
            if _is_writable(handle):
                states = self.since.setdefault(handle.node, [])
                current = bytes(handle.node.content)
                if not states or states[-1] != current:
                    states.append(current)

    def _acknowledged(self, node: Node) -> None:
        """Its bytes are safe as they are."""
        self.closed[node] = bytes(node.content)
        self.since.pop(node, None)

    async def _release(self, handle: Handle) -> None:
        await super()._release(handle)
        if _is_writable(handle):
            self._acknowledged(handle.node)

    async def op_fsync(self, handle: int, a: int, b: int, c: int) -> None:
        await super().op_fsync(handle, a, b, c)
        self._acknowledged(self._handle(handle, writable=True).node)

    async def op_truncate(self, file: int, a: int, b: int, c: int) -> None:
        node = self.tree.find(self._file(file))
        await super().op_truncate(file, a, b, c)
        if not any(one.node is node and _is_writable(one) for one in self.handles):
            self._acknowledged(node)

    # -- after a crash

    async def _check_recovered(self) -> None:
        self.handles.clear()
        for node, states in self.since.items():
            path = self._path_of(node)
            if path is not None:
                await self._settle_doubt(path, node, self.closed.get(node), states)
                self.closed[node] = bytes(node.content)
        self.since.clear()
        await self._compare_all()

    async def _settle_doubt(
        self, path: str, node: Node, closed: bytes | None, states: list[bytes]
    ) -> None:
        """Takes over what is there of a file that was being written, if that may be."""
        parent, name = self.tree.parent(path)
        try:
            got = await self.client.read(path)
        except FilesystemError as error:
            if error.errno != errno.ENOENT or closed is not None:
                raise AssertionError(f"{path!r} was closed: {error}") from error
            del parent.children[name]
            return
        node.mtime = None
        if closed is None:
            # It may have taken the place of another one, which is there until it is closed.
            found = await self.client.stat(path)
            seen = found.attributes
            node.mode, node.uid, node.gid, node.rdev = seen.mode, seen.uid, seen.gid, seen.rdev
            node.xattrs = {
                each: await self.client.fs.getxattr(found.number, each)
                for each in await self.client.fs.listxattr(found.number)
            }
        else:
            states = [closed, *states]
            assert _is_mixture(got, states), f"{path!r}: {difference(got, closed)}"
        node.content[:] = got


def _is_writable(handle: Handle) -> bool:
    return handle.flags & os.O_ACCMODE != os.O_RDONLY


def _is_mixture(got: bytes, states: list[bytes]) -> bool:
    """Whether it is one of the states, or an upload that ran while it was written."""
    if got in states:
        return True
    if len(got) not in {len(state) for state in states}:
        return False
    padded = [state.ljust(len(got), b"\0") for state in states]
    return all(byte in {state[at] for state in padded} for at, byte in enumerate(got))


def die(fs: FileSystem) -> None:
    """What the kernel does with the descriptors of a killed process; the files stay."""
    directory = str(fs.state.config.writeback.spool_dir)
    for number in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            if os.readlink(f"/proc/self/fd/{number}").startswith(directory):
                os.close(int(number))
