"""A mount that kills itself at a named point: `prepare` runs before s3mount does.

S3MOUNT_ARM names a file. While it holds 'POINT N' the process dies by SIGKILL when it comes to
POINT for the N-th time since the file said so; 'POINT 0' or no file: never. S3MOUNT_HITS names a
file to which each point reached is appended, a line each, and 'died at POINT'. With
S3MOUNT_AN_HOUR_LATER uploads whose id was never learnt are old enough to be aborted.
"""

import os
import signal
import threading
from pathlib import Path

from tests.campaign.points import wrap_all


class Executioner:
    def __init__(self, arm: Path, hits: Path) -> None:
        self._arm = arm
        self._hits = os.open(hits, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._lock = threading.Lock()  # points are reached in worker threads as well
        self._order = ""
        self._count = 0

    def reached(self, point: str) -> None:
        with self._lock:
            os.write(self._hits, f"{point}\n".encode())
            try:
                order = self._arm.read_text()
            except FileNotFoundError:
                return
            if order != self._order:
                self._order, self._count = order, 0
            wanted, _, number = order.rpartition(" ")
            if wanted != point:
                return
            self._count += 1
            if self._count == int(number):
                os.write(self._hits, f"died at {point}\n".encode())
                os.kill(os.getpid(), signal.SIGKILL)
                signal.pause()


def prepare() -> None:
    executioner = Executioner(Path(os.environ["S3MOUNT_ARM"]), Path(os.environ["S3MOUNT_HITS"]))
    wrap_all(executioner.reached)
    if os.environ.get("S3MOUNT_AN_HOUR_LATER"):
        from s3mount.writeback import recovery

        recovery.ABORT_AFTER = 0.0
