"""What a dead mount left in its journal, kind by kind and half done in every way."""

import stat
from collections.abc import Iterator
from dataclasses import replace
from unittest.mock import patch

import pytest
import trio

from s3mount.core.config import MountConfig
from s3mount.core.metadata import encode
from s3mount.store.base import WriteHeaders
from s3mount.store.memory import MemoryStore
from s3mount.writeback.base_object import BaseObject
from s3mount.writeback.intents import ABSENT, Kind
from s3mount.writeback.journal import MemoryJournal
from tests.model.bucket import attributes_of, contents, files
from tests.model.mounted import EPOCH
from tests.model.recovering import DIRECTORY, FILE, DeadMount, headers_of, remounted

WEEK = 7 * 86400.0


@pytest.fixture(autouse=True)
def _one_clock() -> Iterator[None]:
    """This machine's clock is the service's."""
    with patch("time.time", lambda: EPOCH + trio.current_time()):
        yield


@pytest.fixture
async def dead(config: MountConfig) -> DeadMount:
    return DeadMount(config, created=EPOCH + trio.current_time())


def theirs(store: MemoryStore, key: str, data: bytes = b"theirs") -> str:
    """Another host's work of a week later; answers its ETag."""
    return store.put_foreign(key, data, {"colour": "red"}).etag


def ours(store: MemoryStore, key: str, data: bytes) -> str:
    """As this mount writes it."""
    headers = headers_of(key)
    return store.put_foreign(key, data, headers.metadata, headers.headers).etag


async def recover(
    store: MemoryStore, config: MountConfig, dead: DeadMount, *, later: float = 0.0
) -> list[str]:
    """Recovery `later` seconds after the crash, to its end; answers the failures in the status."""
    left = dead.contents()
    await trio.sleep(later)
    async with remounted(store, config, MemoryJournal(left)) as client:
        await client.fs.drain(600.0)
        return list(client.fs.status()["failures"])


