"""The journal of a mount among its files in the cache directory: opened, or set aside and begun
anew; those of other mount points of the bucket, which are only looked at."""

import fcntl
import json
import logging
import os
import shlex
import shutil
import sqlite3
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from s3mount.core.config import MountConfig
from s3mount.core.errors import ConfigurationError
from s3mount.writeback.journal import Journal, MemoryJournal
from s3mount.writeback.journal_database import JournalUnusable
from s3mount.writeback.journal_log import sync_directory
from s3mount.writeback.journal_records import JournalContents
from s3mount.writeback.journal_salvage import salvage
from s3mount.writeback.local_disk import unfit_for_journal
from s3mount.writeback.sqlite_journal import SqliteJournal

log = logging.getLogger(__name__)

IDENTITY = "identity.json"
LOOK_AGAIN = 0.1  # seconds, after a journal changed while it was copied
# All that a journal consists of, also what SQLite and a start that was cut short leave.
_FILES = ("journal.sqlite*", "journal.log-*", "journal.new-*")


def identity_of(config: MountConfig) -> str:
    """What the journal belongs to, as JSON."""
    return json.dumps(
        {
            "endpoint": config.store.endpoint_url,
            "bucket": config.store.bucket,
            "prefix": config.prefix,
            "mountpoint": str(config.mountpoint),
        }
    )


def check_disk(config: MountConfig, warn: Callable[[str], None]) -> None:
    """Write-back (durability=journal) promises what memory and networks do not keep."""
    for directory in (config.cache_dir, config.writeback.spool_dir):
        kind = unfit_for_journal(directory)
        if kind is None:
            continue
        remedy = "choose a directory on a local disk with --cache-dir"
        if config.writeback.durability == "journal":
            raise ConfigurationError(
                f"--durability=journal needs a disk that survives: {directory} is on {kind};"
                f" {remedy}, or leave --durability at close"
            )
        warn(
            f"warning: {directory} is on {kind}: what is not yet in the bucket is lost with this"
            f" machine's memory or its network; {remedy}"
        )
        return


def open_journal(config: MountConfig) -> Journal:
    """The mount's journal; its directory must be locked. Blocks.

    One that cannot be used is set aside together with the spool that it speaks of, and reported:
    then the mount begins with a new one. Raises ConfigurationError where there can be none.
    """
    if config.read_only:
        return MemoryJournal()
    return journal_in(config.cache_dir, identity_of(config), config.writeback.spool_dir)


def journal_in(directory: Path, identity: str, spool: Path | None = None) -> SqliteJournal:
    """As open_journal; `spool`: the directory of the chunk files that it speaks of."""
    try:
        try:
            journal = SqliteJournal(directory, identity)
        except JournalUnusable as error:
            kept = "" if spool is None else _salvage(directory, identity, spool)
            text = _set_aside(directory, spool, str(error), kept)
            journal = SqliteJournal(directory, identity)
            journal.problems.append(text)
        _write_identity(directory, identity)
    except OSError as error:
        raise ConfigurationError(
            f"the journal in {directory} cannot be opened ({error}); see to its disk or choose"
            " another directory with --cache-dir"
        ) from error
    except JournalUnusable as error:
        raise ConfigurationError(f"{error}, although it is new; see to its disk") from error
    return journal


def _set_aside(directory: Path, spool: Path | None, reason: str, kept: str) -> str:
    """`kept`: what is kept otherwise, for the text that is logged and answered."""
    moment = time.strftime("%Y%m%dT%H%M%S")
    aside = _unused(directory / f"journal.corrupt-{moment}")
    aside.mkdir(mode=0o700)
    for pattern in (*_FILES, IDENTITY):
        for path in directory.glob(pattern):
            path.rename(aside / path.name)
    text = f"{reason}: set aside as {aside}"
    if spool is not None and spool.is_dir() and any(spool.glob("chunk-*")):
        chunks = _unused(spool.with_name(f"{spool.name}.set-aside-{moment}"))
        spool.rename(chunks)
        text += f", with the unsent bytes that it speaks of in {chunks}"
        sync_directory(chunks.parent)
    sync_directory(directory)
    text += f"; changes that were not in the bucket are not sent{kept}"
    log.error("%s", text)
    return text


def _salvage(directory: Path, identity: str, spool: Path) -> str:
    """Keeps the bytes of files before chunk files and journal are set aside; a text for the log."""
    try:
        kept, lost = salvage(directory, identity, spool)
    except OSError as error:
        return f"; the bytes of its files could not be kept: {error}"
    text = f"; {lost} files of it could not be kept" if lost else ""
    if kept:
        text += (
            f"; what can be read of {kept} files in it is kept:"
            f" s3mount recover list --cache-dir {shlex.quote(str(directory))}"
        )
    return text


