"""What the commands that ask a running mount have in common: finding it, errors, progress."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from s3mount.cli.exits import FAILED, INTERRUPTED
from s3mount.cli.mount import complain
from s3mount.cli.progress import Bar, progress_bar, shortened
from s3mount.cli.texts import count_text, size_text
from s3mount.control.client import NoMount, Refused, ask
from s3mount.fuse.mountpoint import find_mount, mount_of, resolve

Json = Any
Progress = Callable[[Json], None]

CHANGES = 20  # that are named at a time
HINDRANCE = 100  # characters of the reason that is shown beside the bar


def ask_mount(
    mountpoint: str | Path, command: str, *, progress: Progress | None = None, **arguments: Json
) -> Json:
    """The mount's answer; exits with a message where there is none."""
    path = resolve(Path(mountpoint))
    try:
        return ask(path, command, progress=progress, **arguments)
    except (Refused, TimeoutError) as error:
        fail(str(error))
    except NoMount as error:
        hint = f"; {path} is not mounted" if find_mount(path) is None else ""
        fail(f"{error}{hint}")


def place_in_mount(first: str, second: str | None) -> tuple[Path, str]:
    """The mount point and the path below it: of 'MOUNTPOINT PATH', or of one path in a mount.

    Exits with a message where it is in none.
    """
    if second is not None:
        mountpoint = resolve(Path(first))
        found = mount_of(Path(second)) if second.startswith("/") else None
        if found is not None and found[0] == mountpoint:
            return found
        return mountpoint, second
    found = mount_of(Path(first))
    if found is None:
        fail(f"{first} is in no mount of s3mount, or that is not mounted any more")
    return found


def fail(text: str) -> NoReturn:
    complain(text)
    sys.exit(FAILED)


@contextmanager
def interruptible(how_to_go_on: Callable[[], str]) -> Iterator[None]:
    """Ctrl-C ends the command with what `how_to_go_on` says at that moment, and no traceback."""
    try:
        yield
    except KeyboardInterrupt:
        complain(f"interrupted; {how_to_go_on()}")
        sys.exit(INTERRUPTED)


def changes_text(told: Json) -> list[str]:
    """A line for each change of the mount's answer to cancel and retry."""
    lines = []
    for change in told["changes"][:CHANGES]:
        size = f" ({size_text(change['bytes'])})" if change["bytes"] else ""
        error = f": {change['error']}" if change["error"] else ""
        lines.append(f"{change['what']}{size}{error}")
    if told["count"] > len(lines):
        lines.append(f"and {told['count'] - len(lines):,} more")
    return lines


def left_text(pending: Json) -> str:
    """'3 changes, 1.2 GiB'."""
    size = f", {size_text(pending['bytes'])}" if pending["bytes"] else ""
    return f"{count_text(pending['intents'], 'change')}{size}"


@dataclass(slots=True)
class Waiting:
    """Moves a bar by what the mount tells of all that it has to send."""

    bar: Bar
    sent: int | None = None  # when it began
    changes: int = 0  # at most so far

    def __call__(self, pending: Json) -> None:
        if not pending:
            return
        bar = self.bar
        if self.sent is None:
            self.sent = pending["sent"]
        self.changes = max(self.changes, pending["intents"])
        bar.total_files, bar.done_files = self.changes, self.changes - pending["intents"]
        bar.done_bytes = pending["sent"] - self.sent
        # Once all bytes are there, what remains is counted in changes.
        bar.total_bytes = bar.done_bytes + pending["bytes"] if pending["bytes"] else None
        bar.per_second, bar.eta = pending["per_second"], pending["eta"]
        bar.note = shortened(pending["errors"][0], HINDRANCE) if pending["errors"] else ""


@contextmanager
def waiting(title: str, *, quiet: bool = False) -> Iterator[Progress]:
    """A bar for `ask(..., progress=...)`."""
    with progress_bar(title, quiet=quiet, noun="change") as bar:
        yield Waiting(bar)