class TestPut:
    async def test_a_closed_file_is_shown_at_once_and_sent(
        self, store: MemoryStore, config: MountConfig, dead: DeadMount, autojump_clock: object
    ) -> None:
        dead.put("d/new", b"bytes", expects=ABSENT)
        journal = MemoryJournal(dead.contents())
        async with remounted(store, config, journal) as client:
            assert await client.ls() == ["d"]
            assert await client.ls("d") == ["new"]
            found = await client.stat("d/new")
            assert (found.size, found.attributes.mode) == (5, stat.S_IFREG | 0o640)
            assert found.attributes.mtime_ns == FILE.mtime_ns
            assert await client.read("d/new") == b"bytes"
        assert files(store) == {"d/new": b"bytes"}
        assert attributes_of(store.objects["d/new"]) == FILE

    async def test_what_was_sent_before_the_crash_is_not_sent_again(
        self, store: MemoryStore, config: MountConfig, dead: DeadMount, autojump_clock: object
    ) -> None:
        ours(store, "f", b"bytes")
        dead.put("f", b"bytes", expects=ABSENT)
        assert await recover(store, config, dead, later=WEEK) == []
        assert files(store) == {"f": b"bytes"}
        assert store.counts().get("PutObject", 0) == 0

    async def test_newer_work_of_others_is_not_overwritten(
        self, store: MemoryStore, config: MountConfig, dead: DeadMount, autojump_clock: object
    ) -> None:
        dead.put("f", b"ours", expects=ABSENT)
        left = dead.contents()
        await trio.sleep(WEEK)
        theirs(store, "f")
        async with remounted(store, config, MemoryJournal(left)) as client:
            await client.fs.drain(600.0)
            assert "another host" in client.fs.status()["failures"][0]
        kept = {key: data for key, data in files(store).items() if ".conflict-" in key}
        assert list(kept.values()) == [b"ours"]
        assert files(store)["f"] == b"theirs"

    async def test_an_edit_goes_on_over_its_base(
        self, store: MemoryStore, config: MountConfig, dead: DeadMount, autojump_clock: object
    ) -> None:
        etag = store.put_foreign("f", b"0123456789", {"colour": "red"}).etag
        base = BaseObject("f", etag, 10)
        dead.put("f", b"AB", at=4, base=base, expects=etag)
        assert await recover(store, config, dead) == []
        assert files(store) == {"f": b"0123AB6789"}
        assert store.objects["f"].metadata["colour"] == "red"

    async def test_an_edit_of_a_gone_version_is_kept_beside(
        self, store: MemoryStore, config: MountConfig, dead: DeadMount, autojump_clock: object
    ) -> None:
        etag = store.put_foreign("f", b"0123456789").etag
        dead.put("f", b"AB", at=4, base=BaseObject("f", etag, 10), expects=etag)
        left = dead.contents()
        await trio.sleep(WEEK)
        theirs(store, "f", b"newer work")
        async with remounted(store, config, MemoryJournal(left)) as client:
            await client.fs.drain(600.0)
        assert files(store)["f"] == b"newer work"
        kept = [data for key, data in files(store).items() if ".conflict-" in key]
        assert kept == [b"AB"]  # the base is gone: what was written here is all there is

    async def test_an_earlier_close_of_ours_is_gone_on_from(
        self, store: MemoryStore, config: MountConfig, dead: DeadMount, autojump_clock: object
    ) -> None:
        """Two closes within one tick of the clock: the first one was stored, the second not."""
        base = store.put_foreign("f", b"0123456789")
        file = dead.file("f", b"ABCD", at=2, base=BaseObject("f", base.etag, 10))
        ours(store, "f", b"01AB456789")
        dead.intent(Kind.PUT, "f", file=file, expects=base.etag, headers=headers_of("f"))
        assert await recover(store, config, dead) == []
        assert files(store) == {"f": b"01ABCD6789"}

    async def test_o_excl_against_another_host(
        self, store: MemoryStore, config: MountConfig, dead: DeadMount, autojump_clock: object
    ) -> None:
        theirs(store, "f")
        dead.put("f", b"ours", expects=ABSENT, exclusive=True)
        assert len(await recover(store, config, dead)) == 1
        assert files(store)["f"] == b"theirs"
        assert [data for key, data in files(store).items() if ".conflict-" in key] == [b"ours"]

    async def test_it_can_be_renamed_edited_and_removed_before_it_is_sent(
        self, store: MemoryStore, config: MountConfig, dead: DeadMount, autojump_clock: object
    ) -> None:
        dead.put("a", b"first", expects=ABSENT)
        dead.put("b", b"second", expects=ABSENT)
        dead.put("c", b"third", expects=ABSENT)
        ours(store, "c", b"third")
        async with remounted(store, config, MemoryJournal(dead.contents())) as client:
            await client.rename("a", "d")
            await client.edit("b", 0, b"S")
            await client.unlink("c")
            assert await client.ls() == ["b", "d"]
        assert files(store) == {"b": b"Second", "d": b"first"}


