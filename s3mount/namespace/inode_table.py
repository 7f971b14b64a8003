"""All inodes by number, with the kernel's lookup counts."""

import errno
import hashlib
import sys
from collections.abc import Iterator

import trio

from s3mount.core.errors import FilesystemError
from s3mount.namespace.inode import Inode

ROOT_NUMBER = 1


def number_of(key: str, salt: int = 0) -> int:
    """63 bits of the key's hash, so that st_ino is the same after a remount; never 0 or 1."""
    salted = f"{key}\0{salt}" if salt else key  # no key that we show holds a NUL
    digest = hashlib.blake2b(salted.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    number = int.from_bytes(digest, "big") >> 1
    return number if number > ROOT_NUMBER else number + 2


class InodeTable:
    """An inode stays here while a directory shows it or the kernel remembers it."""

    def __init__(self) -> None:
        self._inodes: dict[int, Inode] = {}
        self._watched = sys.maxsize  # `_exceeded` is set once there are more inodes
        self._exceeded = trio.Event()

    def __len__(self) -> int:
        return len(self._inodes)

    def __iter__(self) -> Iterator[Inode]:
        return iter(list(self._inodes.values()))

    def __contains__(self, number: int) -> bool:
        return number in self._inodes

    def __getitem__(self, number: int) -> Inode:
        """Raises FilesystemError ESTALE for a number that means nothing (any more)."""
        inode = self._inodes.get(number)
        if inode is None:
            raise FilesystemError(errno.ESTALE, f"no inode {number}")
        return inode

    def free_number(self, key: str, preferred: int | None = None) -> int:
        """The number for a new inode of this key; another one than any live inode has."""
        if preferred is not None and preferred > ROOT_NUMBER and preferred not in self._inodes:
            return preferred
        number = number_of(key)
        salt = 0
        while number in self._inodes:
            salt += 1
            number = number_of(key, salt)
        return number

    async def exceed(self, count: int) -> None:
        """Returns when there are more inodes than that."""
        self._watched, self._exceeded = count, trio.Event()
        if len(self._inodes) <= count:
            await self._exceeded.wait()

    def insert(self, inode: Inode) -> None:
        self._inodes[inode.number] = inode
        if len(self._inodes) > self._watched:
            self._exceeded.set()

    def acquire(self, inode: Inode) -> None:
        """The kernel was told of the inode once more."""
        inode.lookups += 1
        self.insert(inode)

    def forget(self, number: int, count: int) -> None:
        """The kernel drops `count` references; unknown numbers are ignored."""
        inode = self._inodes.get(number)
        if inode is None:
            return
        inode.lookups = max(0, inode.lookups - count)
        self.drop_if_unused(inode)

    def drop_if_unused(self, inode: Inode) -> None:
        """Called when an inode may have lost its last holder."""
        if inode.lookups == 0 and inode.detached:
            self._inodes.pop(inode.number, None)

    def discard(self, inode: Inode) -> None:
        """An inode no directory shows any more, to save memory; the kernel does not know it."""
        self._inodes.pop(inode.number, None)
