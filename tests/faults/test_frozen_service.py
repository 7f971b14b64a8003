"""Ceph accepts requests and never answers them: nothing outlives its deadline, all comes back."""

import contextlib
import errno
import os
import threading
import time
from collections.abc import Iterator

import pytest

from tests.mounting import Mounted, mounted, wait_until
from tests.servers import Bucket, CephServer

__all__ = ["mounted"]

DEADLINE = 8.0  # seconds without progress until close gives up, in these mounts
SLACK = 15.0  # two busy processors, and the requests of which an operation consists


@contextlib.contextmanager
def frozen(ceph: CephServer) -> Iterator[None]:
    ceph.execute("ceph", "osd", "set", "pause")
    try:
        yield
    finally:
        ceph.execute("ceph", "osd", "unset", "pause")


def test_nothing_outlives_its_deadline_and_all_goes_on_by_itself(
    ceph: CephServer, ceph_bucket: Bucket, mounted: Mounted
) -> None:
    ceph_bucket.put("unseen", b"x" * 100_000)
    options = ("--progress-timeout", str(DEADLINE), "-o", "readwrite_timeout=3,retries=1")
    mount = mounted(ceph_bucket, "--metadata-ttl", "60", *options)
    mount.expect("ETIMEDOUT", "no progress", "EIO", "refused", "ConnectionLost", "Read timed out")
    (mount.path / "known").write_bytes(b"known" * 1000)
    assert sorted(os.listdir(mount.path)) == ["known", "unseen"]
    assert (mount.path / "known").read_bytes() == b"known" * 1000
    with frozen(ceph):
        begin = time.monotonic()
        with pytest.raises(OSError) as caught:
            (mount.path / "late").write_bytes(b"late")
        assert caught.value.errno in {errno.ETIMEDOUT, errno.EIO}
        assert time.monotonic() - begin < DEADLINE + SLACK
        begin = time.monotonic()
        with pytest.raises(OSError) as caught:
            (mount.path / "unseen").read_bytes()
        assert caught.value.errno in {errno.ETIMEDOUT, errno.EIO}
        assert time.monotonic() - begin < 2 * DEADLINE + SLACK
        begin = time.monotonic()
        os.statvfs(mount.path)
        assert "known" in os.listdir(mount.path)
        with (mount.path / "known").open("rb") as known:
            assert known.read() == b"known" * 1000
        assert time.monotonic() - begin < 5
        assert any(intent["error"] for intent in mount.status()["intents"])
    wait_until(lambda: not mount.status()["intents"], 60)
    assert ceph_bucket.get("late") == b"late"
    assert (mount.path / "unseen").read_bytes() == b"x" * 100_000


def test_cancel_frees_who_is_stuck_in_close(
    ceph: CephServer, ceph_bucket: Bucket, mounted: Mounted
) -> None:
    mount = mounted(ceph_bucket, "--metadata-ttl", "60")
    mount.expect("cancelled", "ECANCELED")
    (mount.path / "known").write_bytes(b"known")
    assert os.listdir(mount.path) == ["known"]
    told: list[int | None] = []

    def write() -> None:
        try:
            (mount.path / "stuck").write_bytes(b"stuck")
        except OSError as error:
            told.append(error.errno)
        else:
            told.append(None)

    writer = threading.Thread(target=write)
    with frozen(ceph):
        writer.start()
        wait_until(lambda: mount.status()["intents"], 20)
        begin = time.monotonic()
        mount.command("cancel", "stuck", "--yes")
        writer.join(timeout=60)
        took = time.monotonic() - begin
    assert told == [errno.ECANCELED]
    assert took < 40, took
    assert mount.status()["intents"] == []
