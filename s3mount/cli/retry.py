"""`s3mount retry MOUNTPOINT [PATH]`."""

import click

from s3mount.cli.asking import ask_mount


@click.command()
@click.argument("mountpoint")
@click.argument("path", default="")
def retry(mountpoint: str, path: str) -> None:
    """Try at once what could not be sent: of PATH (below MOUNTPOINT), or everything."""
    click.echo(ask_mount(mountpoint, "retry", path=path))
