"""`s3mount uploads abort`."""

import json
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass

import click

from s3mount.cli import values
from s3mount.cli.exits import FAILED
from s3mount.cli.mount import complain
from s3mount.cli.service import Service, run
from s3mount.cli.texts import count_text, printable, size_text
from s3mount.cli.tool_options import confirm
from s3mount.cli.uploads_shown import found_at, owner_text, print_table
from s3mount.store.errors import StoreError
from s3mount.transfer.places import NothingThere
from s3mount.transfer.uploads import FoundUpload, abort


@dataclass(frozen=True, slots=True)
class Choice:
    """Which uploads, and how."""

    location: str
    upload_ids: Sequence[str]
    older_than: str | None
    force: bool
    yes: bool
    dry_run: bool
    as_json: bool
    quiet: bool


class _Aborting:
    def __init__(self, service: Service, choice: Choice) -> None:
        self.service = service
        self.choice = choice
        self.spared = 0
        self.failed = 0
        self.aborted: list[FoundUpload] = []

    async def run(self) -> None:
        choice = self.choice
        where = self.service.locate(choice.location)
        older = None if choice.older_than is None else values.seconds(choice.older_than)
        async with self.service.open(where) as store:
            found, journals = await found_at(self.service, store, where)
            for journal in journals:
                if journal.problem and not choice.force:
                    # What it needs is not known, so any of them may be it.
                    complain(
                        f"the journal in {journal.directory} {journal.problem}: nothing is aborted"
                        " that it may need; --force does so all the same"
                    )
                    self.spared += len(found)
                    return
            chosen = self._chosen(found, older)
            missing = set(choice.upload_ids) - {each.upload.upload_id for each in chosen}
            if missing:
                raise NothingThere(
                    where, f"no upload {', '.join(sorted(missing))}", "s3mount uploads list"
                )
            wanted = self._without_needed(chosen)
            if not wanted:
                return
            if choice.dry_run:
                if not choice.as_json:
                    print_table(wanted)
                self.aborted = wanted
                return
            self._confirm(wanted)
            await abort(store, wanted, self.aborted.append, self._not_aborted)

    def _chosen(self, found: Sequence[FoundUpload], older: float | None) -> list[FoundUpload]:
        ids = self.choice.upload_ids
        return [
            each
            for each in found
            if (not ids or each.upload.upload_id in ids)
            and (older is None or each.upload.initiated <= time.time() - older)
        ]

    def _without_needed(self, chosen: Sequence[FoundUpload]) -> list[FoundUpload]:
        wanted = []
        for each in chosen:
            if each.journal is None or self.choice.force:
                wanted.append(each)
            else:
                self.spared += 1
                complain(
                    f"left alone: {printable(each.upload.key)}  {each.upload.upload_id}"
                    f"{owner_text(each)}; s3mount uploads resume finishes what is dead, --force"
                    " aborts it all the same"
                )
        return wanted

    def _confirm(self, wanted: Sequence[FoundUpload]) -> None:
        if self.choice.yes:
            return
        print_table(wanted)
        size = size_text(sum(each.bytes for each in wanted))
        which = count_text(len(wanted), "upload")
        confirm(f"abort {which}, whose {size} are gone then?", "nothing was aborted")

    def _not_aborted(self, found: FoundUpload, error: StoreError) -> None:
        self.failed += 1
        complain(f"{printable(found.upload.key)} {found.upload.upload_id}: {error}")


def abort_them(service: Service, choice: Choice) -> None:
    aborting = _Aborting(service, choice)
    run(
        aborting.run,
        if_interrupted="what is aborted is gone; the same command goes on with the rest",
    )
    if choice.as_json:
        fields = {
            "aborted": len(aborting.aborted),
            "bytes": sum(each.bytes for each in aborting.aborted),
            "spared": aborting.spared,
            "failed": aborting.failed,
            "dry_run": choice.dry_run,
        }
        click.echo(json.dumps(fields))
    elif not choice.quiet:
        size = size_text(sum(each.bytes for each in aborting.aborted))
        would = "would be " if choice.dry_run else ""
        count = count_text(len(aborting.aborted), "upload")
        click.echo(f"{count} ({size}) {would}aborted", err=True)
    if aborting.failed or (aborting.spared and not aborting.aborted):
        sys.exit(FAILED)
