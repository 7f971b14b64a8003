"""chmod, chown, utimens, extended attributes."""

import errno
import stat
from collections.abc import Mapping
from dataclasses import replace

from s3mount.core.errors import FilesystemError
from s3mount.core.metadata import Attributes, encode
from s3mount.core.posix_acl import ACCESS_ACL, is_minimal, permissions_of, with_permissions
from s3mount.filesystem.mutations import Mutations
from s3mount.filesystem.state import State
from s3mount.filesystem.timestamps import now_ns
from s3mount.namespace import Inode

XATTR_NAME_MAX = 255  # XATTR_NAME_MAX of linux/limits.h
# The namespaces of xattr(7) are no names. Names outside of them are: s3fs stores those as well.
_XATTR_NAMESPACES = (b"user.", b"trusted.", b"security.", b"system.")


class AttributeChanges:
    def __init__(self, state: State, mutations: Mutations) -> None:
        self.state = state
        self.mutations = mutations

    async def known(self, inode: Inode) -> Attributes:
        """The attributes as the bucket or this mount has them."""
        file = self.state.open_files.get(inode)
        local = inode.detached or (file is not None and (file.dirty or file.put is not None))
        if local and inode.attributes is not None:
            return inode.attributes
        return await self.state.namespace.attributes(inode)

    async def change(
        self,
        inode: Inode,
        *,
        mode: int | None = None,
        uid: int | None = None,
        gid: int | None = None,
        atime_ns: int | None = None,
        mtime_ns: int | None = None,
        ctime_ns: int | None = None,
    ) -> None:
        """Visible at once; in the bucket with the next PUT or as one copy with all of them."""
        if self.state.config.read_only:
            raise FilesystemError(errno.EROFS)
        old = await self.known(inode)
        if mode is not None:
            mode = stat.S_IFMT(old.mode) | stat.S_IMODE(mode)
        new = replace(
            old,
            mode=old.mode if mode is None else mode,
            xattrs=old.xattrs if mode is None else _after_chmod(old.xattrs, mode),
            uid=old.uid if uid is None else uid,
            gid=old.gid if gid is None else gid,
            atime_ns=old.atime_ns if atime_ns is None else atime_ns,
            mtime_ns=old.mtime_ns if mtime_ns is None else mtime_ns,
            ctime_ns=now_ns() if ctime_ns is None else ctime_ns,
        )
        await self._store(inode, old, new)

    async def _store(self, inode: Inode, old: Attributes, new: Attributes) -> None:
        encode(new)  # ENOSPC before anything is changed
        inode.attributes = new
        if inode.detached or replace(new, ctime_ns=old.ctime_ns) == old:
            return
        with self.mutations.change():
            intent = self.mutations.attributes(inode)
        await self.mutations.settle(intent)

    # -- extended attributes -------------------------------------------------------------------

    async def get_xattr(self, inode: Inode, name: bytes) -> bytes:
        value = (await self.known(inode)).xattrs.get(_text(name))
        if value is None:
            raise FilesystemError(errno.ENODATA)
        return value

    async def list_xattrs(self, inode: Inode) -> list[bytes]:
        names = (await self.known(inode)).xattrs
        return [name.encode("utf-8", "surrogateescape") for name in names]

    async def set_xattr(self, inode: Inode, name: bytes, value: bytes) -> None:
        """ENOSPC where the object's metadata would exceed what the service stores (2 KB).

        An access ACL sets the mode bits, too."""
        if len(name) > XATTR_NAME_MAX:
            raise FilesystemError(errno.ERANGE)
        if name in _XATTR_NAMESPACES:
            raise FilesystemError(errno.EINVAL, "the name ends after its namespace")
        await self._set_xattr(inode, _text(name), bytes(value))

    async def remove_xattr(self, inode: Inode, name: bytes) -> None:
        if _text(name) not in (await self.known(inode)).xattrs:
            raise FilesystemError(errno.ENODATA)
        await self._set_xattr(inode, _text(name), None)

    async def _set_xattr(self, inode: Inode, name: str, value: bytes | None) -> None:
        if self.state.config.read_only:
            raise FilesystemError(errno.EROFS)
        old = await self.known(inode)
        xattrs = {key: kept for key, kept in old.xattrs.items() if key != name}
        mode = old.mode
        if name == ACCESS_ACL and value is not None:
            mode = mode & ~0o777 | permissions_of(value)
            value = None if is_minimal(value) else value
        if value is not None:
            xattrs[name] = value
        await self._store(inode, old, replace(old, mode=mode, xattrs=xattrs, ctime_ns=now_ns()))


def _after_chmod(xattrs: Mapping[str, bytes], mode: int) -> Mapping[str, bytes]:
    acl = xattrs.get(ACCESS_ACL)
    if acl is None:
        return xattrs
    try:
        return {**xattrs, ACCESS_ACL: with_permissions(acl, mode)}
    except FilesystemError:  # stored by others, and no ACL
        return xattrs


def _text(name: bytes) -> str:
    return name.decode("utf-8", "surrogateescape")
