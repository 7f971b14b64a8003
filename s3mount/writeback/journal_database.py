"""The journal's SQLite file: rows by (kind, a, b), each with a checksum of its own.

SQLite finds damage of its structure; the checksums, their sum and their number find the rest. All
calls block, and belong in a thread once the mount serves.
"""

import contextlib
import json
import os
import sqlite3
import struct
import time
import zlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from s3mount.core.errors import ConfigurationError
from s3mount.writeback.journal_log import sync_directory

FORMAT = 1
APPLICATION_ID = 0x73336D4A  # what file(1) and others see of it
_SCHEMA = """
CREATE TABLE records (kind INTEGER NOT NULL, a INTEGER NOT NULL, b INTEGER NOT NULL,
    crc INTEGER NOT NULL, data BLOB NOT NULL, PRIMARY KEY (kind, a, b)) WITHOUT ROWID;
CREATE TABLE meta (only_one INTEGER PRIMARY KEY CHECK (only_one = 1),
    data TEXT NOT NULL, crc INTEGER NOT NULL);
"""
_PLACE = struct.Struct("<Bqq")
_DAMAGED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR)
# A file cut short, and one that is not there any more under its name.
_GONE = (sqlite3.SQLITE_IOERR_SHORT_READ, sqlite3.SQLITE_READONLY_DBMOVED)

Place = tuple[int, int, int]  # kind, a, b


class JournalUnusable(Exception):
    """It must be set aside: damaged, another mount's, or a newer version's."""


@dataclass(frozen=True, slots=True)
class Meta:
    """What the database says of itself."""

    format: int
    identity: str
    applied: int  # the serial of the last commit of the log that is in here
    segment: int  # the log's segment that was current then
    rows: int = 0
    sum: int = 0  # of the rows' checksums


def is_damage(error: Exception) -> bool:
    """Of SQLite's errors: the file is not what was written. (Not: the disk is full or fails.)"""
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR)
    return code & 0xFF in _DAMAGED or code in _GONE


def row_crc(place: Place, data: bytes) -> int:
    return zlib.crc32(data, zlib.crc32(_PLACE.pack(*place)))


