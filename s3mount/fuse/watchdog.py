"""A tiny process that asks the mount something every second (ruling 5).

The request wakes a loop that blocks, holding the GIL, in the read of a request that vanished; an
answer that stays away is reported; as long as answers come systemd's watchdog is fed. It is a
process of its own, without the /dev/fuse descriptor, because a thread would be stopped with the
rest, and a descriptor would keep the mount alive after the mount's process is gone.
"""

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import IO

INTERVAL = 1.0
HANG_AFTER = 10.0

PROGRAM = Path(__file__).with_name("watchdog_child.py")


def start_watchdog(
    mountpoint: Path,
    *,
    to_syslog: bool,
    log_file: IO[str] | None = None,
    hang_after: float = HANG_AFTER,
    interval: float = INTERVAL,
    environment: Mapping[str, str] = os.environ,
) -> subprocess.Popen[bytes]:
    """The child ends when its standard input, the returned process's `stdin`, is closed.

    Reports go to syslog, to `log_file`, or to this process's standard error.
    """
    passed = {
        name: environment[name]
        for name in ("NOTIFY_SOCKET", "WATCHDOG_USEC", "LANG")
        if name in environment
    }
    return subprocess.Popen(
        [
            sys.executable,
            *("-I", "-S", str(PROGRAM)),  # without site-packages it starts at once and stays small
            str(mountpoint),
            str(interval),
            str(hang_after),
            "1" if to_syslog else "0",
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=log_file,
        cwd="/",
        env=passed,
        close_fds=True,
        # Ctrl-C in the terminal is for the mount, which ends the watchdog when it is done.
        start_new_session=True,
    )
