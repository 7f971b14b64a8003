"""What a mistyped word was meant to be."""

import difflib
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

import click

from s3mount.fuse.mountpoint import find_mount, mount_of

# Of difflib's ratio: 'unmount', 'stat', 'mnt', 'fulsh' are near enough, 'data' and 'photos' not.
NEAR = 0.7


def nearest(word: str, known: Iterable[str]) -> str | None:
    found = difflib.get_close_matches(word.lower(), list(known), n=1, cutoff=NEAR)
    return found[0] if found else None


def meant_command(args: Sequence[str], commands: Iterable[str]) -> str | None:
    """The command that 's3mount ARGS' was meant to be, where its first word is none; None: a
    bucket to be mounted.

    A word that is near a command's name may be a bucket's as well. It is one where there is a
    directory to mount it on; one that is a mount already is what other commands are given.
    """
    word, *others = args
    if "-o" in others or any(mark in word for mark in ":/."):
        return None
    near = nearest(word, commands)
    if near is None or any(_can_be_mounted_on(Path(other)) for other in others):
        return None
    return near


def _can_be_mounted_on(path: Path) -> bool:
    """Asks no mount of ours, for that may hang."""
    if mount_of(path) is not None or find_mount(path) is not None:
        return False
    return os.path.isdir(path)


class NearestGroup(click.Group):
    """A command with sub-commands that answers a mistyped one with the nearest word."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        names = self.list_commands(ctx)
        if args[0] not in names and not args[0].startswith("-"):
            near = nearest(args[0], names)
            hint = f"did you mean {near!r}?" if near else f"there are {', '.join(names)}"
            raise click.UsageError(f"no such command {args[0]!r}; {hint}", ctx)
        return super().resolve_command(ctx, args)
