"""Leaving while the service cannot be reached, or while programs are still writing."""

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from s3mount.fuse.mountpoint import find_mount
from tests.counting_proxy import CountingProxy, Fault, Seen
from tests.mounting import Mount, Mounts, names, wait_until
from tests.servers import Bucket

LEFT = 3  # the exit status
# While the service hangs: what ends sooner has not waited for an answer.
AT_ONCE = 100.0


@pytest.fixture
def proxy(moto_bucket: Bucket) -> Iterator[CountingProxy]:
    with CountingProxy(moto_bucket.server.url) as proxy:
        yield proxy


def cut(proxy: CountingProxy) -> None:
    proxy.down = True
    proxy.cut()


def write_back(mounts: Mounts, bucket: Bucket, proxy: CountingProxy, *options: str) -> Mount:
    return mounts.start(bucket, "--durability=journal", *options, url=proxy.url)


def assert_the_next_mount_sends_it(
    mounts: Mounts, before: Mount, bucket: Bucket, proxy: CountingProxy, wanted: dict[str, bytes]
) -> Mount:
    proxy.down = False
    assert not set(wanted) & set(bucket.keys())
    again = mounts.start(bucket, url=proxy.url, path=before.path)
    wait_until(lambda: set(wanted) <= set(bucket.keys()))
    for key, data in wanted.items():
        assert bucket.get(key) == data
    return again


def test_sigterm_waits_so_long_then_leaves_the_rest_to_the_next_mount(
    moto_bucket: Bucket, mounts: Mounts, proxy: CountingProxy
) -> None:
    mounted = write_back(mounts, moto_bucket, proxy, "--leave-timeout", "1")
    assert names(mounted.path) == []
    cut(proxy)
    (mounted.path / "directory").mkdir()
    (mounted.path / "directory" / "file").write_bytes(b"closed, hence acknowledged")
    mounted.signal(signal.SIGTERM)
    assert mounted.wait() == LEFT, mounted.text()
    text = mounted.text()
    assert "leaving with 2 changes of 1 files (26 bytes) not sent" in text
    assert "not sent: mkdir 'directory/'" in text
    assert "not sent: put 'directory/file' (26 bytes)" in text
    assert "in the journal: the next mount here sends them" in text
    assert find_mount(mounted.path) is None
    wanted = {"directory/": b"", "directory/file": b"closed, hence acknowledged"}
    assert_the_next_mount_sends_it(mounts, mounted, moto_bucket, proxy, wanted).unmount()


def test_umount_waits_so_long_then_leaves_the_rest_to_the_next_mount(
    moto_bucket: Bucket, mounts: Mounts, proxy: CountingProxy
) -> None:
    mounted = write_back(mounts, moto_bucket, proxy)
    assert names(mounted.path) == []
    cut(proxy)
    (mounted.path / "file").write_bytes(b"x" * 1000)
    done = mounted.run("umount", mounted.path, "--timeout", "1")
    assert done.returncode == LEFT, done.stderr
    assert "1 change, 1000 B not sent: in the journal, and the next mount" in done.stderr
    assert find_mount(mounted.path) is None
    assert mounted.wait() == LEFT, mounted.text()
    wanted = {"file": b"x" * 1000}
    assert_the_next_mount_sends_it(mounts, mounted, moto_bucket, proxy, wanted).unmount()


def test_a_second_signal_leaves_at_once_and_says_what_was_not_sent(
    moto_bucket: Bucket, mounts: Mounts, proxy: CountingProxy
) -> None:
    mounted = write_back(mounts, moto_bucket, proxy)
    assert names(mounted.path) == []
    cut(proxy)
    (mounted.path / "directory").mkdir()
    (mounted.path / "file").write_bytes(b"x" * 1000)
    mounted.signal(signal.SIGTERM)
    wait_until(lambda: "leaving: 2 changes, 1000 bytes still to be sent" in mounted.text())
    mounted.signal(signal.SIGTERM)
    assert mounted.wait() == LEFT, mounted.text()
    assert "leaving with 2 changes of 1 files (1000 bytes) not sent" in mounted.text()
    assert "not sent: put 'file' (1000 bytes)" in mounted.text()
    assert "not sent: mkdir 'directory/'" in mounted.text()
    assert find_mount(mounted.path) is None
    wanted = {"directory/": b"", "file": b"x" * 1000}
    assert_the_next_mount_sends_it(mounts, mounted, moto_bucket, proxy, wanted).unmount()


