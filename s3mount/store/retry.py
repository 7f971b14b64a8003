"""Attempts until one succeeds, fails for good, or the time is up (rulings 6 and 19)."""

import itertools
import logging
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TypeVar

import trio

from s3mount.core.config import StoreConfig
from s3mount.store import errors
from s3mount.store.call import SLOWEST_RATE, Attempts, Budget, Call
from s3mount.store.counts import Counts
from s3mount.store.errors import StoreError

log = logging.getLogger(__name__)

T = TypeVar("T")

FIRST_DELAY = 0.1  # seconds; doubles with each attempt
FIRST_DELAY_SLOWED = 0.4  # after SlowDown
LONGEST_DELAY = 10.0
# Answers that are no failures: the caller asked whether it is so.
_EXPECTED = (
    errors.NotFound,
    errors.NotModified,
    errors.PreconditionFailed,
    errors.NoSuchUpload,
    errors.InvalidRange,
)


_lost: ContextVar[list[StoreError] | None] = ContextVar("_lost", default=None)
_unclear: ContextVar[list[StoreError] | None] = ContextVar("_unclear", default=None)


@contextmanager
def lost_attempts() -> Iterator[list[StoreError]]:
    """Attempts without an answer of the mutating requests made inside. Even if a later attempt
    succeeds, the service may come to carry these out, after whatever is done next."""
    with _collecting(_lost) as found:
        yield found


@contextmanager
def unclear_attempts() -> Iterator[list[StoreError]]:
    """Attempts of the mutating requests made inside that the service may have carried out, or may
    yet, whatever became of the attempts after them; answered with an error or not at all."""
    with _collecting(_unclear) as found:
        yield found


@contextmanager
def _collecting(attempts: ContextVar[list[StoreError] | None]) -> Iterator[list[StoreError]]:
    found: list[StoreError] = []
    token = attempts.set(found)
    try:
        yield found
    finally:
        attempts.reset(token)


def _may_still_come(error: StoreError) -> bool:
    """Not if it was answered, in whatever way: then it has come."""
    silent = isinstance(error, errors.ConnectionLost | errors.DeadlineExceeded)
    return silent and error.ambiguous and error.status is None


def backoff(attempt: int, error: StoreError, chance: float) -> float:
    """Seconds to wait after `attempt` (from 0) failed; `chance` in [0, 1) spreads the crowd."""
    first = FIRST_DELAY_SLOWED if isinstance(error, errors.SlowDown) else FIRST_DELAY
    longest = min(LONGEST_DELAY, first * 2.0**attempt)
    return longest * (0.5 + chance / 2)


class Retrier:
    """Performs calls. An error that follows an ambiguous attempt is ambiguous itself, so that
    its caller looks what has become of the request (a 412 may be our own success)."""

    def __init__(
        self,
        config: StoreConfig,
        attempts: Attempts,
        counts: Counts,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._retries = config.retries
        self._deadline = config.request_deadline
        self._attempts = attempts
        self._counts = counts
        self._chance = chance

    async def perform(self, call: Call[T]) -> T:
        budget = Budget(self._deadline + call.patience + call.size / SLOWEST_RATE)
        ambiguous = False
        for attempt in itertools.count():
            try:
                return await self._attempts.attempt(call, budget)
            except StoreError as error:
                _collect(call, error)
                ambiguous = ambiguous or error.ambiguous
                error.ambiguous = ambiguous
                if not error.transient or attempt >= self._retries:
                    _log_failure(error, attempt + 1)
                    raise
                delay = backoff(attempt, error, self._chance())
                if budget.left <= delay:
                    _log_failure(error, attempt + 1)
                    raise _too_late(call, error, ambiguous) from error
                log.info("%s; again in %.1f s", error, delay)
            self._counts.add("Retries")
            await trio.sleep(delay)
            budget.spend(delay)
        raise AssertionError  # unreachable: count() never ends


def _collect(call: Call[T], error: StoreError) -> None:
    lost, unclear = _lost.get(), _unclear.get()
    if not call.mutates:
        return
    if lost is not None and _may_still_come(error):
        lost.append(error)
    if unclear is not None and error.ambiguous:
        unclear.append(error)


def _too_late(call: Call[T], error: StoreError, ambiguous: bool) -> StoreError:
    if isinstance(error, errors.DeadlineExceeded):
        return error
    return errors.DeadlineExceeded(
        f"given up, the last failure: {error}",
        operation=call.operation,
        key=call.key,
        status=error.status,
        code=error.code,
        request_id=error.request_id,
        ambiguous=ambiguous,
    )


def _log_failure(error: StoreError, attempts: int) -> None:
    """One line a request that failed for good."""
    level = logging.DEBUG if isinstance(error, _EXPECTED) else logging.WARNING
    log.log(level, "%s (attempts: %d)", error, attempts)
