"""`s3mount`: the commands, and `s3mount BUCKET MOUNTPOINT` as a short form of `s3mount mount`."""

import importlib
import sys
from typing import Any

import click

import s3mount
from s3mount.cli.exits import INTERRUPTED
from s3mount.cli.suggestions import meant_command

# Each is the command of this name in the module of this name, imported when it is asked for:
# without boto3, trio and awscrt, `status` starts in a third of the time.
COMMANDS = (
    "mount",
    "umount",
    "status",
    "flush",
    "retry",
    "cancel",
    "recover",
    "ls",
    "cp",
    "mv",
    "rm",
    "feed",
    "uploads",
    "demo",
)

EPILOG = """\b
's3mount BUCKET MOUNTPOINT' is short for 's3mount mount BUCKET MOUNTPOINT'.
's3mount COMMAND --help' has examples.

\b
Examples:
  s3mount my-bucket ~/bucket                   mounts; the bucket is a folder now
  s3mount status ~/bucket --watch              what it is doing, live
  s3mount umount ~/bucket                      when all is in the bucket
  s3mount ls my-bucket:/photos                 without a mount, as feed, cp, mv and rm

\b
Exit status of all commands:
  0    done
  1    failed: the message says why, and what to do
  2    wrong usage; mount: it could not start
  3    not finished: what is left is kept, and the next mount or the same command goes on
  70   mount alone: it crashed, and the next mount goes on
  130  interrupted by Ctrl-C; nothing is lost, and the message says how to go on
"""


class Commands(click.Group):
    """What is not the name of a command is a bucket's."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command = getattr(importlib.import_module(f"s3mount.cli.{cmd_name}"), cmd_name)
        assert isinstance(command, click.Command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        # mount(8) calls 's3mount BUCKET DIR -o ...' whatever the bucket's name.
        if args[0] in COMMANDS and (args[0] == "mount" or "-o" not in args):
            return super().resolve_command(ctx, args)
        meant = None if args[0] in COMMANDS else meant_command(args, COMMANDS)
        if meant is not None:
            raise click.UsageError(
                f"no such command {args[0]!r}; did you mean {meant!r}? (To mount a bucket of this"
                f" name: s3mount mount {args[0]} DIRECTORY)",
                ctx,
            )
        return "mount", self.get_command(ctx, "mount"), args

    def invoke(self, ctx: click.Context) -> Any:
        """Commands that have something to say after Ctrl-C have said it and exited."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            click.echo("s3mount: interrupted", err=True)
            sys.exit(INTERRUPTED)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Options may come before the bucket: 's3mount -f BUCKET DIR'."""
        own = {"--help", "-h", "--version", "-V"}
        if args and args[0].startswith("-") and args[0] not in own:
            args = ["mount", *args]
        return super().parse_args(ctx, args)


@click.group(
    cls=Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog=EPILOG,
)
@click.version_option(s3mount.__version__, "-V", "--version", prog_name="s3mount")
def main() -> None:
    """An S3 bucket as a folder."""
