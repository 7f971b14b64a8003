"""The stream that `s3mount feed -` reads: standard input, or the output of a command."""

import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

PRODUCER_END = 3.0  # seconds that it has after SIGTERM
# Ctrl-C ends all of a pipeline at once: the end of what came may be seen here a moment before the
# signal is, and what is not complete would be taken for complete.
SIGNAL_TIME = 0.1


class NotWanted(OSError):
    """A stream that came to its end is not to be stored."""


@dataclass(slots=True)
class Stream:
    fd: int
    process: "subprocess.Popen[bytes] | None"
    exact: int | None
    least: int | None

    async def check(self, size: int) -> None:
        """Raises NotWanted where what came is not what was wanted: nothing is stored."""
        import trio

        if self.process is not None:
            status = await trio.to_thread.run_sync(self.process.wait)
            if status:
                raise NotWanted(f"nothing was stored: the producer failed with status {status}")
        else:
            await trio.sleep(SIGNAL_TIME)
        if self.exact is not None and size != self.exact:
            raise NotWanted(f"nothing was stored: {size} bytes came, not {self.exact}")
        if self.least is not None and size < self.least:
            raise NotWanted(f"nothing was stored: {size} bytes came, fewer than {self.least}")


@contextmanager
def open_stream(producer: str | None, exact: int | None, least: int | None) -> Iterator[Stream]:
    """`producer`: a command line for the shell. It is ended when the stream is not wanted."""
    if producer is None:
        yield Stream(sys.stdin.fileno(), None, exact, least)
        return
    shell = shutil.which("bash")
    # In a pipeline, too, any command that fails counts: sh cannot tell.
    words = [shell, "-o", "pipefail", "-c"] if shell else ["/bin/sh", "-c"]
    process = subprocess.Popen([*words, producer], stdout=subprocess.PIPE)
    assert process.stdout is not None
    try:
        yield Stream(process.stdout.fileno(), process, exact, least)
    finally:
        process.stdout.close()  # it ends, if it has not, at its next write
        if process.poll() is None:
            process.terminate()
        try:
            process.wait(PRODUCER_END)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
