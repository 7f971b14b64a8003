"""Copies and moves within the service: nothing is lost, whatever happens in between."""

from functools import partial

import pytest

from s3mount.core.config import WritebackConfig
from s3mount.core.location import Location, parse_location
from s3mount.store import errors
from s3mount.store.memory import MemoryStore
from s3mount.transfer import copying
from s3mount.transfer.copying import Transfer
from s3mount.transfer.places import NothingThere, find, look, target_of

MARKER = {"content-type": "application/x-directory"}


def filled(count: int = 12, *, page_size: int = 1000) -> MemoryStore:
    store = MemoryStore(page_size=page_size)
    store.put_foreign("d/", b"", {"mode": "16877"}, MARKER)
    for n in range(count):
        store.put_foreign(f"d/sub{n % 3}/{n:04}", b"%d" % n, {"mode": "33152", "theirs": str(n)})
    store.put_foreign("d/sub1/", b"", {"mode": "16832"}, MARKER)
    store.put_foreign("d-beside", b"stays")
    return store


def contents(store: MemoryStore, prefix: str) -> dict[str, bytes]:
    return {
        key[len(prefix) :]: stored.data
        for key, stored in store.objects.items()
        if key.startswith(prefix)
    }


async def test_a_directory_is_copied_with_metadata_across_buckets_and_pages() -> None:
    origin, store = filled(30, page_size=7), MemoryStore("other")
    await Transfer(store, origin).tree("d/", "new/", {})
    assert contents(store, "new/") == contents(origin, "d/")
    assert store.objects["new/sub1/0001"].metadata == {
        **origin.objects["d/sub1/0001"].metadata,
        "mtime": f"{int(origin.objects['d/sub1/0001'].last_modified)}.000000000",
    }
    assert store.objects["new/"].headers["content-type"] == MARKER["content-type"]


@pytest.mark.parametrize("page_size", [3, 1000])
async def test_a_moved_object_has_one_of_its_names_at_every_moment(page_size: int) -> None:
    store = filled(30, page_size=page_size)
    before = contents(store, "d/")

    def check(operation: str, key: str) -> None:
        old, new = contents(store, "d/"), contents(store, "new/")
        assert {**new, **old} == before

    store.before = store.after = check
    transfer = Transfer(store, None, move=True)
    await transfer.tree("d/", "new/", {})
    assert contents(store, "d/") == {}
    assert contents(store, "new/") == before
    assert transfer.outcome.objects == len(before)
    assert store.objects["d-beside"].data == b"stays"


async def test_markers_of_the_old_directory_go_last() -> None:
    store = filled(9)

    def check(operation: str, key: str) -> None:
        for there in store.objects:
            for marker in ("d/", "d/sub1/"):
                assert not there.startswith(marker) or marker in store.objects, there

    store.after = check
    await Transfer(store, None, move=True).tree("d/", "new/", {})
    assert contents(store, "d/") == {}


async def test_what_others_change_while_it_is_moved_stays_and_is_reported() -> None:
    store = filled(6)

    def change(operation: str, key: str) -> None:
        if operation == "ListObjectsV2" and "new/sub0/0000" in store.objects:
            store.put_foreign("d/sub0/0000", b"newer")

    store.before = change
    transfer = Transfer(store, None, move=True)
    await transfer.tree("d/", "new/", {})
    assert store.objects["d/sub0/0000"].data == b"newer"
    assert store.objects["new/sub0/0000"].data == b"0"
    assert [key for key, _ in transfer.outcome.failures] == ["d/sub0/0000"]
    # The directories above keep their attributes.
    assert contents(store, "d/").keys() >= {"", "sub0/0000"}


async def test_an_object_that_cannot_be_copied_stays_and_the_others_go_on() -> None:
    def refuse(operation: str, key: str) -> None:
        if operation == "CopyObject" and key.endswith("0004"):
            raise errors.AccessDenied("no", operation=operation, key=key)

    store = filled(9)
    before = contents(store, "d/")
    store.before = refuse
    transfer = Transfer(store, None, move=True)
    await transfer.tree("d/", "new/", {})
    assert [key for key, _ in transfer.outcome.failures] == ["d/sub1/0004"]
    assert {**contents(store, "new/"), **contents(store, "d/")} == before
    assert "d/sub1/0004" in store.objects
    assert "d/sub0/0000" not in store.objects


@pytest.mark.parametrize("move", [True, False])
@pytest.mark.parametrize("asked", ["CopyObject", "HeadObject"])
async def test_what_is_not_found_and_is_there_all_the_same_has_failed(
    asked: str, move: bool
) -> None:
    """By a wrong answer, or because it is the copy that is not there."""
    store = filled(9)
    before = contents(store, "d/")
    left = [errors.NotFound("", operation=asked, key="x")]

    def miss(operation: str, key: str) -> None:
        if operation == asked and key.endswith("0004") and left:
            raise left.pop()

    store.before = miss
    transfer = Transfer(store, None, move=move)
    await transfer.tree("d/", "new/", {})
    assert [key for key, _ in transfer.outcome.failures] == ["d/sub1/0004"]
    assert transfer.vanished == 0
    assert {**contents(store, "new/"), **contents(store, "d/")} == before
    # The directories above keep their attributes.
    assert contents(store, "d/").keys() >= {"", "sub1/", "sub1/0004"}


