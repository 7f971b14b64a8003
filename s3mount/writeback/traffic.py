"""What of the files' bytes has been sent, and how fast: for status and progress bars alone.

A body counts as far as its connection has taken it, and as a whole once the service has
acknowledged it; what fails is taken back. Nothing is done for it while a program writes.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import trio

from s3mount.core.rate import Rate
from s3mount.store.handed import reporting

# Seconds without a body after which the rate begins anew: what was fast before says nothing of what
# comes now, and the pause less.
PAUSE = 2.0


@dataclass(slots=True, eq=False)
class Sending:
    """The body with [start, end) of a file, on its way."""

    start: int
    end: int
    handed: int = 0  # bytes that the connection has taken; set by the thread that sends

    def hand(self, count: int) -> None:
        self.handed = count


class Traffic:
    """Of one file, or of all (`parent` None), which its files' bodies count for as well."""

    def __init__(self, parent: "Traffic | None" = None) -> None:
        self.acknowledged = 0  # bytes of bodies that the service has, since the start
        self.bodies: set[Sending] = set()
        self._parent = parent
        self._rate: Rate | None = None  # since the first body after a pause
        self._ended_at = 0.0

    @property
    def sent(self) -> int:
        return self.acknowledged + sum(body.handed for body in self.bodies)

    def per_second(self) -> float | None:
        """Bytes, at present; None before the first body and in its first moment."""
        if self._rate is None:
            return None
        now = trio.current_time()
        self._rate.reached(self.sent, now)
        return self._rate.per_second(now)

    @contextmanager
    def sending(self, start: int, end: int) -> Iterator[None]:
        """A request with these bytes of a file is made inside; no error: they are acknowledged."""
        body = Sending(start, end)
        self._begin(body)
        acknowledged = 0
        try:
            with reporting(body.hand):
                yield
            acknowledged = end - start
        finally:
            self._end(body, acknowledged)

    def _begin(self, body: Sending) -> None:
        now = trio.current_time()
        if self._rate is None or (not self.bodies and now - self._ended_at > PAUSE):
            self._rate = Rate(now, self.sent)
        else:
            self._rate.reached(self.sent, now)
        self.bodies.add(body)
        if self._parent is not None:
            self._parent._begin(body)

    def _end(self, body: Sending, acknowledged: int) -> None:
        self.bodies.discard(body)
        self.acknowledged += acknowledged
        self._ended_at = trio.current_time()
        assert self._rate is not None
        self._rate.reached(self.sent, self._ended_at)
        if self._parent is not None:
            self._parent._end(body, acknowledged)
