"""POSIX access ACLs, as the extended attribute that programs set carries them.

They are stored like any attribute and nobody is let in by them, but mode bits and ACL say the same,
as on a local disk: `cp -a` sets modes by nothing else.
"""

import errno
import struct

from s3mount.core.errors import FilesystemError

ACCESS_ACL = "system.posix_acl_access"
ACLS = b"system.posix_acl_"  # what the names of both kinds begin with

_HEADER = struct.Struct("<I")
_ENTRY = struct.Struct("<HHI")  # tag, permissions, uid or gid
_VERSION = 2
_USER_OBJ, _GROUP_OBJ, _MASK, _OTHER = 0x01, 0x04, 0x10, 0x20


def permissions_of(acl: bytes) -> int:
    """The nine mode bits that it means; the group's are those of its mask, where it has one.

    Raises FilesystemError EINVAL for what is no access ACL.
    """
    found = {tag: bits for tag, bits, _ in _entries(acl)}
    if not {_USER_OBJ, _GROUP_OBJ, _OTHER} <= found.keys():
        raise FilesystemError(errno.EINVAL, "no access ACL")
    group = found.get(_MASK, found[_GROUP_OBJ])
    return (found[_USER_OBJ] & 7) << 6 | (group & 7) << 3 | found[_OTHER] & 7


def is_minimal(acl: bytes) -> bool:
    """Whether it says no more than mode bits do."""
    return {tag for tag, _, _ in _entries(acl)} <= {_USER_OBJ, _GROUP_OBJ, _OTHER}


def with_permissions(acl: bytes, mode: int) -> bytes:
    """The ACL after chmod. Raises FilesystemError EINVAL for what is no access ACL."""
    entries = _entries(acl)
    group = _MASK if any(tag == _MASK for tag, _, _ in entries) else _GROUP_OBJ
    new = {_USER_OBJ: mode >> 6 & 7, group: mode >> 3 & 7, _OTHER: mode & 7}
    changed = (_ENTRY.pack(tag, new.get(tag, bits), who) for tag, bits, who in entries)
    return _HEADER.pack(_VERSION) + b"".join(changed)


def _entries(acl: bytes) -> list[tuple[int, int, int]]:
    try:
        if _HEADER.unpack_from(acl)[0] == _VERSION:
            return list(_ENTRY.iter_unpack(acl[_HEADER.size :]))
    except struct.error:
        pass
    raise FilesystemError(errno.EINVAL, "no access ACL")
