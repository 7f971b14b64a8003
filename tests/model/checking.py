"""Comparing the file system, the reference and the bucket; waiting for one another."""

import errno
import os
import stat

import trio

from s3mount.core.errors import FilesystemError
from tests.model.acting import (
    PATIENCE,
    PAUSES,
    Actor,
    difference,
    pick,
)
from tests.model.bucket import attributes_of
from tests.model.reference import Handle, Node
from tests.model.unreliable import UnreliableStore


class Checks(Actor):
    async def _compare_read(self, handle: Handle, offset: int, amount: int) -> None:
        wanted = bytes(handle.node.content[offset : offset + amount])
        try:
            got = bytes(await self.client.fs.read(handle.number, offset, amount))
        except FilesystemError as error:
            lost = (errno.ESTALE, errno.ENOSPC)
            if error.errno not in lost or not self._may_be_lost(handle.node):
                raise
            return
        assert got == wanted, f"read at {offset}: {difference(got, wanted)}"

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
            intent for intent in self.client.fs.state.queue.unfinished(prefix) if not intent.stalled
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
        left = await self.client.fs.drain(PATIENCE / 2)
        unfinished = self.client.fs.state.queue.unfinished()
        waiting = [intent for intent in unfinished if not intent.stalled]
        assert not waiting, [intent.describe() for intent in waiting]
        assert not left.errors, left.errors
        if isinstance(self.store, UnreliableStore):
            await self.store.settled()

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
                assert got == bytes(node.content), f"{path!r}: {difference(got, node.content)}"

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
                f"{key!r} in the bucket: {difference(stored.data, node.content)}"
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