def _unused(path: Path) -> Path:
    candidate, number = path, 1
    while candidate.exists():
        number += 1
        candidate = path.with_name(f"{path.name}-{number}")
    return candidate


def _write_identity(directory: Path, identity: str) -> None:
    """For people and for the other mounts of the bucket; the journal has its own copy."""
    fresh = directory / f"{IDENTITY}.new"
    fresh.write_text(f"{identity}\n")
    fresh.rename(directory / IDENTITY)


@dataclass(frozen=True, slots=True)
class KnownJournal:
    """A journal on this machine as it was when it was looked at. `owner`: what identity_of says,
    or another tool's identity; `problem`: why its contents are not known."""

    directory: Path
    owner: Mapping[str, Any]
    alive: bool  # a process has it
    contents: JournalContents = field(default_factory=JournalContents)
    problem: str = ""

    def __str__(self) -> str:
        if "mountpoint" in self.owner:
            return f"the mount on {self.owner['mountpoint']}"
        if "source" in self.owner:
            return f"the feed of {self.owner['source']}"
        return f"what works in {self.directory}"


def look_at(directory: Path, *, attempts: int = 1) -> KnownJournal | None:
    """The journal of a cache directory; None where there is none. Blocks.

    Nothing of it is changed: it is read from a copy. That of a living process may change while it
    is copied, so it is worth several `attempts`. Raises OSError, ValueError, where not even its
    owner is known.
    """
    if not any(directory.glob("journal.*")):
        return None
    if (directory / IDENTITY).is_fifo():  # it may keep its readers for ever
        raise ValueError(f"its {IDENTITY} is no file")
    identity = (directory / IDENTITY).read_text().rstrip("\n")
    owner = _owner(identity)
    for attempt in range(attempts):
        if attempt:
            time.sleep(LOOK_AGAIN)
        alive, problem = _is_alive(directory), ""
        try:
            return KnownJournal(directory, owner, alive, _contents(directory, identity))
        except (OSError, ValueError, KeyError, sqlite3.Error, ConfigurationError) as error:
            problem = f"cannot be looked at: {error}"
        except JournalUnusable as error:
            problem = f"cannot be used: {error}"
    return KnownJournal(directory, owner, alive, problem=problem)


def _owner(identity: str) -> Mapping[str, Any]:
    """Raises ValueError where that is no identity: neither a mount's nor a feed's."""
    try:
        found = json.loads(identity)
    except RecursionError:
        found = None
    texts = {"bucket", "prefix", "mountpoint"}
    known = isinstance(found, dict) and (
        isinstance(found.get("source"), str)
        or (
            all(isinstance(found.get(name), str) for name in texts)
            and isinstance(found.get("endpoint", ""), str | None)
        )
    )
    if not known:
        raise ValueError(f"its {IDENTITY} is damaged")
    return dict(found)


def _contents(directory: Path, identity: str) -> JournalContents:
    with tempfile.TemporaryDirectory(prefix="s3mount-") as name:
        copy = Path(name)
        for pattern in _FILES:
            for path in directory.glob(pattern):
                shutil.copyfile(path, copy / path.name)
        journal = SqliteJournal(copy, identity)
        journal.abandon()
    return journal.load()


def other_journals(config: MountConfig) -> list[str]:
    """What mounts of this bucket on other directories left unfinished, a sentence each. Blocks.

    Mounts that live are passed over.
    """
    found = []
    for directory in sorted(config.cache_dir.parent.glob("*/")):
        if directory == config.cache_dir:
            continue
        try:
            text = None if _is_alive(directory) else _unfinished(look_at(directory))
        except (OSError, ValueError) as error:
            text = f"the journal in {directory} cannot be looked at: {error}"
        if text is not None:
            log.warning("%s", text)
            found.append(text)
    return found


def _unfinished(journal: KnownJournal | None) -> str | None:
    if journal is None:
        return None
    if journal.problem:
        return f"the journal of {journal} {journal.problem}"
    if not journal.contents:
        return None
    owner, contents = journal.owner, journal.contents
    where = f"{owner['bucket']}:/{owner['prefix']}"
    return (
        f"{journal} ended before {len(contents.intents)} changes of {len(contents.files)} files"
        f" were in the bucket: mount {where} there again, or s3mount uploads resume {where}, to"
        f" finish them (its journal is in {journal.directory})"
    )


def _is_alive(directory: Path) -> bool:
    """Whether a process holds the mount's lock."""
    try:
        fd = os.open(directory / "lock", os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False
