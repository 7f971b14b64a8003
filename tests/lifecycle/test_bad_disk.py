"""The disk under the spool fails: EIO of its writes, fsyncs and reads, through real mounts. Nothing
wrong reaches the bucket, what was acknowledged does, and all goes on when the disk works again."""

import errno
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.campaign.crash_disk import CrashDisk
from tests.counting_proxy import CountingProxy
from tests.mounting import Mount, Mounts, names, wait_until
from tests.servers import Bucket

MIB = 1 << 20
SMALL, LARGE = 300 * 1024, 11 * MIB  # a chunk file; two parts
BOTH = pytest.mark.parametrize("durability", ["close", "journal"])


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[CrashDisk]:
    with CrashDisk(tmp_path / "crash") as disk:
        yield disk


def pattern(size: int) -> bytes:
    return hashlib.shake_128(b"seed").digest(size)


def written(path: Path, data: bytes) -> tuple[int | None, int | None]:
    """The errno of the write and of the close, if they failed."""
    refused = lost = None
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    try:
        done = 0
        while done < len(data):
            done += os.write(descriptor, data[done : done + MIB])
    except OSError as error:
        refused = error.errno
    try:
        os.close(descriptor)
    except OSError as error:
        lost = error.errno
    return refused, lost


def settled(mount: Mount) -> None:
    mount.run("retry", mount.path)
    wait_until(lambda: not mount.status()["pending"]["intents"])


def _error_of_one(mount: Mount) -> str:
    """Of the one change that is pending; '' before its first attempt has ended."""
    (intent,) = mount.status()["intents"]
    return str(intent["error"] or "")


@BOTH
@pytest.mark.parametrize("size", [SMALL, LARGE])
def test_a_write_that_fails_is_told_at_once(
    moto_bucket: Bucket, mounts: Mounts, disk: CrashDisk, durability: str, size: int
) -> None:
    mount = mounts.start(
        moto_bucket, "--cache-dir", disk.path, f"--durability={durability}", "--part-size=5MiB"
    )
    (mount.path / "before").write_bytes(b"before")
    disk.fail("write")
    data = pattern(size)
    assert written(mount.path / "f", data)[0] == errno.EIO
    assert (mount.path / "before").read_bytes() == b"before"
    disk.fail()
    assert written(mount.path / "f", data) == (None, None)
    mount.unmount()
    assert moto_bucket.get("f") == data
    assert moto_bucket.get("before") == b"before"


def test_a_close_whose_fsync_fails_is_told_and_its_bytes_go_out_when_the_disk_works_again(
    moto_bucket: Bucket, mounts: Mounts, disk: CrashDisk
) -> None:
    mount = mounts.start(moto_bucket, "--cache-dir", disk.path, "--durability=journal")
    data = pattern(SMALL)
    disk.fail("fsync")
    assert written(mount.path / "f", data) == (None, errno.EIO)
    assert "cannot sync chunk-" in mount.text()
    assert (mount.path / "f").read_bytes() == data
    disk.fail()
    assert written(mount.path / "g", data) == (None, None)
    settled(mount)
    mount.kill()  # whatever is in the bucket now is all that there is
    assert moto_bucket.get("g") == data
    assert moto_bucket.get("f") == data


@pytest.mark.parametrize("size", [SMALL, LARGE])
def test_bytes_that_cannot_be_read_are_not_sent_and_are_once_they_can(
    moto_bucket: Bucket, mounts: Mounts, disk: CrashDisk, size: int
) -> None:
    data = pattern(size)
    with CountingProxy(moto_bucket.server.url) as proxy:
        options = ("--cache-dir", disk.path, "--durability=journal", "--part-size=5MiB")
        mount = mounts.start(moto_bucket, *options, url=proxy.url)
        assert names(mount.path) == []
        proxy.down = True
        proxy.cut()
        assert written(mount.path / "f", data) == (None, None)
        disk.fail("read")
        proxy.down = False
        mount.run("retry", mount.path)
        wait_until(lambda: "cannot read chunk-" in mount.text())
        wait_until(lambda: "Input/output error" in _error_of_one(mount))
        assert moto_bucket.keys() == []
        disk.fail()
        settled(mount)
        assert moto_bucket.get("f") == data
        mount.unmount()
