"""Warnings that any program may bring about as often as it likes."""

import logging
import time
from collections.abc import Callable

INTERVAL = 60.0  # seconds


class Seldom:
    """The first one, then one an INTERVAL at most, which says how many were left out."""

    def __init__(self, log: logging.Logger, clock: Callable[[], float] = time.monotonic) -> None:
        self._log = log
        self._clock = clock
        self._next = -float("inf")
        self._left_out = 0

    def warning(self, line: str) -> None:
        now = self._clock()
        if now < self._next:
            self._left_out += 1
            return
        more = f" (and {self._left_out} more like it before)" if self._left_out else ""
        self._log.warning("%s%s", line, more)
        self._next, self._left_out = now + INTERVAL, 0
