"""Options that mean the same for all tools without a mount, and how those tools end."""

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import click

from s3mount.cli.exits import FAILED
from s3mount.cli.mount import complain
from s3mount.cli.service import Declined
from s3mount.cli.signals import interrupting
from s3mount.cli.texts import count_text, printable, size_text
from s3mount.store.errors import StoreError
from s3mount.transfer.places import NothingThere
from s3mount.transfer.removing import Outcome

recursive_option = click.option(
    "-r", "-R", "--recursive", is_flag=True, help="Directories, with all that is in them."
)
dry_run_option = click.option(
    "-n", "--dry-run", is_flag=True, help="Only show what would be done; nothing is changed."
)
verbose_option = click.option("-v", "--verbose", is_flag=True, help="A line for each object.")
summary_json_option = click.option(
    "--json", "as_json", is_flag=True, help="The summary as JSON, for programs."
)
lines_json_option = click.option(
    "--json", "as_json", is_flag=True, help="An object of JSON a line, for programs."
)
yes_option = click.option("-y", "--yes", is_flag=True, help="Do not ask.")


def confirm(question: str, otherwise: str) -> None:
    """Raises Declined, also where nobody can answer; KeyboardInterrupt after Ctrl-C."""
    try:
        with interrupting():
            agreed = click.confirm(question, err=True)
    except click.Abort as error:
        if isinstance(error.__context__, KeyboardInterrupt):
            raise KeyboardInterrupt from None
        agreed = False
    if not agreed:
        raise Declined(f"{otherwise}; --yes does it without asking")


@contextmanager
def one_of(words: Sequence[str], done: Outcome) -> Iterator[None]:
    """Around the work for one of them. If it is not there, which is said, the others go on: that
    is how it is for the same command after Ctrl-C. Raises NothingThere where it is the only one."""
    try:
        yield
    except NothingThere as error:
        if len(words) == 1:
            raise
        done.missing += 1
        complain(str(error))


def end(done: Outcome, verb: str, *, dry_run: bool, as_json: bool, quiet: bool) -> None:
    """Tells what is done; exits 1 where something failed or was not there. `verb`: 'copied',
    'deleted'."""
    tell(done, verb, dry_run=dry_run, as_json=as_json, quiet=quiet)
    if done.failed or done.missing:
        sys.exit(FAILED)


def tell(done: Outcome, verb: str, *, dry_run: bool, as_json: bool, quiet: bool) -> None:
    what = f"could not be {verb}"
    for key, error in done.failures:
        reason = str(error) if isinstance(error, StoreError) else repr(error)
        complain(f"{printable(key)} {what}: {reason}")
    if done.failed > len(done.failures):
        complain(f"and {done.failed - len(done.failures):,} more {what}")
    if as_json:
        fields = {"objects": done.objects, "bytes": done.bytes, "failed": done.failed}
        click.echo(json.dumps({**fields, "dry_run": dry_run}))
    elif not quiet:
        would = "would be " if dry_run else ""
        objects, size = count_text(done.objects, "object"), size_text(done.bytes)
        click.echo(f"{objects} ({size}) {would}{verb}", err=True)
