"""The bytes of files that a damaged journal names: kept as those of files that were never closed.

Nothing else of it is used. What SQLite's file has is not in the log any more, so that with damage
there the log has changes whose beginnings are missing, and with damage in the log SQLite lacks
their ends: to replay either could lose a name or undo newer work. But a file's record is whole by
itself, and what it says of its bytes is checked by their CRCs. Synchronous.
"""

import contextlib
import json
import logging
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from pathlib import Path

from s3mount.writeback import journal_log as logs
from s3mount.writeback.journal_database import FORMAT, JournalUnusable, Place, row_crc
from s3mount.writeback.journal_records import FileRecord, JournalContents
from s3mount.writeback.journal_rows import CHUNK, FILE, PART, UPLOAD, decode_rows, unpack_changes
from s3mount.writeback.recoverable import Recoverable
from s3mount.writeback.recovery import of_file

log = logging.getLogger(__name__)

_ASCENDING, _DESCENDING = "a, b", "a DESC, b DESC"


def salvage(directory: Path, identity: str, spool: Path) -> tuple[int, int]:
    """How many files have bytes in `directory`/recoverable now, and how many could not be kept.
    `spool`: where the chunk files are. Raises OSError."""
    rows = _rows_of_database(directory, identity)
    if rows is None:
        return 0, 0
    for payload in logs.readable_entries(directory, logs.digest_of(identity)):
        for place, data in unpack_changes(payload):
            if data is None:
                rows.pop(place, None)
            else:
                rows[place] = data
    uploads = _decoded({place: row for place, row in rows.items() if place[0] in (UPLOAD, PART)})
    of_files: dict[int, dict[Place, bytes]] = {}
    for place, row in rows.items():
        if place[0] in (FILE, CHUNK):
            of_files.setdefault(place[1], {})[place] = row
    kept, lost = 0, 0
    for number, own in of_files.items():
        record = _decoded(own).files.get(number)
        ids = [one.upload_id for one in of_file(uploads.uploads.values(), number)]
        if record is None:
            continue
        try:
            kept += _keep(directory, record, spool, ids[-1] if ids else None)
        except OSError as error:
            log.error("%r of the damaged journal is not kept: %s", record.key, error)  # noqa: TRY400
            lost += 1
    return kept, lost


def _keep(directory: Path, record: FileRecord, spool: Path, upload_id: str | None) -> bool:
    """Whether anything of it could be read."""
    kept = Recoverable(directory / "recoverable")
    entry = kept.add(record, spool, upload_id)
    if entry is not None and not entry.bytes and entry.in_upload is None:
        kept.drop(entry)
        return False
    return entry is not None


def _decoded(rows: dict[Place, bytes]) -> JournalContents:
    try:
        return decode_rows(rows)
    except JournalUnusable as error:
        log.warning("%s", error)
        return JournalContents()


def _rows_of_database(directory: Path, identity: str) -> dict[Place, bytes] | None:
    """What can be read of it, each row checked; None where it is another mount's or newer."""
    with tempfile.TemporaryDirectory(prefix="s3mount-") as name:
        for path in directory.glob("journal.sqlite*"):
            if path.is_file():
                shutil.copyfile(path, Path(name, path.name))
        try:
            connection = sqlite3.connect(Path(name, "journal.sqlite"), isolation_level=None)
        except sqlite3.Error:
            return {}
        with contextlib.closing(connection):
            if not _is_ours(connection, identity):
                return None
            found: dict[Place, bytes] = {}
            # From both ends: what lies behind the damage is met from the other one.
            for order in (_ASCENDING, _DESCENDING):
                found.update(_readable(connection, order))
            return found


def _is_ours(connection: sqlite3.Connection, identity: str) -> bool:
    """As far as it can tell."""
    try:
        if connection.execute("PRAGMA user_version").fetchone()[0] > FORMAT:
            return False
        found = connection.execute("SELECT data FROM meta").fetchone()
        return found is None or json.loads(found[0])["identity"] == identity
    except (sqlite3.Error, ValueError, TypeError, KeyError):
        return True


def _readable(connection: sqlite3.Connection, order: str) -> Iterator[tuple[Place, bytes]]:
    for kind in (FILE, CHUNK, UPLOAD, PART):
        rows = f"SELECT a, b, crc, data FROM records WHERE kind = ? ORDER BY {order}"
        with contextlib.suppress(sqlite3.Error, ValueError):
            for a, b, crc, data in connection.execute(rows, (kind,)):
                if isinstance(data, bytes) and row_crc((kind, a, b), data) == crc:
                    yield (kind, a, b), data
