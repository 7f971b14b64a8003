"""Attributes by version on disk, so that the next `ls -l` costs only the LISTs (ruling 15).

A row belongs to (key, ETag, LastModified, size). LastModified has one second's resolution, so a
row counts only if LastModified lay safely before the answer that showed it (the racy rule of
git's index); a racy row keeps nothing but the inode number. The file is a cache: a damaged one
is set aside, losing it costs requests.
"""

import functools
import json
import logging
import sqlite3
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import trio

from s3mount.core.config import AttributeDefaults
from s3mount.core.keys import split_key
from s3mount.core.metadata import NO_XATTRS, Attributes
from s3mount.namespace.inode import Version
from s3mount.store.base import ListedObject

log = logging.getLogger(__name__)
T = TypeVar("T")

RACY_SECONDS = 2.0
_SCHEMA = """
CREATE TABLE IF NOT EXISTS attributes (
    directory TEXT NOT NULL, name TEXT NOT NULL,
    etag TEXT NOT NULL, size INTEGER NOT NULL, modified INTEGER NOT NULL,
    racy INTEGER NOT NULL, number INTEGER NOT NULL,
    mode INTEGER NOT NULL, uid INTEGER NOT NULL, gid INTEGER NOT NULL,
    mtime INTEGER NOT NULL, ctime INTEGER NOT NULL, atime INTEGER NOT NULL,
    rdev INTEGER NOT NULL, xattrs TEXT);
CREATE UNIQUE INDEX IF NOT EXISTS by_key ON attributes (directory, name);
CREATE TABLE IF NOT EXISTS meta (fingerprint TEXT NOT NULL);
"""
_COLUMNS = "etag, size, modified, racy, number, mode, uid, gid, mtime, ctime, atime, rdev, xattrs"


def is_racy(last_modified: float, answered_at: float) -> bool:
    """Another write within the same second could still have followed that answer."""
    return answered_at - int(last_modified) < RACY_SECONDS


def fingerprint(defaults: AttributeDefaults) -> str:
    """Of what cached attributes depend on beside the object's own metadata."""
    modes = f"{defaults.file_mode:o} {defaults.directory_mode:o}"
    return f"1 {defaults.uid} {defaults.gid} {modes}"


@dataclass(frozen=True, slots=True)
class Row:
    key: str
    etag: str
    size: int
    modified: int
    racy: bool
    number: int
    attributes: Attributes

    @classmethod
    def of(
        cls,
        key: str,
        version: Version,
        attributes: Attributes,
        answered_at: float,
        number: int,
    ) -> "Row":
        modified = int(version.last_modified)
        racy = is_racy(modified, answered_at)
        return cls(key, version.etag, version.size, modified, racy, number, attributes)

    def matches(self, listed: ListedObject) -> bool:
        return (
            self.etag == listed.etag
            and self.size == listed.size
            and self.modified == int(listed.last_modified)
        )


