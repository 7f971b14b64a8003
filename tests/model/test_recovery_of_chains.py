"""Intents of a dead mount that follow others of its own, done before it died or by the replay."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any
from unittest.mock import patch

import pytest
import trio

from s3mount.core.config import MountConfig
from s3mount.store.memory import MemoryStore
from s3mount.writeback.intents import ABSENT, Kind
from s3mount.writeback.journal import MemoryJournal
from s3mount.writeback.journal_records import JournalContents
from tests.model.bucket import attributes_of, contents
from tests.model.lives import Lives
from tests.model.mounted import EPOCH, with_writeback
from tests.model.recovering import DIRECTORY, FILE, DeadMount, headers_of, remounted

LATER = 20.0  # a queue that was long, or a service that was slow


@pytest.fixture(autouse=True)
def _one_clock() -> Iterator[None]:
    """This machine's clock is the service's."""
    with patch("time.time", lambda: EPOCH + trio.current_time()):
        yield


@pytest.fixture
async def dead(config: MountConfig) -> DeadMount:
    return DeadMount(config, created=EPOCH + trio.current_time())


def ours(store: MemoryStore, key: str, data: bytes) -> str:
    headers = headers_of(key, DIRECTORY if key.endswith("/") else FILE)
    return store.put_foreign(key, data, headers.metadata, headers.headers).etag


def died_now(dead: DeadMount) -> JournalContents:
    return replace(dead.contents(), written_at=EPOCH + trio.current_time())


async def failures(store: MemoryStore, config: MountConfig, left: JournalContents) -> list[str]:
    async with remounted(store, config, MemoryJournal(left)) as client:
        await client.fs.drain(600.0)
        return list(client.fs.status()["failures"])


async def test_a_directory_renamed_twice_whose_first_rename_was_done_before_the_crash(
    store: MemoryStore, config: MountConfig, dead: DeadMount, autojump_clock: object
) -> None:
    """Its objects are younger than the second rename."""
    dead.intent(Kind.RENAME_TREE, "c/", source="b/")
    await trio.sleep(LATER)
    ours(store, "b/", b"")
    ours(store, "b/one", b"one")
    assert await failures(store, config, died_now(dead)) == []
    assert contents(store) == {"c/": b"", "c/one": b"one"}


async def test_a_directory_renamed_twice_by_the_replay_and_then_removed(
    store: MemoryStore, config: MountConfig, dead: DeadMount, autojump_clock: object
) -> None:
    ours(store, "a/", b"")
    dead.intent(Kind.RENAME_TREE, "b/", source="a/")
    dead.intent(Kind.RENAME_TREE, "c/", source="b/")
    dead.intent(Kind.DELETE, "c/")
    left = died_now(dead)
    await trio.sleep(LATER)
    assert await failures(store, config, left) == []
    assert contents(store) == {}


async def test_a_rename_over_what_an_earlier_rename_of_ours_has_put_there_since(
    store: MemoryStore, config: MountConfig, dead: DeadMount, autojump_clock: object
) -> None:
    etag = ours(store, "new", b"new")
    dead.intent(Kind.COPY, "target", source="new", source_etag=etag, size=3, expects=ABSENT)
    await trio.sleep(LATER)
    ours(store, "target", b"older")
    assert await failures(store, config, died_now(dead)) == []
    assert contents(store) == {"target": b"new"}


async def test_a_file_made_exclusively_and_renamed_over_another_before_it_was_sent(
    store: MemoryStore, config: MountConfig, dead: DeadMount, autojump_clock: object
) -> None:
    """As rsync does. What has the name may be another version than was known then."""
    store.put_foreign("target", b"older", {"mode": "33188"})
    file = dead.file(".target.x", b"new", exclusive=True)
    dead.intent(Kind.PUT, "target", file=file, expects="of a version before")
    left = died_now(dead)
    await trio.sleep(LATER)
    assert await failures(store, config, left) == []
    assert contents(store) == {"target": b"new"}


async def test_a_file_made_exclusively_does_not_replace_what_others_made(
    store: MemoryStore, config: MountConfig, dead: DeadMount, autojump_clock: object
) -> None:
    store.put_foreign("new", b"theirs", {})
    file = dead.file("new", b"ours", exclusive=True)
    dead.intent(Kind.PUT, "new", file=file, expects=ABSENT)
    assert len(await failures(store, config, died_now(dead))) == 1
    (beside,) = contents(store).keys() - {"new"}
    assert contents(store) == {"new": b"theirs", beside: b"ours"}


async def test_what_a_replay_wrote_that_died_as_well_is_not_others_work(
    store: MemoryStore, config: MountConfig, dead: DeadMount, autojump_clock: object
) -> None:
    """It gave the file other attributes, long after the first mount had died."""
    began, ended = EPOCH + LATER, EPOCH + LATER + 5
    dead.intent(Kind.RENAME_TREE, "c/", source="b/", lives=(EPOCH, began))
    await trio.sleep(LATER + 1)
    ours(store, "b/one", b"one")
    left = replace(dead.contents(), written_at=ended)
    await trio.sleep(LATER)
    store.put_foreign("b/theirs", b"theirs", {})
    assert len(await failures(store, config, left)) == 1
    assert contents(store) == {"c/one": b"one", "b/theirs": b"theirs"}


async def test_what_others_put_there_between_two_lives_stays(
    store: MemoryStore, config: MountConfig, dead: DeadMount, autojump_clock: object
) -> None:
    began = EPOCH + 2 * LATER
    dead.intent(Kind.RENAME_TREE, "c/", source="b/", lives=(EPOCH, began))
    await trio.sleep(LATER)
    store.put_foreign("b/theirs", b"theirs", {})
    await trio.sleep(2 * LATER)
    left = replace(dead.contents(), written_at=began + 5)
    assert len(await failures(store, config, left)) == 1
    assert contents(store) == {"b/theirs": b"theirs"}


async def test_what_others_put_there_after_the_crash_stays(
    store: MemoryStore, config: MountConfig, dead: DeadMount, autojump_clock: object
) -> None:
    etag = ours(store, "new", b"new")
    dead.intent(Kind.COPY, "target", source="new", source_etag=etag, size=3, expects=ABSENT)
    dead.intent(Kind.RENAME_TREE, "c/", source="b/")
    left = died_now(dead)
    await trio.sleep(LATER)
    store.put_foreign("target", b"theirs", {})
    store.put_foreign("b/theirs", b"theirs", {})
    assert len(await failures(store, config, left)) == 2
    assert contents(store) == {"new": b"new", "target": b"theirs", "b/theirs": b"theirs"}


async def test_a_directory_whose_attributes_changed_twice_is_seen_all_the_time(
    store: MemoryStore, config: MountConfig, dead: DeadMount, autojump_clock: object
) -> None:
    ours(store, "d/", b"")
    ours(store, "d/file", b"file")
    for mode in (0o40700, 0o40711):
        wanted = replace(DIRECTORY, mode=mode)
        dead.intent(Kind.ATTRIBUTES, "d/", attributes=wanted)
    async with remounted(store, config, MemoryJournal(died_now(dead))) as client:
        assert await client.ls() == ["d"]
        await client.fs.drain(600.0)
        for _ in range(8):  # as long as what is known counts
            assert await client.exists("d")
            assert await client.ls("d") == ["file"]
            assert await client.read("d/file") == b"file"
            await trio.sleep(1.0)
    assert attributes_of(store.objects["d/"]).mode == 0o40711


async def test_a_file_whose_attributes_changed_is_read_whole(
    store: MemoryStore, config: MountConfig, dead: DeadMount, autojump_clock: object
) -> None:
    """The journal of the rename does not tell its size."""
    ours(store, "old", b"content")
    dead.intent(Kind.COPY, "new", source="old")
    dead.intent(Kind.ATTRIBUTES, "new", attributes=replace(FILE, mode=0o100600))
    async with remounted(store, config, MemoryJournal(died_now(dead))) as client:
        await client.fs.drain(600.0)
        for _ in range(8):
            assert await client.read("new") == b"content"
            await trio.sleep(1.0)
    assert contents(store) == {"new": b"content"}


async def test_attributes_that_were_stored_before_the_crash_and_changed_again_meanwhile(
    store: MemoryStore, config: MountConfig, dead: DeadMount, autojump_clock: object
) -> None:
    """The first copy gave the object another ETag, and nobody heard its answer: it is known by
    the attributes that it was to write, not by those that came after them."""
    first, second = replace(FILE, uid=7), replace(FILE, uid=7, mode=0o100600)
    metadata = headers_of("f", first).metadata
    size = len(store.put_foreign("f", b"of parts", metadata).data)
    for attributes in (first, second):
        dead.intent(
            Kind.ATTRIBUTES, "f", source_etag="of-parts-2", size=size, attributes=attributes
        )
    assert await failures(store, config, died_now(dead)) == []
    assert attributes_of(store.objects["f"]) == second


OF_PARTS = bytes(range(256)) * 64  # 16 KiB: its ETag is another one after a copy
DELAY = 5.0


async def test_a_file_moved_out_of_a_renamed_directory_whose_copy_has_another_etag(
    store: MemoryStore, config: MountConfig, autojump_clock: object
) -> None:
    """The mount dies when the directory is at its new place, and the file not yet."""
    lives = Lives(store, with_writeback(config, namespace_delay=DELAY))
    async with lives.one() as client:
        await client.mkdir("d")
        await client.write("d/f", OF_PARTS, step=4096)
        assert not await client.fs.drain(600.0)
        await client.rename("d", "e")
        await client.rename("e/f", "g")
        (tree,) = (one for one in client.fs.state.queue.each() if one.kind is Kind.RENAME_TREE)
        client.fs.state.queue.hurry(tree)
        await trio.sleep(DELAY / 5)
        assert contents(store) == {"e/": b"", "e/f": OF_PARTS}
    assert await lives.last() == []
    assert contents(store) == {"e/": b"", "g": OF_PARTS}


async def test_a_file_changed_before_its_directory_was_renamed_and_moved_out_of_that(
    store: MemoryStore, config: MountConfig, autojump_clock: object
) -> None:
    """What it became is known under its last name, though nothing else was done before the mount
    died."""
    lives = Lives(store, with_writeback(config, durability="journal", namespace_delay=0.0))
    store.put_foreign("d/f", b"old")
    store.before = only_puts
    async with lives.one() as client:
        await client.write("d/f", b"new and longer")
        await client.rename("d", "e")
        await client.rename("e", "h")
        await client.rename("h/f", "g")
        await trio.sleep(1.0)
        assert contents(store) == {"d/f": b"new and longer"}
    store.before = only_puts
    async with lives.one() as client:
        assert (await client.stat("g")).size == len(b"new and longer")
        assert await client.read("g") == b"new and longer"
    assert await lives.last() == []
    assert contents(store) == {"h/": b"", "g": b"new and longer"}


WAYS_TO_MAKE_WAY = {
    "a file with the directory's name is moved into it": [
        ("rename", "old", "new"),
        ("mkdir", "old"),
        ("rename", "new", "old/file"),
    ],
    "another file is moved away": [
        ("rename", "old", "new"),
        ("rename", "other", "away"),
        ("mkdir", "other"),
        ("rename", "new", "other/file"),
    ],
    "another file is removed": [
        ("rename", "old", "new"),
        ("unlink", "other"),
        ("mkdir", "other"),
        ("rename", "new", "other/file"),
    ],
    "a new file is moved into it": [
        ("write", "new", b"old"),
        ("unlink", "old"),
        ("unlink", "other"),
        ("mkdir", "other"),
        ("rename", "new", "other/file"),
    ],
}


@pytest.mark.parametrize("way", WAYS_TO_MAKE_WAY.values(), ids=WAYS_TO_MAKE_WAY)
async def test_a_file_moved_into_a_directory_for_which_something_made_way(
    store: MemoryStore, config: MountConfig, autojump_clock: object, way: list[tuple[Any, ...]]
) -> None:
    """The mount dies before it has done anything of it."""
    lives = Lives(store, with_writeback(config, durability="journal", namespace_delay=DELAY))
    ours(store, "old", b"old")
    ours(store, "other", b"other")
    async with lives.one() as client:
        for name, *arguments in way:
            await getattr(client, name)(*arguments)
        await client.fs.state.books.sync()
    assert contents(store) == {"old": b"old", "other": b"other"}
    assert await lives.last() == []
    (_, _, moved), stays = way[-1], way[1][0] == "mkdir"
    others = {"other": b"other"} if stays else {}
    others |= {"away": b"other"} if way[1][0] == "rename" else {}
    directory = moved.removesuffix("file")
    assert contents(store) == {directory: b"", moved: b"old", **others}


async def only_puts(operation: str, _: str) -> None:
    """They take a moment; copies are never carried out."""
    if operation == "PutObject":
        await trio.sleep(0.5)
    elif operation == "CopyObject":
        await trio.sleep_forever()
