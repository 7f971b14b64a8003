"""`s3mount mv SOURCE... TARGET`."""

import click

from s3mount.cli.service import Service
from s3mount.cli.transferring import Manner, run_transfer, transfer_options

EXAMPLES = """\b
Examples:
  s3mount mv my-bucket:/a.txt my-bucket:/b.txt      a new name
  s3mount mv my-bucket:/a.txt other-bucket:/docs/   into a directory (the slash says so)
  s3mount mv -r my-bucket:/2024 my-bucket:/old/     a directory, as my-bucket:/old/2024
"""


@click.command(epilog=EXAMPLES, short_help="Move objects within S3.")
@transfer_options(move=True)
def mv(service: Service, sources: tuple[str, ...], target: str, manner: Manner) -> None:
    """Move objects within S3: each is copied, looked at in its new place, then deleted.

    At every moment each object has its old name or its new one, or both. SOURCE and TARGET are
    those of 's3mount cp'. What others change while it is being moved stays where it is as well,
    and is reported. Interrupted, the same command goes on with what is left.
    """
    run_transfer(
        sources,
        target,
        service,
        manner,
        if_interrupted="every object has its old name or its new one; the same command moves the"
        " rest",
    )