class StatCache:
    """One SQLite file; all work is done in one worker thread at a time.

    `rows` bounds it (the rows stored longest ago go first). `fingerprint` stands for the options
    the attributes depend on: rows of another one are dropped. No method raises: what cannot be
    read is not known, what cannot be written is logged.
    """

    def __init__(self, path: Path, rows: int, *, fingerprint: str = "") -> None:
        self.path = path
        self.rows = rows
        self.fingerprint = fingerprint
        self._limiter = trio.CapacityLimiter(1)
        self._connection: sqlite3.Connection | None = None
        self._broken = False
        self._since_prune = 0

    async def load(
        self, prefix: str, first: str = "", last: str | None = None
    ) -> Mapping[str, Row]:
        """The rows of one directory by name (markers as 'name/'), from name to name."""
        found = await self.load_many([(prefix, first, last)])
        return found[0]

    async def load_many(
        self, ranges: Sequence[tuple[str, str, str | None]]
    ) -> Sequence[Mapping[str, Row]]:
        """load() for several directories at once."""
        loaded = await self._run(functools.partial(self._load, ranges))
        return [{} for _ in ranges] if loaded is None else loaded

    async def store(self, rows: Iterable[Row]) -> None:
        batch = list(rows)
        if batch:
            await self._run(functools.partial(self._store, batch))

    async def aclose(self) -> None:
        """Ends the cache; whatever is asked of it later is not known."""
        await self._run(self._close)
        self._broken = True

    async def _run(self, work: Callable[[], T]) -> T | None:
        if self._broken:
            return None
        try:
            return await trio.to_thread.run_sync(self._attempt, work, limiter=self._limiter)
        except (ValueError, OverflowError) as error:
            # What SQLite cannot hold: a key that is not UTF-8, a broken server's size.
            log.warning("stat cache: %s; done without it", error)
            return None
        except (sqlite3.Error, OSError) as error:
            log.warning("stat cache %s: %s; going on without it", self.path, error)
            self._broken = True
            return None

    # -- in the worker thread

    def _attempt(self, work: Callable[[], T]) -> T:
        """A damaged file is set aside, and `work` done again on a new one."""
        try:
            return work()
        except sqlite3.OperationalError:  # locked, disk full: the file is as good as before
            raise
        except sqlite3.DatabaseError as error:
            aside = self.path.with_name(self.path.name + ".damaged")
            log.warning("stat cache: %s; the file is set aside as %s", error, aside)
            self._close()
            self.path.replace(aside)
            for suffix in ("-wal", "-shm"):
                self.path.with_name(self.path.name + suffix).unlink(missing_ok=True)
            return work()

    def _open(self) -> sqlite3.Connection:
        if self._connection is None:
            self._connection = self._connect()
        return self._connection

    def _connect(self) -> sqlite3.Connection:
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.path.touch(mode=0o600, exist_ok=True)
        connection = sqlite3.connect(self.path, check_same_thread=False, isolation_level=None)
        try:
            connection.execute("PRAGMA journal_mode=WAL")
            # A lost transaction costs requests, a torn one is repaired by the log.
            connection.execute("PRAGMA synchronous=OFF")
            connection.executescript(_SCHEMA)
            self._check_fingerprint(connection)
        except sqlite3.Error:
            connection.close()
            raise
        return connection

    def _check_fingerprint(self, connection: sqlite3.Connection) -> None:
        known = connection.execute("SELECT fingerprint FROM meta").fetchone()
        if known is None or known[0] != self.fingerprint:
            connection.execute("BEGIN")
            connection.execute("DELETE FROM attributes")
            connection.execute("DELETE FROM meta")
            connection.execute("INSERT INTO meta VALUES (?)", (self.fingerprint,))
            connection.execute("COMMIT")

    def _load(self, ranges: Sequence[tuple[str, str, str | None]]) -> list[dict[str, Row]]:
        connection = self._open()
        result = []
        for directory, first, last in ranges:
            query = f"SELECT name, {_COLUMNS} FROM attributes WHERE directory = ? AND name >= ?"
            parameters: tuple[str, ...] = (directory, first)
            if last is not None:
                query += " AND name <= ?"
                parameters = (directory, first, last)
            rows = connection.execute(query, parameters)
            result.append({row[0]: _row(directory, row) for row in rows})
        return result

    def _store(self, rows: Sequence[Row]) -> None:
        connection = self._open()
        places = ", ".join("?" * 15)
        connection.execute("BEGIN")
        try:
            connection.executemany(
                f"INSERT OR REPLACE INTO attributes (directory, name, {_COLUMNS})"
                f" VALUES ({places})",
                map(_columns, rows),
            )
            self._since_prune += len(rows)
            if self._since_prune >= max(1000, self.rows // 50):
                self._prune(connection)
        finally:
            connection.execute("COMMIT")

    def _prune(self, connection: sqlite3.Connection) -> None:
        self._since_prune = 0
        count = connection.execute("SELECT COUNT(*) FROM attributes").fetchone()[0]
        if count > self.rows:
            connection.execute(
                "DELETE FROM attributes WHERE rowid IN"
                " (SELECT rowid FROM attributes ORDER BY rowid LIMIT ?)",
                (count - self.rows,),
            )

    def _close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def _row(directory: str, row: tuple[Any, ...]) -> Row:
    """Raises DatabaseError for what this class did not write: SQLite keeps any value anywhere."""
    name, etag, size, modified, racy, number, mode, uid, gid, mtime, ctime, atime, rdev, text = row
    if not all(isinstance(value, int) for value in row[2:13]) or not isinstance(etag, str):
        raise sqlite3.DatabaseError(f"a damaged row of {name!r}")
    try:
        xattrs = _xattrs(text) if text else NO_XATTRS
    except (AttributeError, RecursionError, TypeError, ValueError) as error:
        raise sqlite3.DatabaseError(f"a damaged row of {name!r}: {error}") from error
    attributes = Attributes(mode, uid, gid, mtime, ctime, atime, rdev, xattrs)
    return Row(directory + name, etag, size, modified, bool(racy), number, attributes)


def _columns(row: Row) -> tuple[object, ...]:
    one = row.attributes
    xattrs = None
    if one.xattrs:
        xattrs = json.dumps({name: value.hex() for name, value in one.xattrs.items()})
    return (
        *split_key(row.key),
        *(row.etag, row.size, row.modified, int(row.racy), row.number),
        *(one.mode, one.uid, one.gid, one.mtime_ns, one.ctime_ns, one.atime_ns, one.rdev),
        xattrs,
    )


def _xattrs(text: str) -> Mapping[str, bytes]:
    return {name: bytes.fromhex(value) for name, value in json.loads(text).items()}
