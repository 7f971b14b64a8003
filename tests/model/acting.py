"""What every operation of the model test needs: both trees, and how to pick from them."""

import errno
import os
import random
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

from s3mount.core.config import MountConfig
from s3mount.core.errors import FilesystemError
from s3mount.store.base import ObjectStore
from s3mount.store.memory import MemoryStore
from tests.model.mounted import TTL, Client
from tests.model.reference import Handle, Node, Refused, Tree

Operation = tuple[str, int, int, int, int]

NAMES = ("a", "b", "c", "d.txt", "é %41+")
SIZES = (0, 1, 100, 4095, 4096, 5000, 8192, 9000, 20_000, 40_000, 70_000)
OFFSETS = (0, 1, 3000, 4096, 10_000, 30_000)
STEPS = (1 << 20, 4096, 1000, 6000)
MODES = (0o644, 0o600, 0o755, 0o4711, 0o400)
PAUSES = (0.1, 0.6, 1.5, TTL + 1)
OPENS = (os.O_RDONLY, os.O_RDWR, os.O_WRONLY | os.O_APPEND, os.O_RDWR | os.O_TRUNC)
MAX_DEPTH = 3
MAX_HANDLES = 6
LARGEST = 100_000
PATIENCE = 1800.0  # virtual seconds: what takes longer waits for something that will not come
XATTRS = (b"user.one", "user.zwei ü".encode())

counts: Counter[str] = Counter()


def pattern(seed: int, size: int) -> bytes:
    """Bytes that show where they come from."""
    return random.Random(seed).randbytes(size)


def pick(candidates: list[Any], index: int) -> Any:
    return candidates[index % len(candidates)]


class NothingToDo(Exception):
    """There is no file, handle or the like for this operation."""


class Actor:
    def __init__(
        self,
        store: MemoryStore,
        config: MountConfig,
        shuffle: random.Random | None,
        served: ObjectStore | None = None,
    ) -> None:
        """`served`: the way by which the file system reaches what is in `store`."""
        self.store = store
        self.served = served
        self.unknown_uploads = 0  # begun by a request whose answer was lost
        self.config = config
        self.shuffle = shuffle
        self.tree = Tree()
        self.handles: list[Handle] = []
        self.trace: list[str] = []
        self.serial = 0
        self.client: Client

    def _say(self, text: str) -> None:
        self.trace.append(text)

    async def _both(
        self, text: str, real: Callable[[], Awaitable[Any]], model: Callable[[], Any]
    ) -> Any:
        """Both succeed, or both fail alike; returns the real result, None after a failure."""
        self._say(text)
        try:
            model()
            wanted = None
        except Refused as refused:
            wanted = refused.errno
        try:
            result = await real()
            got = None
        except FilesystemError as error:
            result, got = None, error.errno
        assert got == wanted, f"{text}: {describe(got)}, expected {describe(wanted)}"
        return result

    def _data(self, size: int) -> tuple[int, bytes]:
        self.serial += 1
        return self.serial, pattern(self.serial, size)

    def _directory(self, index: int) -> str:
        found = [
            path for path in self.tree.paths(directories=True) if path.count("/") < MAX_DEPTH - 1
        ]
        return str(pick(["", *found], index))

    def _name(self, directory: int, name: int) -> str:
        """Of something that may be there or not."""
        above = self._directory(directory)
        return f"{above}/{pick(list(NAMES), name)}".lstrip("/")

    def _file(self, index: int) -> str:
        files = self.tree.paths(files=True)
        if not files:
            raise NothingToDo
        return str(pick(files, index))

    def _any(self, index: int) -> str:
        found = [path for path, _ in self.tree.walk()]
        if not found:
            raise NothingToDo
        return str(pick(found, index))

    def _handle(self, index: int, *, writable: bool = False, readable: bool = False) -> Handle:
        found = [
            handle
            for handle in self.handles
            if not (writable and handle.flags & os.O_ACCMODE == os.O_RDONLY)
            and not (readable and handle.flags & os.O_ACCMODE == os.O_WRONLY)
            and not (writable and handle.node.replaced)
        ]
        if not found:
            raise NothingToDo
        handle: Handle = pick(found, index)
        return handle

    def _keep(self, number: int, node: Node, flags: int) -> Handle:
        handle = Handle(number, node, flags)
        self.handles.append(handle)
        return handle

    async def _room_for_handle(self) -> None:
        if len(self.handles) >= MAX_HANDLES:
            await self._release(self.handles[0])

    async def _release(self, handle: Handle) -> None:
        self._say(f"release({handle.number})")
        self.handles.remove(handle)
        await self.client.release(handle.number)

    async def _close(self, handle: Handle) -> None:
        self._say(f"flush({handle.number})")
        await self.client.fs.flush(handle.number)
        await self._release(handle)

    async def _write_all(self, handle: Handle, offset: int, data: bytes, step: int) -> None:
        step = min(step, self.config.writeback.spool_limit // 4)
        for start in range(0, len(data), step):
            piece = data[start : start + step]
            try:
                await self.client.fs.write(handle.number, offset + start, piece)
            except FilesystemError as error:
                if error.errno != errno.ENOSPC or not self._may_be_full():
                    raise
                self._say("  ENOSPC")
                await self._take_up(handle, offset + start, piece)
                return
            handle.node.write(offset + start, piece)

    def _may_be_full(self) -> bool:
        """Unlinked files can be sent nowhere; with others open they may fill a small spool."""
        unlinked = sum(len(one.node.content) for one in self.handles if not one.node.linked)
        return 2 * unlinked > self.config.writeback.spool_limit

    async def _take_up(self, handle: Handle, offset: int, data: bytes) -> None:
        """A write that failed may have stored some of its bytes, but nothing else."""
        node = handle.node
        before = bytes(node.content)
        try:
            got = await self.client.read_all(handle.number)
        except FilesystemError as error:
            if error.errno not in (errno.ESTALE, errno.ENOSPC) or not self._may_be_lost(node):
                raise
            await self._release(handle)
            return
        node.write(offset, data)
        wanted = bytes(node.content)
        for at, byte in enumerate(got):
            old = before[at] if at < len(before) else 0
            assert byte in (old, wanted[at]), f"byte {at} after ENOSPC"
        node.content[:] = got

    def _may_be_lost(self, node: Node) -> bool:
        """Replaced by others, or without a name here while the spool has no room for it."""
        too_large = max(node.largest, len(node.content)) > self.config.writeback.spool_limit // 4
        return node.replaced or (not node.linked and too_large)

    def _path_of(self, node: Node) -> str | None:
        return next((path for path, found in self.tree.walk() if found is node), None)


def describe(number: int | None) -> str:
    return "success" if number is None else errno.errorcode[number]


def difference(got: bytes | bytearray, wanted: bytes | bytearray) -> str:
    if len(got) != len(wanted):
        return f"{len(got)} bytes, expected {len(wanted)}"
    first = next(i for i, (a, b) in enumerate(zip(got, wanted, strict=True)) if a != b)
    last = max(i for i, (a, b) in enumerate(zip(got, wanted, strict=True)) if a != b)
    return f"of {len(got)} bytes {first} to {last} differ"