class Database:
    """One connection, in one thread at a time."""

    def __init__(self, path: Path, identity: str) -> None:
        """Opens or makes it. Raises JournalUnusable; ConfigurationError where the disk or another
        process is in the way."""
        self.path = path
        self._identity = identity
        self.meta: Meta | None = None  # None: it is new
        self._open()

    def _open(self) -> None:
        self.path.touch(mode=0o600)
        self._inode = self.path.stat().st_ino
        try:
            self._connection = sqlite3.connect(
                self.path, timeout=5.0, isolation_level=None, check_same_thread=False
            )
        except sqlite3.Error as error:
            raise self._reason(error) from error
        try:
            self._prepare()
        # ValueError: where a message of SQLite's quotes what is no text.
        except (sqlite3.Error, ValueError) as error:
            self.close()
            raise self._reason(error) from error
        except BaseException:
            self.close()
            raise

    def _reason(self, error: Exception) -> Exception:
        """SQLite's own exceptions do not tell a damaged file from a full disk."""
        if is_damage(error):
            return JournalUnusable(f"{self.path} is damaged ({error})")
        return ConfigurationError(
            f"the journal {self.path} cannot be used ({error}); see to its disk, and that no other"
            " program has it open, or choose another directory with --cache-dir"
        )

    def _prepare(self) -> None:
        execute = self._connection.execute
        # Our own lock keeps other mounts out. Exclusive also spares the shared memory file.
        execute("PRAGMA locking_mode=EXCLUSIVE")
        execute("PRAGMA journal_mode=WAL")
        execute("PRAGMA synchronous=FULL")
        version = execute("PRAGMA user_version").fetchone()[0]
        if version > FORMAT:
            raise JournalUnusable(f"{self.path} has format {version} of a newer version")
        problems = execute("PRAGMA integrity_check(3)").fetchall()
        if problems != [("ok",)]:
            raise JournalUnusable(f"{self.path} is damaged ({problems[0][0]})")
        tables = {name for (name,) in execute("SELECT name FROM sqlite_master")}
        if not tables and version == 0:
            return
        if not {"records", "meta"} <= tables:
            raise JournalUnusable(f"{self.path} is no journal")
        self.meta = self._read_meta()

    def _read_meta(self) -> Meta:
        found = self._connection.execute("SELECT data, crc FROM meta").fetchone()
        if found is None or zlib.crc32(found[0].encode()) != found[1]:
            raise JournalUnusable(f"{self.path} is damaged (what it says of itself)")
        meta = Meta(**json.loads(found[0]))
        if meta.identity != self._identity:
            raise JournalUnusable(f"{self.path} belongs to another mount: {meta.identity}")
        return meta

    def rows(self) -> dict[Place, bytes]:
        """All of them; raises JournalUnusable unless each is what was written."""
        if self.meta is None:
            return {}
        found: dict[Place, bytes] = {}
        total = 0
        try:
            for kind, a, b, crc, data in self._connection.execute("SELECT * FROM records"):
                if not isinstance(data, bytes) or row_crc((kind, a, b), data) != crc:
                    raise JournalUnusable(f"{self.path} is damaged (row {kind}, {a}, {b})")
                found[kind, a, b] = data
                total += crc
        except (sqlite3.Error, ValueError) as error:
            raise self._reason(error) from error
        if (len(found), total) != (self.meta.rows, self.meta.sum):
            raise JournalUnusable(f"{self.path} is damaged (rows are missing)")
        return found

    def apply(self, changes: Mapping[Place, bytes | None], applied: int, segment: int) -> None:
        """One durable transaction: rows to store and (None) to delete. Raises sqlite3.Error."""
        connection = self._connection
        if not self._in_place():  # SQLite itself writes on to a file that has no name any more
            raise sqlite3.DatabaseError("it was removed or replaced")
        connection.execute("BEGIN IMMEDIATE")
        try:
            if self.meta is None:
                for statement in _SCHEMA.split(";"):
                    connection.execute(statement)
                connection.execute(f"PRAGMA application_id={APPLICATION_ID}")
                connection.execute(f"PRAGMA user_version={FORMAT}")
            connection.executemany(
                "DELETE FROM records WHERE kind = ? AND a = ? AND b = ?",
                [place for place, data in changes.items() if data is None],
            )
            connection.executemany(
                "INSERT OR REPLACE INTO records VALUES (?, ?, ?, ?, ?)",
                [
                    (*place, row_crc(place, data), data)
                    for place, data in changes.items()
                    if data is not None
                ],
            )
            count, total = connection.execute(
                "SELECT count(*), ifnull(sum(crc), 0) FROM records"
            ).fetchone()
            meta = Meta(FORMAT, self._identity, applied, segment, count, total)
            text = json.dumps(asdict(meta))
            connection.execute(
                "INSERT OR REPLACE INTO meta VALUES (1, ?, ?)", (text, zlib.crc32(text.encode()))
            )
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise
        self.meta = meta

    def rebuild(self, rows: Mapping[Place, bytes], applied: int, segment: int) -> Path:
        """The file turned out to be damaged: a new one that holds `rows` takes its place, and the
        answer is where the old one is kept. Raises sqlite3.Error, OSError, and what opening does;
        then it is to be called again."""
        self.close()
        fresh = self.path.with_name(f"{self.path.name}.fresh")
        aside = self.path.with_name(time.strftime(f"{self.path.name}.damaged-%Y%m%dT%H%M%S"))
        for path in (fresh, *_beside(fresh), aside):
            path.unlink(missing_ok=True)
        database = Database(fresh, self._identity)
        try:
            database.apply(rows, applied, segment)
        finally:
            database.close()
        with contextlib.suppress(FileNotFoundError):
            os.link(self.path, aside)
        for path in _beside(self.path):
            path.unlink(missing_ok=True)  # of the damaged file; the new one needs none
        fresh.rename(self.path)
        sync_directory(self.path.parent)
        self._open()
        return aside

    def _in_place(self) -> bool:
        try:
            return self.path.stat().st_ino == self._inode
        except FileNotFoundError:
            return False

    def close(self) -> None:
        self._connection.close()


def _beside(path: Path) -> list[Path]:
    return [path.with_name(f"{path.name}-{suffix}") for suffix in ("wal", "shm")]
