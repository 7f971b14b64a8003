"""`s3mount uploads resume`: journals of dead mounts, or one upload from a local file."""

import json
import sys
from dataclasses import asdict
from pathlib import Path

import click
import trio

from s3mount.cli import values
from s3mount.cli.exits import UNFINISHED
from s3mount.cli.mount import complain
from s3mount.cli.progress import Bar, progress_bar
from s3mount.cli.service import Service, run
from s3mount.cli.settings import build_dead_mount_config
from s3mount.cli.texts import count_text, printable, size_text
from s3mount.cli.uploads_shown import found_at, journals_here, owner_text
from s3mount.core.config import WritebackConfig
from s3mount.core.errors import ConfigurationError
from s3mount.core.location import Location
from s3mount.core.part_schedule import PartSchedule
from s3mount.filesystem.directories import check_directories, locked_now
from s3mount.filesystem.stat import Pending
from s3mount.store.base import ObjectStore, WriteHeaders
from s3mount.store.open import open_store
from s3mount.transfer.feed.books import tidy_dead
from s3mount.transfer.file_sender import FileSender
from s3mount.transfer.finishing import Finished, finish, missing_bytes, with_its_part_size
from s3mount.transfer.local_file import LocalFile
from s3mount.transfer.places import NothingThere
from s3mount.transfer.upload_sender import SentFile
from s3mount.transfer.uploads import FoundUpload
from s3mount.writeback.journal import MemoryJournal
from s3mount.writeback.journal_files import KnownJournal
from s3mount.writeback.journal_records import UploadRecord


def resume_journals(
    service: Service, location: str, timeout: str, *, as_json: bool, quiet: bool
) -> None:
    resuming = _Resuming(service, as_json, quiet)

    async def work() -> None:
        where, limit = service.locate(location), values.seconds(timeout)
        async with service.open(where) as store:  # the bucket is there, and may be used
            await resuming.run(where, store, limit)

    run(
        work,
        if_interrupted="nothing is lost: the journals have what is left, and the same command, or"
        " the next mount there, goes on",
    )
    if resuming.unfinished:
        sys.exit(UNFINISHED)


class _Resuming:
    def __init__(self, service: Service, as_json: bool, quiet: bool) -> None:
        self.service = service
        self.as_json = as_json
        self.quiet = quiet
        self.unfinished = False

    async def run(self, where: Location, store: ObjectStore, limit: float) -> None:
        journals = [
            journal
            for journal in await journals_here(self.service, where.bucket)
            if {"mountpoint", "source"} & journal.owner.keys()
            and journal.owner["prefix"].startswith(where.prefix)
        ]
        if not journals:
            self._say("no mount of it on this machine has left anything unfinished")
        for journal in journals:
            if "source" in journal.owner:
                await self._feed(journal, store)
            else:
                await self._one(journal, limit)

    async def _feed(self, journal: KnownJournal, store: ObjectStore) -> None:
        """What it has yet to send depends on its options; uploads whose ids it never learnt are
        nobody's."""
        if journal.alive:
            self._say(f"{journal} is at work")
            return
        uploads = journal.contents.uploads.values()
        if not journal.problem and any(one.upload_id is None for one in uploads):
            for text in await tidy_dead(journal.directory, journal.owner, store):
                complain(text)
        if journal.problem or any(one.upload_id is not None for one in uploads):
            self._left(f"{journal} was interrupted: the same s3mount feed goes on with it")

    async def _one(self, journal: KnownJournal, limit: float) -> None:
        if journal.alive:
            self._say(f"{journal} is alive: it sees to its changes itself")
            return
        if journal.problem:
            self._left(f"the journal in {journal.directory} {journal.problem}")
            return
        settings = self.service.settings
        config = build_dead_mount_config(settings, journal.owner, journal.directory)
        if missing := missing_bytes(journal, config):
            self._left(
                f"{journal} had its spool elsewhere ({missing} of its files are not in"
                f" {config.writeback.spool_dir}): mount it there again with the same options"
            )
            return
        config = with_its_part_size(config, journal.contents)
        check_directories(config)
        with locked_now(journal.directory) as free:
            if not free:
                self._say(f"{journal} is alive by now: it sees to its changes itself")
                return
            with progress_bar(f"finishing {journal}", quiet=self.quiet) as bar:
                store = open_store(config.store)
                finished = await finish(
                    config,
                    store,
                    timeout=limit,
                    progress=lambda pending: _show(bar, pending),
                )
        self._tell(journal, finished)

    def _tell(self, journal: KnownJournal, finished: Finished) -> None:
        if self.as_json:
            fields = {**asdict(finished), "mountpoint": journal.owner["mountpoint"]}
            click.echo(json.dumps(fields, default=str))
        done = finished.intents - finished.left.intents
        self._say(
            f"{journal}: {count_text(max(0, done), 'change')} of {finished.intents:,}"
            f" ({size_text(finished.bytes)}) finished"
        )
        for note in finished.notes:
            complain(note)
        for text in finished.recoverable:
            complain(f"never closed, hence not sent: {text}; see s3mount recover list")
        for text in finished.uploads:
            complain(text)
        for text in finished.not_sent:
            self._left(f"not sent: {text}")

    def _say(self, text: str) -> None:
        if not (self.quiet or self.as_json):
            click.echo(text, err=True)

    def _left(self, text: str) -> None:
        complain(text)
        self.unfinished = True


