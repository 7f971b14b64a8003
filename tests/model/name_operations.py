"""Operations on names and attributes."""

import errno
import os
import stat

from tests.model.acting import (
    MODES,
    XATTRS,
    NothingToDo,
    pattern,
    pick,
)
from tests.model.checking import Checks
from tests.model.reference import Node, Refused


class NameOperations(Checks):
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
