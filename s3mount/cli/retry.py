"""`s3mount retry [MOUNTPOINT] [PATH]`."""

import click

from s3mount.cli.asking import ask_mount, changes_text, place_in_mount
from s3mount.cli.progress import quiet_option

EXAMPLES = """\b
Examples:
  s3mount retry ~/bucket               everything, after a quota or a permission was mended
  s3mount retry ~/bucket/report.pdf    what is pending for this file, or below this directory
  s3mount retry ~/bucket report.pdf    the same

\b
Exit status: 0 it is tried now (s3mount status or flush tell how it ends), 1 nothing is pending.
"""


@click.command(epilog=EXAMPLES, short_help="Try at once what could not be sent.")
@click.argument("mountpoint", metavar="MOUNTPOINT|PATH")
@click.argument("path", required=False, metavar="[PATH]")
@quiet_option
def retry(mountpoint: str, path: str | None, quiet: bool) -> None:
    """Try at once what could not be sent: of PATH, or everything in the mount.

    By itself it is tried again after at most five minutes.
    """
    where, below = place_in_mount(mountpoint, path)
    told = ask_mount(where, "retry", path=below)
    if not quiet:
        for line in changes_text(told):
            click.echo(f"tried now: {line}")
