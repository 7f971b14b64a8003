"""The smoothed rate, and what is left."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s3mount.core.rate import MEMORY, SHORTEST, Rate, seconds_left


@given(
    st.floats(1.0, 1e9),
    st.floats(0.01, 0.5),
    st.integers(2, 400),
)
def test_a_steady_flow_shows_as_what_it_is_from_the_start(
    per_second: float, interval: float, pieces: int
) -> None:
    rate = Rate(100.0)
    now = 100.0
    for _ in range(pieces):
        # Half of the interval before and after: the middle of what the piece stands for.
        rate.add(per_second * interval, now + interval / 2)
        now += interval
    shown = rate.per_second(now)
    if now - 100.0 < SHORTEST:
        assert shown is None
    else:
        assert shown == pytest.approx(per_second, rel=0.01)


def test_what_has_stopped_fades_away() -> None:
    rate = Rate(0.0)
    for second in range(60):
        rate.add(1000.0, second + 0.5)
    running, stopped = rate.per_second(60.0), rate.per_second(60.0 + 3 * MEMORY)
    assert running is not None
    assert stopped is not None
    assert stopped < running / 15


def test_a_change_of_pace_is_seen_within_twenty_seconds() -> None:
    rate = Rate(0.0)
    for second in range(60):
        rate.add(1000.0, second + 0.5)
    for second in range(60, 80):
        rate.add(100.0, second + 0.5)
    shown = rate.per_second(80.0)
    assert shown is not None
    assert 100.0 < shown < 250.0


def test_a_clock_that_stands_still_does_no_harm() -> None:
    rate = Rate(5.0)
    rate.add(10.0, 5.0)
    rate.add(10.0, 4.0)
    assert rate.per_second(5.0) is None
    assert rate.per_second(6.0) == pytest.approx(20.0, rel=0.06)


def test_the_time_left_is_unknown_while_nothing_moves() -> None:
    assert seconds_left(100.0, 10.0) == 10.0
    assert seconds_left(100.0, None) is None
    assert seconds_left(100.0, 0.2) is None
    assert seconds_left(0.0, None) == 0.0