class TestCopy:
    async def rename(
        self, store: MemoryStore, config: MountConfig, dead: DeadMount, later: float = 0.0
    ) -> list[str]:
        return await recover(store, config, dead, later=later)

    def record(self, store: MemoryStore, dead: DeadMount, **fields: object) -> str:
        etag = ours(store, "a", b"bytes")
        fields = {"source_etag": etag, "size": 5, "expects": ABSENT, **fields}
        dead.intent(Kind.COPY, "b", source="a", **fields)
        return etag

    async def test_nothing_done(
        self, store: MemoryStore, config: MountConfig, dead: DeadMount, autojump_clock: object
    ) -> None:
        self.record(store, dead)
        async with remounted(store, config, MemoryJournal(dead.contents())) as client:
            assert await client.ls() == ["b"]
            assert await client.read("b") == b"bytes"
            assert (await client.stat("b")).attributes.mode == FILE.mode
        assert files(store) == {"b": b"bytes"}

    @pytest.mark.parametrize("told", [False, True])
    async def test_copied(
        self,
        store: MemoryStore,
        config: MountConfig,
        dead: DeadMount,
        autojump_clock: object,
        told: bool,
    ) -> None:
        self.record(store, dead, copied_phase=told)
        ours(store, "b", b"bytes")
        async with remounted(store, config, MemoryJournal(dead.contents())) as client:
            assert await client.ls() == ["b"]
            assert await client.read("b") == b"bytes"
        assert files(store) == {"b": b"bytes"}

    async def test_copied_to_a_name_that_means_another_type(
        self, store: MemoryStore, config: MountConfig, dead: DeadMount, autojump_clock: object
    ) -> None:
        etag = ours(store, "a.txt", b"bytes")
        fields = {"source_etag": etag, "size": 5, "expects": ABSENT}
        dead.intent(Kind.COPY, "b.html", source="a.txt", **fields)
        left = dead.contents()
        await trio.sleep(10)
        ours(store, "b.html", b"bytes")
        types = [store.objects[key].headers["content-type"] for key in ("a.txt", "b.html")]
        assert types == ["text/plain", "text/html"]
        async with remounted(store, config, MemoryJournal(left)) as client:
            await client.fs.drain(600.0)
            assert client.fs.status()["failures"] == []
        assert files(store) == {"b.html": b"bytes"}

    @pytest.mark.parametrize("told", [False, True])
    async def test_copied_and_deleted(
        self,
        store: MemoryStore,
        config: MountConfig,
        dead: DeadMount,
        autojump_clock: object,
        told: bool,
    ) -> None:
        self.record(store, dead, copied_phase=told)
        ours(store, "b", b"bytes")
        store.delete_foreign("a")
        assert await self.rename(store, config, dead) == []
        assert files(store) == {"b": b"bytes"}

    async def test_others_have_replaced_the_source(
        self, store: MemoryStore, config: MountConfig, dead: DeadMount, autojump_clock: object
    ) -> None:
        self.record(store, dead)
        theirs(store, "a")
        failures = await self.rename(store, config, dead, WEEK)
        assert "others have put a new version" in failures[0]
        assert files(store) == {"a": b"theirs"}

    async def test_others_have_put_something_at_the_target(
        self, store: MemoryStore, config: MountConfig, dead: DeadMount, autojump_clock: object
    ) -> None:
        self.record(store, dead)
        left = dead.contents()
        await trio.sleep(WEEK)
        theirs(store, "b")
        async with remounted(store, config, MemoryJournal(left)) as client:
            await client.fs.drain(600.0)
            assert len(client.fs.status()["failures"]) == 1
            await trio.sleep(4)
            assert await client.ls() == ["a", "b"]
        assert files(store) == {"a": b"bytes", "b": b"theirs"}

    async def test_over_the_file_that_it_was_to_replace(
        self, store: MemoryStore, config: MountConfig, dead: DeadMount, autojump_clock: object
    ) -> None:
        """Of the same size and times as the source: it is no copy all the same."""
        old = ours(store, "b", b"older")
        self.record(store, dead, expects=old)
        assert await self.rename(store, config, dead) == []
        assert files(store) == {"b": b"bytes"}

    async def test_others_have_made_the_source_anew_after_the_copy(
        self, store: MemoryStore, config: MountConfig, dead: DeadMount, autojump_clock: object
    ) -> None:
        self.record(store, dead, copied_phase=True)
        ours(store, "b", b"bytes")
        theirs(store, "a")
        await self.rename(store, config, dead, WEEK)
        assert files(store) == {"a": b"theirs", "b": b"bytes"}

    async def test_renamed_back_before_it_began(
        self, store: MemoryStore, config: MountConfig, dead: DeadMount, autojump_clock: object
    ) -> None:
        etag = ours(store, "a", b"bytes")
        changed = replace(FILE, mtime_ns=77)
        fields = {"source_etag": etag, "size": 5, "attributes": changed}
        dead.intent(Kind.COPY, "a", source="a", **fields)
        async with remounted(store, config, MemoryJournal(dead.contents())) as client:
            assert await client.ls() == ["a"]
            assert (await client.stat("a")).attributes.mtime_ns == 77
        assert files(store) == {"a": b"bytes"}
        assert attributes_of(store.objects["a"]) == changed

    async def test_a_chain_of_renames_and_a_new_file(
        self, store: MemoryStore, config: MountConfig, dead: DeadMount, autojump_clock: object
    ) -> None:
        self.record(store, dead)
        dead.intent(Kind.COPY, "c/d", source="b", size=5, expects=ABSENT)
        dead.put("a", b"another", expects=None)
        async with remounted(store, config, MemoryJournal(dead.contents())) as client:
            assert await client.ls() == ["a", "c"]
            assert await client.read("c/d") == b"bytes"
            assert await client.read("a") == b"another"
        assert files(store) == {"a": b"another", "c/d": b"bytes"}


