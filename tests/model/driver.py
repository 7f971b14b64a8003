"""Carries each operation out on the file system and on the reference, and compares.

An operation is a name and four small numbers; which file or directory they mean is found among
those that the reference has at that moment, so that any list of operations makes sense and
hypothesis may leave out any of them.
"""

import errno
import os
import random
import stat
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import trio

from s3mount.core.config import MountConfig
from s3mount.core.errors import FilesystemError
from s3mount.store.memory import MemoryStore
from tests.model.bucket import attributes_of, leftovers
from tests.model.mounted import TTL, Client, mounted, service_clock
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


class Driver:
    def __init__(
        self, store: MemoryStore, config: MountConfig, shuffle: random.Random | None
    ) -> None:
        self.store = store
        self.config = config
        self.shuffle = shuffle
        self.tree = Tree()
        self.handles: list[Handle] = []
        self.trace: list[str] = []
        self.serial = 0
        self.client: Client

    async def run(self, operations: list[Operation]) -> None:
        """Ends with a remount."""
        left = iter(operations)
        while await self._one_mount(left):
            pass
        async with mounted(self.store, self.config) as self.client:
            await self._compare_all()

    async def _one_mount(self, left: Iterator[Operation]) -> bool:
        """Until a remount; False: the operations are at their end."""
        async with mounted(self.store, self.config, self.shuffle) as self.client:
            await self._compare_all()
            for name, *numbers in left:
                if name == "remount":
                    with trio.fail_after(PATIENCE):
                        await self._before_remount()
                    counts[name] += 1
                    return True
                try:
                    with trio.fail_after(PATIENCE):
                        await getattr(self, f"op_{name}")(*numbers)
                except NothingToDo:
                    continue
                counts[name] += 1
            with trio.fail_after(PATIENCE):
                await self._before_remount()
            return False

    # -- helpers

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
        assert got == wanted, f"{text}: {_error(got)}, expected {_error(wanted)}"
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

    # -- files

    async def op_write_file(self, directory: int, name: int, size: int, step: int) -> None:
        """`> path` with one open, some writes, one close."""
        path = self._name(directory, name)
        serial, data = self._data(pick(list(SIZES), size))
        node = self.tree.get(path)
        if node is not None and not node.is_file:
            raise NothingToDo
        await self._room_for_handle()
        self._say(f"write_file({path!r}, data {serial} of {len(data)}, step {STEPS[step % 4]})")
        if node is None:
            number = await self.client.create(path, os.O_RDWR, 0o640)
            node = self.tree.add(path, Node(stat.S_IFREG | 0o640))
        else:
            number = await self.client.open(path, os.O_RDWR | os.O_TRUNC)
            node.truncate(0)
        handle = self._keep(number, node, os.O_RDWR)
        await self._write_all(handle, 0, data, STEPS[step % 4])
        await self._close(handle)

    async def op_create(self, directory: int, name: int, exclusive: int, _: int) -> None:
        """O_CREAT; the handle stays open."""
        path = self._name(directory, name)
        node = self.tree.get(path)
        flags = os.O_RDWR | (os.O_EXCL if exclusive % 2 else 0)
        if node is not None and not node.is_file and not flags & os.O_EXCL:
            raise NothingToDo
        await self._room_for_handle()

        def model() -> None:
            nonlocal node
            if node is not None and flags & os.O_EXCL:
                raise Refused(errno.EEXIST)
            if node is None:
                node = self.tree.add(path, Node(stat.S_IFREG | 0o640))

        number = await self._both(
            f"create({path!r}, {'O_EXCL' if flags & os.O_EXCL else ''})",
            lambda: self.client.create(path, flags, 0o640),
            model,
        )
        if number is not None and node is not None:
            self._keep(number, node, flags)

    async def op_open(self, file: int, flags: int, _: int, __: int) -> None:
        path = self._file(file)
        how = pick(list(OPENS), flags)
        await self._room_for_handle()
        self._say(f"open({path!r}, {how:#o})")
        number = await self.client.open(path, how)
        node = self.tree.find(path)
        if how & os.O_TRUNC:
            node.truncate(0)
        self._keep(number, node, how)

    async def op_write(self, handle: int, offset: int, size: int, step: int) -> None:
        chosen = self._handle(handle, writable=True)
        length = len(chosen.node.content)
        where = pick([length, *OFFSETS, max(0, length - 1), length + 5000], offset)
        serial, data = self._data(pick(list(SIZES), size))
        if chosen.flags & os.O_APPEND:
            where = length
        if where + len(data) > LARGEST:
            raise NothingToDo
        self._say(f"write({chosen.number}, {where}, data {serial} of {len(data)})")
        await self._write_all(chosen, where, data, STEPS[step % 4])

    async def op_read(self, handle: int, offset: int, size: int, _: int) -> None:
        chosen = self._handle(handle, readable=True)
        length = len(chosen.node.content)
        where = pick([0, *OFFSETS, length // 2], offset)
        amount = pick([*SIZES[1:], LARGEST], size)
        self._say(f"read({chosen.number}, {where}, {amount})")
        await self._compare_read(chosen, where, amount)

    async def _compare_read(self, handle: Handle, offset: int, amount: int) -> None:
        wanted = bytes(handle.node.content[offset : offset + amount])
        try:
            got = bytes(await self.client.fs.read(handle.number, offset, amount))
        except FilesystemError as error:
            lost = (errno.ESTALE, errno.ENOSPC)
            if error.errno not in lost or not self._may_be_lost(handle.node):
                raise
            return
        assert got == wanted, f"read at {offset}: {_difference(got, wanted)}"

    def _may_be_lost(self, node: Node) -> bool:
        """Replaced by others, or without a name here while the spool has no room for it."""
        too_large = len(node.content) > self.config.writeback.spool_limit // 4
        return node.replaced or (not node.linked and too_large)

    async def op_read_file(self, file: int, step: int, _: int, __: int) -> None:
        path = self._file(file)
        self._say(f"read_file({path!r})")
        got = await self.client.read(path, STEPS[step % 4])
        wanted = bytes(self.tree.find(path).content)
        assert got == wanted, f"{path!r}: {_difference(got, wanted)}"

    async def op_flush(self, handle: int, _: int, __: int, ___: int) -> None:
        chosen = self._handle(handle)
        self._say(f"flush({chosen.number})")
        await self.client.fs.flush(chosen.number)

    async def op_fsync(self, handle: int, _: int, __: int, ___: int) -> None:
        """Afterwards the bucket has it, whatever else is on its way."""
        chosen = self._handle(handle, writable=True)
        self._say(f"fsync({chosen.number})")
        await self.client.fs.fsync(chosen.number, False)
        path = self._path_of(chosen.node)
        if path is not None:
            stored = self.store.objects.get(self.config.prefix + path)
            assert stored is not None, f"{path!r} is not in the bucket after fsync"
            assert stored.data == bytes(chosen.node.content), (
                f"{path!r} after fsync: {_difference(stored.data, bytes(chosen.node.content))}"
            )

    def _path_of(self, node: Node) -> str | None:
        return next((path for path, found in self.tree.walk() if found is node), None)

    async def op_close(self, handle: int, _: int, __: int, ___: int) -> None:
        await self._close(self._handle(handle))

    async def op_release(self, handle: int, _: int, __: int, ___: int) -> None:
        """As when the writer was killed."""
        await self._release(self._handle(handle))

    async def op_truncate(self, file: int, size: int, _: int, __: int) -> None:
        path = self._file(file)
        node = self.tree.find(path)
        length = len(node.content)
        wanted = pick([*SIZES, length // 2, max(0, length - 1), length + 3000], size)
        if wanted > LARGEST:
            raise NothingToDo
        self._say(f"truncate({path!r}, {wanted})")
        await self.client.setattr(path, size=wanted)
        node.truncate(wanted)

    async def op_ftruncate(self, handle: int, size: int, _: int, __: int) -> None:
        chosen = self._handle(handle, writable=True)
        length = len(chosen.node.content)
        wanted = pick([*SIZES, length // 2, max(0, length - 1), length + 3000], size)
        if wanted > LARGEST:
            raise NothingToDo
        self._say(f"ftruncate({chosen.number}, {wanted})")
        try:
            await self.client.fs.setattr(self.client.handles[chosen.number], size=wanted)
        except FilesystemError as error:
            if error.errno != errno.ENOSPC or not self._may_be_lost(chosen.node):
                raise
        else:
            chosen.node.truncate(wanted)

    # -- attributes

    async def op_chmod(self, path: int, mode: int, _: int, __: int) -> None:
        chosen = self._any(path)
        wanted = pick(list(MODES), mode)
        self._say(f"chmod({chosen!r}, {wanted:#o})")
        await self.client.setattr(chosen, mode=wanted)
        node = self.tree.find(chosen)
        if stat.S_IMODE(node.mode) != wanted:
            node.mode = stat.S_IFMT(node.mode) | wanted
            node.marker = True

    async def op_chown(self, path: int, uid: int, _: int, __: int) -> None:
        chosen = self._any(path)
        self._say(f"chown({chosen!r}, {uid}, {uid + 1})")
        await self.client.setattr(chosen, uid=uid, gid=uid + 1)
        node = self.tree.find(chosen)
        node.uid, node.gid = uid, uid + 1
        node.marker = True

    async def op_utimens(self, path: int, seconds: int, _: int, __: int) -> None:
        chosen = self._any(path)
        moment = seconds * 1_000_000_007
        self._say(f"utimens({chosen!r}, {moment})")
        await self.client.setattr(chosen, mtime_ns=moment, atime_ns=moment + 1)
        node = self.tree.find(chosen)
        node.mtime = moment
        node.marker = True

    async def op_setxattr(self, path: int, name: int, value: int, _: int) -> None:
        chosen = self._any(path)
        key, text = pick(list(XATTRS), name), pattern(value, value)
        self._say(f"setxattr({chosen!r}, {key!r})")
        number = (await self.client.stat(chosen)).number
        await self.client.fs.setxattr(number, key, text)
        node = self.tree.find(chosen)
        node.xattrs[key] = text
        node.marker = True

    async def op_removexattr(self, path: int, name: int, _: int, __: int) -> None:
        holders = [found for found, node in self.tree.walk() if node.xattrs]
        if not holders:
            raise NothingToDo
        chosen = pick(holders, path)
        key = pick(list(XATTRS), name)
        node = self.tree.find(chosen)
        number = (await self.client.stat(chosen)).number

        def model() -> None:
            if node.xattrs.pop(key, None) is None:
                raise Refused(errno.ENODATA)

        await self._both(
            f"removexattr({chosen!r}, {key!r})",
            lambda: self.client.fs.removexattr(number, key),
            model,
        )

    async def op_stat(self, path: int, _: int, __: int, ___: int) -> None:
        chosen = self._any(path)
        self._say(f"stat({chosen!r})")
        await self._compare_stat(chosen, self.tree.find(chosen))

    async def _compare_stat(self, path: str, node: Node) -> None:
        found = await self.client.stat(path)
        attributes = found.attributes
        wanted = (node.mode, node.uid, node.gid)
        got = (attributes.mode, attributes.uid, attributes.gid)
        assert got == wanted, f"{path!r}: mode, uid, gid {got}, expected {wanted}"
        if not node.is_directory:
            assert found.size == len(node.content), f"{path!r}: size {found.size}"
            assert attributes.rdev == node.rdev, f"{path!r}: rdev {attributes.rdev}"
        if node.mtime is not None:
            assert attributes.mtime_ns == node.mtime, (
                f"{path!r}: mtime {attributes.mtime_ns}, expected {node.mtime}"
            )
        elif not node.is_directory:
            node.mtime = attributes.mtime_ns
        names = await self.client.fs.listxattr(found.number)
        xattrs = {name: await self.client.fs.getxattr(found.number, name) for name in names}
        assert xattrs == node.xattrs, f"{path!r}: xattrs {xattrs}"
        if stat.S_ISLNK(node.mode):
            target = await self.client.readlink(path)
            assert target == bytes(node.content), f"{path!r} -> {target!r}"

    async def op_missing(self, directory: int, name: int, _: int, __: int) -> None:
        """A name that is not there is not found."""
        path = self._name(directory, name)
        if self.tree.get(path) is not None:
            raise NothingToDo
        self._say(f"exists({path!r})")
        assert not await self.client.exists(path), f"{path!r} exists"

    # -- names

    async def op_mkdir(self, directory: int, name: int, mode: int, _: int) -> None:
        path = self._name(directory, name)
        permissions = pick([0o755, 0o700, 0o1777], mode)
        await self._both(
            f"mkdir({path!r}, {permissions:#o})",
            lambda: self.client.mkdir(path, permissions),
            lambda: self.tree.add(path, Node(stat.S_IFDIR | permissions)),
        )

    async def op_rmdir(self, path: int, _: int, __: int, ___: int) -> None:
        chosen = self._any(path)
        await self._both(
            f"rmdir({chosen!r})",
            lambda: self.client.rmdir(chosen),
            lambda: self.tree.rmdir(chosen),
        )

    async def op_rmdir_empty(self, path: int, _: int, __: int, ___: int) -> None:
        empty = [
            found for found, node in self.tree.walk() if node.is_directory and not node.children
        ]
        if not empty:
            raise NothingToDo
        chosen = pick(empty, path)
        await self._both(
            f"rmdir({chosen!r})",
            lambda: self.client.rmdir(chosen),
            lambda: self.tree.rmdir(chosen),
        )

    async def op_unlink(self, path: int, _: int, __: int, ___: int) -> None:
        chosen = self._any(path)
        await self._both(
            f"unlink({chosen!r})",
            lambda: self.client.unlink(chosen),
            lambda: self.tree.unlink(chosen),
        )

    async def op_unlink_open(self, handle: int, _: int, __: int, ___: int) -> None:
        path = self._path_of(self._handle(handle).node)
        if path is None:
            raise NothingToDo
        await self._both(
            f"unlink({path!r})",
            lambda: self.client.unlink(path),
            lambda: self.tree.unlink(path),
        )

    async def op_symlink(self, directory: int, name: int, length: int, _: int) -> None:
        if self._may_be_full():
            raise NothingToDo
        path = self._name(directory, name)
        target = b"../target " + b"x" * (length * 40)
        await self._both(
            f"symlink({path!r})",
            lambda: self.client.symlink(path, target),
            lambda: self.tree.add(path, Node(stat.S_IFLNK | 0o777, content=bytearray(target))),
        )

    async def op_mknod(self, directory: int, name: int, kind: int, device: int) -> None:
        path = self._name(directory, name)
        mode = 0o660 | pick([stat.S_IFIFO, stat.S_IFSOCK, stat.S_IFCHR, stat.S_IFBLK], kind)
        is_device = stat.S_ISCHR(mode) or stat.S_ISBLK(mode)
        rdev = os.makedev(7, device) if is_device else 0
        await self._both(
            f"mknod({path!r}, {mode:#o}, {rdev})",
            lambda: self.client.mknod(path, mode, rdev),
            lambda: self.tree.add(path, Node(mode, rdev=rdev)),
        )

    async def op_rename(self, source: int, directory: int, name: int, flags: int) -> None:
        old, new = self._any(source), self._name(directory, name)
        await self._rename(old, new, no_replace=flags % 4 == 3)

    async def op_rename_over(self, source: int, target: int, _: int, __: int) -> None:
        """Over a file that is there."""
        await self._rename(self._file(source), self._file(target), no_replace=False)

    async def op_rename_directory(self, source: int, directory: int, name: int, _: int) -> None:
        directories = self.tree.paths(directories=True)
        if not directories:
            raise NothingToDo
        old, new = pick(directories, source), self._name(directory, name)
        await self._rename(old, new, no_replace=False)

    async def _rename(self, old: str, new: str, *, no_replace: bool) -> None:
        if no_replace and old == new:
            raise NothingToDo  # the kernel answers that
        await self._both(
            f"rename({old!r}, {new!r}{', RENAME_NOREPLACE' if no_replace else ''})",
            lambda: self.client.rename(old, new, 1 if no_replace else 0),
            lambda: self.tree.rename(old, new, replace=not no_replace),
        )

    async def op_readdir(self, directory: int, _: int, __: int, ___: int) -> None:
        path = self._directory(directory)
        self._say(f"readdir({path!r})")
        await self._compare_names(path, self.tree.find(path))

    async def _compare_names(self, path: str, node: Node) -> None:
        entries = await self.client.entries(path)
        names = [entry.name.decode() for entry in entries]
        wanted = sorted(node.children)
        assert sorted(names) == wanted, f"names in {path!r}: {sorted(names)}, expected {wanted}"
        for entry in entries:
            kind = stat.S_IFMT(entry.stat.attributes.mode)
            expected = stat.S_IFMT(node.children[entry.name.decode()].mode)
            assert kind == expected, f"type of {entry.name!r} in {path!r}: {kind:#o}"

    # -- time, waiting, the whole

    async def op_pause(self, seconds: int, _: int, __: int, ___: int) -> None:
        duration = pick(list(PAUSES), seconds)
        self._say(f"pause({duration})")
        await trio.sleep(duration)

    async def op_forget(self, _: int, __: int, ___: int, ____: int) -> None:
        self._say("forget()")
        self.client.forget()

    async def op_fsyncdir(self, directory: int, _: int, __: int, ___: int) -> None:
        """What is below is in the bucket, but for files that are open and unsent."""
        path = self._directory(directory)
        self._say(f"fsyncdir({path!r})")
        await self.client.fsyncdir(path)
        prefix = self.config.prefix + (path + "/" if path else "")
        unfinished = [
            intent
            for intent in self.client.fs.state.queue.unfinished(prefix)
            if not intent.deferred
        ]
        assert not unfinished, [intent.describe() for intent in unfinished]

    async def op_drain(self, _: int, __: int, ___: int, ____: int) -> None:
        """What is still open for writing is not published by it; fsync does that."""
        self._say("drain()")
        for handle in self.handles:
            if handle.flags & os.O_ACCMODE != os.O_RDONLY:
                await self.client.fs.fsync(handle.number, False)
        await self._drain()
        self._check_bucket()

    async def _drain(self) -> None:
        left = await self.client.fs.drain(600.0)
        waiting = self.client.fs.state.queue.unfinished()
        assert not waiting, [intent.describe() for intent in waiting]
        assert not left.errors, left.errors

    async def op_compare(self, _: int, __: int, ___: int, ____: int) -> None:
        self._say("compare()")
        await self._compare_all()

    async def _compare_all(self) -> None:
        await self._compare_names("", self.tree.root)
        for path, node in list(self.tree.walk()):
            await self._compare_stat(path, node)
            if node.is_directory:
                await self._compare_names(path, node)
            elif node.is_file:
                got = await self.client.read(path)
                assert got == bytes(node.content), f"{path!r}: {_difference(got, node.content)}"

    async def _before_remount(self) -> None:
        self._say("remount()")
        for handle in list(self.handles):
            await self._close(handle)
        for path, node in self.tree.walk():
            await self._compare_stat(path, node)  # what is shown now must be what was stored
        await self._drain()
        await trio.sleep(1.0)
        self._check_bucket()
        left = leftovers(self.client.fs, self.store)
        assert not left, f"left over: {left}"

    def _check_bucket(self) -> None:
        """The bucket from outside: the keys, the bytes, the metadata, and nothing else."""
        prefix = self.config.prefix
        objects = {
            key[len(prefix) :]: stored
            for key, stored in self.store.objects.items()
            if key not in (prefix, "/")
        }
        wanted: set[str] = set()
        for path, node in self.tree.walk():
            key = path + "/" if node.is_directory else path
            stored = objects.get(key)
            if node.is_directory and stored is None and not node.marker and node.children:
                continue
            wanted.add(key)
            assert stored is not None, f"{key!r} is not in the bucket"
            assert stored.data == bytes(node.content), (
                f"{key!r} in the bucket: {_difference(stored.data, node.content)}"
            )
            self._check_metadata(key, node)
        extra = set(objects) - wanted
        assert not extra, f"left over in the bucket: {sorted(extra)}"

    def _check_metadata(self, key: str, node: Node) -> None:
        stored = self.store.objects[self.config.prefix + key]
        attributes = attributes_of(stored)
        got = (attributes.mode, attributes.uid, attributes.gid, attributes.rdev)
        wanted = (node.mode, node.uid, node.gid, node.rdev)
        assert got == wanted, f"{key!r} in the bucket: mode, uid, gid, rdev {got}, not {wanted}"
        if node.mtime is not None:
            assert attributes.mtime_ns == node.mtime, f"{key!r} in the bucket: mtime"
        xattrs = {name.encode(): value for name, value in attributes.xattrs.items()}
        assert xattrs == node.xattrs, f"{key!r} in the bucket: xattrs {xattrs}"
        for name, value in node.foreign.items():
            assert stored.metadata.get(name) == value, f"{key!r} lost foreign {name}"
        if node.content_type is not None:
            content_type = stored.headers.get("content-type")
            assert content_type == node.content_type, f"{key!r} is {content_type} now"

    # -- other hosts

    async def _before_foreign(self, node: Node | None) -> None:
        """Nothing of ours may be on its way to where the other host writes."""
        for handle in list(self.handles):
            if handle.node is node and handle.flags & os.O_ACCMODE != os.O_RDONLY:
                await self._close(handle)
        await self._drain()

    async def _foreign_file(self, path: str, size: int, *, differs: bool = False) -> Node:
        serial, data = self._data(pick(list(SIZES), size))
        old = self.store.objects.get(self.config.prefix + path)
        if old is not None and old.data == data:
            if differs:
                data += b"!"
            await trio.sleep(4)  # within LastModified's resolution nobody could tell them apart
        self._say(f"foreign put({path!r}, data {serial} of {len(data)})")
        foreign = {"colour": f"red{serial}"}
        node = Node(
            stat.S_IFREG | 0o644,
            content=bytearray(data),
            mtime=int(service_clock()) * 1_000_000_000,
            foreign=foreign,
            content_type="text/x-odd",
        )
        self.store.put_foreign(
            self.config.prefix + path, data, foreign, {"content-type": "text/x-odd"}
        )
        return node

    async def op_foreign_put(self, directory: int, name: int, size: int, below: int) -> None:
        """A new name, perhaps in a directory that is only implied by it."""
        path = self._name(directory, name)
        if self.tree.get(path) is not None:
            raise NothingToDo
        implied = below % 3 == 0 and path.count("/") < MAX_DEPTH - 1
        await self._before_foreign(None)
        if implied:
            directory_node = Node(stat.S_IFDIR | 0o755, marker=False)
            self.tree.add(path, directory_node)
            path = f"{path}/f"
        self.tree.add(path, await self._foreign_file(path, size))
        await trio.sleep(TTL + 1)

    async def op_foreign_replace(self, file: int, size: int, _: int, __: int) -> None:
        """Another version, which those who open it afterwards see."""
        path = self._file(file)
        old = self.tree.find(path)
        await self._before_foreign(old)
        parent, name = self.tree.parent(path)
        old.replaced, old.linked = True, False
        parent.children[name] = await self._foreign_file(path, size)
        await trio.sleep(1.5)
        got = await self.client.read(path)
        wanted = parent.children[name].content
        assert got == bytes(wanted), f"opened after a foreign put: {_difference(got, wanted)}"
        await trio.sleep(TTL)

    async def op_foreign_delete(self, file: int, _: int, __: int, ___: int) -> None:
        path = self._file(file)
        node = self.tree.find(path)
        await self._before_foreign(node)
        self._say(f"foreign delete({path!r})")
        self.store.delete_foreign(self.config.prefix + path)
        node.replaced, node.linked = True, False
        while path:
            parent, name = self.tree.parent(path)
            del parent.children[name]
            path = path.rpartition("/")[0]
            has_marker = self.config.prefix + path + "/" in self.store.objects
            if parent.children or has_marker or not path:
                break
        await trio.sleep(TTL + 1)

    async def op_conflict(self, file: int, size: int, _: int, __: int) -> None:
        """An edit here loses against another host's new version; its bytes are kept beside it."""
        if self._may_be_full():
            raise NothingToDo
        path = self._file(file)
        old = self.tree.find(path)
        await self._before_foreign(old)
        for handle in [handle for handle in self.handles if handle.node is old]:
            await self._close(handle)
        self._say(f"conflicting edit({path!r})")
        handle_number = await self.client.open(path, os.O_RDWR)
        await self.client.fs.write(handle_number, 3, b"ours")
        old.write(3, b"ours")
        parent, name = self.tree.parent(path)
        parent.children[name] = await self._foreign_file(path, size, differs=True)
        try:
            await self.client.fs.flush(handle_number)
            got = None
        except FilesystemError as error:
            got = error.errno
        assert got == errno.ESTALE, f"flush of a conflicting edit: {_error(got)}"
        await self.client.release(handle_number)
        self._check_conflict(path, bytes(old.content))
        await trio.sleep(TTL + 1)

    def _check_conflict(self, path: str, wanted: bytes) -> None:
        """The whole file, or where its old version could not be read any more what was written."""
        kept = [key for key in self.store.objects if ".conflict-" in key]
        assert len(kept) == 1, f"conflict files: {kept}"
        key, _, offset = kept[0].partition(".at-")
        assert key.startswith(f"{self.config.prefix}{path}.conflict-"), kept
        data = self.store.objects[kept[0]].data
        if offset:
            assert (data, offset) == (b"ours", "3")
        else:
            assert data == wanted, f"{key!r}: {_difference(data, wanted)}"
        self.store.delete_foreign(kept[0])


def _error(number: int | None) -> str:
    return "success" if number is None else errno.errorcode[number]


def _difference(got: bytes | bytearray, wanted: bytes | bytearray) -> str:
    if len(got) != len(wanted):
        return f"{len(got)} bytes, expected {len(wanted)}"
    first = next(i for i, (a, b) in enumerate(zip(got, wanted, strict=True)) if a != b)
    last = max(i for i, (a, b) in enumerate(zip(got, wanted, strict=True)) if a != b)
    return f"of {len(got)} bytes {first} to {last} differ"
