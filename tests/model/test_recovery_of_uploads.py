"""Multipart uploads that a mount left when it died, and files that were never closed."""

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import trio

from s3mount.core.config import KIB, MountConfig
from s3mount.store.memory import CEPH_CAPABILITIES, MemoryStore
from s3mount.writeback.base_object import BaseObject
from s3mount.writeback.intents import ABSENT, Kind
from s3mount.writeback.journal import MemoryJournal
from s3mount.writeback.recoverable import Recoverable
from tests.model.bucket import contents, files, requests
from tests.model.mounted import EPOCH, memory_store
from tests.model.recovering import DeadMount, headers_of, remounted

PART = 4 * KIB
DATA = random.Random(3).randbytes(10 * PART + 100)
HOUR = 3600.0


@pytest.fixture(autouse=True)
def _one_clock() -> Iterator[None]:
    """This machine's clock is the service's."""
    with patch("time.time", lambda: EPOCH + trio.current_time()):
        yield


@pytest.fixture
async def dead(config: MountConfig) -> DeadMount:
    return DeadMount(config, created=EPOCH + trio.current_time())


def parts(*numbers: int) -> dict[int, bytes]:
    return {number: DATA[(number - 1) * PART : number * PART] for number in numbers}


class Sent:
    """What a recovery sends; the mount may be looked at while it is there."""

    def __init__(self, store: MemoryStore, config: MountConfig, dead: DeadMount) -> None:
        self.store, self.config, self.journal = store, config, MemoryJournal(dead.contents())

    async def recover(self, *, wait: float = 0.0) -> dict[str, Any]:
        before = self.store.counts()
        async with remounted(self.store, self.config, self.journal) as client:
            await client.fs.drain(600.0)
            await trio.sleep(wait)
            self.status = client.fs.status()
        return requests(before, self.store.counts())


class TestResume:
    async def record(self, store: MemoryStore, dead: DeadMount, *sent: int, **fields: Any) -> str:
        file = dead.file("f", DATA)
        dead.intent(Kind.PUT, "f", file=file, expects=ABSENT)
        return await dead.upload(store, "f", parts(*sent), file=file, **fields)

    @pytest.mark.parametrize("service", ["all", "ceph"])
    async def test_only_what_the_service_does_not_have_is_sent(
        self, config: MountConfig, dead: DeadMount, service: str, autojump_clock: object
    ) -> None:
        """Six of eleven parts were there; of one of them the answer was never heard."""
        store = memory_store() if service == "all" else memory_store(capabilities=CEPH_CAPABILITIES)
        await self.record(store, dead, 1, 2, 3, 4, 5, 6, heard_of=[1, 2, 3, 4, 5])
        done = await Sent(store, config, dead).recover()
        assert done["UploadPart"] == 5
        assert done["ListParts"] == 1
        assert "CreateMultipartUpload" not in done
        assert files(store) == {"f": DATA}
        assert not store.uploads

    async def test_parts_of_other_bytes_are_sent_again(
        self, store: MemoryStore, config: MountConfig, dead: DeadMount, autojump_clock: object
    ) -> None:
        """The file was written again after they were sent, and closed."""
        upload_id = await self.record(store, dead, 1, 2, 3)
        await store.upload_part("f", upload_id, 2, b"older bytes".ljust(PART))
        await store.upload_part("f", upload_id, 3, b"too short")
        assert (await Sent(store, config, dead).recover())["UploadPart"] == 10
        assert files(store) == {"f": DATA}

    async def test_an_upload_that_is_gone_is_begun_anew(
        self, store: MemoryStore, config: MountConfig, dead: DeadMount, autojump_clock: object
    ) -> None:
        await store.abort_upload("f", await self.record(store, dead, 1, 2, 3))
        done = await Sent(store, config, dead).recover()
        assert (done["CreateMultipartUpload"], done["UploadPart"]) == (1, 11)
        assert files(store) == {"f": DATA}

    async def test_a_complete_whose_answer_was_lost_is_found(
        self, store: MemoryStore, config: MountConfig, dead: DeadMount, autojump_clock: object
    ) -> None:
        upload_id = await self.record(store, dead, *range(1, 12))
        await store.complete_upload("f", upload_id, await store.list_parts("f", upload_id))
        done = await Sent(store, config, dead).recover()
        assert "UploadPart" not in done
        assert "PutObject" not in done
        assert files(store) == {"f": DATA}

    async def test_copied_parts_of_an_edit_are_kept(
        self, store: MemoryStore, config: MountConfig, dead: DeadMount, autojump_clock: object
    ) -> None:
        etag = store.put_foreign("f", DATA).etag
        base = BaseObject("f", etag, len(DATA))
        dead.put("f", b"new", at=5 * PART, base=base, expects=etag)
        assert "PutObject" not in await Sent(store, config, dead).recover()
        wanted = DATA[: 5 * PART] + b"new" + DATA[5 * PART + 3 :]
        assert files(store) == {"f": wanted}


