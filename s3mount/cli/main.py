"""`s3mount`: the commands, and `s3mount BUCKET MOUNTPOINT` as a short form of `s3mount mount`."""

import importlib

import click

import s3mount

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
        if args[0] not in COMMANDS or (args[0] != "mount" and "-o" in args):
            return "mount", self.get_command(ctx, "mount"), args
        return super().resolve_command(ctx, args)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Options may come before the bucket: 's3mount -f BUCKET DIR'."""
        own = {"--help", "-h", "--version", "-V"}
        if args and args[0].startswith("-") and args[0] not in own:
            args = ["mount", *args]
        return super().parse_args(ctx, args)


@click.group(
    cls=Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="'s3mount BUCKET MOUNTPOINT' is short for 's3mount mount BUCKET MOUNTPOINT'.",
)
@click.version_option(s3mount.__version__, "-V", "--version", prog_name="s3mount")
def main() -> None:
    """An S3 bucket as a folder."""