class TestDelete:
    async def test_done_or_not(
        self, store: MemoryStore, config: MountConfig, dead: DeadMount, autojump_clock: object
    ) -> None:
        dead.intent(Kind.DELETE, "a", source_etag=ours(store, "a", b"bytes"))
        dead.intent(Kind.DELETE, "b", source_etag="gone")
        dead.intent(Kind.DELETE, "c", source_etag=None)
        ours(store, "c", b"unknown version")
        ours(store, "d", b"stays")
        async with remounted(store, config, MemoryJournal(dead.contents())) as client:
            assert await client.ls() == ["d"]
            assert not await client.exists("a")
        assert files(store) == {"d": b"stays"}

    async def test_of_a_directory_in_whose_place_a_file_is(
        self, store: MemoryStore, config: MountConfig, dead: DeadMount, autojump_clock: object
    ) -> None:
        """The file was sent, and nothing in the journal tells of it any more."""
        marker = store.put_foreign("a/", b"")
        dead.intent(Kind.DELETE, "a/", source_etag=marker.etag)
        ours(store, "a", b"bytes")
        async with remounted(store, config, MemoryJournal(dead.contents())) as client:
            assert await client.ls() == ["a"]
            assert await client.read("a") == b"bytes"
        assert contents(store) == {"a": b"bytes"}

    async def test_of_a_file_in_whose_place_a_directory_is(
        self, store: MemoryStore, config: MountConfig, dead: DeadMount, autojump_clock: object
    ) -> None:
        dead.intent(Kind.DELETE, "a", source_etag=ours(store, "a", b"bytes"))
        headers = headers_of("a/", DIRECTORY)
        store.put_foreign("a/", b"", headers.metadata, headers.headers)
        async with remounted(store, config, MemoryJournal(dead.contents())) as client:
            assert await client.ls() == ["a"]
            assert (await client.stat("a")).attributes.mode == DIRECTORY.mode
            await client.write("a/f", b"in it")
        assert contents(store) == {"a/": b"", "a/f": b"in it"}

    async def test_of_a_file_that_had_been_renamed_over_another_one(
        self, store: MemoryStore, config: MountConfig, dead: DeadMount, autojump_clock: object
    ) -> None:
        etag = ours(store, "a", b"bytes")
        ours(store, "b", b"what it was to replace")
        dead.intent(Kind.DELETE, "a", also_delete=("b",), source_etag=etag)
        async with remounted(store, config, MemoryJournal(dead.contents())) as client:
            assert await client.ls() == []
        assert contents(store) == {}

    async def test_newer_versions_stay(
        self, store: MemoryStore, config: MountConfig, dead: DeadMount, autojump_clock: object
    ) -> None:
        dead.intent(Kind.DELETE, "a", source_etag="old")
        dead.intent(Kind.DELETE, "b", source_etag=None)
        left = dead.contents()
        await trio.sleep(WEEK)
        theirs(store, "a")
        theirs(store, "b")
        async with remounted(store, config, MemoryJournal(left)) as client:
            await client.fs.drain(600.0)
            assert len(client.fs.status()["failures"]) == 2
            await trio.sleep(4)
            assert await client.ls() == ["a", "b"]
        assert files(store) == {"a": b"theirs", "b": b"theirs"}


