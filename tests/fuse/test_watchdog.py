"""The watchdog process on its own; with a frozen mount it is tested in tests/mount."""

import contextlib
import os
import socket
from pathlib import Path

from s3mount.fuse.watchdog import start_watchdog


def test_it_ends_with_the_process_that_started_it(tmp_path: Path) -> None:
    child = start_watchdog(tmp_path, to_syslog=False, interval=60)
    assert child.stdin is not None
    assert child.poll() is None
    child.stdin.close()
    assert child.wait(timeout=100) == 0


def test_it_has_no_descriptor_but_the_standard_ones(tmp_path: Path) -> None:
    """With /dev/fuse open in it the mount would outlive its process, and hang."""
    inherited = os.open("/dev/null", os.O_RDONLY)
    os.set_inheritable(inherited, True)
    child = start_watchdog(tmp_path, to_syslog=False, interval=60)
    try:
        descriptors = []
        for number in os.listdir(f"/proc/{child.pid}/fd"):
            with contextlib.suppress(FileNotFoundError):  # it starts: files come and go
                descriptors.append(os.readlink(f"/proc/{child.pid}/fd/{number}"))
        assert "/dev/fuse" not in descriptors
        assert not os.path.lexists(f"/proc/{child.pid}/fd/{inherited}")
    finally:
        os.close(inherited)
        child.kill()
        child.communicate()


def test_it_feeds_systemd_as_long_as_answers_come(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(100)
        child = start_watchdog(
            tmp_path,
            to_syslog=False,
            interval=0.05,
            environment={"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "1000000"},
        )
        try:
            assert [manager.recv(100) for _ in range(3)] == [b"WATCHDOG=1"] * 3
        finally:
            child.kill()
            child.communicate()
