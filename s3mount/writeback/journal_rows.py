"""From the journal's calls to rows, and from the rows that a crash left to its contents."""

import struct
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from typing import Any, Final

from s3mount.writeback import journal_codec as codec
from s3mount.writeback.intents import Intent
from s3mount.writeback.journal_database import JournalUnusable, Place
from s3mount.writeback.journal_records import (
    ChunkRecord,
    FileRecord,
    IntentRecord,
    JournalContents,
    PartRecord,
    UploadRecord,
)

INTENT, FILE, CHUNK, UPLOAD, PART = 1, 2, 3, 4, 5
_OP = struct.Struct("<Bqqi")
_GONE: Final = object()
_INNER = nullcontext()  # a transaction in another one

Change = tuple[Place, bytes | None]  # a row to store, or (None) to delete


class RowRecorder:
    """The recording half of Journal: only rows that a call changes reach `_commit`."""

    def __init__(self) -> None:
        self._last_id = 0
        # What the rows in the journal are, to know which ones a change touches.
        self._intents: dict[int, bool] = {}
        self._files: dict[int, dict[int, ChunkRecord]] = {}
        self._uploads: dict[int, UploadRecord] = {}  # without parts
        self._parts: dict[int, dict[int, bool]] = {}
        self._changes: list[Change] | None = None  # of the transaction
        self._undo: list[Callable[[], Any]] = []

    @abstractmethod
    def _commit(self, changes: list[Change]) -> None:
        """All or nothing; raises FilesystemError."""

    def _remember(self, contents: JournalContents) -> None:
        self._last_id = contents.last_id
        self._intents = {record.sequence: True for record in contents.intents}
        for file in contents.files.values():
            self._files[file.id] = {chunk.index: chunk for chunk in file.spool.chunks}
        for upload in contents.uploads.values():
            self._uploads[upload.id] = replace(upload, parts={})
            self._parts[upload.id] = dict.fromkeys(upload.parts, True)

    def new_id(self) -> int:
        self._last_id += 1
        return self._last_id

    def transaction(self) -> AbstractContextManager[None]:
        return self._outermost() if self._changes is None else _INNER

    @contextmanager
    def _outermost(self) -> Iterator[None]:
        changes = self._changes = []
        try:
            yield
            self._changes = None
            if changes:
                self._commit(changes)
        except BaseException:
            for undo in reversed(self._undo):
                undo()
            raise
        finally:
            self._changes = None
            self._undo.clear()

    def record(self, intent: Intent) -> None:
        row = codec.encode_intent(IntentRecord.of(intent))
        with self.transaction():
            self._set(self._intents, intent.sequence, True)
            self._put(INTENT, intent.sequence, 0, row)

    def update(self, intent: Intent) -> None:
        if intent.sequence in self._intents:
            self.record(intent)

    def forget(self, intent: Intent | IntentRecord) -> None:
        if intent.sequence in self._intents:
            with self.transaction():
                self._set(self._intents, intent.sequence, _GONE)
                self._put(INTENT, intent.sequence, 0, None)

    def write_file(self, record: FileRecord) -> None:
        row = codec.encode_file(record)
        before = self._files.get(record.id, {})
        chunks = {chunk.index: chunk for chunk in record.spool.chunks}
        with self.transaction():
            self._set(self._files, record.id, chunks)
            self._put(FILE, record.id, 0, row)
            for index, chunk in chunks.items():
                known = before.get(index)
                if known is not chunk and known != chunk:
                    self._put(CHUNK, record.id, index, codec.encode_chunk(chunk))
            for index in before.keys() - chunks.keys():
                self._put(CHUNK, record.id, index, None)

    def forget_file(self, file: int) -> None:
        if file in self._files:
            with self.transaction():
                for index in self._files[file]:
                    self._put(CHUNK, file, index, None)
                self._set(self._files, file, _GONE)
                self._put(FILE, file, 0, None)

    def begin_upload(self, record: UploadRecord) -> None:
        with self.transaction():
            self.end_upload(record.id)
            self._set(self._uploads, record.id, replace(record, parts={}))
            self._set(self._parts, record.id, {})
            self._put(UPLOAD, record.id, 0, codec.encode_upload(record))
            for part in record.parts.values():
                self.write_part(record.id, part)

    def learn_upload(self, upload: int, upload_id: str) -> None:
        if upload in self._uploads:
            record = replace(self._uploads[upload], upload_id=upload_id)
            with self.transaction():
                self._set(self._uploads, upload, record)
                self._put(UPLOAD, upload, 0, codec.encode_upload(record))

    def write_part(self, upload: int, part: PartRecord) -> None:
        if upload in self._uploads:
            with self.transaction():
                self._set(self._parts[upload], part.number, True)
                self._put(PART, upload, part.number, codec.encode_part(part))

    def forget_part(self, upload: int, number: int) -> None:
        if number in self._parts.get(upload, ()):
            with self.transaction():
                self._set(self._parts[upload], number, _GONE)
                self._put(PART, upload, number, None)

    def end_upload(self, upload: int) -> None:
        if upload in self._uploads:
            with self.transaction():
                for number in self._parts[upload]:
                    self._put(PART, upload, number, None)
                self._set(self._parts, upload, _GONE)
                self._set(self._uploads, upload, _GONE)
                self._put(UPLOAD, upload, 0, None)

    def _put(self, kind: int, a: int, b: int, data: bytes | None) -> None:
        assert self._changes is not None
        self._changes.append(((kind, a, b), data))

    def _set(self, mapping: MutableMapping[int, Any], key: int, value: Any) -> None:
        """Sets or (_GONE) removes; undone if the transaction fails."""
        before = mapping.get(key, _GONE)
        self._undo.append(partial(_restore, mapping, key, before))
        _restore(mapping, key, value)


