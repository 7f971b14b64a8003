"""Names to inodes: what is known costs nothing, what is not costs as little as can be."""

import errno
import stat
from collections.abc import Callable

import pytest
import trio

from s3mount.core.config import AttributeDefaults, NamespaceConfig
from s3mount.core.errors import FilesystemError
from s3mount.namespace import ABSENT, Inode, Namespace
from s3mount.store.memory import MemoryStore

DEFAULTS = AttributeDefaults(uid=1000, gid=1000)


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture()
def clock() -> Clock:
    return Clock()


@pytest.fixture()
def store() -> MemoryStore:
    return MemoryStore()


@pytest.fixture()
def names(store: MemoryStore, clock: Clock) -> Namespace:
    return Namespace(store, NamespaceConfig(), DEFAULTS, "", clock=clock)


async def listed(names: Namespace, inode: Inode) -> list[str]:
    cursor = names.open_directory(inode)
    position, result = 0, []
    while entries := await cursor.read(position):
        result += [entry.name for entry in entries]
        position = entries[-1].next_position
    return result


def requests(store: MemoryStore) -> dict[str, int]:
    return {name: count for name, count in store.counts().items() if "Object" in name}


async def test_a_file_is_found_by_a_head_and_a_list(store: MemoryStore, names: Namespace) -> None:
    store.put_foreign("f", b"abc", {"mode": "33184", "uid": "7", "mtime": "12.5"})
    inode = await names.lookup(names.root, "f")
    attributes = await names.attributes(inode)
    assert (inode.size, attributes.mode, attributes.uid) == (3, 0o100640, 7)
    assert attributes.mtime_ns == 12_500_000_000
    assert requests(store) == {"HeadObject": 1, "ListObjectsV2": 1}


async def test_a_listing(store: MemoryStore, names: Namespace) -> None:
    store.put_foreign("f", b"abc")
    store.put_foreign("d/g", b"abc")
    store.put_foreign("e/", b"")
    assert await listed(names, names.root) == ["d", "e", "f"]
