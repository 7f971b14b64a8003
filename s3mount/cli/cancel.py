"""`s3mount cancel PATH`."""

import sys

import click

from s3mount.cli.asking import (
    ask_mount,
    changes_text,
    fail,
    interruptible,
    place_in_mount,
)
from s3mount.cli.exits import FAILED
from s3mount.cli.mount import complain
from s3mount.cli.progress import quiet_option

EXAMPLES = """\b
Examples:
  s3mount cancel ~/bucket/big.iso          shows what is given up, and asks
  s3mount cancel ~/bucket big.iso --yes    the same without asking

\b
Exit status: 0 given up, 1 nothing is pending, or it was not confirmed.
"""


@click.command(epilog=EXAMPLES, short_help="Give up what is pending for a file or directory.")
@click.argument("mountpoint", metavar="[MOUNTPOINT]")
@click.argument("path", required=False, metavar="PATH")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@quiet_option
def cancel(mountpoint: str, path: str | None, yes: bool, quiet: bool) -> None:
    """Give up what is pending for PATH, a file or directory in a mount: it is not sent.

    The bucket keeps what it has under that name, and the mount shows that again. Bytes that are
    nowhere else are lost. A request that is under way may still be carried out.
    """
    where, below = place_in_mount(mountpoint, path)
    if not below.strip("/"):
        fail(f"{where} is the whole mount; name a file or directory in it")
    with interruptible(lambda: "nothing is given up"):
        would = ask_mount(where, "cancel", path=below, preview=True)
        if not yes:
            for line in changes_text(would):
                click.echo(f"not in the bucket yet: {line}", err=True)
            _confirm(f"give {'it' if would['count'] == 1 else 'them'} up for good?")
        told = ask_mount(where, "cancel", path=below)
    if not quiet:
        for line in changes_text(told):
            click.echo(f"given up: {line}")


def _confirm(question: str) -> None:
    try:
        agreed = click.confirm(question, err=True)
    except click.Abort:  # Ctrl-C, or nobody can answer
        if sys.stdin.isatty():
            raise KeyboardInterrupt from None
        agreed = False
    if not agreed:
        complain("nothing is given up; --yes does it without asking")
        sys.exit(FAILED)
