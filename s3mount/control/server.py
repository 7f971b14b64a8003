"""The control socket of a running mount.

One request a connection: a line of JSON such as {"command": "status"}; answered by lines of JSON,
{"progress": {...}} while it lasts and at last {"result": ...} or {"error": "..."}. Only the
mount's owner and root are served. A client that sends or reads slowly or not at all is dropped,
the first of them as soon as others need its place: nothing here can hold the mount up.
"""

import json
import logging
import os
import socket
import struct
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import trio

log = logging.getLogger(__name__)

MAX_REQUEST = 64 * 1024  # bytes of a request line
MAX_CLIENTS = 64
ACCEPT_PAUSE = 0.5  # after a failure of accept, which may go on for a while
CLIENT_TIMEOUT = 10.0  # to send the request, and to take each line of the answer
PROGRESS_INTERVAL = 0.5

Json = Any
Command = Callable[[Mapping[str, Json]], Awaitable[Json]]


class CommandFailed(Exception):
    """The text is the client's answer."""


@dataclass(slots=True, eq=False)
class _Client:
    """`working`: its command runs; else it is to send its request or to take its answer."""

    scope: trio.CancelScope = field(default_factory=trio.CancelScope)
    working: bool = False


@dataclass(frozen=True, slots=True)
class ControlServer:
    """`progress` is what a client is told every half second while its command goes on."""

    path: Path
    commands: Mapping[str, Command]
    progress: Callable[[], Json]
    _clients: dict[_Client, None] = field(default_factory=dict)  # the oldest first

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serves until cancelled; the socket is 0600 from its first moment and removed after."""
        with suppress(FileNotFoundError):
            self.path.unlink()
        with trio.socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
            previous = os.umask(0o177)
            try:
                await listener.bind(os.fspath(self.path))
            finally:
                os.umask(previous)
            listener.listen(MAX_CLIENTS)
            identity = os.lstat(self.path).st_ino
            task_status.started()
            try:
                async with trio.open_nursery() as nursery:
                    while True:
                        connection = await _accepted(listener)
                        self._make_room()
                        nursery.start_soon(self._serve, connection)
            finally:
                # A mount that was started since may have put its own socket there.
                with suppress(FileNotFoundError):
                    if os.lstat(self.path).st_ino == identity:
                        self.path.unlink()

    def _make_room(self) -> None:
        """For one more: whoever has kept us waiting longest goes."""
        if len(self._clients) < MAX_CLIENTS:
            return
        idle = next((client for client in self._clients if not client.working), None)
        if idle is not None:
            self._clients.pop(idle)
            idle.scope.cancel()

    async def _serve(self, connection: trio.socket.SocketType) -> None:
        client = _Client()
        try:
            with connection, suppress(OSError), client.scope:
                if peer_uid(connection) not in (0, os.getuid()):
                    return
                if len(self._clients) >= MAX_CLIENTS:  # all of them work
                    await _send(connection, {"error": "too many commands at once; try again"})
                    return
                self._clients[client] = None
                await self._answer(connection, client)
        except Exception:
            log.exception("control socket: a request failed unexpectedly")
        finally:
            self._clients.pop(client, None)

    async def _answer(self, connection: trio.socket.SocketType, client: _Client) -> None:
        with trio.move_on_after(CLIENT_TIMEOUT) as patience:
            line = await _read_line(connection)
        if patience.cancelled_caught:
            return
        try:
            request = json.loads(line)
            command = self.commands[request["command"]]
        except (ValueError, TypeError, KeyError, RecursionError):
            names = ", ".join(sorted(self.commands))
            await _send(connection, {"error": f"not a request; the commands are: {names}"})
            return
        client.working = True
        answer: Json = None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._report_progress, connection, nursery.cancel_scope)
            try:
                answer = {"result": await command(request)}
            except CommandFailed as error:
                answer = {"error": str(error)}
            except Exception as error:
                log.warning("control socket: %s failed: %s", request["command"], error)
                answer = {"error": str(error) or type(error).__name__}
            nursery.cancel_scope.cancel()
        client.working = False
        if answer is not None:
            await _send(connection, answer)

    async def _report_progress(
        self, client: trio.socket.SocketType, scope: trio.CancelScope
    ) -> None:
        """Ends the command if its client is gone or does not read."""
        while True:
            await trio.sleep(PROGRESS_INTERVAL)
            try:
                await _send(client, {"progress": self.progress()})
            except OSError:
                scope.cancel()


async def _accepted(listener: trio.socket.SocketType) -> trio.socket.SocketType:
    while True:
        try:
            connection, _ = await listener.accept()
        except OSError as error:  # no file descriptor left, or the client is gone again
            log.warning("control socket: %s", error)
            await trio.sleep(ACCEPT_PAUSE)
        else:
            return connection


def peer_uid(client: trio.socket.SocketType) -> int:
    """Of the process at the other end, as the kernel vouches for it."""
    packed = client.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    _, uid, _ = struct.unpack("3i", packed)
    return int(uid)


async def _read_line(client: trio.socket.SocketType) -> bytes:
    line = b""
    while b"\n" not in line and len(line) < MAX_REQUEST:
        piece = await client.recv(4096)
        if not piece:
            break
        line += piece
    return line.partition(b"\n")[0]


async def _send(client: trio.socket.SocketType, message: Json) -> None:
    """Raises OSError if the client does not take it in time."""
    data = memoryview(json.dumps(message, default=str).encode() + b"\n")
    with trio.move_on_after(CLIENT_TIMEOUT):
        while data:
            data = data[await client.send(data) :]
    if data:
        raise TimeoutError("the client does not read")
