"""The commands that talk to a running mount, and many programs that wait in it at once."""

import errno
import json
import os
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

from s3mount.control.address import find_sockets
from tests.counting_proxy import CountingProxy, Fault, Seen
from tests.mounting import Mounts, environment, names, s3mount
from tests.servers import Bucket


def test_status_shows_what_the_mount_is_doing(moto_bucket: Bucket, mounts: Mounts) -> None:
    mounted = mounts.start(moto_bucket)
    (mounted.path / "file").write_bytes(b"x")
    status = mounted.status()
    assert status["bucket"] == moto_bucket.name
    assert status["mountpoint"] == str(mounted.path)
    assert status["pid"] == mounted.process.pid
    assert status["pending"]["phase"] == "serving"
    assert status["requests"]["PutObject"] >= 1
    text = mounted.run("status", mounted.path).stdout
    assert moto_bucket.name in text
    assert "PutObject" in text
    mounted.unmount()


def test_flush_waits_for_changes_that_returned_at_once(bucket: Bucket, mounts: Mounts) -> None:
    mounted = mounts.start(bucket)
    (mounted.path / "directory").mkdir()
    mounted.command("flush")
    assert bucket.keys() == ["directory/"]
    (mounted.path / "directory").chmod(0o700)
    mounted.command("flush")
    head = bucket.client.head_object(Bucket=bucket.name, Key="directory/")
    assert stat.S_IMODE(int(head["Metadata"]["mode"])) == 0o700
    mounted.unmount()


def test_cancel_gives_up_what_cannot_be_sent(moto_bucket: Bucket, mounts: Mounts) -> None:
    with CountingProxy(moto_bucket.server.url) as proxy:
        mounted = mounts.start(moto_bucket, url=proxy.url)
        assert names(mounted.path) == []  # known for as long as metadata-ttl
        proxy.down = True
        proxy.cut()
        (mounted.path / "unwanted").mkdir()
        assert mounted.status()["pending"]["intents"] == 1
        done = mounted.run("cancel", mounted.path / "unwanted", "--yes")
        assert done.returncode == 0, done.stderr
        assert "unwanted" in done.stdout
        assert mounted.status()["pending"]["intents"] == 0
        proxy.down = False
        mounted.unmount()
    assert moto_bucket.keys() == []


def test_cancel_frees_a_caller_stuck_in_close_while_the_service_hangs(
    moto_bucket: Bucket, mounts: Mounts
) -> None:
    asked, thawed = threading.Event(), threading.Event()

    def frozen(seen: Seen) -> None:
        asked.set()
        thawed.wait(300)

    with CountingProxy(moto_bucket.server.url) as proxy:
        patient = ("-o", "readwrite_timeout=300", "--request-deadline", "300")
        mounted = mounts.start(moto_bucket, *patient, url=proxy.url)
        assert names(mounted.path) == []
        proxy.inject("PutObject", Fault(before=frozen), times=100)
        stuck: list[int | None] = []

        def write() -> None:
            try:
                (mounted.path / "file").write_bytes(b"x")
            except OSError as error:
                stuck.append(error.errno)

        writer = threading.Thread(target=write, daemon=True)
        writer.start()
        assert asked.wait(60)
        done = mounted.run("cancel", mounted.path, "file", "--yes")
        assert done.returncode == 0, done.stderr
        writer.join(100)  # less than the 300 s after which the request itself fails
        freed = not writer.is_alive()
        thawed.set()
        writer.join()
        assert freed
        assert stuck == [errno.ECANCELED]
        proxy.clear()
        mounted.unmount()


def test_cancel_of_what_is_not_pending_is_refused(moto_bucket: Bucket, mounts: Mounts) -> None:
    mounted = mounts.start(moto_bucket)
    done = mounted.run("cancel", mounted.path, "nothing")
    assert done.returncode == 1
    assert "nothing is pending for 'nothing'" in done.stderr
    mounted.unmount()


def test_commands_for_a_directory_that_is_not_mounted_say_so(tmp_path: Path) -> None:
    env = environment(None, tmp_path)
    directory = str(tmp_path)
    for command in (["status", directory], ["flush", directory], ["cancel", directory, "x"]):
        done = s3mount(*command, env=env)
        assert done.returncode == 1
        assert f"{tmp_path} is not mounted" in done.stderr


def test_the_socket_belongs_to_the_user_alone(moto_bucket: Bucket, mounts: Mounts) -> None:
    mounted = mounts.start(moto_bucket)
    (path,) = find_sockets(mounted.path)
    assert stat.S_IMODE(path.lstat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    cache = next(Path(mounted.environment["XDG_CACHE_HOME"]).glob("s3mount/*-*"))
    assert stat.S_IMODE(cache.stat().st_mode) == 0o700
    mounted.unmount()
    assert not path.exists()


BLOCKED_CLOSES = r"""
import os, sys, threading
directory, count = sys.argv[1], int(sys.argv[2])
threading.stack_size(65536)
opened = [os.open(f"{directory}/f{n}", os.O_CREAT | os.O_WRONLY) for n in range(count)]
for descriptor in opened:
    os.write(descriptor, b"x")
threads = [threading.Thread(target=os.close, args=(each,)) for each in opened]
for thread in threads:
    thread.start()
print("closing", flush=True)
for thread in threads:
    thread.join()
print("closed", flush=True)
"""


def test_500_blocked_closes_leave_df_ls_and_cached_reads_alone(
    moto_bucket: Bucket, mounts: Mounts
) -> None:
    count = 500
    with CountingProxy(moto_bucket.server.url) as proxy:
        mounted = mounts.start(moto_bucket, url=proxy.url)
        (mounted.path / "d").mkdir()
        (mounted.path / "cached").write_bytes(b"known")
        mounted.flush()
        assert (mounted.path / "cached").read_bytes() == b"known"
        gate = threading.Event()

        def held(seen: Seen) -> None:
            gate.wait(120)

        proxy.inject("PutObject", Fault(before=held), times=2 * count)
        closer = subprocess.Popen(
            [sys.executable, "-c", BLOCKED_CLOSES, str(mounted.path / "d"), str(count)],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert closer.stdout is not None
        assert closer.stdout.readline() == "closing\n"
        begin = time.monotonic()
        assert os.statvfs(mounted.path).f_blocks > 0
        assert len(os.listdir(mounted.path / "d")) == count
        with (mounted.path / "cached").open("rb", buffering=0) as cached:
            assert cached.read() == b"known"
        took = time.monotonic() - begin
        assert closer.poll() is None
        gate.set()
        assert took < 40, "programs that need no network waited for it"
        assert closer.communicate(timeout=120)[0] == "closed\n"
        assert closer.returncode == 0
        mounted.unmount()
    assert len(moto_bucket.keys()) == count + 2


def test_json_of_status_is_complete(moto_bucket: Bucket, mounts: Mounts) -> None:
    mounted = mounts.start(moto_bucket)
    answer = json.loads(mounted.run("status", "--json", mounted.path).stdout)
    assert {"queue", "transfers", "requests", "spool", "cache", "version"} <= set(answer)
    mounted.unmount()
