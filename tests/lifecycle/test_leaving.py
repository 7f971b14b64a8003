"""Leaving a mount, in every way: nothing is lost that was acknowledged."""

import contextlib
import errno
import os
import signal
import threading
from pathlib import Path

import pytest

from s3mount.fuse.mountpoint import find_mount, is_dead
from s3mount.fuse.watchdog import start_watchdog
from tests.counting_proxy import CountingProxy, Fault, Seen
from tests.mounting import END_SECONDS, Mounts, environment, names, s3mount, wait_until
from tests.servers import Bucket


def change(path: Path) -> None:
    """Changes that are acknowledged before they are in the bucket."""
    (path / "file").write_bytes(b"content")
    (path / "file").chmod(0o604)
    (path / "directory").mkdir()
    (path / "file").rename(path / "directory" / "renamed")


def assert_changed(bucket: Bucket, *others: str) -> None:
    assert bucket.keys() == [*others, "directory/", "directory/renamed"]
    head = bucket.client.head_object(Bucket=bucket.name, Key="directory/renamed")
    assert head["Metadata"]["mode"] == str(0o100604)
    assert bucket.get("directory/renamed") == b"content"


def test_umount_returns_when_everything_is_in_the_bucket_and_the_process_gone(
    bucket: Bucket, mounts: Mounts
) -> None:
    mounted = mounts.start(bucket)
    change(mounted.path)
    done = mounted.run("umount", mounted.path)
    assert (done.returncode, done.stderr) == (0, "")
    assert find_mount(mounted.path) is None
    assert mounted.process.poll() == 0
    assert_changed(bucket)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_sends_what_is_pending_then_unmounts(
    number: signal.Signals, moto_bucket: Bucket, mounts: Mounts
) -> None:
    mounted = mounts.start(moto_bucket)
    change(mounted.path)
    mounted.signal(number)
    assert mounted.wait() == 0, mounted.text()
    assert find_mount(mounted.path) is None
    assert_changed(moto_bucket)


def test_the_mount_serves_on_while_it_drains(moto_bucket: Bucket, mounts: Mounts) -> None:
    listed = threading.Event()

    def until_listed(seen: Seen) -> None:
        listed.wait(END_SECONDS)

    with CountingProxy(moto_bucket.server.url) as proxy:
        mounted = mounts.start(moto_bucket, url=proxy.url)
        change(mounted.path)
        proxy.inject("PutObject", Fault(before=until_listed), times=100)
        (mounted.path / "another").mkdir()
        mounted.signal(signal.SIGTERM)
        wait_until(lambda: "leaving: " in mounted.text())
        assert names(mounted.path) == ["another", "directory"]
        listed.set()
        assert mounted.wait() == 0, mounted.text()
    assert_changed(moto_bucket, "another/")


def test_umount_8_from_outside_loses_nothing(moto_bucket: Bucket, mounts: Mounts) -> None:
    mounted = mounts.start(moto_bucket)
    change(mounted.path)
    mounted.unmount_from_outside()
    assert names(mounted.path) == []
    assert mounted.wait() == 0, mounted.text()
    assert_changed(moto_bucket)


def test_a_new_mount_waits_for_the_old_ones_last_changes_and_says_so(
    moto_bucket: Bucket, mounts: Mounts
) -> None:
    with CountingProxy(moto_bucket.server.url) as proxy:
        first = mounts.start(moto_bucket, url=proxy.url)
        told = (
            f"waiting for the previous mount (process {first.process.pid}), which is still leaving"
        )
        log = first.log.with_name("log1")  # of the second

        def until_told(seen: Seen) -> None:
            wait_until(lambda: log.exists() and told in log.read_text())

        proxy.inject("PutObject", Fault(before=until_told), times=2)
        (first.path / "directory").mkdir()
        first.unmount_from_outside()
        second = mounts.start(moto_bucket, url=proxy.url, path=first.path)
        assert first.wait() == 0, first.text()
        assert f"{told}: 1 changes, 0 bytes still to be sent" in second.text()
        assert names(second.path) == ["directory"]
        second.unmount()


