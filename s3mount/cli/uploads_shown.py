"""`s3mount uploads list` and `show`, and what all four commands have in common."""

import json
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import click
import trio

from s3mount.cli.mount import complain
from s3mount.cli.service import Service, run
from s3mount.cli.texts import count_text, printable, size_text, time_text
from s3mount.control.client import NoMount, Refused, ask
from s3mount.core.location import Location
from s3mount.fuse.mountpoint import FUSE_TYPE, mount_table
from s3mount.store.base import ObjectStore
from s3mount.transfer.places import NothingThere
from s3mount.transfer.uploads import FoundUpload, journals_of, measured, uploads_at
from s3mount.writeback.journal_files import KnownJournal

ASKING = 2.0  # seconds: a mount that does not answer is known by its journal's directory, or not


async def journals_here(service: Service, bucket: str) -> list[KnownJournal]:
    """Of the bucket's mounts on this machine, dead or alive, as far as they can be found."""

    def look() -> list[KnownJournal]:
        return journals_of(bucket, [service.cache_root], _live_directories(bucket))

    return await trio.to_thread.run_sync(look)


def _live_directories(bucket: str) -> Iterator[Path]:
    """Cache directories of mounts that run, which may be elsewhere (--cache-dir)."""
    for entry in mount_table():
        if entry.kind != FUSE_TYPE:
            continue
        with suppress(NoMount, Refused, TimeoutError, KeyError, TypeError):
            status = ask(entry.path, "status", silence=ASKING)
            if status["bucket"] == bucket:
                yield Path(status["cache_dir"])


async def found_at(
    service: Service, store: ObjectStore, where: Location
) -> tuple[list[FoundUpload], list[KnownJournal]]:
    """The uploads first, the journals then: whatever was begun is in its journal."""
    listed = await uploads_at(store, where)
    journals = await journals_here(service, where.bucket)
    return await measured(store, listed, journals), journals


def list_them(service: Service, location: str, *, as_json: bool, quiet: bool) -> None:
    async def work() -> tuple[list[FoundUpload], list[KnownJournal]]:
        where = service.locate(location)
        async with service.open(where) as store:
            return await found_at(service, store, where)

    found, journals = run(work, if_interrupted="nothing was changed: start it again")
    if as_json:
        for each in found:
            click.echo(json.dumps(fields_of(each)))
        return
    print_table(found)
    if not quiet:
        total = size_text(sum(each.bytes for each in found))
        click.echo(f"{count_text(len(found), 'upload')}, {total} in parts", err=True)
        for journal in journals:
            if journal.problem:
                complain(f"the journal in {journal.directory} {journal.problem}")


def show_parts(service: Service, location: str, upload_id: str | None, *, as_json: bool) -> None:
    async def work() -> list[FoundUpload]:
        where = service.locate(location)
        async with service.open(where) as store:
            found, _ = await found_at(service, store, where)
            chosen = [each for each in found if upload_id in (None, each.upload.upload_id)]
            if not chosen:
                raise NothingThere(where, "no unfinished upload", "s3mount uploads list")
            return chosen

    for each in run(work, if_interrupted="nothing was changed: start it again"):
        if as_json:
            parts = [
                {"number": one.number, "size": one.size, "etag": one.etag, "crc32c": one.checksum}
                for one in each.parts
            ]
            click.echo(json.dumps({**fields_of(each), "parts": parts}))
            continue
        print_table([each])
        for one in each.parts:
            click.echo(f"  {one.number:>5}  {one.size:>12}  {one.etag}  {one.checksum or ''}")


def fields_of(found: FoundUpload) -> dict[str, Any]:
    upload, journal = found.upload, found.journal
    return {
        "key": upload.key,
        "upload_id": upload.upload_id,
        "initiated": upload.initiated,
        "initiator": upload.initiator,
        "parts": len(found.parts),
        "bytes": found.bytes,
        "needed_by": None if journal is None else str(journal),
        "alive": None if journal is None else journal.alive,
    }


def print_table(found: Sequence[FoundUpload]) -> None:
    """Age, parts, bytes, initiator, key, id, and whose it is."""
    rows = []
    for each in found:
        upload = each.upload
        rows.append(
            (
                time_text(max(0.0, time.time() - upload.initiated)),
                count_text(len(each.parts), "part"),
                size_text(each.bytes),
                upload.initiator.rpartition("/")[2] or "-",  # of an ARN the name
                printable(upload.key),
                f"{upload.upload_id}{owner_text(each)}",
            )
        )
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)] if rows else []
    for row in rows:
        cells = [
            cell.rjust(width) if index < 3 else cell.ljust(width)
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        click.echo("  ".join([*cells[:-1], row[-1]]))


def owner_text(found: FoundUpload) -> str:
    if found.journal is None:
        return ""
    return f"  ({found.journal}, {'alive' if found.journal.alive else 'dead'}, needs it)"
