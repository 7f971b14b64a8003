"""`s3mount cancel MOUNTPOINT PATH`."""

import click

from s3mount.cli.asking import ask_mount


@click.command()
@click.argument("mountpoint")
@click.argument("path")
def cancel(mountpoint: str, path: str) -> None:
    """Give up sending PATH (below MOUNTPOINT) to the bucket; what it says there stays."""
    click.echo(ask_mount(mountpoint, "cancel", path=path))
