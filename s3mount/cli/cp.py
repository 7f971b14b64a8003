"""`s3mount cp SOURCE... TARGET`."""

import click

from s3mount.cli.service import Service
from s3mount.cli.transferring import Manner, run_transfer, transfer_options

EXAMPLES = """\b
Examples:
  s3mount cp my-bucket:/a.txt my-bucket:/b.txt      a copy under a new name
  s3mount cp my-bucket:/a.txt other-bucket:/docs/   into a directory (the slash says so)
  s3mount cp -r my-bucket:/photos other-bucket      a directory, as other-bucket:/photos
  s3mount cp -r ~/bucket/photos s3://other/backup   by a path in a mount
"""


@click.command(epilog=EXAMPLES, short_help="Copy objects within S3.")
@transfer_options()
def cp(service: Service, sources: tuple[str, ...], target: str, manner: Manner) -> None:
    """Copy objects within S3: nothing travels through this machine.

    SOURCE and TARGET are BUCKET:/KEY, s3://BUCKET/KEY or a path in a mount, whose unsent changes
    are sent first. With a slash at its end TARGET is a directory to copy into, else the new name.
    Content, metadata, modes, owners, times, Content-Type, storage class and tags are kept. An
    object that is at the target already is replaced. Keys are taken literally: there are no
    wildcards.
    """
    run_transfer(
        sources,
        target,
        service,
        manner,
        if_interrupted="what is copied is complete; the same command copies all of it again",
    )
