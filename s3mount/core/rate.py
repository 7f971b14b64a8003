"""How fast something goes at present, and how long the rest will take."""

import math

# Seconds of the past that count. Parts of 8 MiB come in bursts; a user wants to see within a few
# seconds that it has stopped.
MEMORY = 10.0
# A rate over less time than this says nothing.
SHORTEST = 0.5


class Rate:
    """Amounts per second, the last ten seconds or so counting most; true from the start.

    Each amount weighs exp(-age / memory), and the sum is divided by the weight of all the time
    since the start, so that a steady flow shows as what it is after the first half second as well.
    Times are seconds of any clock that does not go backwards.
    """

    __slots__ = ("_at", "_memory", "_started", "_sum")

    def __init__(self, now: float, *, memory: float = MEMORY) -> None:
        self._memory = memory
        self._started = self._at = now
        self._sum = 0.0

    def add(self, amount: float, now: float) -> None:
        self._sum = self._faded(now) + amount
        self._at = max(now, self._at)

    def per_second(self, now: float) -> float | None:
        """None while it is too early to say."""
        age = now - self._started
        if age < SHORTEST:
            return None
        return self._faded(now) / (self._memory * -math.expm1(-age / self._memory))

    def _faded(self, now: float) -> float:
        return self._sum * math.exp(min(0.0, self._at - now) / self._memory)


def seconds_left(amount: float, per_second: float | None) -> float | None:
    """None: it does not move, or nobody can say."""
    if amount <= 0:
        return 0.0
    # Below one unit a second nothing moves; what has faded for minutes is never quite zero.
    if per_second is None or per_second < 1.0:
        return None
    return amount / per_second
