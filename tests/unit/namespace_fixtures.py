"""What the tests of the namespace share: a clock to turn, a store, and how to list."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import trio

from s3mount.core.config import AttributeDefaults, NamespaceConfig
from s3mount.core.errors import FilesystemError
from s3mount.core.metadata import Attributes
from s3mount.namespace import DirectoryEntry, Inode, Namespace, StatCache
from s3mount.store.memory import MemoryStore

DEFAULTS = AttributeDefaults(uid=1000, gid=1000)
FILE = Attributes(0o100644, 1, 1, 0, 0, 0)
DIRECTORY = Attributes(0o040755, 1, 1, 0, 0, 0)


class Clock:
    """Monotonic time and, with an offset, the server's."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now

    def server(self) -> float:
        return 1_700_000_000.0 + self.now

    def advance(self, seconds: float) -> None:
        self.now += seconds


class Bench:
    """One bucket and what namespaces on it need."""

    def __init__(self, *, page_size: int = 1000) -> None:
        self.clock = Clock()
        self.store = MemoryStore(clock=self.clock.server, monotonic=self.clock, page_size=page_size)
        self.replaced: list[str] = []
        self._counted: dict[str, int] = {}

    def namespace(
        self,
        config: NamespaceConfig | None = None,
        *,
        prefix: str = "",
        stat_cache: StatCache | None = None,
    ) -> Namespace:
        return Namespace(
            self.store,
            NamespaceConfig() if config is None else config,
            DEFAULTS,
            prefix,
            stat_cache=stat_cache,
            clock=self.clock,
            on_replaced=lambda inode: self.replaced.append(inode.name),
        )

    def put(self, *keys: str, data: bytes = b"", **metadata: str) -> None:
        for key in keys:
            self.store.put_foreign(key, data, metadata)

    def requests(self) -> dict[str, int]:
        """Since the last call: S3's name of the request -> how many."""
        counts = {name: count for name, count in self.store.counts().items() if "Object" in name}
        new = {
            name: count - self._counted.get(name, 0)
            for name, count in counts.items()
            if count != self._counted.get(name, 0)
        }
        self._counted = counts
        return new


@asynccontextmanager
async def running(names: Namespace) -> AsyncIterator[None]:
    """With its background work."""
    async with trio.open_nursery() as nursery:
        await nursery.start(names.run)
        yield
        nursery.cancel_scope.cancel()


async def entries_of(names: Namespace, inode: Inode) -> list[DirectoryEntry]:
    cursor = names.open_directory(inode)
    result: list[DirectoryEntry] = []
    while batch := await cursor.read(result[-1].next_position if result else 0):
        result += batch
    return result


async def names_of(names: Namespace, inode: Inode) -> list[str]:
    return [entry.name for entry in await entries_of(names, inode)]


async def errno_of(names: Namespace, parent: Inode, name: str) -> int | None:
    """Of a lookup; None: it found something."""
    try:
        await names.lookup(parent, name)
    except FilesystemError as error:
        return error.errno
    return None


class Gate:
    """Holds back the answers (not the effect) of requests until opened; an `after` hook."""

    def __init__(self, wanted: Callable[[str, str], bool]) -> None:
        self.wanted = wanted
        self.arrived = trio.Event()
        self.open = trio.Event()

    async def __call__(self, operation: str, key: str) -> None:
        if self.wanted(operation, key):
            self.arrived.set()
            await self.open.wait()
