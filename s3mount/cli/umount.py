"""`s3mount umount MOUNTPOINT`: sends what is pending, then unmounts."""

import os
import select
from pathlib import Path

import click

from s3mount.cli.asking import end_progress, fail, show_progress
from s3mount.cli.mount import complain
from s3mount.control.client import NoMount, Refused, ask
from s3mount.core.errors import ConfigurationError
from s3mount.fuse.mountpoint import FUSE_TYPE, find_mount, is_dead, resolve, unmount

END_TIMEOUT = 30.0  # of a process that has sent everything and closed its control socket


@click.command("umount")
@click.argument("mountpoint")
@click.option("--force", is_flag=True, help="Do not wait; the mount's process sends the rest.")
def umount(mountpoint: str, force: bool) -> None:
    """Wait until everything is in the bucket, unmount, and wait for the mount's process to end."""
    path = resolve(Path(mountpoint))
    entry = find_mount(path)
    if entry is None:
        fail(f"{path} is not mounted")
    if entry.kind != FUSE_TYPE:
        fail(f"{path} is mounted by something else ({entry.kind}); use umount")
    try:
        dead = is_dead(path)
        process = None if force or dead else _process(path)
        if not force and not dead:
            _drain(path)
        unmount(path, lazy=dead)
    except ConfigurationError as error:
        fail(str(error))
    if process is not None:
        _wait_for_end(path, process)


def _drain(path: Path) -> None:
    try:
        left = ask(path, "drain", progress=show_progress)
    except NoMount:
        return  # its process is gone or of another user; unmounting tells more
    except (Refused, TimeoutError) as error:
        fail(f"{error}; nothing was unmounted (umount --force does so all the same)")
    finally:
        end_progress()
    if left["intents"] or left["files"]:
        for reason in left["errors"]:
            complain(reason)
        fail(
            f"{left['intents']} changes could not be sent; nothing was unmounted (see s3mount"
            " status; umount --force unmounts all the same)"
        )


def _process(path: Path) -> int | None:
    """A descriptor that becomes readable when the mount's process ends."""
    try:
        return os.pidfd_open(ask(path, "status")["pid"])
    except (NoMount, Refused, TimeoutError, OSError):
        return None


def _wait_for_end(path: Path, process: int) -> None:
    """Handles closed since are sent now; returns when the process is gone."""
    try:
        ask(path, "watch", progress=show_progress)
    except (NoMount, Refused):
        select.select([process], [], [], END_TIMEOUT)
    except TimeoutError as error:
        fail(str(error))
    finally:
        end_progress()
        os.close(process)
