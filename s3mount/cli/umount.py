"""`s3mount umount MOUNTPOINT`: sends what is pending, then unmounts."""

import os
import select
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from s3mount.cli import values
from s3mount.cli.asking import fail, interruptible, left_text, waiting
from s3mount.cli.exits import UNFINISHED
from s3mount.cli.mount import complain
from s3mount.cli.progress import quiet_option
from s3mount.cli.texts import count_text
from s3mount.control.client import NoMount, Refused, ask
from s3mount.core.errors import ConfigurationError
from s3mount.fuse.mountpoint import FUSE_TYPE, find_mount, is_dead, resolve, unmount

END_TIMEOUT = 30.0  # of a process that has sent everything and closed its control socket
LOOK = 5.0  # seconds for a look at what is pending, where nothing depends on it

Json = Any

EXAMPLES = """\b
Examples:
  s3mount umount ~/bucket                 waits until all is in the bucket
  s3mount umount --timeout 30s ~/bucket   for half a minute; the rest stays in the journal
  s3mount umount --detach ~/bucket        at once; the next mount here sends the rest
  s3mount umount --force ~/bucket         at once; the mount's process sends the rest behind

\b
Exit status: 0 all is in the bucket, 1 not unmounted (the message says why), 3 unmounted, and what
could not be sent is in the journal, 130 interrupted (nothing is lost).
"""


@click.command("umount", epilog=EXAMPLES, short_help="Unmount when all is in the bucket.")
@click.argument("mountpoint")
@click.option(
    "--timeout",
    metavar="TIME",
    help="How long to wait for what is pending; default: the mount's --leave-timeout.",
)
@click.option("--detach", is_flag=True, help="Do not wait; the rest stays in the journal.")
@click.option("--force", is_flag=True, help="Do not wait; the mount's process sends the rest.")
@quiet_option
def umount(mountpoint: str, timeout: str | None, detach: bool, force: bool, quiet: bool) -> None:
    """Wait until everything is in the bucket, unmount, and wait for the mount's process to end.

    What cannot be sent in time stays in the journal, and the next mount of the same directory
    sends it. What a program had written and not closed is never sent: s3mount recover has it.
    """
    if sum((timeout is not None, detach, force)) > 1:
        raise click.UsageError("--timeout, --detach and --force exclude each other")
    path = resolve(Path(mountpoint))
    entry = find_mount(path)
    if entry is None:
        fail(f"{path} is not mounted")
    if entry.kind != FUSE_TYPE:
        fail(f"{path} is mounted by something else ({entry.kind}); use umount")
    leaving = _Leaving(path, quiet)
    try:
        limit = 0.0 if detach else None if timeout is None else values.seconds(timeout)
        with interruptible(leaving.if_interrupted):
            left = None
            if force:
                leaving.by_force()
            else:
                left = leaving.orderly(limit)
    except ConfigurationError as error:
        fail(str(error))
    if left is not None and (left["intents"] or left["files"]):
        _say_left(left)
        sys.exit(UNFINISHED)


@dataclass(slots=True)
class _Leaving:
    path: Path
    quiet: bool
    unmounted: bool = False

    def if_interrupted(self) -> str:
        if self.unmounted:
            return f"{self.path} is unmounted, and its process goes on sending what is pending"
        return (
            f"{self.path} stays mounted and goes on sending; again: s3mount umount {self.path}; at"
            " once, leaving the rest in the journal: --detach"
        )

    def by_force(self) -> None:
        pending = None if is_dead(self.path) else self._look("pending")
        self._unmount()
        if pending is not None and (pending["intents"] or pending["files"]) and not self.quiet:
            complain(
                f"unmounted; its process still sends {left_text(pending)}. A new mount here waits"
                " for that"
            )

    def orderly(self, limit: float | None) -> Json:
        """What is left, once the process is gone."""
        if is_dead(self.path):
            self._unmount(lazy=True)
            if not self.quiet:
                complain("its process had died; the next mount here sends what it left")
            return None
        process = self._process()
        left = self._drain(limit)
        self._unmount()
        return left if process is None else self._wait_for_end(process, left)

    def _unmount(self, *, lazy: bool = False) -> None:
        unmount(self.path, lazy=lazy)
        self.unmounted = True

    def _look(self, command: str) -> Json:
        """None where nobody answers."""
        try:
            return ask(self.path, command, silence=LOOK)
        except (NoMount, Refused, TimeoutError, OSError):
            return None

    def _drain(self, limit: float | None) -> Json:
        """What is left; not to be unmounted if that would be lost."""
        try:
            with waiting("sending", quiet=self.quiet) as progress:
                left = ask(self.path, "drain", progress=progress, timeout=limit)
        except NoMount:
            return None  # its process is gone or of another user; unmounting tells more
        except (Refused, TimeoutError) as error:
            fail(f"{error}; nothing was unmounted (umount --force does so all the same)")
        if (left["intents"] or left["files"]) and not left["journalled"]:
            for reason in left["errors"]:
                complain(reason)
            fail(
                f"{left_text(left)} could not be sent, and this mount has no journal; nothing was"
                " unmounted (see s3mount status; umount --force unmounts all the same)"
            )
        return left

    def _process(self) -> int | None:
        """A descriptor that becomes readable when the mount's process ends."""
        status = self._look("status")
        try:
            return None if status is None else os.pidfd_open(status["pid"])
        except OSError:
            return None

    def _wait_for_end(self, process: int, left: Json) -> Json:
        """Handles closed since are sent now."""
        try:
            if left is not None and (left["intents"] or left["files"]):
                ask(self.path, "hurry")  # its time is over
            with waiting("leaving", quiet=self.quiet) as progress:
                left = ask(self.path, "watch", progress=progress)
        except (NoMount, Refused):
            pass  # it had ended already
        except TimeoutError as error:
            fail(str(error))
        select.select([process], [], [], END_TIMEOUT)
        os.close(process)
        return left


def _say_left(left: Json) -> None:
    for reason in left["errors"]:
        complain(reason)
    if left["intents"]:
        complain(
            f"{left_text(left)} not sent: in the journal, and the next mount of this bucket here"
            " sends it"
        )
    if left["unfinished"]:
        complain(
            f"{count_text(left['unfinished'], 'file')} still being written and not in the bucket;"
            " what was written: s3mount recover list"
        )
