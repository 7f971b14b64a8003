"""The mount that is killed: the next process is ready while the last one works."""

import signal
import subprocess
import sys
import time
from contextlib import suppress

from tests.mounting import MOUNTED, Mount

START_SECONDS = 180.0  # a start waits up to 30 s for what the last one left


class Dead(Exception):
    """The mount's process was killed, as it should be."""


class Failed(Exception):
    """The campaign cannot go on; the text says why."""


class Victim(Mount):
    _next: "subprocess.Popen[bytes] | None" = None  # waits for the word

    def _spawn(self) -> "subprocess.Popen[bytes]":
        with self.log.open("ab") as log:
            return subprocess.Popen(
                [
                    *(sys.executable, "-m", "tests.campaign.mount_and_die", "mount", "-f"),
                    *(self.bucket.name, str(self.path), "--endpoint-url", self.url),
                    *self.options,
                ],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                env=self.environment,
                cwd="/",
            )

    def start_again(self, order: str) -> None:
        """`order`: a line for mount_and_die. Raises Dead if it was killed before it served."""
        self.destroy()
        begin = self.log.stat().st_size
        self._process, self._next = self._next or self._spawn(), None
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):
            self._process.stdin.write(f"{order}\n".encode())
            self._process.stdin.close()
        self._next = self._spawn()  # imports what it needs while this one works
        deadline = time.monotonic() + START_SECONDS
        while MOUNTED not in self.text(begin):
            if self.process.poll() == -signal.SIGKILL:
                raise Dead
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise Failed(f"not mounted:\n{self.text(begin)[-3000:]}")
            time.sleep(0.01)

    def dismiss(self) -> None:
        """The process that waits is not needed."""
        if self._next is not None:
            self._next.communicate()
            self._next = None
