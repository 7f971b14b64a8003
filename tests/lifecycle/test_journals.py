"""Journals of real mounts: killed, damaged, on other mount points of the same bucket."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.counting_proxy import CountingProxy
from tests.mounting import Mount, Mounts, names, s3mount, wait_until
from tests.servers import Bucket

DATA = bytes(range(256)) * 100


@pytest.fixture
def proxy(moto_bucket: Bucket) -> Iterator[CountingProxy]:
    with CountingProxy(moto_bucket.server.url) as proxy:
        yield proxy


def cache_of(mount: Mount) -> Path:
    """The directory of its own in the cache."""
    for path in Path(mount.environment["XDG_CACHE_HOME"]).glob("s3mount/*/mounts/*/identity.json"):
        if f'"{mount.path}"' in path.read_text():
            return path.parent
    raise AssertionError("it has none")


def dead_with_unsent(mounts: Mounts, bucket: Bucket, proxy: CountingProxy) -> Mount:
    """A mount that was killed when `file` was closed and nothing had reached the bucket."""
    mount = mounts.start(bucket, "--durability=journal", url=proxy.url)
    assert names(mount.path) == []
    proxy.down = True
    proxy.cut()
    (mount.path / "file").write_bytes(DATA)
    mount.kill()
    proxy.down = False
    assert bucket.keys() == []
    return mount


def test_two_mount_points_of_one_bucket_share_what_they_may(
    moto_bucket: Bucket, mounts: Mounts
) -> None:
    shared = mounts.directory / "read"
    first = mounts.start(moto_bucket, "--read-cache", shared)
    second = mounts.start(moto_bucket, "--read-cache", shared)
    (first.path / "a").write_bytes(DATA)
    (second.path / "b").write_bytes(DATA[::-1])
    wait_until(lambda: names(first.path) == names(second.path) == ["a", "b"])
    assert (second.path / "a").read_bytes() == DATA
    assert (first.path / "b").read_bytes() == DATA[::-1]
    cache = Path(first.environment["XDG_CACHE_HOME"])
    assert len(list(cache.glob("s3mount/*/attributes-*.sqlite"))) == 1
    assert cache_of(first) != cache_of(second)
    assert "is in use by another mount: going on without" in second.text()
    assert "is in use by another mount" not in first.text()
    for mount in (first, second):
        assert mount.status()["journal"]["problems"] == []
        mount.unmount()
        assert not list(cache_of(mount).glob("journal.*"))


def test_what_a_killed_mount_left_is_reported_elsewhere_and_finished_there(
    moto_bucket: Bucket, mounts: Mounts, proxy: CountingProxy
) -> None:
    dead = dead_with_unsent(mounts, moto_bucket, proxy)
    left = {path: path.read_bytes() for path in cache_of(dead).iterdir() if path.is_file()}
    other = mounts.start(moto_bucket, url=proxy.url)
    wait_until(lambda: other.status()["journal"]["others"])
    (report,) = other.status()["journal"]["others"]
    assert f"the mount on {dead.path} ended before 1 changes of 1 files" in report
    assert report in other.text()
    other.unmount()
    assert {path: path.read_bytes() for path in left} == left
    assert moto_bucket.keys() == []
    dead.start()
    assert (dead.path / "file").read_bytes() == DATA
    dead.unmount()
    assert moto_bucket.get("file") == DATA
    assert not list(cache_of(dead).glob("journal.*"))


def test_a_damaged_journal_is_set_aside_and_the_mount_says_so(
    moto_bucket: Bucket, mounts: Mounts, proxy: CountingProxy
) -> None:
    dead = dead_with_unsent(mounts, moto_bucket, proxy)
    (log,) = cache_of(dead).glob("journal.log-*1")
    log.write_bytes(b"\0" * 10 + log.read_bytes()[10:])
    begin = len(dead.text())
    dead.start()
    (aside,) = cache_of(dead).glob("journal.corrupt-*")
    said = dead.text(begin)
    assert f"warning: the header of {log.name} is damaged" in said
    assert str(aside) in said
    (problem,) = dead.status()["journal"]["problems"]
    assert str(aside) in problem
    assert list(aside.glob("journal.log-*"))
    (dead.path / "new").write_bytes(b"works")
    dead.unmount()
    assert moto_bucket.keys() == ["new"]


@pytest.mark.skipif(not Path("/dev/shm").is_dir(), reason="no tmpfs at its usual place")
def test_write_back_into_memory_is_refused_and_close_is_warned(
    moto_bucket: Bucket, mounts: Mounts, tmp_path: Path
) -> None:
    made = subprocess.run(["mktemp", "-d", "-p", "/dev/shm"], capture_output=True, check=True)
    memory = Path(made.stdout.decode().strip())
    try:
        mount = mounts.start(moto_bucket, "--cache-dir", memory)
        assert "is on tmpfs: what is not yet in the bucket is lost" in mount.text()
        mount.unmount()
        done = s3mount(
            *("mount", moto_bucket.name, mount.path, "--durability=journal"),
            *("--cache-dir", memory),
            env=mount.environment,
        )
        assert done.returncode == 2
        assert "needs a disk that survives" in done.stderr
        assert "--cache-dir" in done.stderr
    finally:
        subprocess.run(["rm", "-rf", memory], check=True)
