"""`s3mount umount MOUNTPOINT`: sends what is pending, then unmounts."""

import os
import select
import sys
from pathlib import Path
from typing import Any

import click

from s3mount.cli import values
from s3mount.cli.asking import end_progress, fail, show_progress
from s3mount.cli.mount import complain
from s3mount.cli.texts import size_text
from s3mount.control.client import NoMount, Refused, ask
from s3mount.core.errors import ConfigurationError
from s3mount.fuse.mountpoint import FUSE_TYPE, find_mount, is_dead, resolve, unmount

END_TIMEOUT = 30.0  # of a process that has sent everything and closed its control socket
LEFT_IN_JOURNAL = 3  # the exit status of the mount's own process, too

Json = Any


@click.command("umount")
@click.argument("mountpoint")
@click.option(
    "--timeout",
    metavar="TIME",
    help="How long to wait for what is pending; default: the mount's --leave-timeout.",
)
@click.option("--force", is_flag=True, help="Do not wait; the mount's process sends the rest.")
def umount(mountpoint: str, timeout: str | None, force: bool) -> None:
    """Wait until everything is in the bucket, unmount, and wait for the mount's process to end.

    What cannot be sent in time stays in the journal, the next mount sends it: exit status 3.
    """
    path = resolve(Path(mountpoint))
    entry = find_mount(path)
    if entry is None:
        fail(f"{path} is not mounted")
    if entry.kind != FUSE_TYPE:
        fail(f"{path} is mounted by something else ({entry.kind}); use umount")
    left: Json = None
    try:
        limit = None if timeout is None else values.seconds(timeout)
        dead = is_dead(path)
        process = None if force or dead else _process(path)
        if not force and not dead:
            left = _drain(path, limit)
        unmount(path, lazy=dead)
    except ConfigurationError as error:
        fail(str(error))
    if process is not None:
        left = _wait_for_end(path, process, left)
    if left is not None and (left["intents"] or left["files"]):
        _say_left(left)
        sys.exit(LEFT_IN_JOURNAL)


def _drain(path: Path, limit: float | None) -> Json:
    """What is left; not to be unmounted if that would be lost."""
    try:
        left = ask(path, "drain", progress=show_progress, timeout=limit)
    except NoMount:
        return None  # its process is gone or of another user; unmounting tells more
    except (Refused, TimeoutError) as error:
        fail(f"{error}; nothing was unmounted (umount --force does so all the same)")
    finally:
        end_progress()
    if (left["intents"] or left["files"]) and not left["journalled"]:
        for reason in left["errors"]:
            complain(reason)
        fail(
            f"{left['intents']} changes could not be sent; nothing was unmounted (see s3mount"
            " status; umount --force unmounts all the same)"
        )
    return left


def _process(path: Path) -> int | None:
    """A descriptor that becomes readable when the mount's process ends."""
    try:
        return os.pidfd_open(ask(path, "status")["pid"])
    except (NoMount, Refused, TimeoutError, OSError):
        return None


def _wait_for_end(path: Path, process: int, left: Json) -> Json:
    """Handles closed since are sent now. Returns what is left, once the process is gone."""
    try:
        if left is not None and (left["intents"] or left["files"]):
            ask(path, "hurry")  # its time is over
        left = ask(path, "watch", progress=show_progress)
    except (NoMount, Refused):
        pass  # it had ended already
    except TimeoutError as error:
        fail(str(error))
    finally:
        end_progress()
    select.select([process], [], [], END_TIMEOUT)
    os.close(process)
    return left


def _say_left(left: Json) -> None:
    for reason in left["errors"]:
        complain(reason)
    complain(
        f"{left['intents']} changes ({size_text(left['bytes'])}) could not be sent in time: they"
        " are in the journal, and the next mount of this bucket here sends them"
    )
    if left["unfinished"]:
        complain(
            f"{left['unfinished']} files were still being written and are not in the bucket; what"
            " was written of them: s3mount recover list"
        )
