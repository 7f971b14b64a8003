"""How fast something goes at present, and how long the rest will take."""

import math

# Seconds of the past that count. Parts of 8 MiB come in bursts; a user wants to see within a few
# seconds that it has stopped.
MEMORY = 10.0
# A rate over less time than this says nothing.
SHORTEST = 0.5


class Rate:
    """Amounts per second, the last ten seconds or so counting most; true from the start.

    It is told now and then how much there is by then, at any moments. What came in between is
    taken to have come evenly, each bit of it weighs exp(-age / memory), and the sum is divided by
    the weight of all the time since the start: so a steady flow shows as what it is after the
    first half second as well. Times are seconds of any clock that does not go backwards.
    """

    __slots__ = ("_at", "_memory", "_started", "_sum", "total")

    def __init__(self, now: float, total: float = 0.0, *, memory: float = MEMORY) -> None:
        self.total = total  # as told last
        self._memory = memory
        self._started = self._at = now
        self._sum = 0.0

    def reached(self, total: float, now: float) -> None:
        """There is so much in all. Less than before: it begins anew from there."""
        interval = now - self._at
        if interval <= 0.0:
            # The next telling spreads it over the time since the last one.
            self.total = min(self.total, total)
            return
        fades = interval / self._memory
        amount = max(0.0, total - self.total)
        self._sum *= math.exp(-fades)
        self._sum += amount / interval * self._memory * -math.expm1(-fades)
        self.total, self._at = total, now

    def per_second(self, now: float) -> float | None:
        """None while it is too early to say. Nothing is taken to have come since the last
        telling: tell first."""
        age = now - self._started
        if age < SHORTEST:
            return None
        faded = self._sum * math.exp(min(0.0, self._at - now) / self._memory)
        return faded / (self._memory * -math.expm1(-age / self._memory))


def seconds_left(amount: float, per_second: float | None) -> float | None:
    """None: it does not move, or nobody can say."""
    if amount <= 0:
        return 0.0
    # Below one unit a second nothing moves; what has faded for minutes is never quite zero.
    if per_second is None or per_second < 1.0:
        return None
    return amount / per_second
