"""Files of a dead mount whose base, a stored version, a rename of its own had brought elsewhere
since they were closed."""

import os
from collections.abc import Iterator
from typing import Any
from unittest.mock import patch

import pytest
import trio

from s3mount.core.config import MountConfig
from s3mount.store.memory import MemoryStore
from s3mount.writeback.base_object import BaseObject
from s3mount.writeback.intents import ABSENT, Kind
from s3mount.writeback.journal import MemoryJournal
from tests.model.bucket import contents
from tests.model.mounted import EPOCH, mounted, with_writeback
from tests.model.recovering import DeadMount, remounted

OLD = bytes(range(256)) * 80
EDITED = OLD[:4] + b"AB" + OLD[6:]


@pytest.fixture(autouse=True)
def _one_clock() -> Iterator[None]:
    """This machine's clock is the service's."""
    with patch("time.time", lambda: EPOCH + trio.current_time()):
        yield


async def remount(store: MemoryStore, config: MountConfig, journal: MemoryJournal) -> None:
    async with remounted(store, config, journal) as client:
        await client.fs.drain(600.0)
        assert client.fs.status()["failures"] == []


@pytest.mark.parametrize("directory", [False, True])
async def test_the_record_follows_the_base(
    store: MemoryStore, config: MountConfig, *, directory: bool, autojump_clock: Any
) -> None:
    """Also where the copy has another ETag, as that of a large object has."""
    old, new = ("a/f", "b/f") if directory else ("f", "g")
    store.put_foreign(old, OLD * 4, {"colour": "red"})
    etag = store.objects[old].etag
    config = with_writeback(config, durability="journal")
    let_go = trio.Event()

    async def before(operation: str, _: str) -> None:
        if operation == "UploadPart":
            await let_go.wait()

    store.before = before
    async with mounted(store, config) as client:
        handle = await client.open(old, os.O_RDWR)
        await client.rename(*(("a", "b") if directory else ("f", "g")))
        await client.fs.write(handle, 4, b"AB")
        await client.fs.flush(handle)
        (sealed,) = client.fs.state.journal.load().files.values()
        assert sealed.base == BaseObject(old, etag, len(OLD * 4))
        await trio.sleep(10)
        assert old not in store.objects
        moved = store.objects[new]
        assert moved.etag != etag
        (record,) = client.fs.state.journal.load().files.values()
        assert record.base == BaseObject(new, moved.etag, len(OLD * 4))
        assert (record.closed, record.id, record.spool) == (True, sealed.id, sealed.spool)
        let_go.set()
        await client.release(handle)
    assert contents(store) == {new: EDITED + OLD * 3}
    assert store.objects[new].metadata["colour"] == "red"


async def test_what_the_journal_did_not_hear_of_any_more_is_seen(
    store: MemoryStore, config: MountConfig, autojump_clock: Any
) -> None:
    """A power cut may take the last moments of the journal, not of the bucket."""
    dead = DeadMount(config, created=EPOCH + trio.current_time())
    etag = store.put_foreign("b/f", OLD, {"colour": "red"}).etag
    dead.put("b/f", b"AB", at=4, base=BaseObject("a/f", etag, len(OLD)), expects=etag)
    await remount(store, config, MemoryJournal(dead.contents()))
    assert contents(store) == {"b/f": EDITED}
    assert store.objects["b/f"].metadata["colour"] == "red"


async def test_a_file_renamed_and_then_written_anew_keeps_what_others_gave_it(
    store: MemoryStore, config: MountConfig, autojump_clock: Any
) -> None:
    dead = DeadMount(config, created=EPOCH + trio.current_time())
    etag = store.put_foreign("f", OLD * 4, {"colour": "red"}, {"content-type": "text/x-odd"}).etag
    base = BaseObject("f", etag, len(OLD * 4))
    dead.intent(Kind.COPY, "g", source="f", source_etag=etag, size=base.size, expects=ABSENT)
    file = dead.file("g", b"new", base=base, whole=True, visible=0, size=3)
    dead.intent(Kind.PUT, "g", file=file)
    await remount(store, config, MemoryJournal(dead.contents()))
    assert contents(store) == {"g": b"new"}
    assert store.objects["g"].metadata["colour"] == "red"
    assert store.objects["g"].headers["content-type"] == "text/x-odd"
