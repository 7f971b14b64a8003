"""Retries, deadlines and lanes, on trio's virtual clock and without a network."""

import logging
import random
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from s3mount.core.config import StoreConfig
from s3mount.store import errors, retry
from s3mount.store.call import Budget, Call, Lane
from s3mount.store.counts import Counts
from s3mount.store.limit import RECOVERY_SUCCESSES, AdaptiveLimiter, Lanes
from s3mount.store.retry import Retrier, backoff


def call(run: Callable[[float], Any] = lambda deadline: "done", **fields: Any) -> Call[Any]:
    return Call("GetObject", "k", fields.pop("lane", Lane.READ), run, **fields)


class Script:
    """Attempts that fail as told, one after the other, then succeed."""

    def __init__(self, *failures: errors.StoreError) -> None:
        self.failures = list(failures)
        self.times: list[float] = []

    async def attempt(self, made: Call[Any], budget: Budget) -> Any:
        await trio.lowlevel.checkpoint()
        self.times.append(trio.current_time())
        if self.failures:
            raise self.failures.pop(0)
        return "done"


def retrier(script: Script, counts: Counts | None = None, **fields: Any) -> Retrier:
    config = StoreConfig(bucket="b", **fields)
    return Retrier(config, script, counts or Counts(), chance=lambda: 0.999999)


async def test_waits_grow_from_attempt_to_attempt(autojump_clock: MockClock) -> None:
    script = Script(*[errors.ServerError("") for _ in range(5)])
    counts = Counts()
    assert await retrier(script, counts).perform(call()) == "done"
    waits = [after - before for before, after in zip(script.times, script.times[1:], strict=False)]
    assert waits == pytest.approx([0.1, 0.2, 0.4, 0.8, 1.6], rel=0.01)
    assert counts.snapshot() == {"Retries": 5}


def test_waits_are_spread_bounded_and_longer_after_slow_down() -> None:
    lost, slow = errors.ConnectionLost(""), errors.SlowDown("")
    assert backoff(3, lost, 0.0) == pytest.approx(backoff(3, lost, 1.0) / 2)
    assert backoff(0, slow, 0.5) > 3 * backoff(0, lost, 0.5)
    assert backoff(1000, slow, 1.0) == retry.LONGEST_DELAY


async def test_final_errors_are_raised_at_once(autojump_clock: MockClock) -> None:
    script = Script(errors.AccessDenied("no"))
    with pytest.raises(errors.AccessDenied):
        await retrier(script).perform(call())
    assert len(script.times) == 1


async def test_the_last_error_is_raised_after_all_retries(autojump_clock: MockClock) -> None:
    script = Script(*[errors.ConnectionLost(str(number)) for number in range(9)])
    with pytest.raises(errors.ConnectionLost, match="3"):
        await retrier(script, retries=3).perform(call())
    assert len(script.times) == 4


async def test_the_deadline_covers_the_waits(autojump_clock: MockClock) -> None:
    script = Script(*[errors.SlowDown("", code="SlowDown") for _ in range(1000)])
    with pytest.raises(errors.DeadlineExceeded) as caught:
        await retrier(script, retries=1000, request_deadline=60.0).perform(call())
    assert 40 < trio.current_time() - script.times[0] <= 60
    assert caught.value.code == "SlowDown"


async def test_large_bodies_may_take_longer(autojump_clock: MockClock) -> None:
    started = trio.current_time()
    script = Script(*[errors.ConnectionLost("") for _ in range(1000)])
    with pytest.raises(errors.DeadlineExceeded):
        await retrier(script, retries=1000, request_deadline=10.0).perform(
            call(size=8 * 1024 * 1024)
        )
    assert 200 < trio.current_time() - started <= 10 + 256


async def test_an_error_after_an_ambiguous_attempt_is_ambiguous(autojump_clock: MockClock) -> None:
    lost = errors.ConnectionLost("", ambiguous=True)
    with pytest.raises(errors.PreconditionFailed) as caught:
        await retrier(Script(lost, errors.PreconditionFailed(""))).perform(call())
    assert caught.value.ambiguous
    unsent = errors.ConnectionLost("", ambiguous=False)
    with pytest.raises(errors.PreconditionFailed) as caught:
        await retrier(Script(unsent, errors.PreconditionFailed(""))).perform(call())
    assert not caught.value.ambiguous


