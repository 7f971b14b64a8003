"""Records to bytes and back: JSON for names and attributes, raw bytes for extents and checksums.

A row is the length of its JSON, the JSON, then its binary fields, each after its length. Fields
are found by name, so that a later version can add some.
"""

import json
import struct
from array import array
from collections.abc import Iterable, Mapping
from typing import Any, NoReturn

from s3mount.core.metadata import NO_XATTRS, Attributes
from s3mount.store.base import (
    Condition,
    ObjectInfo,
    WriteHeaders,
)
from s3mount.writeback.base_object import BaseObject
from s3mount.writeback.intents import ABSENT, Absent, Expected, Kind
from s3mount.writeback.journal_records import (
    ChunkRecord,
    FileRecord,
    IntentRecord,
    PartRecord,
    Ranges,
    SpoolRecord,
    UploadRecord,
)

_LENGTH = struct.Struct("<I")
_dump = json.JSONEncoder(separators=(",", ":")).encode


class Undecodable(Exception):
    """The row is not what encode_... made."""


def encode_intent(record: IntentRecord) -> bytes:
    return _pack(
        {
            "kind": record.kind.value,
            "key": record.key,
            "source": record.source,
            "also_delete": record.also_delete,
            "source_etag": record.source_etag,
            "attributes": _attributes(record.attributes),
            "shown": _attributes(record.shown),
            "headers": _headers(record.headers),
            "unanswered": [_headers(one) for one in record.unanswered],
            "condition": [record.condition.absent, record.condition.etag],
            "size": record.size,
            "replaces": record.replaces,
            "file": record.file,
            "expects": _expected(record.expects),
            "acknowledged": record.acknowledged,
            "copied_phase": record.copied_phase,
            "created": record.created,
            "lives": record.lives,
            "waits_for": record.waits_for,
        }
    )


