"""A mount that kills itself at a named point.

`python -m tests.campaign.mount_and_die ARGUMENTS` does all that takes long and needs no orders,
waits for a line on standard input, and goes on as `s3mount ARGUMENTS`.

The file beside S3MOUNT_HITS with the suffix .beats gets the time.monotonic() of each BEAT in which
the process ran.

S3MOUNT_ARM names a file. While it holds 'POINT N' the process dies by SIGKILL when it comes to
POINT for the N-th time since the file said so; 'POINT 0' or no file: never. S3MOUNT_HITS names a
file to which each point reached is appended, a line each, and 'died at POINT'. With the line
AN_HOUR_LATER uploads whose id was never learnt are old enough to be aborted.
"""

import importlib
import os
import signal
import sys
import threading
import time
from pathlib import Path

from tests.campaign.points import wrap_all

GO, AN_HOUR_LATER = "go", "an hour later"
BEAT = 0.05  # seconds


class Executioner:
    def __init__(self, arm: Path, hits: Path) -> None:
        self._arm = arm
        self._path = hits
        self._hits = -1
        self._lock = threading.Lock()  # points are reached in worker threads as well
        self._order = ""
        self._count = 0

    def open(self) -> None:
        """Now, for the campaign takes the file of an earlier life away."""
        self._hits = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        threading.Thread(target=self._beat, daemon=True).start()

    def _beat(self) -> None:
        """How much of the time was this process's: a busy machine may leave it none."""
        with self._path.with_suffix(".beats").open("a", buffering=1) as out:
            while True:
                print(time.monotonic(), file=out)
                time.sleep(BEAT)

    def reached(self, point: str) -> None:
        with self._lock:
            if self._hits < 0:
                return
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


def main() -> None:
    executioner = Executioner(Path(os.environ["S3MOUNT_ARM"]), Path(os.environ["S3MOUNT_HITS"]))
    wrap_all(executioner.reached)
    importlib.import_module("s3mount.mount")  # the command does once it knows that it mounts
    from s3mount.cli.main import main as command
    from s3mount.writeback import recovery

    order = sys.stdin.readline().strip()
    if not order:
        return
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    if order == AN_HOUR_LATER:
        recovery.ABORT_AFTER = 0.0
    executioner.open()
    command()


if __name__ == "__main__":
    main()
