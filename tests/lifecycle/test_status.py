"""Status and the commands beside it on real mounts: its numbers are the server's, and whatever
ends a command says what it leaves."""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from s3mount.fuse.mountpoint import find_mount
from tests.cli.status_example import example
from tests.counting_proxy import CountingProxy, Fault, Seen, slow_down
from tests.mounting import END_SECONDS, Mount, Mounts, names, wait_until
from tests.servers import Bucket

MIB = 1024 * 1024
# Writes a file and keeps it open until its standard input is closed.
WRITER = r"""
import os, sys
with open(sys.argv[1], "wb") as file:
    file.write(os.urandom(int(sys.argv[2])))
    file.flush()
    sys.stdin.read()
"""


def held(mounted: Mount, proxy: CountingProxy) -> None:
    """One change that cannot be sent: a directory."""
    assert names(mounted.path) == []  # known for as long as metadata-ttl
    proxy.down = True
    proxy.cut()
    (mounted.path / "waits").mkdir()


def test_the_numbers_are_those_of_the_server_and_the_bytes_those_written(
    bucket: Bucket, mounts: Mounts
) -> None:
    sizes = [1, 1000, 300_000, 20 * MIB + 5]
    with CountingProxy(bucket.server.url) as proxy:
        mounted = mounts.start(bucket, url=proxy.url)
        proxy.inject("PutObject", slow_down)
        for number, size in enumerate(sizes):
            (mounted.path / f"file{number}").write_bytes(os.urandom(size))
        (mounted.path / "directory").mkdir()
        (mounted.path / "file0").chmod(0o600)
        (mounted.path / "file1").rename(mounted.path / "directory" / "moved")
        (mounted.path / "file2").unlink()
        mounted.flush()
        bucket.put("foreign", b"x" * 50_000)
        wait_until(lambda: "foreign" in names(mounted.path))
        assert len((mounted.path / "foreign").read_bytes()) == 50_000
        # Something may go on behind the last answer: when it has ended both sides say the same.
        seen: list[dict[str, Any]] = []

        def agree() -> bool:
            seen[:] = [mounted.status()]
            return _of_mount(seen[0]) == _of_proxy(proxy)

        wait_until(agree, message=f"{seen}, and the server {_of_proxy(proxy)}")
        (status,) = seen
        totals = status["totals"]
        assert totals["bytes"] == status["pending"]["sent"] == sum(sizes)
        assert (totals["files"], status["done"]["put"]) == (4, 4)
        assert (totals["retries"], totals["slow_downs"]) == (1, 1)
        assert (status["done"]["mkdir"], status["done"]["delete"]) == (1, 1)
        assert set(status["queue"].values()) == {0}
        mounted.unmount()


def _of_mount(status: dict[str, Any]) -> tuple[dict[str, int], int, int, int]:
    totals = status["totals"]
    return status["requests"], totals["requests"], totals["bytes_in"], totals["bytes_out"]


def _of_proxy(proxy: CountingProxy) -> tuple[dict[str, int], int, int, int]:
    """The body of a PUT that was answered by SlowDown was sent, too, and is counted by both."""
    return dict(proxy.counts), len(proxy.requests), proxy.bytes_in, proxy.bytes_out


def test_the_answer_has_the_documented_fields_and_no_others(
    moto_bucket: Bucket, mounts: Mounts
) -> None:
    with CountingProxy(moto_bucket.server.url) as proxy:
        mounted = mounts.start(moto_bucket, url=proxy.url)
        (mounted.path / "file").write_bytes(b"x")
        status = mounted.status()
        assert set(status) == set(example())
        for part in ("pending", "totals", "queue", "done", "recovery", "spool"):
            assert set(status[part]) == set(example()[part]), part
        assert set(status["workers"]) == {"metadata", "read", "mutation", "transfer", "head"}
        for lane in status["workers"].values():
            assert set(lane) == set(example()["workers"]["transfer"])
        for part in ("cache", "journal", "namespace"):
            assert set(example()[part]) <= set(status[part]), part
        assert names(mounted.path) == ["file"]
        proxy.down = True
        proxy.cut()
        (mounted.path / "waits").mkdir()
        (intent,) = mounted.status()["intents"]
        assert set(intent) == set(example()["intents"][0])
        proxy.down = False
        mounted.unmount()


def test_a_transfer_is_shown_with_what_was_sent_of_it_and_why_it_does_not_go_on(
    moto_bucket: Bucket, mounts: Mounts
) -> None:
    size = 20 * MIB
    with CountingProxy(moto_bucket.server.url) as proxy:
        mounted = mounts.start(moto_bucket, "--retries", "0", url=proxy.url)

        def of_part_2(seen: Seen) -> None:
            if "partNumber=2" in seen.target:
                raise ConnectionResetError

        proxy.inject("UploadPart", Fault(before=of_part_2), times=1000)
        seen: list[dict[str, Any]] = []

        def stuck() -> bool:
            seen[:] = mounted.status()["transfers"]
            # The first part is there; the end of the file is no whole part yet.
            return any(one["error"] and one["sent"] == 8 * MIB for one in seen)

        with subprocess.Popen(
            [sys.executable, "-c", WRITER, str(mounted.path / "large"), str(size)],
            stdin=subprocess.PIPE,
        ):  # a process of its own: children of this one would close the file, which waits
            wait_until(stuck)
            assert "large" in mounted.run("status", mounted.path).stdout
            proxy.clear()
        (transfer,) = seen
        assert set(transfer) == set(example()["transfers"][0])
        assert (transfer["path"], transfer["size"], transfer["open"]) == ("large", size, True)
        assert "UploadPart" in transfer["error"]
        assert transfer["attempts"] >= 1
        mounted.flush()
        assert mounted.status()["transfers"] == []
        mounted.unmount()


