"""The watchdog's program; run as a script, by watchdog.py, with the standard library alone.

statvfs is not answered by the kernel's caches, as stat would be. It is called in a thread: the
main thread sees that it does not return, and sees the end of standard input, which is the end of
the mount's process.
"""

import contextlib
import os
import select
import socket
import sys
import syslog
import threading
import time


class Question:
    """Asks the mount whenever `wanted` is released; `answered` is when it last did answer."""

    def __init__(self, mountpoint: str) -> None:
        self.mountpoint = mountpoint
        self.wanted = threading.Semaphore(0)
        self.answered = time.monotonic()

    def ask_for_ever(self) -> None:
        while True:
            self.wanted.acquire()
            # An error is an answer, too: the kernel says that the mount is gone.
            with contextlib.suppress(OSError):
                os.statvfs(self.mountpoint)
            self.answered = time.monotonic()


def say(text: str, *, to_syslog: bool) -> None:
    if to_syslog:
        syslog.syslog(syslog.LOG_ERR, text)
    else:
        print(text, file=sys.stderr, flush=True)


def feed_systemd() -> None:
    name = os.environ.get("NOTIFY_SOCKET", "")
    address = "\0" + name[1:] if name.startswith("@") else name
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as out, contextlib.suppress(OSError):
        out.sendto(b"WATCHDOG=1", address)


def watch(mountpoint: str, interval: float, hang_after: float, *, to_syslog: bool) -> None:
    """Returns at the end of standard input."""
    feeding = int(os.environ.get("WATCHDOG_USEC") or 0) > 0 and "NOTIFY_SOCKET" in os.environ
    question = Question(mountpoint)
    threading.Thread(target=question.ask_for_ever, daemon=True).start()
    hanging = False
    asked = 0.0
    while True:
        if asked <= question.answered:
            asked = time.monotonic()
            question.wanted.release()
        if select.select([0], [], [], interval)[0]:
            return
        silent = time.monotonic() - asked if asked > question.answered else 0.0
        if silent >= hang_after and not hanging:
            hanging = True
            say(f"s3mount: {mountpoint} has not answered for {silent:.0f} s", to_syslog=to_syslog)
        elif not silent and hanging:
            hanging = False
            say(f"s3mount: {mountpoint} answers again", to_syslog=to_syslog)
        if feeding and not silent:
            feed_systemd()


if __name__ == "__main__":
    watch(sys.argv[1], float(sys.argv[2]), float(sys.argv[3]), to_syslog=sys.argv[4] == "1")
    os._exit(0)  # the thread may hang in statvfs
