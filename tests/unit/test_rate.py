"""The smoothed rate, and what is left."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s3mount.core.rate import MEMORY, SHORTEST, Rate, seconds_left


@given(st.floats(1.0, 1e9), st.lists(st.floats(0.001, 20.0), min_size=1, max_size=100))
def test_a_steady_flow_shows_as_what_it_is_from_the_start_whenever_it_is_looked_at(
    per_second: float, intervals: list[float]
) -> None:
    rate = Rate(100.0)
    now = 100.0
    for interval in intervals:
        now += interval
        rate.reached(per_second * (now - 100.0), now)
    shown = rate.per_second(now)
    if now - 100.0 < SHORTEST:
        assert shown is None
    else:
        assert shown == pytest.approx(per_second, rel=1e-6)


def fed(rate: Rate, seconds: range, per_second: float) -> None:
    for second in seconds:
        rate.reached(rate.total + per_second, second + 1.0)


def test_what_has_stopped_fades_away() -> None:
    rate = Rate(0.0)
    fed(rate, range(60), 1000.0)
    running = rate.per_second(60.0)
    assert running == pytest.approx(1000.0)
    later = 60.0 + 3 * MEMORY
    rate.reached(rate.total, later)
    stopped = rate.per_second(later)
    assert stopped == pytest.approx(1000.0 / 20, rel=0.02)  # e^-3


def test_a_change_of_pace_is_seen_within_twenty_seconds() -> None:
    rate = Rate(0.0)
    fed(rate, range(60), 1000.0)
    fed(rate, range(60, 80), 100.0)
    shown = rate.per_second(80.0)
    assert shown is not None
    assert 100.0 < shown < 250.0


def test_a_clock_that_stands_still_loses_nothing() -> None:
    rate = Rate(5.0)
    rate.reached(10.0, 5.0)
    rate.reached(20.0, 5.0)
    assert rate.per_second(5.0) is None
    rate.reached(20.0, 6.0)
    assert rate.per_second(6.0) == pytest.approx(20.0)


def test_a_total_that_shrinks_is_a_new_beginning_not_a_negative_rate() -> None:
    rate = Rate(0.0, 500.0)
    rate.reached(100.0, 1.0)
    assert rate.per_second(1.0) == 0.0
    rate.reached(110.0, 2.0)
    shown = rate.per_second(2.0)
    assert shown is not None
    assert 0.0 < shown < 10.0


def test_the_time_left_is_unknown_while_nothing_moves() -> None:
    assert seconds_left(100.0, 10.0) == 10.0
    assert seconds_left(100.0, None) is None
    assert seconds_left(100.0, 0.2) is None
    assert seconds_left(0.0, None) == 0.0
