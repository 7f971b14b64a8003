"""The pure decisions: how far to read ahead, which siblings to fetch."""

from itertools import pairwise
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from s3mount.core.config import GIB, KIB, MIB
from s3mount.readpath.readahead import AccessPattern, ReadaheadSizes, Step, Stream
from s3mount.readpath.siblings import SiblingReadahead

SIZES = ReadaheadSizes(
    first_request=256 * KIB,
    random_request=32 * KIB,
    max_request=4 * MIB,
    max_window=64 * MIB,
)
NO_LIMIT = 1 << 60


def steps(
    pattern: AccessPattern, requests: list[tuple[int, int]], limit: int = NO_LIMIT
) -> list[Step]:
    return [
        pattern.read(offset, min(offset + length, pattern.size), limit=limit, missing=index == 0)
        for index, (offset, length) in enumerate(requests)
    ]


def accept(pattern: AccessPattern, offset: int, length: int) -> Step:
    """One request whose read-ahead is all begun."""
    step = pattern.read(offset, min(offset + length, pattern.size), limit=NO_LIMIT, missing=False)
    if step.ahead:
        step.stream.requested = step.ahead[-1][1]
    return step


def test_the_first_request_at_the_start_is_small_and_reads_nothing_ahead() -> None:
    step = accept(AccessPattern(GIB, SIZES), 0, 128 * KIB)
    assert step.around == (0, 256 * KIB)
    assert not step.ahead