def pack_changes(changes: Iterable[Change]) -> bytes:
    pieces = []
    for place, data in changes:
        pieces.append(_OP.pack(*place, -1 if data is None else len(data)))
        if data is not None:
            pieces.append(data)
    return b"".join(pieces)


def unpack_changes(payload: bytes) -> Iterator[Change]:
    at = 0
    while at < len(payload):
        kind, a, b, length = _OP.unpack_from(payload, at)
        at += _OP.size
        if length < 0:
            yield (kind, a, b), None
            continue
        yield (kind, a, b), payload[at : at + length]
        at += length


def decode_rows(rows: Mapping[Place, bytes]) -> JournalContents:
    """Raises JournalUnusable for rows that make no sense."""
    chunks: dict[int, list[ChunkRecord]] = {}
    parts: dict[int, list[PartRecord]] = {}
    contents = JournalContents([], {}, {})
    files: dict[int, FileRecord] = {}
    uploads: dict[int, UploadRecord] = {}
    try:
        for (kind, a, b), row in sorted(rows.items(), key=lambda item: item[0]):
            if kind == CHUNK:
                chunks.setdefault(a, []).append(codec.decode_chunk(b, row))
            elif kind == PART:
                parts.setdefault(a, []).append(codec.decode_part(b, row))
        for (kind, a, _), row in sorted(rows.items(), key=lambda item: item[0]):
            if kind == INTENT:
                contents.intents.append(codec.decode_intent(a, row))
            elif kind == FILE:
                files[a] = codec.decode_file(a, row, chunks.get(a, ()))
            elif kind == UPLOAD:
                uploads[a] = codec.decode_upload(a, row, parts.get(a, ()))
    except codec.Undecodable as error:
        raise JournalUnusable(f"the journal cannot be read: {error}") from error
    return JournalContents(contents.intents, files, uploads)


def _restore(mapping: MutableMapping[int, Any], key: int, value: Any) -> None:
    if value is _GONE:
        mapping.pop(key, None)
    else:
        mapping[key] = value
