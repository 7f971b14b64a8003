"""Asking a running mount over its control socket."""

import json
import os
import socket
import struct
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from s3mount.control.address import all_sockets, find_sockets
from s3mount.control.answers import BY_COMMAND, PENDING, fits

Json = Any


class NoMount(Exception):
    """No s3mount process answers for this mount point."""


class Refused(Exception):
    """The mount answered with an error; the text says which."""


class OtherVersion(Refused):
    """The mount answered something that this version does not understand."""

    def __init__(self, who: Path, command: str) -> None:
        super().__init__(
            f"the mount on {who} is of another version of s3mount: its answer to {command!r} is not"
            f" understood; 'fusermount3 -u {who}' has it send what is pending and end, then mount"
            " it again"
        )


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
    the mount ends before it answers, Refused, OtherVersion unless the result is as answers.py has
    it, and TimeoutError after `silence` seconds without a line: the mount hangs.
    """
    with _connect(mountpoint) as connection:
        answered, result = _ask(connection, command, arguments, progress, silence, mountpoint)
    if not answered:
        raise NoMount(f"the mount on {mountpoint} ended before it answered")
    return result


def ask_all(command: str, *, silence: float = 5.0, **arguments: Json) -> list[Json]:
    """The results of all mounts of this user (of all users for root) that answer. One that hangs
    or refuses is left out, and so is a socket that nobody listens on any more."""
    results = []
    for path in all_sockets():
        with suppress(OSError, Refused), _connected(path) as connection:
            answered, result = _ask(connection, command, arguments, None, silence, path)
            if answered:
                results.append(result)
    return results


def _ask(
    connection: socket.socket,
    command: str,
    arguments: Mapping[str, Json],
    progress: Callable[[Json], None] | None,
    silence: float,
    who: Path,
) -> tuple[bool, Json]:
    """Whether it answered, and its result."""
    shape = BY_COMMAND.get(command, object)
    of_progress = PENDING if command in BY_COMMAND else object
    connection.settimeout(silence)
    request = {"command": command, **arguments}
    try:
        with suppress(BrokenPipeError):  # refused before it was asked, which it has told
            connection.sendall(json.dumps(request).encode() + b"\n")
        with connection.makefile("rb") as lines:
            for line in lines:
                message = json.loads(line)
                if not isinstance(message, dict):
                    raise OtherVersion(who, command)
                if "result" in message:
                    if not fits(message["result"], shape):
                        raise OtherVersion(who, command)
                    return True, message["result"]
                if "error" in message:
                    raise Refused(str(message["error"]))
                told = message.get("progress")
                if progress is not None and fits(told, of_progress):
                    progress(told)
    except TimeoutError:
        raise TimeoutError(f"the mount on {who} has not answered for {silence:.0f} s") from None
    except (ConnectionError, ValueError):
        pass
    return False, None


def _connect(mountpoint: Path) -> socket.socket:
    for path in find_sockets(mountpoint):
        with suppress(ConnectionError, FileNotFoundError, PermissionError):
            return _connected(path)
    raise NoMount(f"no s3mount answers for {mountpoint}")


def _connected(path: Path) -> socket.socket:
    """Raises OSError. Another user may have put a socket into /tmp, where ours is looked for: only
    our own mounts are believed; root may look at all."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.connect(str(path))
        ours = os.getuid() in {0, _uid_of(connection)}
    except BaseException:
        connection.close()
        raise
    if not ours:
        connection.close()
        raise PermissionError(f"{path} belongs to somebody else")
    return connection


def _uid_of(connection: socket.socket) -> int:
    """Of the process that listens, as the kernel vouches for it."""
    packed = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    return int(struct.unpack("3i", packed)[1])
