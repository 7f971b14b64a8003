"""Strategies for every record of the journal, and the calls that a mount makes of them."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from hypothesis import strategies as st

from s3mount.core.metadata import NO_XATTRS, Attributes
from s3mount.store.base import (
    Condition,
    ObjectInfo,
    WriteHeaders,
)
from s3mount.writeback.base_object import BaseObject
from s3mount.writeback.intents import ABSENT, Intent, Kind
from s3mount.writeback.journal import Journal
from s3mount.writeback.journal_records import (
    ChunkRecord,
    FileRecord,
    IntentRecord,
    PartRecord,
    SpoolRecord,
    UploadRecord,
)

texts = st.text(max_size=12)
some_text = st.none() | texts
bounds = st.integers(0, 2**62)
times = st.integers(-(2**62), 2**62)
moments = st.floats(0, 4e9, allow_nan=False)
words = st.dictionaries(texts, texts, max_size=2)
ranges = st.lists(st.tuples(bounds, bounds), max_size=3).map(tuple)
packed = st.binary(max_size=40)

attributes = st.builds(
    Attributes,
    mode=st.integers(0, 0o177777),
    uid=st.integers(0, 2**32 - 2),
    gid=st.integers(0, 2**32 - 2),
    mtime_ns=times,
    ctime_ns=times,
    atime_ns=times,
    rdev=st.integers(0, 2**40),
    xattrs=st.just(NO_XATTRS) | st.dictionaries(texts, st.binary(max_size=8), max_size=2),
)
headers = st.builds(WriteHeaders, metadata=words, headers=words)
bases = st.builds(BaseObject, key=texts, etag=texts, size=bounds, version_id=some_text)
infos = st.builds(
    ObjectInfo,
    key=texts,
    size=bounds,
    etag=texts,
    last_modified=moments,
    metadata=words,
    headers=words,
    version_id=some_text,
    answered_at=moments,
    asked_at=st.just(0.0),
)
parts = st.builds(
    PartRecord,
    number=st.integers(1, 5),
    start=bounds,
    end=bounds,
    etag=texts,
    checksum=some_text,
    base=some_text,
)
chunks = st.builds(
    ChunkRecord,
    index=st.integers(0, 4),
    name=texts,
    filled=packed,
    crcs=packed,
    dense=st.booleans(),
)
spools = st.builds(
    SpoolRecord,
    present=ranges,
    dirty=ranges,
    dropped=ranges,
    published=ranges,
    chunks=st.lists(chunks, max_size=4, unique_by=lambda chunk: chunk.index).map(
        lambda found: tuple(sorted(found, key=lambda chunk: chunk.index))
    ),
    chunk_size=st.integers(1, 2**33),
    body=st.none() | packed,
    body_crcs=packed,
)
files = st.builds(
    FileRecord,
    id=st.integers(1, 6),
    key=texts,
    closed=st.booleans(),
    size=bounds,
    visible=bounds,
    whole=st.booleans(),
    exclusive=st.booleans(),
    replaces=st.booleans(),
    base=st.none() | bases,
    attributes=attributes,
    kept=st.none() | infos,
    spool=spools,
    changed_at=moments,
)
uploads = st.builds(
    UploadRecord,
    id=st.integers(1, 4),
    file=st.none() | st.integers(1, 6),
    key=texts,
    headers=headers,
    upload_id=some_text,
    begun_at=moments,
    parts=st.lists(parts, max_size=3).map(lambda found: {part.number: part for part in found}),
)
intents = st.builds(
    IntentRecord,
    sequence=st.integers(1, 8),
    kind=st.sampled_from(Kind),
    key=texts,
    source=some_text,
    also_delete=st.lists(texts, max_size=2).map(tuple),
    source_etag=some_text,
    attributes=st.none() | attributes,
    headers=st.none() | headers,
    unanswered=st.lists(headers, max_size=2).map(tuple),
    condition=st.builds(Condition, absent=st.booleans(), etag=some_text),
    size=bounds,
    replaces=st.booleans(),
    file=st.none() | st.integers(1, 6),
    expects=st.none() | st.just(ABSENT) | texts,
    acknowledged=st.booleans(),
    copied_phase=st.booleans(),
    created=moments,
    waits_for=st.lists(st.integers(1, 8), max_size=3, unique=True).map(
        lambda found: tuple(sorted(found))
    ),
)

numbers = st.integers(1, 8)
calls = st.one_of(
    st.tuples(st.just("record"), intents),
    st.tuples(st.just("update"), intents),
    st.tuples(st.just("forget"), numbers),
    st.tuples(st.just("write_file"), files),
    st.tuples(st.just("forget_file"), numbers),
    st.tuples(st.just("begin_upload"), uploads),
    st.tuples(st.just("learn_upload"), numbers, texts),
    st.tuples(st.just("write_part"), numbers, parts),
    st.tuples(st.just("forget_part"), numbers, numbers),
    st.tuples(st.just("end_upload"), numbers),
)


def intent_of(record: IntentRecord) -> Intent:
    """An intent whose record is `record`."""
    names = [name for name in IntentRecord.__dataclass_fields__ if name != "waits_for"]
    intent = Intent(**{name: getattr(record, name) for name in names})
    for sequence in record.waits_for:
        other = Intent(kind=Kind.PUT, key="")
        other.sequence = sequence
        intent.waits_for.add(other)
    return intent


def call(journal: Journal, name: str, *arguments: Any) -> None:
    """Makes one of `calls`."""
    if name in {"record", "update"}:
        arguments = (intent_of(arguments[0]),)
    elif name == "forget":
        gone = Intent(kind=Kind.PUT, key="")
        gone.sequence = arguments[0]
        arguments = (gone,)
    getattr(journal, name)(*arguments)


def a_file(number: int, key: str, chunks: Sequence[ChunkRecord] = (), **more: Any) -> FileRecord:
    spool = SpoolRecord(((0, 10),), ((0, 10),), (), (), tuple(chunks), 2**23)
    plain = Attributes(0o100644, 1000, 1000, 1, 2, 3)
    record = FileRecord(number, key, True, 10, 0, True, False, False, None, plain, None, spool, 5.0)
    return replace(record, **more)


def an_intent(sequence: int, key: str, **more: Any) -> Intent:
    intent = Intent(kind=Kind.DELETE, key=key, **more)
    intent.sequence = sequence
    return intent