def _show(bar: Bar, pending: Pending) -> None:
    """Files that are pending shrink; the whole is what there was at most."""
    bar.total_bytes = max(bar.total_bytes or 0, pending.bytes)
    bar.done_bytes = bar.total_bytes - pending.bytes
    bar.note = pending.errors[0] if pending.errors else count_text(pending.intents, "change")


# -- one upload, from a local file ----------------------------------------------------------------


def resume_file(
    service: Service,
    location: str,
    file: str,
    upload_id: str | None,
    *,
    as_json: bool,
    quiet: bool,
) -> None:
    where: list[Location] = []

    async def work() -> SentFile:
        where.append(service.locate(location))
        if not where[0].key or where[0].key.endswith("/"):
            raise ConfigurationError(f"name the key whose upload it is: {where[0]}/KEY")
        async with service.open(where[0]) as store:
            found, _ = await found_at(service, store, where[0])
            chosen = _choose(where[0], found, upload_id, quiet)
            config = WritebackConfig(spool_dir=Path())  # for its sizes
            schedule = PartSchedule(
                config.part_size, config.max_parts, config.max_object_size, config.equal_parts
            )
            sender = FileSender(store, MemoryJournal(), schedule)
            with (
                await trio.to_thread.run_sync(_open, file) as local,
                progress_bar("sending", quiet=quiet) as bar,
            ):
                bar.total_bytes = local.size

                def progress(amount: int) -> None:
                    bar.done_bytes += amount

                return await sender.resume(_record(chosen), local, progress=progress)

    sent = run(
        work,
        if_interrupted="the upload keeps the parts that it has; the same command goes on with it",
    )
    if as_json:
        click.echo(json.dumps({"key": where[0].key, "kept": sent.kept, "sent": sent.sent}))
    elif not quiet:
        click.echo(
            f"{where[0]} is complete: {size_text(sent.kept)} were there, {size_text(sent.sent)}"
            " were sent",
            err=True,
        )


def _open(file: str) -> LocalFile:
    return LocalFile(file, follow=True)


def _choose(
    where: Location, found: list[FoundUpload], upload_id: str | None, quiet: bool
) -> FoundUpload:
    """The one that is named, else the one with the most bytes."""
    of_key = [
        each
        for each in found
        if each.upload.key == where.key and upload_id in (None, each.upload.upload_id)
    ]
    if not of_key:
        raise NothingThere(where, "no unfinished upload", "s3mount uploads list")
    chosen = max(of_key, key=lambda each: each.bytes)
    if chosen.journal is not None:
        raise ConfigurationError(
            f"{chosen.upload.upload_id}{owner_text(chosen)}: s3mount uploads resume"
            f" {where.bucket} finishes what mounts have left"
        )
    if len(of_key) > 1 and not quiet:
        complain(
            f"of {len(of_key)} uploads of {printable(where.key)} that with the most bytes goes on:"
            f" {chosen.upload.upload_id} (--upload-id chooses another)"
        )
    return chosen


def _record(found: FoundUpload) -> UploadRecord:
    upload = found.upload
    return UploadRecord(1, None, upload.key, WriteHeaders(), upload.upload_id, upload.initiated)
