"""Bugs of ours: what programs see of them (ruling 2 of the design)."""

import errno
import os

import pytest

from s3mount.fuse.mountpoint import find_mount, is_dead
from tests.mounting import Mounts, names, wait_until
from tests.servers import Bucket

HANDLER_BUG = """
from s3mount.filesystem.filesystem import FileSystem
original = FileSystem.mkdir
async def mkdir(self, parent, name, *rest):
    if name == b"bug":
        raise ZeroDivisionError("a bug in a handler")
    return await original(self, parent, name, *rest)
FileSystem.mkdir = mkdir
"""

BACKGROUND_BUG = """
import trio
from s3mount.filesystem.filesystem import FileSystem
original = FileSystem.run
async def run(self, task_status):
    async def crash():
        while not hasattr(self, "sabotaged"):
            await trio.sleep(0.01)
        raise ZeroDivisionError("a bug in the background")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(crash)
        await original(self, task_status)
async def rmdir(self, parent, name):
    self.sabotaged = True
    await trio.sleep_forever()
FileSystem.run = run
FileSystem.rmdir = rmdir
"""


def test_a_bug_in_a_handler_is_eio_for_one_program_and_the_mount_lives_on(
    moto_bucket: Bucket, mounts: Mounts
) -> None:
    mounted = mounts.start(moto_bucket, sabotage=HANDLER_BUG)
    with pytest.raises(OSError, match="Input/output") as raised:
        (mounted.path / "bug").mkdir()
    assert raised.value.errno == errno.EIO
    assert "ZeroDivisionError: a bug in a handler" in mounted.text()
    (mounted.path / "file").write_bytes(b"written afterwards")
    mounted.unmount()
    assert moto_bucket.get("file") == b"written afterwards"


def test_after_a_crash_nobody_writes_into_the_directory_below(
    moto_bucket: Bucket, mounts: Mounts
) -> None:
    mounted = mounts.start(moto_bucket, sabotage=BACKGROUND_BUG)
    (mounted.path / "d").mkdir()
    with pytest.raises(OSError, match=r"abort|not connected"):
        (mounted.path / "d").rmdir()
    assert mounted.wait() == 70
    assert "ZeroDivisionError: a bug in the background" in mounted.text()
    wait_until(lambda: is_dead(mounted.path))
    assert find_mount(mounted.path) is not None
    with pytest.raises(OSError, match="not connected"):
        os.listdir(mounted.path)
    again = mounts.start(moto_bucket, path=mounted.path)
    assert names(again.path) in ([], ["d"])
    again.unmount()