def decode_intent(sequence: int, row: bytes) -> IntentRecord:
    found, _ = _unpack(row)
    try:
        return IntentRecord(
            sequence=sequence,
            kind=Kind(found["kind"]),
            key=found["key"],
            source=found["source"],
            also_delete=tuple(found["also_delete"]),
            source_etag=found["source_etag"],
            attributes=_as_attributes(found["attributes"]),
            shown=_as_attributes(found["shown"]),
            headers=_as_headers(found["headers"]),
            unanswered=tuple(WriteHeaders(*one) for one in found.get("unanswered", ())),
            condition=Condition(*found["condition"]),
            size=found["size"],
            replaces=found["replaces"],
            file=found["file"],
            expects=_as_expected(found["expects"]),
            acknowledged=found["acknowledged"],
            copied_phase=found["copied_phase"],
            created=found["created"],
            lives=tuple(found["lives"]),
            waits_for=tuple(found["waits_for"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise Undecodable(f"intent {sequence}: {error!r}") from error


def encode_file(record: FileRecord) -> bytes:
    """All but the chunks, which have rows of their own."""
    spool, base, kept = record.spool, record.base, record.kept
    return _pack(
        {
            "key": record.key,
            "closed": record.closed,
            "size": record.size,
            "visible": record.visible,
            "whole": record.whole,
            "exclusive": record.exclusive,
            "replaces": record.replaces,
            "base": base and [base.key, base.etag, base.size, base.version_id],
            "attributes": _attributes(record.attributes),
            "kept": kept and _object_info(kept),
            "changed_at": record.changed_at,
            "chunk_size": spool.chunk_size,
            "has_body": spool.body is not None,
        },
        _ranges(spool.present),
        _ranges(spool.dirty),
        _ranges(spool.dropped),
        _ranges(spool.published),
        spool.body_crcs,
        spool.body or b"",
    )


def decode_file(number: int, row: bytes, chunks: Iterable[ChunkRecord]) -> FileRecord:
    found, blobs = _unpack(row)
    try:
        present, dirty, dropped, published, body_crcs, body = blobs
        spool = SpoolRecord(
            present=_as_ranges(present),
            dirty=_as_ranges(dirty),
            dropped=_as_ranges(dropped),
            published=_as_ranges(published),
            chunks=tuple(chunks),
            chunk_size=found["chunk_size"],
            body=body if found["has_body"] else None,
            body_crcs=body_crcs,
        )
        return FileRecord(
            id=number,
            key=found["key"],
            closed=found["closed"],
            size=found["size"],
            visible=found["visible"],
            whole=found["whole"],
            exclusive=found["exclusive"],
            replaces=found["replaces"],
            base=found["base"] and BaseObject(*found["base"]),
            attributes=_as_attributes(found["attributes"]) or _missing("attributes"),
            kept=found["kept"] and ObjectInfo(**found["kept"]),
            spool=spool,
            changed_at=found["changed_at"],
        )
    except (KeyError, TypeError, ValueError) as error:
        raise Undecodable(f"file {number}: {error!r}") from error


def encode_chunk(chunk: ChunkRecord) -> bytes:
    return _pack([chunk.name, chunk.dense], chunk.filled, chunk.crcs)


def decode_chunk(index: int, row: bytes) -> ChunkRecord:
    found, blobs = _unpack(row)
    try:
        name, dense = found
        filled, crcs = blobs
    except (TypeError, ValueError) as error:
        raise Undecodable(f"chunk {index}: {error!r}") from error
    return ChunkRecord(index, name, filled, crcs, dense)


def encode_upload(record: UploadRecord) -> bytes:
    """All but the parts, which have rows of their own."""
    return _pack(
        {
            "file": record.file,
            "key": record.key,
            "headers": _headers(record.headers),
            "upload_id": record.upload_id,
            "begun_at": record.begun_at,
        }
    )


def decode_upload(number: int, row: bytes, parts: Iterable[PartRecord]) -> UploadRecord:
    found, _ = _unpack(row)
    try:
        return UploadRecord(
            id=number,
            file=found["file"],
            key=found["key"],
            headers=_as_headers(found["headers"]) or WriteHeaders(),
            upload_id=found["upload_id"],
            begun_at=found["begun_at"],
            parts={part.number: part for part in parts},
        )
    except (KeyError, TypeError, ValueError) as error:
        raise Undecodable(f"upload {number}: {error!r}") from error


def encode_part(part: PartRecord) -> bytes:
    return _pack([part.start, part.end, part.etag, part.checksum, part.base])


def decode_part(number: int, row: bytes) -> PartRecord:
    found, _ = _unpack(row)
    try:
        return PartRecord(number, *found)
    except TypeError as error:
        raise Undecodable(f"part {number}: {error!r}") from error


# -- rows


def _pack(found: Any, *blobs: bytes) -> bytes:
    text = _dump(found).encode()
    pieces = [_LENGTH.pack(len(text)), text]
    for blob in blobs:
        pieces += (_LENGTH.pack(len(blob)), blob)
    return b"".join(pieces)


def _unpack(row: bytes) -> tuple[Any, list[bytes]]:
    pieces, at = [], 0
    try:
        while at < len(row):
            (length,) = _LENGTH.unpack_from(row, at)
            at += _LENGTH.size
            if at + length > len(row):
                raise Undecodable("a row is cut short")
            pieces.append(row[at : at + length])
            at += length
        return json.loads(pieces[0]), pieces[1:]
    except (struct.error, ValueError, IndexError) as error:
        raise Undecodable(f"a row is damaged: {error!r}") from error


# -- values within them


def _attributes(one: Attributes | None) -> list[Any] | None:
    if one is None:
        return None
    xattrs = {name: value.hex() for name, value in one.xattrs.items()} if one.xattrs else None
    times = one.mtime_ns, one.ctime_ns, one.atime_ns
    return [one.mode, one.uid, one.gid, *times, one.rdev, xattrs]


def _as_attributes(found: list[Any] | None) -> Attributes | None:
    if found is None:
        return None
    mode, uid, gid, mtime, ctime, atime, rdev, texts = found
    xattrs = NO_XATTRS
    if texts:
        xattrs = {name: bytes.fromhex(text) for name, text in texts.items()}
    return Attributes(mode, uid, gid, mtime, ctime, atime, rdev, xattrs)


def _headers(one: WriteHeaders | None) -> list[Mapping[str, str]] | None:
    return None if one is None else [dict(one.metadata), dict(one.headers)]


def _as_headers(found: list[Mapping[str, str]] | None) -> WriteHeaders | None:
    return None if found is None else WriteHeaders(*found)


def _object_info(one: ObjectInfo) -> dict[str, Any]:
    """`asked_at` is this process's own clock and means nothing later."""
    return {
        "key": one.key,
        "size": one.size,
        "etag": one.etag,
        "last_modified": one.last_modified,
        "metadata": dict(one.metadata),
        "headers": dict(one.headers),
        "version_id": one.version_id,
        "answered_at": one.answered_at,
    }


def _expected(one: Expected | None) -> list[str] | None:
    """None: unknown; []: absent; [ETag]."""
    if one is None:
        return None
    return [] if isinstance(one, Absent) else [one]


def _as_expected(found: list[str] | None) -> Expected | None:
    if found is None:
        return None
    return found[0] if found else ABSENT


def _ranges(ranges: Ranges) -> bytes:
    return array("q", [bound for each in ranges for bound in each]).tobytes()


def _as_ranges(row: bytes) -> Ranges:
    bounds = array("q")
    bounds.frombytes(row)
    flat = iter(bounds)
    return tuple(zip(flat, flat, strict=True))


def _missing(name: str) -> NoReturn:
    raise ValueError(f"no {name}")