def test_without_a_mount_point_each_mount_is_a_line(moto_bucket: Bucket, mounts: Mounts) -> None:
    first, second = mounts.start(moto_bucket), mounts.start(moto_bucket)
    lines = first.run("status").stdout.splitlines()
    for mounted in (first, second):
        (line,) = [line for line in lines if line.startswith(f"{mounted.path} ")]
        assert f"{moto_bucket.name}:/, serving, idle" in line
    told = json.loads(first.run("status", "--json").stdout)
    assert {str(first.path), str(second.path)} <= {one["mountpoint"] for one in told}
    second.kill()
    assert f"{second.path}  does not answer" in first.run("status").stdout
    first.unmount()


def test_any_path_in_the_mount_names_it(moto_bucket: Bucket, mounts: Mounts) -> None:
    mounted = mounts.start(moto_bucket)
    (mounted.path / "directory").mkdir()
    told = mounted.run("status", "--json", mounted.path / "directory" / "absent").stdout
    assert json.loads(told)["mountpoint"] == str(mounted.path)
    mounted.unmount()


def test_cancel_says_what_it_would_give_up_and_gives_up_nothing_unless_confirmed(
    bucket: Bucket, mounts: Mounts
) -> None:
    with CountingProxy(bucket.server.url) as proxy:
        mounted = mounts.start(bucket, url=proxy.url)
        held(mounted, proxy)
        done = mounted.run("cancel", mounted.path / "waits")
        assert done.returncode == 1
        assert "not in the bucket yet: mkdir 'waits/'" in done.stderr
        assert "nothing is given up; --yes does it without asking" in done.stderr
        assert mounted.status()["pending"]["intents"] == 1
        assert "name a file or directory in it" in mounted.run("cancel", mounted.path).stderr
        assert "is in no mount" in mounted.run("cancel", "/proc/self").stderr
        retried = mounted.run("retry", mounted.path / "waits")
        assert retried.stdout.startswith("tried now: mkdir 'waits/'")
        done = mounted.run("cancel", mounted.path / "waits", "--yes")
        assert (done.returncode, done.stdout.startswith("given up: mkdir 'waits/'")) == (0, True)
        assert mounted.status()["pending"]["intents"] == 0
        proxy.down = False
        mounted.unmount()
    assert bucket.keys() == []


def test_detach_leaves_the_rest_in_the_journal_says_so_and_the_next_mount_sends_it(
    moto_bucket: Bucket, mounts: Mounts
) -> None:
    with CountingProxy(moto_bucket.server.url) as proxy:
        mounted = mounts.start(moto_bucket, url=proxy.url)
        held(mounted, proxy)
        done = mounted.run("umount", mounted.path, "--detach")
        assert done.returncode == 3, done.stderr
        assert "1 change not sent: in the journal, and the next mount" in done.stderr
        assert find_mount(mounted.path) is None
        assert mounted.wait() == 3
        proxy.down = False
        again = mounts.start(moto_bucket, url=proxy.url, path=mounted.path)
        again.flush()
        assert moto_bucket.keys() == ["waits/"]
        again.unmount()


def test_force_says_what_the_process_still_sends(moto_bucket: Bucket, mounts: Mounts) -> None:
    with CountingProxy(moto_bucket.server.url) as proxy:
        mounted = mounts.start(moto_bucket, url=proxy.url)
        held(mounted, proxy)
        done = mounted.run("umount", mounted.path, "--force")
        assert done.returncode == 0
        assert "unmounted; its process still sends 1 change." in done.stderr
        proxy.down = False
        assert mounted.wait() == 0, mounted.text()
    assert moto_bucket.keys() == ["waits/"]


def test_ways_of_leaving_exclude_each_other(moto_bucket: Bucket, mounts: Mounts) -> None:
    mounted = mounts.start(moto_bucket)
    done = mounted.run("umount", mounted.path, "--detach", "--timeout", "3s")
    assert done.returncode == 2
    assert "exclude each other" in done.stderr
    assert names(mounted.path) == []
    mounted.unmount()


@pytest.mark.parametrize("command", ["umount", "flush"])
def test_ctrl_c_ends_the_waiting_and_the_mount_goes_on(
    command: str, moto_bucket: Bucket, mounts: Mounts
) -> None:
    with CountingProxy(moto_bucket.server.url) as proxy:
        mounted = mounts.start(moto_bucket, url=proxy.url)
        held(mounted, proxy)
        waiting = subprocess.Popen(
            [sys.executable, "-m", "s3mount", command, str(mounted.path)],
            env=mounted.environment,
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        wait_until(lambda: _has_connected(waiting.pid))
        waiting.send_signal(signal.SIGINT)
        _, told = waiting.communicate(timeout=END_SECONDS)
        assert waiting.returncode == 130
        assert re.fullmatch(r"s3mount: interrupted; .*goes on sending.*\n", told), told
        assert names(mounted.path) == ["waits"]
        proxy.down = False
        mounted.unmount()
    assert moto_bucket.keys() == ["waits/"]


def _has_connected(pid: int) -> bool:
    """A Unix socket of the process. The mount's own side would tell of any client, and other tests
    have one that asks all mounts."""
    lines = Path("/proc/net/unix").read_text().splitlines()
    # State 03 is connected.
    connected = {f"socket:[{line.split()[6]}]" for line in lines if line.split()[5] == "03"}
    opened = set()
    for one in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # closed meanwhile
            opened.add(os.readlink(one))
    return bool(opened & connected)
