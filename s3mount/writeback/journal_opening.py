"""What an earlier process left of a journal: SQLite's rows, and the commits of the log on top."""

import itertools
import logging
import sqlite3
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from s3mount.core.config import MIB
from s3mount.core.errors import ConfigurationError
from s3mount.writeback import journal_log as logs
from s3mount.writeback.journal_database import Database, JournalUnusable, Place
from s3mount.writeback.journal_records import JournalContents
from s3mount.writeback.journal_rows import decode_rows, unpack_changes

log = logging.getLogger(__name__)

NO_SEGMENT = 0  # in the database of a journal that is being removed
FIRST_SEGMENT = MIB  # filled with zeros while the mount waits: a millisecond


@dataclass(slots=True)
class Restored:
    """`rows`: all there is; `serial`: of the last commit in it; `numbers`: of segments to come;
    `segment`: the first of them, which takes the next commits; `problems`: for the status."""

    contents: JournalContents
    rows: dict[Place, bytes]
    serial: int
    numbers: Iterator[int]
    segment: logs.Segment
    problems: list[str] = field(default_factory=list)


def restore(directory: Path, database: Database, digest: bytes) -> Restored:
    """Reads database and log, takes the log over into the database, and begins a new segment;
    blocks.

    Raises JournalUnusable where the journal has to be set aside, ConfigurationError and OSError
    where the disk is in the way.
    """
    meta = database.meta
    rows = database.rows()
    applied = meta.applied if meta is not None else 0
    try:
        replay = logs.read_log(directory, digest, applied)
    except (logs.UnknownFormat, logs.ForeignSegment, logs.DamagedSegment) as error:
        raise JournalUnusable(str(error)) from error
    old = logs.segment_paths(directory)
    if meta is None:
        # The first segment is made just before the database.
        if replay.entries or replay.torn or replay.numbers not in ([], [1]):
            raise JournalUnusable(f"{database.path} is empty or missing")
        for path in old:
            path.unlink()
        old, replay.numbers = [], []
    elif meta.segment not in (NO_SEGMENT, *replay.numbers):
        raise JournalUnusable(f"segment {meta.segment} of the journal's log is missing")
    changes: dict[Place, bytes | None] = {}
    for serial, payload in replay.entries:
        changes.update(unpack_changes(payload))
        applied = serial
    for place, data in changes.items():
        if data is None:
            rows.pop(place, None)
        else:
            rows[place] = data
    written_at = max((path.stat().st_mtime for path in old), default=0.0)
    contents = replace(decode_rows(rows), written_at=written_at)
    numbers = itertools.count(max(replay.numbers, default=0) + 1)
    segment = logs.Segment.create(directory, next(numbers), digest, FIRST_SEGMENT)
    try:
        database.apply(changes, applied, segment.number)
    except BaseException as error:
        segment.close()
        if not isinstance(error, sqlite3.Error):
            raise
        raise ConfigurationError(
            f"the journal {database.path} cannot be written ({error}); make room or see to its disk"
        ) from error
    found = Restored(contents, rows, applied, numbers, segment)
    _dispose(directory, old, replay.torn, found.problems)
    return found


def _dispose(directory: Path, old: list[Path], torn: list[str], problems: list[str]) -> None:
    """Segments that are in SQLite now. Damaged ones are kept for whoever wants to look."""
    if torn:
        aside = directory / time.strftime("journal.torn-%Y%m%dT%H%M%S")
        aside.mkdir(mode=0o700, exist_ok=True)
        for path in old:
            path.rename(aside / path.name)
        problems.append(
            f"the journal in {directory} ends early ({'; '.join(torn)}): what was changed"
            f" last before a power cut may be lost; its remains are kept in {aside}"
        )
        log.error("%s", problems[-1])
    for path in (*old, *directory.glob(f"{logs.NEW}*")):
        path.unlink(missing_ok=True)
    logs.sync_directory(directory)
