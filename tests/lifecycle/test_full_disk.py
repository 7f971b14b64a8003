"""The disk under the cache is really full: a tmpfs of 40 MiB, which spool, journal and attributes
share, with nothing of it reserved."""

import contextlib
import errno
import hashlib
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.counting_proxy import CountingProxy
from tests.mounting import Mounts, names, wait_until
from tests.servers import Bucket

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="mounting a tmpfs needs root"),
    pytest.mark.bounded(180),
]

MIB = 1 << 20
SIZE = 40 * MIB
OPTIONS = ("--part-size=5MiB", "--spool-size=1GiB", "--disk-reserve=0")
# Where nobody gives room, so that a writer is told soon.
IMPATIENT = "--progress-timeout=8s"


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "disk"
    path.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "none", path], check=True)
    yield path
    subprocess.run(["umount", "-l", path], check=True)


def pattern(size: int) -> bytes:
    return hashlib.shake_128(b"seed").digest(size)


def written(path: Path, data: bytes) -> tuple[int, int | None, int | None]:
    """How many bytes were taken, and the errno of the write and of the close, if they failed."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    done, refused, lost = 0, None, None
    try:
        while done < len(data):
            done += os.write(descriptor, data[done : done + MIB])
    except OSError as error:
        refused = error.errno
    try:
        os.close(descriptor)
    except OSError as error:
        lost = error.errno
    return done, refused, lost


def free(disk: Path) -> int:
    found = os.statvfs(disk)
    return found.f_bavail * found.f_frsize


def test_files_larger_than_the_disk_pass_through(
    moto_bucket: Bucket, mounts: Mounts, disk: Path
) -> None:
    mount = mounts.start(moto_bucket, "--cache-dir", disk, *OPTIONS)
    data = pattern(2 * SIZE)
    assert written(mount.path / "large", data) == (len(data), None, None)
    assert hashlib.md5(moto_bucket.get("large")).digest() == hashlib.md5(data).digest()
    (mount.path / "small").write_bytes(b"small")
    mount.unmount()
    assert moto_bucket.get("small") == b"small"
    assert " ERROR " not in mount.text()


def test_while_the_service_is_down_writers_get_enospc_and_all_goes_on_afterwards(
    moto_bucket: Bucket, mounts: Mounts, disk: Path
) -> None:
    with CountingProxy(moto_bucket.server.url) as proxy:
        moto_bucket.put("before", b"before")
        options = ("--cache-dir", disk, *OPTIONS, "--progress-timeout=2s")
        mount = mounts.start(moto_bucket, *options, url=proxy.url)
        assert names(mount.path) == ["before"]
        assert (mount.path / "before").read_bytes() == b"before"
        proxy.down = True
        proxy.cut()
        data = pattern(2 * SIZE)
        done, full, lost = written(mount.path / "large", data)
        assert (full, lost) == (errno.ENOSPC, errno.ETIMEDOUT)
        assert SIZE // 2 < done < SIZE
        assert os.statvfs(mount.path).f_bavail > 0
        assert (mount.path / "before").read_bytes() == b"before"
        proxy.down = False
        # One that took the service longer than 2 s has failed, too.
        wait_until(lambda: refused(lambda: (mount.path / "after").write_bytes(b"after")) is None)
        wait_until(lambda: not mount.status()["pending"]["files"])
        mount.unmount()
        assert moto_bucket.get("after") == b"after"
        kept = moto_bucket.get("large")
        assert kept == data[:done]


def fill(disk: Path) -> Path:
    """To its last byte, by another program."""
    path = disk / "ballast"
    with path.open("wb", buffering=0) as out, contextlib.suppress(OSError):
        while out.write(bytes(4096)):
            pass
    return path


def refused(call: Callable[[], object]) -> int | None:
    try:
        call()
    except OSError as error:
        return error.errno
    return None


@contextlib.contextmanager
def _told(number: int | None) -> Iterator[None]:
    """Success, or this error."""
    try:
        yield
    except OSError as error:
        assert error.errno == number  # noqa: PT017


@pytest.mark.parametrize("reserved", [True, False])
def test_when_others_fill_the_disk_to_its_last_byte(
    moto_bucket: Bucket, mounts: Mounts, disk: Path, reserved: bool
) -> None:
    """What cannot be recorded is told to its caller, what is known goes on, and once there is
    room again nothing of what was told to be done is missing. The journal makes room for itself
    when it begins; `reserved` False: there was none then."""
    if not reserved:
        ballast = fill(disk)
        os.truncate(ballast, ballast.stat().st_size - MIB // 2)
    options = OPTIONS if reserved else (*OPTIONS, IMPATIENT)
    mount = mounts.start(moto_bucket, "--cache-dir", disk, *options)
    if not reserved:
        ballast.unlink()
    top, data = mount.path, pattern(12 * MIB)
    (top / "d").mkdir()
    (top / "before").write_bytes(b"before")
    descriptor = os.open(top / "half", os.O_WRONLY | os.O_CREAT)
    assert os.write(descriptor, data[: 6 * MIB]) == 6 * MIB
    ballast = fill(disk)
    assert names(top) == ["before", "d", "half"]
    assert (top / "before").read_bytes() == b"before"
    full = None if reserved else errno.ENOSPC
    # Its second chunk has no page left on the disk: it waits until the first one is in S3, and
    # until the journal says so, which it may have just before the disk was full.
    half = data[: 6 * MIB]
    with _told(full):
        half += data[6 * MIB :][: os.write(descriptor, data[6 * MIB : 7 * MIB])]
    assert not reserved or len(half) == 7 * MIB
    assert refused(lambda: os.close(descriptor)) == full
    assert refused(lambda: (top / "small").write_bytes(b"small")) == full
    assert refused((top / "e").mkdir) == full
    # What has been sent leaves its chunk files to what comes, if the journal can say so.
    done, told, _ = written(top / "large", data)
    assert (told, done == len(data)) == (full, reserved)
    assert (top / "before").read_bytes() == b"before"
    ballast.unlink()
    assert refused(lambda: (top / "after").write_bytes(b"after")) is None
    assert written(top / "larger", data) == (len(data), None, None)
    mount.unmount()
    keys = moto_bucket.keys()
    found = {key: moto_bucket.get(key) for key in keys if not key.endswith("/")}
    assert found.pop("half") == half
    assert found.pop("larger") == data
    # Where they were refused, they are kept all the same: close's error says so.
    assert found.pop("large") == data[:done]
    assert found == {"before": b"before", "small": b"small", "after": b"after"}
    assert "Traceback" not in mount.text()
