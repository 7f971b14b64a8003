"""The service hangs: connections are taken and nothing is answered (Ceph's `osd set pause`)."""

import errno
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.mounting import Mount, Mounts, names, wait_until
from tests.servers import Bucket, CephServer

DEADLINE = 8.0  # of a request and of a wait without progress, by option
SILENCE = 4  # seconds that end a request
# An operation may be several requests one after the other.
MOST = 60.0


@dataclass
class Attempt:
    """One operation in a thread of its own: how it ended, and when."""

    work: Callable[[], object]
    error: int | None = None
    seconds: float | None = None
    thread: threading.Thread = field(init=False)

    def __post_init__(self) -> None:
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self) -> None:
        begin = time.monotonic()
        try:
            self.work()
        except OSError as error:
            self.error = error.errno
        self.seconds = time.monotonic() - begin


def attempts(works: dict[str, Callable[[], object]]) -> dict[str, Attempt]:
    """All at the same time."""
    return {what: Attempt(work) for what, work in works.items()}


def unfinished(attempts: dict[str, Attempt]) -> list[str]:
    """Which of them did not end in time."""
    for attempt in attempts.values():
        attempt.thread.join(MOST)
    return [what for what, attempt in attempts.items() if attempt.seconds is None]


def fsync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def wait_for_network(path: Path) -> dict[str, Callable[[], object]]:
    return {
        "stat of a name in a directory never listed": (path / "other" / "name").stat,
        "ls of a directory never listed": lambda: os.listdir(path / "other"),
        "read of what was never read": (path / "unread").read_bytes,
        "close": lambda: (path / "new").write_bytes(b"new"),
        "fsyncdir": lambda: fsync_directory(path),
    }


def need_no_network(path: Path, known: int) -> dict[str, Callable[[], object]]:
    return {
        "df": lambda: os.statvfs(path),
        "ls of a cached directory": lambda: os.listdir(path),
        "stat": (path / "known").stat,
        "read of what was read": lambda: os.pread(known, 5000, 0),
        "mkdir": (path / "made").mkdir,
        "chmod": lambda: (path / "known").chmod(0o600),
        "rename": lambda: (path / "moved").rename(path / "renamed"),
        "unlink": (path / "removed").unlink,
    }


@pytest.mark.long
def test_no_operation_outlives_its_deadline_and_the_mount_recovers_by_itself(
    ceph: CephServer, ceph_bucket: Bucket, mounts: Mounts
) -> None:
    for name in ("known", "moved", "removed", "seen", "unread", "other/name"):
        ceph_bucket.put(name, name.encode() * 1000)
    mount = mounts.start(
        ceph_bucket,
        *("--request-deadline", str(DEADLINE), "--progress-timeout", str(DEADLINE)),
        *("--metadata-ttl", "300", "-o", f"readwrite_timeout={SILENCE}"),
    )
    known = (mount.path / "known").open("rb")
    assert known.read() == b"known" * 1000
    assert (mount.path / "seen").read_bytes() == b"seen" * 1000
    for name in names(mount.path):
        (mount.path / name).stat()
    time.sleep(1.5)  # for an open within a second of the last look needs none
    with known, ceph.paused():
        at_once = attempts(need_no_network(mount.path, known.fileno()))
        slow = unfinished(at_once)
        waiting = attempts(wait_for_network(mount.path))
        endless = unfinished(waiting)
        assert os.statvfs(mount.path).f_blocks > 0
        wait_until(lambda: any(intent["error"] for intent in mount.status()["intents"]))
    assert slow == []
    assert endless == []
    assert {what: attempt.error for what, attempt in at_once.items() if attempt.error} == {}
    ended = {what: attempt.error for what, attempt in waiting.items()}
    assert all(error in {errno.ETIMEDOUT, errno.EIO} for error in ended.values()), f"{ended!r}"
    recovers(mount, ceph_bucket)


def recovers(mount: Mount, bucket: Bucket) -> None:
    """Without anybody's help: what was acknowledged, or only kept, gets there."""
    wanted = ["known", "made/", "new", "other/name", "renamed", "seen", "unread"]
    wait_until(lambda: sorted(bucket.keys()) == wanted, message=str(sorted(bucket.keys())))
    assert bucket.get("new") == b"new"
    assert bucket.get("renamed") == b"moved" * 1000
    assert (mount.path / "unread").read_bytes() == b"unread" * 1000
    assert (mount.path / "other" / "name").read_bytes() == b"other/name" * 1000
    (mount.path / "after").write_bytes(b"after")
    assert bucket.get("after") == b"after"
    mount.flush()
    assert mount.status()["pending"]["intents"] == 0
    mount.unmount()
