"""`s3mount recover list|save|drop`: files that were never closed when their mount died."""

import os
from pathlib import Path

import click

from s3mount.cli.settings import default_cache_dir
from s3mount.cli.suggestions import NearestGroup
from s3mount.cli.texts import size_text
from s3mount.writeback.recoverable import Recoverable, RecoverableFile, all_below, when_written

EXAMPLES = """\b
Examples:
  s3mount recover list                          what there is
  s3mount recover save NAME report.odt          writes it to a new file; it stays here, too
  s3mount recover drop NAME                     deletes it for good, after asking
"""

cache_option = click.option(
    "--cache-dir",
    type=click.Path(path_type=Path, file_okay=False),
    help="Where the mounts keep their files, if not in the default place.",
)


@click.group(cls=NearestGroup, epilog=EXAMPLES, short_help="Files that were never closed.")
def recover() -> None:
    """Files that a program had not closed when their mount died.

    They are never put into the bucket, for they are unfinished; what was written of them is kept
    until it is saved elsewhere or dropped.
    """


def _all(cache: Path | None) -> list[tuple[Recoverable, RecoverableFile]]:
    root = cache or default_cache_dir(os.environ)
    return [(kept, entry) for kept in all_below(root) for entry in kept.list()]


def _one(cache: Path | None, name: str) -> tuple[Recoverable, RecoverableFile]:
    for kept, entry in _all(cache):
        if entry.name == name:
            return kept, entry
    raise click.ClickException(f"there is no file {name!r} to recover; see 's3mount recover list'")


@recover.command("list")
@cache_option
def list_files(cache_dir: Path | None) -> None:
    """Name, bytes that are there, size, when last written, and key of each file."""
    for _, entry in _all(cache_dir):
        there, size = size_text(entry.bytes), size_text(entry.size)
        more = "" if entry.in_upload is None else f"  and in the upload {entry.in_upload}"
        click.echo(f"{entry.name}  {there} of {size}  {when_written(entry)}  {entry.key}{more}")


@recover.command()
@click.argument("name")
@click.argument("target", type=click.Path(path_type=Path))
@cache_option
def save(name: str, target: Path, cache_dir: Path | None) -> None:
    """Write the file NAME to TARGET, which must not exist; it stays here, too.

    What was never written, or is not readable any more, is zeros.
    """
    kept, entry = _one(cache_dir, name)
    try:
        kept.save(entry, target)
    except FileExistsError:
        raise click.ClickException(f"{target} exists; nothing is overwritten") from None
    except OSError as error:
        raise click.ClickException(f"{target} could not be written: {error.strerror}") from None
    click.echo(f"{size_text(entry.bytes)} of {entry.key!r} are in {target}")
    if entry.bytes < entry.size:
        ranges = ", ".join(f"{start}-{end}" for start, end in entry.ranges[:10])
        click.echo(f"of its {entry.size} bytes only these are known, the rest is zeros: {ranges}")
    if entry.in_upload is not None:
        click.echo(f"the unfinished upload {entry.in_upload} of {entry.key!r} has more of it")
    if entry.base is not None:
        click.echo(f"it was a change of the object with the ETag {entry.base}")


@recover.command()
@click.argument("name")
@click.option("-y", "--yes", is_flag=True, help="Without asking.")
@cache_option
def drop(name: str, yes: bool, cache_dir: Path | None) -> None:
    """Delete what is kept of the file NAME, for good."""
    kept, entry = _one(cache_dir, name)
    if not yes:
        click.confirm(f"delete {size_text(entry.bytes)} of {entry.key!r} for good?", abort=True)
    kept.drop(entry)
    click.echo(f"{entry.key!r} is dropped")
