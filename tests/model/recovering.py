"""Journals of mounts that died, made by hand, and mounts that take them up."""

import contextlib
import stat
from collections.abc import AsyncIterator, Collection
from dataclasses import replace
from typing import Any

import trio

from s3mount.core.config import MountConfig
from s3mount.core.metadata import Attributes, content_type_for, encode
from s3mount.core.part_schedule import PartSchedule
from s3mount.filesystem.build import open_filesystem
from s3mount.store.base import WriteHeaders
from s3mount.store.memory import MemoryStore
from s3mount.writeback.base_object import BaseObject
from s3mount.writeback.intents import Kind
from s3mount.writeback.journal import Journal, MemoryJournal
from s3mount.writeback.journal_records import (
    FileRecord,
    IntentRecord,
    JournalContents,
    PartRecord,
    UploadRecord,
)
from s3mount.writeback.spool import Spool
from tests.model.mounted import GID, UID, Client

FILE = Attributes(stat.S_IFREG | 0o640, UID, GID, 1_000_000_123, 1_000_000_456, 1_000_000_789)
DIRECTORY = replace(FILE, mode=stat.S_IFDIR | 0o750)


def headers_of(key: str, attributes: Attributes = FILE) -> WriteHeaders:
    """What this mount writes with a file or directory."""
    return WriteHeaders(encode(attributes), {"content-type": content_type_for(key, attributes)})


class DeadMount:
    """Its journal and spool, filled by hand; `created`: when, by the clock of this machine."""

    def __init__(self, config: MountConfig, *, created: float) -> None:
        self.config = config
        self.created = created
        self.journal = MemoryJournal()
        writeback = config.writeback
        schedule = PartSchedule(
            writeback.part_size,
            writeback.max_parts,
            writeback.max_object_size,
            writeback.equal_parts,
        )
        self._spool = Spool(writeback, schedule)
        self._spool.open()
        self._intents: list[IntentRecord] = []
        self._files: dict[int, FileRecord] = {}
        self._uploads: dict[int, UploadRecord] = {}

    def contents(self) -> JournalContents:
        self._spool.close()
        return JournalContents(list(self._intents), dict(self._files), dict(self._uploads))

    def file(
        self,
        key: str,
        data: bytes,
        *,
        at: int = 0,
        base: BaseObject | None = None,
        size: int | None = None,
        closed: bool = True,
        **fields: Any,
    ) -> int:
        """`data` written at `at`, over `base` if there is one; answers the record's id."""
        spooled = self._spool.create_file()
        assert spooled.try_write(at, data)
        record = FileRecord(
            id=self.journal.new_id(),
            key=key,
            closed=closed,
            size=max(at + len(data), base.size if base else 0) if size is None else size,
            visible=base.size if base else 0,
            whole=base is None,
            exclusive=False,
            replaces=False,
            base=base,
            attributes=FILE,
            kept=None,
            spool=spooled.seal(),
            changed_at=self.created,
        )
        self._files[record.id] = replace(record, **fields)
        return record.id

    def intent(self, kind: Kind, key: str, **fields: Any) -> int:
        number = self.journal.new_id()
        fields = {"created": self.created, "acknowledged": True, **fields}
        self._intents.append(IntentRecord(number, kind, key, **fields))
        return number

    async def upload(
        self,
        store: MemoryStore,
        key: str,
        parts: dict[int, bytes],
        *,
        file: int | None = None,
        heard_of: Collection[int] | None = None,
        learnt: bool = True,
    ) -> str:
        """Begun, and these parts sent, of 4 KiB each but the last; the answers of those in
        `heard_of` (None: of all) were heard."""
        upload_id = await store.create_upload(key, headers_of(key))
        record = UploadRecord(
            self.journal.new_id(),
            file,
            key,
            headers_of(key),
            upload_id if learnt else None,
            self.created,
        )
        for number, data in parts.items():
            part = await store.upload_part(key, upload_id, number, data)
            start = (number - 1) * self.config.writeback.part_size
            if heard_of is None or number in heard_of:
                record.parts[number] = PartRecord(number, start, start + len(data), part.etag)
        self._uploads[record.id] = record
        return upload_id

    def put(self, key: str, data: bytes, *, expects: Any = None, **fields: Any) -> int:
        file = self.file(key, data, **fields)
        return self.intent(Kind.PUT, key, file=file, expects=expects)


@contextlib.asynccontextmanager
async def remounted(
    store: MemoryStore,
    config: MountConfig,
    journal: Journal,
    *,
    drained: bool = True,
) -> AsyncIterator[Client]:
    """A mount that takes the journal up; at the end everything is sent and nothing left over."""
    fs = await open_filesystem(config, store, clock=store.monotonic, journal=journal)
    async with trio.open_nursery() as nursery:
        await nursery.start(fs.run)
        await fs.recover()
        yield Client(fs)
        if drained:
            await fs.drain(600.0)
            await trio.sleep(1.0)
            left = journal.load()
            assert not left.intents, left.intents
            assert not left.files, left.files
            await fs.aclose()
        nursery.cancel_scope.cancel()
