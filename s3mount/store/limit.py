"""Threads by lane, fewer at once while the service says SlowDown."""

import time
from collections.abc import Mapping
from typing import TypeVar

import trio

from s3mount.core.config import StoreConfig
from s3mount.store.base import LaneUse
from s3mount.store.call import Budget, Call, Lane
from s3mount.store.counts import Counts
from s3mount.store.errors import SlowDown

T = TypeVar("T")

HALVING_INTERVAL = 1.0  # seconds: one burst of SlowDowns, all sent before the first came back
# At the lowered limit as many successes in a row as there are threads, a round trip's, earn one
# more, as TCP has it; but no more than so many. (With twenty always, a service that slows down
# three requests of 0.2 s in a hundred was left to three threads: a fifth of what it carries now.)
RECOVERY_SUCCESSES = 20


class AdaptiveLimiter:
    """At most `most` threads; halves on SlowDown, at least one; wins them back one by one."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.capacity = trio.CapacityLimiter(most)
        self._halved_at = -HALVING_INTERVAL
        self._successes = 0

    @property
    def total(self) -> int:
        return int(self.capacity.total_tokens)

    def use(self) -> LaneUse:
        now = self.capacity.statistics()
        return LaneUse(now.borrowed_tokens, now.tasks_waiting, self.total, self.most)

    def slowed(self, now: float) -> None:
        self._successes = 0
        if now - self._halved_at >= HALVING_INTERVAL:
            self._halved_at = now
            self.capacity.total_tokens = max(1, self.total // 2)

    def succeeded(self) -> None:
        if self.total >= self.most:
            return
        self._successes += 1
        if self._successes >= min(self.total, RECOVERY_SUCCESSES):
            self._successes = 0
            self.capacity.total_tokens = self.total + 1


class Lanes:
    """Runs each call in a thread of its lane: one hop a request."""

    def __init__(self, config: StoreConfig, counts: Counts) -> None:
        self._counts = counts
        self.limiters: Mapping[Lane, AdaptiveLimiter] = {
            Lane.METADATA: AdaptiveLimiter(config.metadata_concurrency),
            Lane.READ: AdaptiveLimiter(config.read_concurrency),
            Lane.MUTATION: AdaptiveLimiter(config.mutation_concurrency),
            Lane.TRANSFER: AdaptiveLimiter(config.transfer_concurrency),
        }

    def use(self) -> dict[str, LaneUse]:
        return {str(lane): limiter.use() for lane, limiter in self.limiters.items()}

    async def attempt(self, call: Call[T], budget: Budget) -> T:
        """Waits for a thread without spending the budget."""
        limiter = self.limiters[call.lane]

        def work() -> T:
            started = time.monotonic()
            try:
                return call.run(started + budget.left)
            finally:
                budget.spend(time.monotonic() - started)

        try:
            result = await trio.to_thread.run_sync(
                work, abandon_on_cancel=not call.mutates, limiter=limiter.capacity
            )
        except SlowDown:
            self._counts.add("SlowDowns")
            limiter.slowed(time.monotonic())
            raise
        limiter.succeeded()
        return result


def threads(config: StoreConfig) -> int:
    """All lanes together: as many connections are kept."""
    return (
        config.metadata_concurrency
        + config.read_concurrency
        + config.mutation_concurrency
        + config.transfer_concurrency
    )
