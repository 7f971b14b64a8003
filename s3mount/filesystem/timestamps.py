"""The clock of files' times."""

import time

REALTIME_COARSE = 5  # CLOCK_REALTIME_COARSE of linux/time.h, a name that Python lacks


def now_ns() -> int:
    """Nanoseconds since 1970, as of the last tick (some ms ago), like the kernel's own.

    For utimens with UTIME_NOW the kernel sends its tick: with a finer clock here a file that was
    written and then touched would become older by it.
    """
    return time.clock_gettime_ns(REALTIME_COARSE)