def test_a_busy_mount_is_not_unmounted_and_goes_on(moto_bucket: Bucket, mounts: Mounts) -> None:
    mounted = mounts.start(moto_bucket)
    (mounted.path / "file").write_bytes(b"x")
    with (mounted.path / "file").open("rb"):
        done = mounted.run("umount", mounted.path)
        assert done.returncode == 1
        assert "busy" in done.stderr
        assert f"fuser -vm {mounted.path}" in done.stderr
        assert names(mounted.path) == ["file"]
    mounted.unmount()


def test_umount_refuses_what_is_not_ours(tmp_path: Path, mounts: Mounts) -> None:
    env = environment(None, tmp_path)
    done = s3mount("umount", tmp_path, env=env)
    assert (done.returncode, done.stderr) == (1, f"s3mount: {tmp_path} is not mounted\n")
    done = s3mount("umount", "/proc", env=env)
    assert done.returncode == 1
    assert "mounted by something else" in done.stderr


def test_a_killed_mount_stays_dead_until_the_next_start_clears_it(
    moto_bucket: Bucket, mounts: Mounts
) -> None:
    mounted = mounts.start(moto_bucket)
    (mounted.path / "before").write_bytes(b"x")
    mounted.signal(signal.SIGKILL)
    mounted.wait()
    wait_until(lambda: is_dead(mounted.path))
    with pytest.raises(OSError, match="not connected") as raised:
        (mounted.path / "file").write_bytes(b"must not land in the directory below")
    assert raised.value.errno == errno.ENOTCONN
    again = mounts.start(moto_bucket, path=mounted.path)
    assert names(again.path) == ["before"]
    again.unmount()
    assert names(again.path) == []


def test_umount_of_a_dead_mount_clears_it(moto_bucket: Bucket, mounts: Mounts) -> None:
    mounted = mounts.start(moto_bucket)
    mounted.signal(signal.SIGKILL)
    mounted.wait()
    done = mounted.run("umount", mounted.path)
    assert done.returncode == 0, done.stderr
    assert find_mount(mounted.path) is None


def test_the_watchdog_ends_with_a_killed_mount(moto_bucket: Bucket, mounts: Mounts) -> None:
    mounted = mounts.start(moto_bucket)
    children = Path(f"/proc/{mounted.process.pid}/task/{mounted.process.pid}/children")
    wait_until(children.read_text)  # it is started once the mount serves
    (watchdog,) = children.read_text().split()
    command = Path(f"/proc/{watchdog}/cmdline")
    wait_until(lambda: "watchdog_child" in command.read_text())  # it was forked a moment ago
    opened = set()
    for each in Path(f"/proc/{watchdog}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # closed meanwhile: it is still starting
            opened.add(os.readlink(each))
    assert "/dev/fuse" not in opened
    mounted.signal(signal.SIGKILL)
    mounted.wait()
    wait_until(lambda: not Path(f"/proc/{watchdog}/cmdline").exists())


def test_a_frozen_mount_is_reported_and_its_recovery_too(
    moto_bucket: Bucket, mounts: Mounts, tmp_path: Path
) -> None:
    mounted = mounts.start(moto_bucket)
    report = tmp_path / "report"
    with report.open("w") as stream:
        watchdog = start_watchdog(
            mounted.path, to_syslog=False, log_file=stream, interval=0.05, hang_after=0.3
        )
    try:
        mounted.signal(signal.SIGSTOP)
        wait_until(lambda: f"{mounted.path} has not answered for" in report.read_text())
        mounted.signal(signal.SIGCONT)
        wait_until(lambda: f"{mounted.path} answers again" in report.read_text())
    finally:
        mounted.signal(signal.SIGCONT)
        watchdog.kill()
        watchdog.communicate()
    mounted.unmount()