class TestMkdir:
    def record(self, dead: DeadMount, **fields: object) -> None:
        headers = headers_of("d/", DIRECTORY)
        fields = {"attributes": DIRECTORY, "headers": headers, "expects": ABSENT, **fields}
        dead.intent(Kind.MKDIR, "d/", **fields)

    async def test_with_a_file_in_it(
        self, store: MemoryStore, config: MountConfig, dead: DeadMount, autojump_clock: object
    ) -> None:
        self.record(dead)
        dead.put("d/f", b"bytes", expects=ABSENT)
        async with remounted(store, config, MemoryJournal(dead.contents())) as client:
            assert await client.ls() == ["d"]
            assert (await client.stat("d")).attributes.mode == DIRECTORY.mode
            assert await client.ls("d") == ["f"]
        assert contents(store) == {"d/": b"", "d/f": b"bytes"}
        assert attributes_of(store.objects["d/"]) == DIRECTORY

    async def test_done(
        self, store: MemoryStore, config: MountConfig, dead: DeadMount, autojump_clock: object
    ) -> None:
        self.record(dead)
        headers = headers_of("d/", DIRECTORY)
        store.put_foreign("d/", b"", headers.metadata, headers.headers)
        assert await recover(store, config, dead) == []
        assert store.counts().get("PutObject", 0) == 0

    async def test_others_have_made_it_since(
        self, store: MemoryStore, config: MountConfig, dead: DeadMount, autojump_clock: object
    ) -> None:
        self.record(dead)
        store.put_foreign("d/", b"", {"mode": str(stat.S_IFDIR | 0o700)})
        assert len(await recover(store, config, dead, later=WEEK)) == 1
        assert stat.S_IMODE(attributes_of(store.objects["d/"]).mode) == 0o700

    @pytest.mark.parametrize("before", ["d", "d/"])
    async def test_the_files_sent_since_the_name_was_freed_are_in_it(
        self,
        store: MemoryStore,
        config: MountConfig,
        dead: DeadMount,
        autojump_clock: object,
        before: str,
    ) -> None:
        """By a file or another directory, whose removal the journal still has."""
        for key in ("d/old", "d/sub/old", before):
            dead.intent(Kind.DELETE, key, source_etag=ours(store, key, b""))
        self.record(dead)
        ours(store, "d/new", b"new")
        async with remounted(store, config, MemoryJournal(dead.contents())) as client:
            assert await client.ls("d") == ["new"]
            assert await client.read("d/new") == b"new"
        assert contents(store) == {"d/": b"", "d/new": b"new"}

    async def test_the_names_that_others_put_there_are_seen(
        self, store: MemoryStore, config: MountConfig, dead: DeadMount, autojump_clock: object
    ) -> None:
        self.record(dead)
        left = dead.contents()
        theirs(store, "d/theirs")
        async with remounted(store, config, MemoryJournal(left)) as client:
            assert await client.ls("d") == ["theirs"]


