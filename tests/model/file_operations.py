"""Operations on files and their handles."""

import errno
import os
import stat

from s3mount.core.errors import FilesystemError
from tests.model.acting import (
    LARGEST,
    OFFSETS,
    OPENS,
    SIZES,
    STEPS,
    NothingToDo,
    difference,
    pick,
)
from tests.model.checking import Checks
from tests.model.reference import Node, Refused


class FileOperations(Checks):
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

    async def op_read_file(self, file: int, step: int, _: int, __: int) -> None:
        path = self._file(file)
        self._say(f"read_file({path!r})")
        got = await self.client.read(path, STEPS[step % 4])
        wanted = bytes(self.tree.find(path).content)
        assert got == wanted, f"{path!r}: {difference(got, wanted)}"

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
                f"{path!r} after fsync: {difference(stored.data, bytes(chosen.node.content))}"
            )

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
