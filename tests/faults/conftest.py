"""A file system in virtual time whose service fails as a test says: all but the socket is real."""

from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from s3mount.core.config import MountConfig
from s3mount.store.memory import CEPH_CAPABILITIES, MemoryStore
from s3mount.store.s3 import S3Store
from tests.counting_proxy import Fault, Seen
from tests.memory_wire import store_in_memory
from tests.model.mounted import Client, memory_store, mounted, threads_in_line, tiny_config


@dataclass
class Service:
    """`weather` decides about each request; `seen` are those that came since."""

    memory: MemoryStore
    store: S3Store = field(init=False)
    rule: Callable[[Seen], Fault | None] = lambda seen: None
    seen: list[Seen] = field(default_factory=list)

    def weather(self, seen: Seen) -> Fault | None:
        self.seen.append(seen)
        return self.rule(seen)

    def fails(self, operation: str, *faults: Fault) -> None:
        """The next requests of this operation suffer these faults, one after the other."""
        left = list(faults)

        def rule(seen: Seen) -> Fault | None:
            return left.pop(0) if left and seen.operation == operation else None

        self.rule = rule

    def clear(self) -> None:
        self.rule = lambda seen: None


@pytest.fixture
def in_line() -> Iterator[None]:
    with threads_in_line():
        yield


@pytest.fixture
def fs_config(tmp_path: Path) -> MountConfig:
    return tiny_config(tmp_path)


@pytest.fixture
async def service(in_line: None, fs_config: MountConfig) -> Service:
    memory = memory_store(capabilities=CEPH_CAPABILITIES)
    service = Service(memory)
    service.store = store_in_memory(memory, replace(fs_config.store, retries=3), service.weather)
    await service.store.capabilities()
    return service


@pytest.fixture
async def client(service: Service, fs_config: MountConfig) -> AsyncIterator[Client]:
    async with mounted(service.memory, fs_config, served=service.store) as found:
        yield found
