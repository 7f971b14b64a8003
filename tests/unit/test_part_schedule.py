"""The grid of parts."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s3mount.core.config import GIB, MIB, TIB
from s3mount.core.part_schedule import PartSchedule


@st.composite
def schedules(draw: st.DrawFn) -> PartSchedule:
    return PartSchedule(
        draw(st.integers(1, 50)),
        draw(st.integers(1, 200)),
        draw(st.integers(1, 1_000_000)),
        draw(st.booleans()),
    )


@given(schedules())
def test_slots_follow_each_other_without_gap_from_zero(schedule: PartSchedule) -> None:
    position = 0
    for slot in range(schedule.max_parts):
        start, end = schedule.bounds(slot)
        assert start == position
        assert end > start
        assert start % schedule.part_size == 0
        position = end
    assert position >= schedule.limit


@given(schedules(), st.integers(0, 2_000_000))
def test_each_byte_is_in_the_slot_that_is_named_for_it(schedule: PartSchedule, offset: int) -> None:
    if offset >= schedule.bounds(schedule.max_parts - 1)[1]:
        return
    start, end = schedule.bounds(schedule.slot_of(offset))
    assert start <= offset < end


def test_the_defaults_hold_five_tebibytes_in_ten_thousand_parts_of_at_most_five_gibibytes() -> None:
    schedule = PartSchedule(8 * MIB, 10_000, 5 * TIB)
    assert schedule.limit == 5 * TIB
    last = schedule.slot_of(5 * TIB - 1)
    assert last < 10_000
    start, end = schedule.bounds(last)
    assert end - start <= 5 * GIB


def test_files_below_eight_gibibytes_have_parts_of_eight_mebibytes_only() -> None:
    schedule = PartSchedule(8 * MIB, 10_000, 5 * TIB)
    assert schedule.bounds(999) == (999 * 8 * MIB, 1000 * 8 * MIB)
    assert schedule.bounds(1000) == (8000 * MIB, 8016 * MIB)


def test_equal_parts_stay_equal_and_bound_the_file() -> None:
    schedule = PartSchedule(8 * MIB, 10_000, 5 * TIB, equal=True)
    assert schedule.bounds(9_999)[1] == schedule.limit == 80_000 * MIB


def test_the_slots_of_a_size_are_those_its_bytes_are_in() -> None:
    schedule = PartSchedule(10, 100, 1000)
    assert list(schedule.slots(0)) == []
    assert list(schedule.slots(10)) == [0]
    assert list(schedule.slots(11)) == [0, 1]


def test_nonsense_is_refused() -> None:
    with pytest.raises(ValueError, match="positive"):
        PartSchedule(0, 1, 1)
