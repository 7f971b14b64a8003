"""`s3mount flush MOUNTPOINT`."""

import click

from s3mount.cli.asking import ask_mount, end_progress, fail, show_progress


@click.command()
@click.argument("mountpoint")
def flush(mountpoint: str) -> None:
    """Wait until everything that was closed or changed so far is in the bucket."""
    try:
        left = ask_mount(mountpoint, "flush", progress=show_progress)
    finally:
        end_progress()
    if left["errors"]:
        fail("\n".join(left["errors"]))
