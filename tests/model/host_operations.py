"""What other hosts do to the bucket meanwhile."""

import errno
import os
import stat

import trio

from s3mount.core.errors import FilesystemError
from tests.model.acting import (
    MAX_DEPTH,
    SIZES,
    NothingToDo,
    describe,
    difference,
    pick,
)
from tests.model.checking import Checks
from tests.model.mounted import TTL, service_clock
from tests.model.reference import Node


class HostOperations(Checks):
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
            # The same bytes are the same version: handles would see what becomes of it here.
            same = self.tree.get(path)
            for handle in [handle for handle in self.handles if handle.node is same]:
                await self._close(handle)
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
        assert got == bytes(wanted), f"opened after a foreign put: {difference(got, wanted)}"
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
        writes_back = self.config.writeback.durability == "journal"
        wanted = None if writes_back else errno.ESTALE
        assert got == wanted, f"flush of a conflicting edit: {describe(got)}"
        await self.client.release(handle_number)
        await self._drain()
        if writes_back:  # nobody hears of it, but the status
            assert any("another host changed" in told for told in self._failures())
        self._check_conflict(path, bytes(old.content))
        await trio.sleep(TTL + 1)

    def _failures(self) -> list[str]:
        told: list[str] = self.client.fs.status()["failures"]
        return told

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
            assert data == wanted, f"{key!r}: {difference(data, wanted)}"
        self.store.delete_foreign(kept[0])
