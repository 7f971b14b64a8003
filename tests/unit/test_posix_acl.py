"""Access ACLs as programs set them, and garbage that others have stored."""

import struct

import pytest

from s3mount.core.errors import FilesystemError
from s3mount.core.posix_acl import is_minimal, permissions_of, with_permissions

NOBODY = 2**32 - 1


def acl(*entries: tuple[int, int, int], version: int = 2) -> bytes:
    return struct.pack("<I", version) + b"".join(struct.pack("<HHI", *one) for one in entries)


OWNER, GROUP, OTHER = (1, 6, NOBODY), (4, 4, NOBODY), (32, 1, NOBODY)
USER, MASK = (2, 7, 1001), (16, 5, NOBODY)


def test_a_mask_stands_for_the_group() -> None:
    assert permissions_of(acl(OWNER, GROUP, OTHER)) == 0o641
    assert permissions_of(acl(OWNER, USER, GROUP, MASK, OTHER)) == 0o651
    assert is_minimal(acl(OWNER, GROUP, OTHER))
    assert not is_minimal(acl(OWNER, USER, GROUP, MASK, OTHER))


def test_chmod_changes_the_mask_and_no_named_user() -> None:
    changed = with_permissions(acl(OWNER, USER, GROUP, MASK, OTHER), 0o100720)
    assert changed == acl((1, 7, NOBODY), USER, GROUP, (16, 2, NOBODY), (32, 0, NOBODY))
    assert with_permissions(acl(OWNER, GROUP, OTHER), 0o720) == acl(
        (1, 7, NOBODY), (4, 2, NOBODY), (32, 0, NOBODY)
    )


@pytest.mark.parametrize(
    "value",
    [b"", b"abc", acl(), acl(OWNER, GROUP), acl(OWNER, GROUP, OTHER, version=1), acl(OWNER) + b"x"],
)
def test_what_is_no_access_acl_is_refused(value: bytes) -> None:
    with pytest.raises(FilesystemError):
        permissions_of(value)
