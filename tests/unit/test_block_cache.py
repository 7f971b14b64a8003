"""The block cache in memory: bounded, right bytes, the right ones evicted."""

import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from s3mount.readpath.block_cache import BlockCache, CachedVersion
from s3mount.readpath.intervals import IntervalIndex

CONTENT = bytes(range(200))


class Span:
    def __init__(self, start: int, end: int) -> None:
        self.start = start
        self.end = end


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(1, 20)), max_size=40))
def test_the_index_finds_each_byte_that_some_piece_holds(pieces: list[tuple[int, int]]) -> None:
    index: IntervalIndex[Span] = IntervalIndex()
    held: set[int] = set()
    for start, length in pieces:
        index.add(Span(start, start + length))
        held.update(range(start, start + length))
    for offset in range(80):
        piece = index.find(offset)
        assert (piece is not None) == (offset in held)
        assert piece is None or piece.start <= offset < piece.end
    missing = {offset for start, end in index.gaps(0, 80) for offset in range(start, end)}
    assert missing == set(range(80)) - held
    ends = [piece.end for piece in index]
    assert ends == sorted(set(ends))


def test_the_index_says_which_pieces_a_larger_one_swallows() -> None:
    index: IntervalIndex[Span] = IntervalIndex()
    small, other, large = Span(4, 6), Span(8, 12), Span(2, 10)
    index.add(small)
    index.add(other)
    assert index.add(large) == [small]
    assert index.add(Span(3, 9)) is None
    assert list(index) == [large, other]
    index.remove(large)
    assert index.find(4) is None


def filled(cache: BlockCache, starts: range, size: int = 10) -> CachedVersion:
    version = cache.acquire(("k", "e", 200))
    for start in starts:
        cache.insert(version, start, CONTENT[start : start + size])
    return version


def starts_of(version: CachedVersion) -> list[int]:
    return [segment.start for segment in version.segments]


def test_the_least_recently_used_goes_first() -> None:
    cache = BlockCache(30)
    version = filled(cache, range(0, 30, 10))
    first = version.segments.find(0)
    assert first is not None
    cache.touch(first, passed=False)
    cache.insert(version, 100, CONTENT[100:110])
    assert starts_of(version) == [0, 20, 100]
    assert cache.cached == 30


def test_what_a_reader_in_order_has_passed_goes_before_all_else() -> None:
    cache = BlockCache(30)
    version = filled(cache, range(0, 30, 10))
    last = version.segments.find(25)
    assert last is not None
    cache.touch(last, passed=True)
    cache.insert(version, 100, CONTENT[100:110])
    assert starts_of(version) == [0, 10, 100]


def test_an_answer_larger_than_the_cache_is_not_kept_but_handed_on() -> None:
    cache = BlockCache(30)
    version = filled(cache, range(0, 20, 10))
    segment = cache.insert(version, 50, CONTENT[50:90])
    assert bytes(segment.view(60, 62)) == CONTENT[60:62]
    assert starts_of(version) == [0, 10]


@given(
    st.lists(
        st.tuples(st.sampled_from("ipturd"), st.integers(0, 150), st.integers(1, 40)),
        max_size=80,
    )
)
def test_cached_and_reserved_bytes_never_exceed_the_limit(
    actions: list[tuple[str, int, int]],
) -> None:
    cache = BlockCache(64)
    version = cache.acquire(("k", "e", 200))
    reserved: list[int] = []
    for action, start, length in actions:
        segment = version.segments.find(start)
        if action == "i":
            cache.insert(version, start, CONTENT[start : start + length])
        elif action in "pt" and segment is not None:
            cache.touch(segment, passed=action == "p")
        elif action == "r" and cache.try_reserve(length):
            reserved.append(length)
        elif action == "u" and reserved:
            room = reserved.pop()
            cache.insert(version, start, CONTENT[start : start + room], reserved=room)
        elif action == "d" and length == 1:
            cache.drop(version)
        assert cache.cached + cache.reserved <= cache.limit
        assert cache.reserved == sum(reserved)
        assert cache.cached == sum(len(piece.data) for piece in version.segments)
        for piece in version.segments:
            assert piece.data == CONTENT[piece.start : piece.end]


async def test_reserve_waits_until_another_fetch_gives_its_room_back() -> None:
    cache = BlockCache(100)
    await cache.reserve(80)
    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(cache.reserve, 50)
            await trio.testing.wait_all_tasks_blocked()
            assert cache.reserved == 80
            version = cache.acquire(("k", "e", 200))
            cache.insert(version, 0, CONTENT[:80], reserved=80)
    assert cache.reserved == 50
    assert cache.cached == 0


def test_a_moved_version_is_found_at_its_new_place_with_what_was_cached_there() -> None:
    cache = BlockCache(100)
    version = filled(cache, range(0, 20, 10))
    other = cache.acquire(("new", "e", 200))
    cache.insert(other, 50, CONTENT[50:60])
    cache.move(version, ("new", "e", 200))
    assert cache.known(("k", "e", 200)) is None
    assert cache.known(("new", "e", 200)) is version
    assert starts_of(version) == [0, 10, 50]
    assert cache.cached == 30


@pytest.mark.parametrize("drop_first", [True, False])
def test_a_version_without_users_and_bytes_is_forgotten(drop_first: bool) -> None:
    cache = BlockCache(100)
    version = filled(cache, range(0, 20, 10))
    if drop_first:
        cache.drop(version)
        assert cache.known(version.identity) is version
        cache.release(version)
    else:
        cache.release(version)
        assert cache.known(version.identity) is version
        cache.drop(version)
    assert cache.known(version.identity) is None
    assert cache.cached == 0