async def test_a_failure_is_one_line_and_an_expected_answer_is_none(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    denied = errors.AccessDenied(
        "m", operation="PutObject", key="a\nb", status=403, request_id="R1"
    )
    for error in (denied, errors.NotFound(""), errors.PreconditionFailed("")):
        with pytest.raises(type(error)):
            await retrier(Script(error)).perform(call())
    [record] = caplog.records
    assert record.levelname == "WARNING"
    assert record.getMessage() == (
        "PutObject 'a\\nb': 403 m request R1; check the bucket's policy and what these"
        " credentials may do (attempts: 1)"
    )


def test_slow_down_halves_once_a_second_and_recovers_step_by_step() -> None:
    limiter = AdaptiveLimiter(32)
    steps = ((0.0, 16), (0.1, 16), (0.9, 16), (1.0, 8), (2.5, 4), (4.0, 2), (9.0, 1), (10.0, 1))
    for now, expected in steps:
        limiter.slowed(now)
        assert limiter.total == expected
    for expected in range(2, 33):
        for _ in range(min(expected - 1, RECOVERY_SUCCESSES) - 1):
            limiter.succeeded()
        assert limiter.total == expected - 1
        limiter.succeeded()
        assert limiter.total == expected
    for _ in range(10 * RECOVERY_SUCCESSES):
        limiter.succeeded()
    assert limiter.total == 32


def test_a_service_that_slows_down_now_and_then_is_not_left_to_one_thread() -> None:
    limiter, chance, now = AdaptiveLimiter(64), random.Random(1), 0.0
    totals = []
    for _ in range(20_000):
        now += 0.2 / limiter.total  # each thread has an answer five times a second
        if chance.random() < 0.03:
            limiter.slowed(now)
        else:
            limiter.succeeded()
        totals.append(limiter.total)
    assert sum(totals[1000:]) / len(totals[1000:]) > 7


async def test_a_lane_that_slows_down_leaves_the_others_alone() -> None:
    def slow(deadline: float) -> None:
        raise errors.SlowDown("")

    counts = Counts()
    lanes = Lanes(StoreConfig(bucket="b", transfer_concurrency=8), counts)
    with pytest.raises(errors.SlowDown):
        await lanes.attempt(call(slow, lane=Lane.TRANSFER), Budget(60))
    assert lanes.limiters[Lane.TRANSFER].total == 4
    assert lanes.limiters[Lane.METADATA].total == 64
    assert counts.snapshot() == {"SlowDowns": 1}


async def test_a_full_transfer_lane_does_not_hold_up_metadata() -> None:
    release = threading.Event()
    lanes = Lanes(StoreConfig(bucket="b", transfer_concurrency=2), Counts())
    blocked = call(lambda deadline: release.wait(100), lane=Lane.TRANSFER)
    async with trio.open_nursery() as nursery:
        for _ in range(5):
            nursery.start_soon(lanes.attempt, blocked, Budget(60))
        with trio.fail_after(100):
            done = await lanes.attempt(call(lane=Lane.METADATA), Budget(60))
        assert done == "done"
        assert lanes.limiters[Lane.TRANSFER].capacity.borrowed_tokens == 2
        release.set()


async def test_waiting_for_a_thread_spends_no_budget() -> None:
    release = threading.Event()
    deadlines: list[float] = []
    lanes = Lanes(StoreConfig(bucket="b", read_concurrency=1), Counts())
    budget = Budget(60)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(lanes.attempt, call(lambda deadline: release.wait(100)), Budget(60))
        await trio.testing.wait_all_tasks_blocked(0.01)
        nursery.start_soon(lanes.attempt, call(deadlines.append), budget)
        await trio.sleep(0.1)
        released = time.monotonic()
        release.set()
    assert deadlines[0] >= released + 60
    assert budget.left >= 60 - (time.monotonic() - released)


async def test_a_cancelled_read_returns_at_once_and_a_write_when_its_body_is_free() -> None:
    begun, release, ended = threading.Event(), threading.Event(), threading.Event()

    def work(deadline: float) -> None:
        begun.set()
        release.wait(100)
        ended.set()

    async def cancelled(made: Call[Any]) -> None:
        """Once its thread works."""
        begun.clear()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lanes.attempt, made, Budget(60))
            await trio.to_thread.run_sync(begun.wait, 100)
            nursery.cancel_scope.cancel()

    lanes = Lanes(StoreConfig(bucket="b"), Counts())
    await cancelled(call(work))
    assert not ended.is_set()
    release.set()
    await trio.to_thread.run_sync(ended.wait, 100)
    release.clear()
    ended.clear()
    timer = threading.Timer(0.2, release.set)
    timer.start()
    await cancelled(call(work, lane=Lane.MUTATION, mutates=True))
    assert ended.is_set()
    timer.join()