async def test_what_vanishes_before_its_turn_is_counted_and_no_failure() -> None:
    store = filled(9)

    def vanish(operation: str, key: str) -> None:
        if operation == "ListObjectsV2":
            return
        store.delete_foreign("d/sub1/0004")

    store.before = vanish
    transfer = Transfer(store, None, move=True)
    await transfer.tree("d/", "new/", {})
    assert (transfer.vanished, transfer.outcome.failed) == (1, 0)
    assert contents(store, "d/") == {}


async def test_an_interrupted_move_goes_on_with_what_is_left() -> None:
    class Interrupted(BaseException):
        pass

    store = filled(30, page_size=10)
    before = contents(store, "d/")
    deletes = 0

    def interrupt(operation: str, key: str) -> None:
        nonlocal deletes
        deletes += operation == "DeleteObjects"
        if deletes == 2:
            raise Interrupted

    store.before = interrupt
    with pytest.raises(BaseException):  # noqa: B017 (in groups of nurseries)
        await Transfer(store, None, move=True).tree("d/", "new/", {})
    assert {**contents(store, "new/"), **contents(store, "d/")} == before
    store.before = None
    copied = store.counts()["CopyObject"]
    await Transfer(store, None, move=True).tree("d/", "new/", {})
    assert contents(store, "new/") == before
    assert contents(store, "d/") == {}
    # Of the first page all is gone but the directory's marker, which goes last.
    assert store.counts()["CopyObject"] - copied <= len(before) - 9


async def test_a_file_that_turns_out_otherwise_at_its_target_is_not_deleted() -> None:
    def interfere(operation: str, key: str) -> None:
        if operation == "CopyObject":
            store.put_foreign("new", b"of another host")

    store = MemoryStore(after=interfere)
    store.put_foreign("old", b"data")
    place = await find(store, Location("b", "old"))
    assert place.info is not None
    with pytest.raises(errors.PreconditionFailed):
        await Transfer(store, None, move=True).file(place.info, "new")
    assert store.objects["old"].data == b"data"


async def test_bytes_of_a_large_copy_are_told_part_by_part(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config = partial(WritebackConfig, max_copy_size=100, copy_part_size=100, min_part_size=1)
    monkeypatch.setattr(copying, "WritebackConfig", config)
    before_the_end: list[int] = []

    def see(operation: str, key: str) -> None:
        if operation == "CompleteMultipartUpload":
            before_the_end[:] = told

    told: list[int] = []
    store = MemoryStore(minimum_part_size=1, before=see)
    store.put_foreign("large", bytes(450))
    store.put_foreign("small", bytes(70))
    transfer = Transfer(store, None, progress=told.append)
    for key in ("large", "small"):
        place = await find(store, Location("b", key))
        assert place.info is not None
        await transfer.file(place.info, f"new-{key}")
    assert sorted(before_the_end) == [50, 100, 100, 100, 100]
    assert told[5:] == [70]


async def test_a_dry_run_changes_nothing_and_names_everything() -> None:
    store = filled(6)
    before = dict(store.objects)
    named: list[tuple[str, str]] = []
    transfer = Transfer(
        store, None, move=True, dry_run=True, each=lambda old, new: named.append((old, new))
    )
    await transfer.tree("d/", "new/", {})
    assert dict(store.objects) == before
    assert ("d/sub0/0003", "new/sub0/0003") in named
    assert len(named) == len(contents(store, "d/"))


@pytest.mark.parametrize(
    ("key", "is_directory", "markers", "shadowed"),
    [
        ("d", True, (), False),
        ("d/", True, (), False),
        ("d/sub1/0001", False, (), False),
        ("apu", True, ("apu",), False),
        ("hadoop", True, ("hadoop_$folder$",), False),
        ("both", True, (), True),
    ],
)
async def test_a_place_is_what_a_mount_would_show(
    key: str, is_directory: bool, markers: tuple[str, ...], shadowed: bool
) -> None:
    store = filled()
    store.put_foreign("apu", b"", {"mode": "040755"}, MARKER)
    store.put_foreign("apu/x", b"1")
    store.put_foreign("hadoop_$folder$")
    store.put_foreign("both", b"data")
    store.put_foreign("both/x", b"1")
    place = await find(store, Location("b", key))
    assert (place.is_directory, place.markers, place.shadowed) == (is_directory, markers, shadowed)


@pytest.mark.parametrize("key", ["nothing", "nothing/", "d/sub1/0001/", "d-", "d*"])
async def test_there_are_no_wildcards_and_no_prefixes_of_names(key: str) -> None:
    with pytest.raises(NothingThere):
        await find(filled(), Location("b", key))


@pytest.mark.parametrize(
    ("source", "target", "result"),
    [
        ("b:/d/x", "c:/new", "c:/new"),
        ("b:/d/x", "c:/new/", "c:/new/x"),
        ("b:/d/x", "c", "c:/x"),
        ("b:/d/", "c:/new/", "c:/new/d"),
        ("b", "c:/new/", "c:/new/"),
        ("b", "c", "c"),
    ],
)
async def test_a_slash_at_its_end_makes_the_target_a_directory_to_copy_into(
    source: str, target: str, result: str
) -> None:
    store = MemoryStore()
    store.put_foreign("d/x", b"1")
    place = await look(store, parse_location(source))
    assert str(target_of(place, parse_location(target))) == result
