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

# statvfs is not answered by the kernel's caches, as stat would be. It is called in a thread: the
# main thread sees that it does not return, and the end of standard input (the mount's end).
_PROGRAM = r"""
import os, select, socket, sys, syslog, threading, time
mountpoint, interval, hang_after, to_syslog = sys.argv[1:5]
interval, hang_after, to_syslog = float(interval), float(hang_after), to_syslog == "1"
answered = [time.monotonic()]
idle = threading.Semaphore(0)

def say(text):
    line = f"s3mount watchdog: {mountpoint}: {text}"
    if to_syslog:
        syslog.syslog(syslog.LOG_ERR, line)
    else:
        print(line, file=sys.stderr, flush=True)

def ask():
    while True:
        idle.acquire()
        try:
            os.statvfs(mountpoint)
        except OSError:
            pass
        answered[0] = time.monotonic()

def notify(text):
    name = os.environ.get("NOTIFY_SOCKET")
    if name:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as out:
            try:
                out.sendto(text.encode(), "\0" + name[1:] if name[0] == "@" else name)
            except OSError:
                pass

feeding = int(os.environ.get("WATCHDOG_USEC") or 0) > 0
hanging = False
asked = 0.0
threading.Thread(target=ask, daemon=True).start()
while True:
    if asked <= answered[0]:
        asked = time.monotonic()
        idle.release()
    if select.select([0], [], [], interval)[0]:
        os._exit(0)
    silent = time.monotonic() - asked if asked > answered[0] else 0.0
    if silent >= hang_after and not hanging:
        hanging = True
        say(f"no answer for {silent:.0f} s")
    elif not silent and hanging:
        hanging = False
        say("answers again")
    if feeding and not silent:
        notify("WATCHDOG=1")
"""


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
            *("-I", "-S", "-c", _PROGRAM),
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
