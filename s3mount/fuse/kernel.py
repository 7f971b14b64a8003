"""Settings of the kernel and of this process that the mount wants; all are best effort."""

import contextlib
import ctypes
import errno
import gc
import logging
import os
import resource
import subprocess
import sys
from pathlib import Path

from s3mount.fuse.mountpoint import MountEntry

log = logging.getLogger(__name__)

READ_AHEAD_KIB = 1024  # the default of 128 KiB costs eight requests where one would do
MAX_BACKGROUND = 256  # default 12: direct reads, read-ahead and RELEASEs beyond it wait
CONGESTION_THRESHOLD = 192
BDI = Path("/sys/class/bdi")
CONNECTIONS = Path("/sys/fs/fuse/connections")
OPEN_FILES = 1 << 18
PR_SET_DUMPABLE = 4
# glibc gives threads heaps of their own, and each keeps what large answers once needed there:
# reading 2 GiB took 470 MiB. With one heap it takes 220 MiB and a fifth less CPU, for the GIL
# lets hardly two threads allocate at once.
M_ARENA_MAX = -8
# The GIL changes hands this often: with the default of 5 ms a busy helper thread delays every
# request by as much.
SWITCH_INTERVAL = 0.0005
# Objects made, and not yet freed, between two looks for cycles. Python's 700 are seven small
# files' worth: a fifth of the CPU time of creating files went into looking. What is done with
# leaves hardly any cycles behind, and every tenth look is a longer one, as usual.
OBJECTS_BETWEEN_COLLECTIONS = 10_000


def harden_process() -> None:
    """No core file, no debugger and no other process of the user reads the credentials."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)


class VanishedRequests(logging.Filter):
    """Drops pyfuse3's errors about replies that nobody waits for any more.

    The kernel answers ENOENT to a reply whose request it has withdrawn: its caller was killed, or
    the file system was unmounted while a RELEASE was being answered. Nothing is lost by it.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        return not record.getMessage().endswith("failed with " + os.strerror(errno.ENOENT))


def ignore_vanished_requests() -> None:
    logging.getLogger("pyfuse3").addFilter(VanishedRequests())


def tune_process() -> None:
    """Before any thread starts.

    Every open file of the spool and every connection needs a descriptor.
    """
    sys.setswitchinterval(SWITCH_INTERVAL)
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).mallopt(M_ARENA_MAX, 1)
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, OPEN_FILES)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def tune_memory() -> None:
    """Once all is loaded and nothing is served yet: what is there now (50,000 objects, boto3's
    for the most part) stays to the end, and the garbage collector need not look at it again."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(OBJECTS_BETWEEN_COLLECTIONS, 10, 10)


def tune_mount(entry: MountEntry) -> None:
    """Raises read-ahead and the number of background requests; only root may."""
    _raise_number(BDI / entry.device / "read_ahead_kb", READ_AHEAD_KIB)
    connection = CONNECTIONS / entry.device.partition(":")[2]
    if not connection.exists() and os.getuid() == 0:
        # In a container /sys may be read-only, then all stays as it is.
        subprocess.run(
            ["mount", "-t", "fusectl", "fusectl", str(CONNECTIONS)],
            capture_output=True,
            check=False,
        )
    _raise_number(connection / "max_background", MAX_BACKGROUND)
    _raise_number(connection / "congestion_threshold", CONGESTION_THRESHOLD)


def _raise_number(path: Path, least: int) -> None:
    try:
        if int(path.read_text()) < least:
            path.write_text(str(least))
    except (OSError, ValueError) as error:
        log.debug("%s stays as it is: %s", path, error)
