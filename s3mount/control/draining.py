"""How a mount leaves: sends what is pending, bounded in time, tells how it goes, and what is left.

What is left is in the journal, and the next mount goes on with it.
"""

import logging
import os
import socket
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import trio

from s3mount.control.client import NoMount, Refused, ask
from s3mount.control.commands import MountState

log = logging.getLogger(__name__)

PROGRESS_INTERVAL = 2.0
NAMES = 50  # of what is left, in log and terminal; status and the next mount know all
ASKING_TIMEOUT = 2.0  # a mount that does not answer this soon is only waited for

WATCHERS_TIME = 0.1

# Exit statuses of the mount's process.
SENT, NOT_SENT, LEFT_IN_JOURNAL = 0, 1, 3


@dataclass(slots=True)
class Draining:
    """`say` tells whoever waits; `hurry` is set by a second signal or `s3mount umount`."""

    state: MountState
    say: Callable[[str], None]
    hurry: trio.Event = field(default_factory=trio.Event)

    async def run(self) -> None:
        """Until all is sent, the mount's leave_timeout is over, or `hurry` is set."""
        if self.hurry.is_set():
            return
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._report)

            async def stop_at_hurry() -> None:
                await self.hurry.wait()
                nursery.cancel_scope.cancel()

            nursery.start_soon(stop_at_hurry)
            await self.state.filesystem.drain(self.state.config.leave_timeout, None)
            nursery.cancel_scope.cancel()

    async def _report(self) -> None:
        while True:
            await trio.sleep(PROGRESS_INTERVAL)
            pending = self.state.filesystem.pending()
            text = f"leaving: {pending.intents} changes, {pending.bytes} bytes still to be sent"
            self.say(text)
            notify_systemd(f"STATUS={text}")

    def farewell(self) -> int:
        """The exit status of the process; names what was not sent."""
        filesystem, mountpoint = self.state.filesystem, self.state.config.mountpoint
        left = filesystem.pending()
        if not left:
            log.info("%s is unmounted, everything is sent", mountpoint)
            return SENT
        text = f"{mountpoint}: leaving with {left.intents} changes of {left.files} files"
        log.error("%s (%d bytes) not sent", text, left.bytes)
        names = filesystem.left()
        for name in names[:NAMES]:
            log.error("not sent: %s", name)
        if len(names) > NAMES:
            log.error("not sent: %d more", len(names) - NAMES)
        if not filesystem.durable:
            return NOT_SENT
        if left.intents:
            log.error("these changes are in the journal: the next mount here sends them")
        if left.unfinished:
            log.error("what was still being written is kept apart: s3mount recover list")
        return LEFT_IN_JOURNAL

    async def tell_watchers(self) -> None:
        """`s3mount umount` hears how it ended."""
        self.state.ended.set()
        if self.state.watchers:
            await trio.sleep(WATCHERS_TIME)  # their answers go out


def previous_mount(mountpoint: Path) -> str:
    """What the process that is still leaving this mount point has to send; '' if it tells not."""
    with suppress(NoMount, Refused, TimeoutError, OSError, KeyError, TypeError):
        pending = ask(mountpoint, "pending", silence=ASKING_TIMEOUT)
        return f"{pending['intents']} changes, {pending['bytes']} bytes still to be sent"
    return ""


def notify_systemd(message: str) -> None:
    """To the service manager that started us, if there is one."""
    name = os.environ.get("NOTIFY_SOCKET")
    if not name:
        return
    address = "\0" + name[1:] if name.startswith("@") else name
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as out, suppress(OSError):
        out.sendto(message.encode(), address)
