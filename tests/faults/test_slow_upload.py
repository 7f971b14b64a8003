"""A service that takes a byte a second of what is sent: nobody waits for it for ever."""

import errno
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from s3mount.core.config import MountConfig
from s3mount.core.errors import FilesystemError
from s3mount.fuse.errno import errno_of
from s3mount.store.errors import DeadlineExceeded, StoreError
from s3mount.store.handed import report_of_caller
from s3mount.store.memory import MemoryStore
from tests.model.bucket import contents
from tests.model.mounted import memory_store, mounted

SMALL, LARGE = b"one " * 700, bytes(range(256)) * 120  # in one PUT; in parts
DEADLINE = 300  # seconds; that of a part of 8 MiB


class Drip:
    """`slow`: bodies go a byte a second until their request's deadline."""

    def __init__(self, store: MemoryStore) -> None:
        self._store = store
        self.slow = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def _wait(self) -> None:
        report = report_of_caller()
        for second in range(DEADLINE):
            if not self.slow:
                return
            if report is not None:
                report(second)
            await trio.sleep(1.0)
        raise DeadlineExceeded("the server is too slow", ambiguous=True)

    async def put(self, *arguments: Any, **named: Any) -> Any:
        await self._wait()
        return await self._store.put(*arguments, **named)

    async def upload_part(self, *arguments: Any, **named: Any) -> Any:
        await self._wait()
        return await self._store.upload_part(*arguments, **named)


@pytest.mark.parametrize("data", [SMALL, LARGE])
async def test_close_ends_though_bytes_are_taken_now_and_then(
    fs_config: MountConfig, autojump_clock: MockClock, data: bytes
) -> None:
    memory = memory_store()
    service = Drip(memory)
    async with mounted(memory, fs_config, served=service) as client:
        service.slow = True
        for change in (client.write("f", data), client.edit("f", 5, b"FIVE")):
            began = trio.current_time()
            with pytest.raises(
                (StoreError, FilesystemError), match="no progress for 120 s"
            ) as caught:
                await change
            assert errno_of(caught.value) == errno.ETIMEDOUT
            assert trio.current_time() - began == pytest.approx(120.0)
        service.slow = False
        await trio.sleep(60)
        assert contents(memory) == {"f": data[:5] + b"FIVE" + data[9:]}
