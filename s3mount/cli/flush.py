"""`s3mount flush MOUNTPOINT`."""

import sys

import click

from s3mount.cli.asking import ask_mount, interruptible, waiting
from s3mount.cli.exits import FAILED
from s3mount.cli.mount import complain
from s3mount.cli.progress import quiet_option
from s3mount.cli.texts import count_text

EXAMPLES = """\b
Examples:
  s3mount flush ~/bucket
  cp -a photos ~/bucket/ && s3mount flush ~/bucket && ssh other-host show-photos

\b
Exit status: 0 all is in the bucket, 1 something could not be sent (it stays, and is tried again),
130 interrupted (the mount goes on).
"""


@click.command(epilog=EXAMPLES, short_help="Wait until all is in the bucket.")
@click.argument("mountpoint")
@quiet_option
def flush(mountpoint: str, quiet: bool) -> None:
    """Wait until everything that was closed or changed so far is in the bucket.

    Files that a program is still writing are not waited for.
    """
    with (
        interruptible(lambda: "the mount goes on sending what is pending"),
        waiting("sending", quiet=quiet) as progress,
    ):
        left = ask_mount(mountpoint, "flush", progress=progress)
    if left["errors"]:
        for error in left["errors"]:
            complain(f"not sent, and tried again: {error}")
        sys.exit(FAILED)
    if left["unfinished"] and not quiet:
        complain(f"{count_text(left['unfinished'], 'file')} still being written, not sent yet")