class TestAttributes:
    WANTED = FILE.__class__(
        stat.S_IFREG | 0o400, 7, 8, FILE.mtime_ns, FILE.ctime_ns + 5, FILE.atime_ns
    )

    def record(self, dead: DeadMount, etag: str, size: int = 5) -> None:
        dead.intent(Kind.ATTRIBUTES, "f", source_etag=etag, size=size, attributes=self.WANTED)

    async def test_not_done(
        self, store: MemoryStore, config: MountConfig, dead: DeadMount, autojump_clock: object
    ) -> None:
        self.record(dead, ours(store, "f", b"bytes"))
        async with remounted(store, config, MemoryJournal(dead.contents())) as client:
            found = await client.stat("f")
            assert (found.attributes.mode, found.size) == (self.WANTED.mode, 5)
            assert await client.read("f") == b"bytes"
        assert attributes_of(store.objects["f"]) == self.WANTED
        assert files(store) == {"f": b"bytes"}

    async def test_done_under_another_etag(
        self, store: MemoryStore, config: MountConfig, dead: DeadMount, autojump_clock: object
    ) -> None:
        self.record(dead, "of-parts-3")
        headers = WriteHeaders(encode(self.WANTED), {"content-type": "application/octet-stream"})
        store.put_foreign("f", b"bytes", headers.metadata, headers.headers)
        assert await recover(store, config, dead) == []
        assert store.counts().get("CopyObject", 0) == 0

    async def test_done_under_the_same_etag(
        self, store: MemoryStore, config: MountConfig, dead: DeadMount, autojump_clock: object
    ) -> None:
        """A copy that changes nothing could come late, over newer attributes, unnoticed."""
        headers = WriteHeaders(encode(self.WANTED), {"content-type": "application/octet-stream"})
        self.record(dead, store.put_foreign("f", b"bytes", headers.metadata, headers.headers).etag)
        assert await recover(store, config, dead) == []
        assert store.counts().get("CopyObject", 0) == 0

    async def test_an_extended_attribute_removed_within_the_tick_in_which_it_was_set(
        self, store: MemoryStore, config: MountConfig, dead: DeadMount, autojump_clock: object
    ) -> None:
        """All that the removal writes is there already, and more."""
        stored = encode(replace(self.WANTED, xattrs={"user.x": b"1"}))
        self.record(dead, store.put_foreign("f", b"bytes", stored).etag)
        assert await recover(store, config, dead) == []
        assert attributes_of(store.objects["f"]) == self.WANTED

    async def test_of_a_version_that_others_have_replaced(
        self, store: MemoryStore, config: MountConfig, dead: DeadMount, autojump_clock: object
    ) -> None:
        self.record(dead, ours(store, "f", b"bytes"))
        theirs(store, "f")
        assert len(await recover(store, config, dead, later=WEEK)) == 1
        assert stat.S_IMODE(attributes_of(store.objects["f"]).mode) == 0o644

    async def test_of_a_file_that_is_gone(
        self, store: MemoryStore, config: MountConfig, dead: DeadMount, autojump_clock: object
    ) -> None:
        self.record(dead, "old")
        assert len(await recover(store, config, dead, later=WEEK)) == 1
        assert contents(store) == {}


