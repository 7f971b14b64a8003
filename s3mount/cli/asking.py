"""What the commands that ask a running mount have in common: finding it, and its errors."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from s3mount.cli.mount import complain
from s3mount.cli.texts import size_text
from s3mount.control.client import NoMount, Refused, ask
from s3mount.fuse.mountpoint import find_mount, resolve

FAILED = 1


def ask_mount(
    mountpoint: str,
    command: str,
    *,
    progress: Callable[[Any], None] | None = None,
    **arguments: Any,
) -> Any:
    """The mount's answer; exits with a message where there is none."""
    path = resolve(Path(mountpoint))
    try:
        return ask(path, command, progress=progress, **arguments)
    except (Refused, TimeoutError) as error:
        fail(str(error))
    except NoMount as error:
        hint = f"; {path} is not mounted" if find_mount(path) is None else ""
        fail(f"{error}{hint}")


def fail(text: str) -> NoReturn:
    complain(text)
    sys.exit(FAILED)


def show_progress(pending: Any) -> None:
    """One line, overwritten in a terminal."""
    if not pending:
        return
    text = f"{pending['intents']} changes, {size_text(pending['bytes'])} still to be sent"
    if sys.stderr.isatty():
        print(f"\r{text}\x1b[K", end="", file=sys.stderr, flush=True)


def end_progress() -> None:
    if sys.stderr.isatty():
        print("\r\x1b[K", end="", file=sys.stderr, flush=True)
