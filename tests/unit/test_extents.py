"""Extents against a plain set of offsets."""

import itertools

from hypothesis import given
from hypothesis import strategies as st

from s3mount.core.extents import Extents, total_within

LIMIT = 60
offsets = st.integers(0, LIMIT)
changes = st.lists(st.tuples(st.sampled_from(["add", "remove", "truncate"]), offsets, offsets))


def _built(steps: list[tuple[str, int, int]]) -> tuple[Extents, set[int]]:
    extents, model = Extents(), set[int]()
    for kind, start, end in steps:
        if kind == "add":
            extents.add(start, end)
            model |= set(range(start, end))
        elif kind == "remove":
            extents.remove(start, end)
            model -= set(range(start, end))
        else:
            extents.truncate(start)
            model = {offset for offset in model if offset < start}
    return extents, model


def _offsets(ranges: list[tuple[int, int]]) -> set[int]:
    return {offset for start, end in ranges for offset in range(start, end)}


@given(changes)
def test_it_holds_what_a_set_of_offsets_holds(steps: list[tuple[str, int, int]]) -> None:
    extents, model = _built(steps)
    assert _offsets(list(extents)) == model
    assert extents.total == len(model)
    assert extents.end == max(model, default=-1) + 1
    assert bool(extents) == bool(model)


@given(changes)
def test_ranges_are_sorted_and_never_touch(steps: list[tuple[str, int, int]]) -> None:
    ranges = list(_built(steps)[0])
    assert all(start < end for start, end in ranges)
    assert all(a[1] < b[0] for a, b in itertools.pairwise(ranges))


@given(changes, offsets, offsets)
def test_questions_about_a_range_agree_with_the_set(
    steps: list[tuple[str, int, int]], start: int, end: int
) -> None:
    extents, model = _built(steps)
    asked = set(range(start, end))
    assert extents.covers(start, end) == (asked <= model)
    assert extents.overlaps(start, end) == bool(asked & model)
    assert _offsets(extents.within(start, end)) == asked & model
    assert _offsets(extents.gaps(start, end)) == asked - model


@given(changes, offsets, offsets)
def test_a_copy_is_equal_and_independent(
    steps: list[tuple[str, int, int]], start: int, end: int
) -> None:
    extents, model = _built(steps)
    twin = extents.copy()
    assert twin == extents
    twin.add(start, end)
    assert _offsets(list(extents)) == model
    assert twin.total == len(model | set(range(start, end)))


def test_total_within_counts_what_is_in_a_range() -> None:
    extents = Extents([(0, 10), (20, 30)])
    assert total_within(extents, 5, 25) == 10
    assert total_within(extents, 10, 20) == 0
    assert total_within(extents, 0, 100) == extents.total == 20
