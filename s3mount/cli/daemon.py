"""Going into the background without leaving the caller in the dark."""

import os
import sys
from dataclasses import dataclass

STARTED = b"started"


@dataclass(slots=True)
class Launch:
    """The daemon's end of the pipe to the process that was called."""

    pipe: int

    def started(self) -> None:
        """The caller returns 0; from here on standard input, output and error are /dev/null."""
        sys.stdout.flush()
        sys.stderr.flush()
        null = os.open(os.devnull, os.O_RDWR)
        for descriptor in (0, 1, 2):
            os.dup2(null, descriptor)
        os.close(null)
        os.write(self.pipe, STARTED)
        os.close(self.pipe)


def daemonize() -> Launch:
    """Returns in the daemon; the calling process waits until it has started, or has failed.

    Until then the daemon has the caller's standard error, so that its reasons are read. The
    caller's exit status is 0, or the daemon's own. Must be called before any thread starts.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    reading, writing = os.pipe()
    child = os.fork()
    if child:
        os.close(writing)
        os._exit(_wait(reading, child))
    os.close(reading)
    os.setsid()
    os.chdir("/")
    return Launch(writing)


def _wait(reading: int, child: int) -> int:
    try:
        with os.fdopen(reading, "rb") as pipe:
            if pipe.read() == STARTED:
                return 0
        _, status = os.waitpid(child, 0)
    except KeyboardInterrupt:
        os.kill(child, 15)
        print("s3mount: interrupted; the mount is not started", file=sys.stderr)
        return 130
    code = os.waitstatus_to_exitcode(status)
    if code < 0:
        print(f"s3mount: the mount's process was ended by signal {-code}", file=sys.stderr)
    return code if code > 0 else 1