class TestLeftUploads:
    async def test_one_that_nothing_needs_is_aborted(
        self, store: MemoryStore, config: MountConfig, dead: DeadMount, autojump_clock: object
    ) -> None:
        await dead.upload(store, "f", parts(1))
        await Sent(store, config, dead).recover(wait=1.0)
        assert not store.uploads

    async def test_one_whose_id_was_never_learnt_is_aborted_an_hour_later(
        self, store: MemoryStore, config: MountConfig, dead: DeadMount, autojump_clock: object
    ) -> None:
        await dead.upload(store, "f", {}, learnt=False)
        sent = Sent(store, config, dead)
        await sent.recover(wait=0.9 * HOUR)
        assert len(store.uploads) == 1
        assert "its id is not known" in sent.status["recovery"]["uploads"][0]
        assert len(sent.journal.load().uploads) == 1
        sent = Sent.__new__(Sent)
        sent.store, sent.config = store, config
        sent.journal = MemoryJournal(_journal_of(dead))
        await sent.recover(wait=0.3 * HOUR)
        assert not store.uploads
        assert not sent.journal.load().uploads

    async def test_with_a_part_or_begun_at_another_time_it_stays(
        self, store: MemoryStore, config: MountConfig, dead: DeadMount, autojump_clock: object
    ) -> None:
        with_part = await dead.upload(store, "f", parts(1), learnt=False)
        await dead.upload(store, "g", {}, learnt=False)
        store.uploads.clear()
        kept = await store.create_upload("f", headers_of("f"))
        await store.upload_part("f", kept, 1, b"somebody's")
        await trio.sleep(600)
        another = await store.create_upload("g", headers_of("g"))
        await trio.sleep(HOUR)
        await Sent(store, config, dead).recover(wait=1.0)
        assert with_part not in store.uploads
        assert set(store.uploads) == {kept, another}


def _journal_of(dead: DeadMount) -> Any:
    return dead.contents()


class TestNeverClosed:
    async def test_it_is_set_aside_and_not_published(
        self,
        store: MemoryStore,
        config: MountConfig,
        dead: DeadMount,
        tmp_path: Path,
        autojump_clock: object,
    ) -> None:
        file = dead.file("dir/open", DATA, closed=False)
        await dead.upload(store, "dir/open", parts(1, 2), file=file)
        dead.put("closed", b"bytes", expects=ABSENT)
        sent = Sent(store, config, dead)
        await sent.recover(wait=1.0)
        assert contents(store) == {"closed": b"bytes"}
        assert not store.uploads
        assert file not in sent.journal.load().files
        assert "'dir/open': 41060 of 41060 bytes" in sent.status["recovery"]["recoverable"][0]
        kept = Recoverable(tmp_path / "recoverable")
        (entry,) = kept.list()
        assert (entry.key, entry.ranges, entry.base) == ("dir/open", ((0, len(DATA)),), None)
        kept.save(entry, tmp_path / "saved")
        assert (tmp_path / "saved").read_bytes() == DATA
        assert not [path for path in (tmp_path / "spool").iterdir() if path.stat().st_size]

    async def test_what_its_object_had_is_told(
        self,
        store: MemoryStore,
        config: MountConfig,
        dead: DeadMount,
        tmp_path: Path,
        autojump_clock: object,
    ) -> None:
        etag = store.put_foreign("f", DATA).etag
        base = BaseObject("f", etag, len(DATA))
        dead.file("f", b"new", at=PART, base=base, closed=False)
        await Sent(store, config, dead).recover()
        assert files(store) == {"f": DATA}
        (entry,) = Recoverable(tmp_path / "recoverable").list()
        assert (entry.ranges, entry.base) == (((PART, PART + 3),), etag)

    async def test_a_full_disk_keeps_it_for_the_next_mount(
        self,
        store: MemoryStore,
        config: MountConfig,
        dead: DeadMount,
        tmp_path: Path,
        autojump_clock: object,
    ) -> None:
        dead.file("open", DATA, closed=False)
        left = dead.contents()
        journal = MemoryJournal(left)
        with patch("s3mount.writeback.recoverable.export", side_effect=OSError(28, "disk full")):
            async with remounted(store, config, journal, drained=False) as client:
                assert "cannot be set aside" in client.fs.status()["failures"][0]
                await client.fs.aclose()
        assert len(journal.load().files) == 1
        assert Recoverable(tmp_path / "recoverable").list() == []
        async with remounted(store, config, MemoryJournal(journal.load())):
            pass
        (entry,) = Recoverable(tmp_path / "recoverable").list()
        Recoverable(tmp_path / "recoverable").save(entry, tmp_path / "saved")
        assert (tmp_path / "saved").read_bytes() == DATA