class TestRenameTree:
    """`a/` with a marker and three files becomes `b/`."""

    NAMES = ("", "one", "two", "sub/three")

    def tree(self, store: MemoryStore, prefix: str, names: tuple[str, ...] = NAMES) -> None:
        for name in names:
            if name:
                ours(store, prefix + name, name.encode())
            else:
                headers = headers_of(prefix, DIRECTORY)
                store.put_foreign(prefix, b"", headers.metadata, headers.headers)

    def all_at(self, prefix: str) -> dict[str, bytes]:
        return {prefix + name: name.encode() for name in self.NAMES}

    @pytest.mark.parametrize("copied", range(len(NAMES) + 1))
    async def test_while_copying(
        self,
        store: MemoryStore,
        config: MountConfig,
        dead: DeadMount,
        autojump_clock: object,
        copied: int,
    ) -> None:
        self.tree(store, "a/")
        self.tree(store, "b/", self.NAMES[:copied])
        dead.intent(Kind.RENAME_TREE, "b/", source="a/")
        async with remounted(store, config, MemoryJournal(dead.contents())) as client:
            assert await client.ls() == ["b"]
            assert await client.ls("b") == ["one", "sub", "two"]
            assert await client.read("b/sub/three") == b"sub/three"
            assert (await client.stat("b")).attributes.mode == DIRECTORY.mode
        assert contents(store) == self.all_at("b/")
        assert store.counts().get("CopyObject", 0) == len(self.NAMES) - copied

    @pytest.mark.parametrize("deleted", range(len(NAMES) + 1))
    async def test_while_deleting(
        self,
        store: MemoryStore,
        config: MountConfig,
        dead: DeadMount,
        autojump_clock: object,
        deleted: int,
    ) -> None:
        self.tree(store, "a/", self.NAMES[: len(self.NAMES) - deleted])
        self.tree(store, "b/")
        dead.intent(Kind.RENAME_TREE, "b/", source="a/", copied_phase=True)
        async with remounted(store, config, MemoryJournal(dead.contents())) as client:
            assert await client.ls() == ["b"]
            assert await client.ls("b") == ["one", "sub", "two"]
            assert await client.read("b/sub/three") == b"sub/three"
            assert not await client.exists("a")
        assert contents(store) == self.all_at("b/")
        assert store.counts().get("CopyObject", 0) == 0

    @pytest.mark.parametrize("told", [False, True])
    async def test_what_others_put_there_since_stays(
        self,
        store: MemoryStore,
        config: MountConfig,
        dead: DeadMount,
        autojump_clock: object,
        told: bool,
    ) -> None:
        self.tree(store, "a/")
        dead.intent(Kind.RENAME_TREE, "b/", source="a/", copied_phase=told)
        left = dead.contents()
        await trio.sleep(WEEK)
        theirs(store, "a/new")
        theirs(store, "b/one")
        async with remounted(store, config, MemoryJournal(left)) as client:
            await client.fs.drain(600.0)
            assert len(client.fs.status()["failures"]) == 1
            await trio.sleep(4)
            assert await client.ls("a") == ["new", "one"]
            assert await client.ls("b") == ["one", "sub", "two"]
        wanted = self.all_at("b/") | {"b/one": b"theirs", "a/one": b"one", "a/new": b"theirs"}
        assert contents(store) == wanted

    async def test_with_what_comes_before_and_after_it(
        self, store: MemoryStore, config: MountConfig, dead: DeadMount, autojump_clock: object
    ) -> None:
        """A file closed in it before the rename, one after it, one moved out, one removed, and
        another directory in the old place."""
        self.tree(store, "a/")
        one, two = store.objects["a/one"].etag, store.objects["a/two"].etag
        dead.put("a/before", b"before", expects=ABSENT)
        dead.intent(Kind.RENAME_TREE, "b/", source="a/")
        dead.put("b/after", b"after", expects=ABSENT)
        dead.intent(Kind.COPY, "out", source="b/one", source_etag=one, size=3, expects=ABSENT)
        dead.intent(Kind.DELETE, "b/two", source_etag=two)
        dead.intent(Kind.MKDIR, "a/", attributes=DIRECTORY, headers=headers_of("a/", DIRECTORY))
        dead.put("a/fresh", b"fresh", expects=ABSENT)
        async with remounted(store, config, MemoryJournal(dead.contents())) as client:
            assert await client.ls() == ["a", "b", "out"]
            assert await client.ls("b") == ["after", "before", "sub"]
            assert await client.ls("a") == ["fresh"]
            assert await client.read("b/before") == b"before"
            assert await client.read("out") == b"one"
        assert contents(store) == {
            "a/": b"",
            "a/fresh": b"fresh",
            "b/": b"",
            "b/after": b"after",
            "b/before": b"before",
            "b/sub/three": b"sub/three",
            "out": b"one",
        }
