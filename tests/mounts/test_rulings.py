"""Rulings of the design that show only with the kernel in between; see also tests/lifecycle."""

import errno
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.counting_proxy import CountingProxy
from tests.mounting import Mount, Mounted, run_in, wait_until
from tests.servers import Bucket, CephServer

BROKEN = """
import s3mount.filesystem.filesystem as filesystem

async def broken(self, number):
    raise RuntimeError("a bug, on purpose")

filesystem.FileSystem.readlink = broken
"""


@pytest.fixture
def proxy(moto_bucket: Bucket) -> Iterator[CountingProxy]:
    with CountingProxy(moto_bucket.server.url) as proxy:
        yield proxy


def sent(proxy: CountingProxy, name: str) -> list[int]:
    """The sizes of the objects put under this name."""
    return [seen.size for seen in proxy.requests if seen.key == name and seen.method == "PUT"]


def test_a_handler_that_raises_answers_eio_and_the_mount_lives_on(
    moto_bucket: Bucket, mounted: Mounted, tmp_path: Path
) -> None:
    (tmp_path / "sitecustomize.py").write_text(BROKEN)
    mount = mounted(moto_bucket, started=False)
    inherited = mount.environment.get("PYTHONPATH", "")
    mount.environment["PYTHONPATH"] = f"{tmp_path}:{inherited}"
    mount.expect("readlink failed unexpectedly", "Traceback")
    mount.start()
    (mount.path / "link").symlink_to("target")
    with pytest.raises(OSError) as raised:
        os.readlink(mount.path / "link")
    assert raised.value.errno == errno.EIO
    assert "RuntimeError: a bug, on purpose" in mount.text()
    (mount.path / "file").write_bytes(b"still here")
    assert moto_bucket.get("file") == b"still here"
    assert sorted(os.listdir(mount.path)) == ["file", "link"]


def test_a_flush_before_the_first_write_sends_nothing(
    moto_bucket: Bucket, mounted: Mounted, proxy: CountingProxy
) -> None:
    mount = mounted(moto_bucket, url=proxy.url)
    out = os.open(mount.path / "file", os.O_CREAT | os.O_WRONLY)
    os.close(os.dup(out))
    subprocess.run(["true"], stdout=out, check=True)
    mount.status()  # an answer from the loop: the FLUSHes were dealt with
    assert sent(proxy, "file") == []
    os.write(out, b"text")
    os.close(out)
    assert sent(proxy, "file") == [4]
    assert moto_bucket.get("file") == b"text"


def test_output_of_several_programs_is_right_and_few_puts(
    moto_bucket: Bucket, mounted: Mounted, proxy: CountingProxy
) -> None:
    mount = mounted(moto_bucket, url=proxy.url)
    run_in(mount.path, "(for i in $(seq 100); do /bin/echo line $i; done) > file")
    expected = "".join(f"line {number}\n" for number in range(1, 101)).encode()
    assert (mount.path / "file").read_bytes() == expected
    wait_until(lambda: moto_bucket.get("file") == expected)
    assert len(sent(proxy, "file")) <= 5
    assert min(sent(proxy, "file")) > 0, "a stub was visible"


@pytest.mark.parametrize("flags", [os.O_WRONLY, os.O_RDONLY])
def test_a_file_that_was_never_written_is_an_object_after_its_close(
    moto_bucket: Bucket, mounted: Mounted, flags: int
) -> None:
    mount = mounted(moto_bucket)
    out = os.open(mount.path / "empty", os.O_CREAT | flags, 0o640)
    assert os.listdir(mount.path) == ["empty"]
    assert moto_bucket.keys() == []
    os.close(out)
    wait_until(lambda: moto_bucket.keys() == ["empty"])
    head = moto_bucket.client.head_object(Bucket=moto_bucket.name, Key="empty")
    assert (head["ContentLength"], head["Metadata"]["mode"]) == (0, str(0o100640))


def test_a_killed_writer_publishes_what_it_wrote(moto_bucket: Bucket, mounted: Mounted) -> None:
    mount = mounted(moto_bucket)
    script = (
        "import os, signal, sys; out = open(sys.argv[1], 'wb'); out.write(b'x' * 10000);"
        "out.flush(); os.kill(os.getpid(), signal.SIGKILL)"
    )
    done = subprocess.run([sys.executable, "-c", script, mount.path / "file"], check=False)
    assert done.returncode == -signal.SIGKILL
    wait_until(lambda: moto_bucket.keys() == ["file"])
    assert moto_bucket.get("file") == b"x" * 10000


def test_an_unlinked_open_file_reads_and_writes_on_and_leaves_nothing(
    bucket: Bucket, mounted: Mounted
) -> None:
    mount = mounted(bucket)
    (mount.path / "file").write_bytes(b"0123456789" * 1000)
    mount.remount()
    with (mount.path / "file").open("r+b", buffering=0) as file:
        (mount.path / "file").unlink()
        assert os.listdir(mount.path) == []
        assert file.read(10) == b"0123456789"
        file.seek(5)
        file.write(b"X")
        file.seek(0)
        assert file.read(20) == b"01234X67890123456789"
    mount.flush()
    assert bucket.keys() == []


def test_while_the_service_hangs_df_ls_and_cached_reads_go_on_and_nothing_is_lost(
    ceph: CephServer, ceph_bucket: Bucket, mounted: Mounted
) -> None:
    mount = mounted(ceph_bucket, "--metadata-ttl", "60")
    (mount.path / "known").write_bytes(b"known" * 1000)
    assert os.listdir(mount.path) == ["known"]
    writers = [
        threading.Thread(target=(mount.path / f"late{number}").write_bytes, args=(b"late" * 99,))
        for number in range(20)
    ]
    with (mount.path / "known").open("rb") as known:
        assert known.read(10) == b"knownknown"
        with ceph.paused():
            for writer in writers:
                writer.start()
            # All are in close(2): a child of this process would inherit a file that is still
            # open and, when it begins, send a FLUSH that the service does not let end.
            wait_until(lambda: mount.status()["pending"]["files"] == len(writers))
            begin = time.monotonic()
            for _ in range(3):
                os.statvfs(mount.path)
                assert "known" in os.listdir(mount.path)
                known.seek(0)
                assert known.read() == b"known" * 1000
            assert time.monotonic() - begin < 40
            assert all(writer.is_alive() for writer in writers)
    for writer in writers:
        writer.join(timeout=200)
    assert {ceph_bucket.get(f"late{number}") for number in range(20)} == {b"late" * 99}


def test_hard_links_are_refused_at_once(moto_bucket: Bucket, mounted: Mounted) -> None:
    mount = mounted(moto_bucket)
    (mount.path / "file").write_bytes(b"x")
    with pytest.raises(OSError) as raised:
        os.link(mount.path / "file", mount.path / "link")
    assert raised.value.errno == errno.EOPNOTSUPP
    assert os.listdir(mount.path) == ["file"]


def test_inode_numbers_are_the_same_after_a_remount(moto_bucket: Bucket, mounted: Mounted) -> None:
    mount = mounted(moto_bucket)
    (mount.path / "dir").mkdir()
    for name in ("one", "dir/two"):
        (mount.path / name).write_bytes(b"x")
    (mount.path / "link").symlink_to("one")
    numbers = _numbers(mount)
    assert len(set(numbers.values())) == len(numbers) == 4
    mount.remount()
    assert _numbers(mount) == numbers


def _numbers(mount: Mount) -> dict[str, int]:
    return {str(path): path.lstat().st_ino for path in sorted(mount.path.rglob("*"))}
