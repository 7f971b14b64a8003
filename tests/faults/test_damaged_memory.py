"""A bit that flips in this machine's memory, between the check of a block that was read from the
spool and the checksum that goes with the request: no object ever has it."""

import os
from collections.abc import Iterator

import pytest
import trio
from trio.testing import MockClock

from s3mount.core.errors import FilesystemError
from s3mount.writeback.body import FileBody
from tests.faults.conftest import Service
from tests.model.bucket import contents, leftovers
from tests.model.mounted import Client

SMALL, LARGE = b"small " * 500, bytes(range(256)) * 120  # one PUT; parts of 4 KiB


class Memory:
    """Flips a bit of the next body of a length, once."""

    def __init__(self) -> None:
        self.length: int | None = None

    def spoil(self, body: bytes | memoryview) -> bytes | bytearray | memoryview:
        if len(body) != self.length:
            return body
        self.length = None
        spoilt = bytearray(body)
        spoilt[len(spoilt) // 2] ^= 4
        return spoilt


@pytest.fixture
def memory(monkeypatch: pytest.MonkeyPatch) -> Iterator[Memory]:
    memory, read = Memory(), FileBody.__aenter__

    async def spoilt(body: FileBody) -> FileBody:
        await read(body)
        assert isinstance(body.body, bytes | memoryview)
        body.body = memory.spoil(body.body)
        return body

    monkeypatch.setattr(FileBody, "__aenter__", spoilt)
    yield memory
    assert memory.length is None, "nothing was damaged"


@pytest.mark.parametrize("wanted", [SMALL, LARGE])
async def test_a_new_file(
    client: Client,
    service: Service,
    memory: Memory,
    wanted: bytes,
    autojump_clock: MockClock,
) -> None:
    memory.length = len(wanted) if wanted is SMALL else 4096
    await client.write("f", wanted)
    assert contents(service.memory) == {"f": wanted}
    assert leftovers(client.fs, service.memory) == []


async def test_an_edit_that_reads_the_rest_of_the_object(
    client: Client,
    service: Service,
    memory: Memory,
    autojump_clock: MockClock,
) -> None:
    service.memory.put_foreign("f", SMALL)
    memory.length = len(SMALL) + 100
    handle = await client.open("f", os.O_WRONLY)
    await client.fs.write(handle, 11, b"in the middle")
    await client.fs.write(handle, len(SMALL) + 90, b"10 behind.")
    await client.close(handle)
    wanted = SMALL[:11] + b"in the middle" + SMALL[24:] + bytes(90) + b"10 behind."
    assert contents(service.memory) == {"f": wanted}


@pytest.mark.parametrize("size", [len(SMALL), len(LARGE)])
async def test_a_conflict_file(
    client: Client, service: Service, memory: Memory, size: int, autojump_clock: MockClock
) -> None:
    before = (SMALL + LARGE)[:size]
    service.memory.put_foreign("f", before)
    handle = await client.open("f", os.O_RDWR)
    assert await client.read_all(handle) == before
    await client.fs.write(handle, 0, b"ours")
    service.memory.put_foreign("f", b"theirs")
    memory.length = size if size == len(SMALL) else 4096
    with pytest.raises(FilesystemError):
        await client.fs.flush(handle)
    await client.release(handle)
    await trio.sleep(10)
    found = contents(service.memory)
    assert found.pop("f") == b"theirs"
    assert list(found.values()) == [b"ours" + before[4:]]
    assert leftovers(client.fs, service.memory) == []