@pytest.mark.parametrize("how", ["SIGTERM", "SIGTERM twice", "umount"])
def test_a_frozen_service_holds_nobody_up_who_leaves(
    moto_bucket: Bucket, mounts: Mounts, proxy: CountingProxy, how: str
) -> None:
    """Requests are taken, and never answered while the mount leaves."""
    limit = "600" if how == "SIGTERM twice" else "2"
    # Who only waits so long waits for the end of the requests under way as well.
    silence = "3" if how == "SIGTERM" else "200"
    options = (
        *("--leave-timeout", limit, "--metadata-ttl", "300"),
        *("-o", f"readwrite_timeout={silence}", "--request-deadline", "200"),
    )
    mounted = write_back(mounts, moto_bucket, proxy, *options)
    (mounted.path / "before").write_bytes(b"sent")
    mounted.flush()
    assert names(mounted.path) == ["before"]  # known from here on
    thawed = threading.Event()

    def frozen(seen: Seen) -> None:
        thawed.wait(220)

    for operation in ("PutObject", "HeadObject", "ListObjectsV2", "CopyObject", "GetObject"):
        proxy.inject(operation, Fault(before=frozen), times=1000)
    (mounted.path / "file").write_bytes(b"acknowledged")
    (mounted.path / "before").chmod(0o600)
    begin = time.monotonic()
    if how.startswith("SIGTERM"):
        mounted.signal(signal.SIGTERM)
        if how == "SIGTERM twice":
            wait_until(lambda: "leaving: " in mounted.text())
            mounted.signal(signal.SIGTERM)
    else:
        assert mounted.run("umount", mounted.path).returncode == LEFT
    assert mounted.wait() == LEFT, mounted.text()
    assert time.monotonic() - begin < AT_ONCE
    assert find_mount(mounted.path) is None
    assert moto_bucket.keys() == ["before"]
    proxy.cut()
    thawed.set()
    proxy.clear()
    wanted = {"file": b"acknowledged"}
    assert_the_next_mount_sends_it(mounts, mounted, moto_bucket, proxy, wanted).unmount()
    head = moto_bucket.client.head_object(Bucket=moto_bucket.name, Key="before")
    assert head["Metadata"]["mode"] == str(0o100600)


WRITER = """
import sys
with open(sys.argv[1], "wb", buffering=0) as out:
    out.write(b"half of ")
    print("written", flush=True)
    sys.stdin.readline()
    out.write(b"a file")
"""


@dataclass
class HalfWriter:
    """A program that has a file open. (Not this one: each child of it would send a FLUSH.)"""

    path: Path
    process: "subprocess.Popen[str]" = field(init=False)

    def __enter__(self) -> "HalfWriter":
        self.process = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(self.path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "written\n"
        return self

    def go_on(self) -> str:
        """To its end; what it says of errors."""
        return self.process.communicate("\n", timeout=100)[1]

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.communicate()


def test_half_a_file_is_never_sent_but_kept_for_recover(
    moto_bucket: Bucket, mounts: Mounts
) -> None:
    mounted = mounts.start(moto_bucket)
    (mounted.path / "whole").write_bytes(b"whole")
    with HalfWriter(mounted.path / "file") as writer:
        mounted.signal(signal.SIGTERM)
        assert mounted.wait() == LEFT, mounted.text()
        assert "OSError" in writer.go_on()
    assert "not sent: 'file' (8 bytes, still being written)" in mounted.text()
    assert moto_bucket.keys() == ["whole"]
    again = mounts.start(moto_bucket, path=mounted.path)
    assert names(again.path) == ["whole"]
    assert "1 files had not been closed when an earlier mount ended" in again.text()
    (entry,) = again.run("recover", "list").stdout.splitlines()
    assert entry.split()[-1] == "file"
    saved = mounted.path.parent / "saved"
    assert again.run("recover", "save", entry.split()[0], saved).returncode == 0
    assert saved.read_bytes() == b"half of "
    again.unmount()
    assert moto_bucket.keys() == ["whole"]


def test_who_writes_on_after_umount_l_ends_its_file_and_only_then_it_is_sent(
    moto_bucket: Bucket, mounts: Mounts
) -> None:
    mounted = mounts.start(moto_bucket)
    with HalfWriter(mounted.path / "file") as writer:
        subprocess.run(["fusermount3", "-u", "-z", str(mounted.path)], check=True)
        assert find_mount(mounted.path) is None
        time.sleep(0.5)
        assert moto_bucket.keys() == []
        assert mounted.process.poll() is None
        assert writer.go_on() == ""
        assert mounted.wait() == 0, mounted.text()
    assert moto_bucket.get("file") == b"half of a file"


def test_umount_of_a_mount_that_is_in_use_leaves_it_as_it_is(
    moto_bucket: Bucket, mounts: Mounts
) -> None:
    mounted = mounts.start(moto_bucket)
    with HalfWriter(mounted.path / "file") as writer:
        done = mounted.run("umount", mounted.path, "--timeout", "1")
        assert done.returncode == 1
        assert "busy" in done.stderr
        assert writer.go_on() == ""
    mounted.unmount()
    assert moto_bucket.get("file") == b"half of a file"
