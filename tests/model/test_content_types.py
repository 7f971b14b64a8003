"""Content-Type follows the name where it came from a name, and is kept where somebody chose it."""

import os

import pytest

from s3mount.core.config import MountConfig
from s3mount.store.memory import MemoryStore
from tests.model.mounted import KIB, mounted, with_writeback


@pytest.fixture(params=["close", "journal"])
def config(config: MountConfig, request: pytest.FixtureRequest) -> MountConfig:
    return with_writeback(config, durability=request.param)


@pytest.mark.parametrize(
    ("chosen", "stored"), [("text/plain", "text/html"), ("text/x-odd", "text/x-odd")]
)
@pytest.mark.parametrize("size", [KIB, 20 * KIB])  # one PUT; parts of 4 KiB
async def test_a_file_renamed_between_two_edits_by_one_program(
    chosen: str,
    stored: str,
    size: int,
    store: MemoryStore,
    config: MountConfig,
    autojump_clock: object,
) -> None:
    store.put_foreign("a.txt", b"x" * size, {}, {"content-type": chosen})
    async with mounted(store, config) as client:
        handle = await client.open("a.txt", os.O_RDWR)
        await client.fs.write(handle, 0, b"edited")
        await client.fs.fsync(handle, False)
        assert store.objects["a.txt"].headers["content-type"] == chosen
        await client.rename("a.txt", "a.html")
        await client.fs.write(handle, 6, b"again")
        await client.close(handle)
        await client.fs.flush_all()
        assert store.objects["a.html"].data[:12] == b"editedagainx"
        assert store.objects["a.html"].headers["content-type"] == stored
