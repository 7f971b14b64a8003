"""Asking a running mount over its control socket."""

import json
import socket
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from s3mount.control.address import find_sockets

Json = Any


class NoMount(Exception):
    """No s3mount process answers for this mount point."""


class Refused(Exception):
    """The mount answered with an error; the text says which."""


def ask(
    mountpoint: Path,
    command: str,
    *,
    progress: Callable[[Json], None] | None = None,
    silence: float = 30.0,
    **arguments: Json,
) -> Json:
    """The result of one command; `mountpoint` must be resolved (fuse.mountpoint.resolve).

    `progress` is called about twice a second while it lasts. Raises NoMount if nobody listens or
    the mount ends before it answers, Refused, and TimeoutError after `silence` seconds without a
    line: the mount hangs.
    """
    with _connect(mountpoint) as connection:
        connection.settimeout(silence)
        request = {"command": command, **arguments}
        try:
            connection.sendall(json.dumps(request).encode() + b"\n")
            with connection.makefile("rb") as lines:
                for line in lines:
                    message = json.loads(line)
                    if "result" in message:
                        return message["result"]
                    if "error" in message:
                        raise Refused(message["error"])
                    if progress is not None:
                        progress(message.get("progress"))
        except TimeoutError:
            raise TimeoutError(
                f"the mount on {mountpoint} has not answered for {silence:.0f} s"
            ) from None
        except (ConnectionError, ValueError):
            pass
    raise NoMount(f"the mount on {mountpoint} ended before it answered")


def _connect(mountpoint: Path) -> socket.socket:
    for path in find_sockets(mountpoint):
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        with suppress(ConnectionError, FileNotFoundError, PermissionError):
            connection.connect(str(path))
            return connection
        connection.close()
    raise NoMount(f"no s3mount answers for {mountpoint}")