def test_reading_in_order_doubles_the_window_until_its_maximum() -> None:
    pattern = AccessPattern(GIB, SIZES)
    reach = []
    for offset in range(0, 40 * MIB, 128 * KIB):
        step = accept(pattern, offset, 128 * KIB)
        reach.append(step.stream.requested - step.stream.position)
    assert reach[1] >= 512 * KIB
    assert max(reach) > 59 * MIB
    assert max(reach) <= 64 * MIB
    after_4_mib = reach[4 * MIB // (128 * KIB)]
    assert 12 * MIB < after_4_mib <= 4 * (4 * MIB + 256 * KIB)


def test_reading_in_order_asks_for_every_byte_once_and_in_large_requests() -> None:
    pattern = AccessPattern(512 * MIB + 5, SIZES)
    asked = [accept(pattern, 0, 128 * KIB).around]
    for offset in range(128 * KIB, pattern.size, 128 * KIB):
        asked.extend(accept(pattern, offset, 128 * KIB).ahead)
    assert asked[0][0] == 0
    assert all(before[1] == after[0] for before, after in pairwise(asked))
    assert asked[-1][1] == pattern.size
    assert max(end - start for start, end in asked) == 4 * MIB
    assert len(asked) < 180


def test_requests_that_the_kernel_sends_together_may_arrive_in_any_order() -> None:
    random = Random(1)
    pattern = AccessPattern(GIB, SIZES)
    offsets = list(range(0, 32 * MIB, 128 * KIB))
    for at in range(0, len(offsets), 4):
        group = offsets[at : at + 4]
        random.shuffle(group)
        for offset in group:
            step = accept(pattern, offset, 128 * KIB)
    assert len(pattern.streams) == 1
    assert step.stream.requested >= 60 * MIB


@given(st.lists(st.integers(0, GIB // (64 * KIB) - 1), min_size=1, max_size=60))
def test_random_small_reads_fetch_at_most_256_kib_each(blocks: list[int]) -> None:
    pattern = AccessPattern(GIB, SIZES)
    for block in blocks:
        offset = block * 64 * KIB + 60 * KIB  # straddles a block's edge half of the time
        step = pattern.read(offset, min(offset + 4 * KIB, GIB), limit=NO_LIMIT, missing=True)
        assert step.around[1] - step.around[0] <= 256 * KIB
        assert not step.ahead


def test_backward_and_strided_reads_read_nothing_ahead() -> None:
    backward = AccessPattern(GIB, SIZES)
    requests = [(offset, 128 * KIB) for offset in range(GIB - MIB, GIB // 2, -128 * KIB)]
    assert not any(step.ahead for step in steps(backward, requests))
    for length, stride in ((4 * KIB, 64 * KIB), (128 * KIB, 512 * KIB), (MIB, 4 * MIB)):
        strided = AccessPattern(GIB, SIZES)
        requests = [(offset, length) for offset in range(MIB, 200 * MIB, stride)]
        assert not any(step.ahead for step in steps(strided, requests)), (length, stride)


def test_a_look_at_the_end_of_the_file_does_not_disturb_reading_in_order() -> None:
    pattern = AccessPattern(GIB, SIZES)
    for offset in range(0, 4 * MIB, 128 * KIB):
        accept(pattern, offset, 128 * KIB)
    assert not accept(pattern, GIB - 128 * KIB, 128 * KIB).ahead
    step = accept(pattern, 4 * MIB, 128 * KIB)
    assert step.in_order
    assert step.stream.window > 16 * MIB


def test_eight_threads_that_read_a_part_each_are_eight_streams() -> None:
    pattern = AccessPattern(GIB, SIZES)
    for offset in range(0, MIB, 128 * KIB):
        for part in range(8):
            step = accept(pattern, part * 100 * MIB + offset, 128 * KIB)
            assert not step.dropped
    assert all(stream.window >= 2 * MIB for stream in pattern.streams)


def test_a_stream_is_dropped_after_eight_reads_elsewhere() -> None:
    pattern = AccessPattern(GIB, SIZES)
    for offset in range(0, MIB, 128 * KIB):
        stream = accept(pattern, offset, 128 * KIB).stream
    dropped: list[Stream] = []
    for number in range(1, 9):
        dropped += accept(pattern, number * 100 * MIB, 4 * KIB).dropped
    assert dropped == [stream]


def test_what_was_fetched_ahead_and_lost_is_fetched_again_from_there() -> None:
    pattern = AccessPattern(GIB, SIZES)
    for offset in range(0, 8 * MIB, 128 * KIB):
        accept(pattern, offset, 128 * KIB)
    step = pattern.read(8 * MIB, 8 * MIB + 128 * KIB, limit=NO_LIMIT, missing=True)
    assert step.around == (8 * MIB, 12 * MIB)
    assert step.ahead[0][0] == 12 * MIB


@given(
    st.integers(1, 4 * MIB),
    st.lists(st.tuples(st.integers(0, 4 * MIB), st.integers(1, MIB), st.booleans()), max_size=40),
    st.integers(0, 64 * MIB),
)
def test_every_step_contains_its_request_and_stays_within_object_and_window(
    size: int, requests: list[tuple[int, int, bool]], limit: int
) -> None:
    pattern = AccessPattern(size, SIZES)
    for place, length, missing in requests:
        offset = place % size
        end = min(offset + length, size)
        step = pattern.read(offset, end, limit=limit, missing=missing)
        assert 0 <= step.around[0] <= offset < end <= step.around[1] <= size
        for start, stop in step.ahead:
            assert start < stop <= size
            assert stop - start <= SIZES.max_request
            assert stop == size or stop <= step.stream.position + min(limit, SIZES.max_window)
        for before, after in pairwise(step.ahead):
            assert before[1] == after[0]
        assert len(pattern.streams) <= 8


def test_siblings_read_in_order_are_each_fetched_once_before_their_turn() -> None:
    order = SiblingReadahead(32)
    fetched: list[int] = []
    late = []
    for position in range(1000):
        if position > 1 and position not in fetched:
            late.append(position)
        fetched.extend(order.opened(position, 1000))
    assert fetched == list(range(2, 1000))
    assert not late


def test_a_second_pass_over_a_small_directory_fetches_ahead_again() -> None:
    order = SiblingReadahead(32)
    for _ in range(2):
        fetched = [place for position in range(6) for place in order.opened(position, 6)]
        assert fetched == [2, 3, 4, 5]


def test_siblings_read_at_random_are_not_fetched_ahead() -> None:
    order = SiblingReadahead(32)
    places = Random(3).sample(range(10_000), 200)
    assert sum(len(order.opened(place, 10_000)) for place in places) <= 2 * 32


def test_a_slow_reader_gets_no_more_siblings_than_it_opens_within_a_second() -> None:
    order = SiblingReadahead(32)
    for position in range(100):
        ahead = order.opened(position, 1000, now=position * 0.2)
        assert all(place <= position + 5 for place in ahead)
        if position > 1:
            assert order.opened(position, 1000, now=position * 0.2) == range(0)
    hasty = SiblingReadahead(32)
    fetched = [place for at in range(60) for place in hasty.opened(at, 1000, now=at * 0.001)]
    assert len(fetched) > 60


@given(st.lists(st.integers(0, 60), max_size=80))
def test_siblings_ahead_lie_within_the_window_and_the_directory(places: list[int]) -> None:
    order = SiblingReadahead(16)
    for place in places:
        ahead = order.opened(place, 61)
        assert all(place < position <= place + 16 for position in ahead)
        assert all(position < 61 for position in ahead)
