"""`s3mount`: the commands, and `s3mount BUCKET MOUNTPOINT` as a short form of `s3mount mount`."""

import click

import s3mount
from s3mount.cli.cancel import cancel
from s3mount.cli.demo import demo
from s3mount.cli.flush import flush
from s3mount.cli.mount import mount
from s3mount.cli.recover import recover
from s3mount.cli.retry import retry
from s3mount.cli.status import status
from s3mount.cli.umount import umount


class Commands(click.Group):
    """What is not the name of a command is a bucket's."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        # mount(8) calls 's3mount BUCKET DIR -o ...' whatever the bucket's name.
        if args[0] not in self.commands or (args[0] != "mount" and "-o" in args):
            return "mount", self.commands["mount"], args
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


for command in (mount, umount, status, flush, retry, cancel, recover, demo):
    main.add_command(command)
