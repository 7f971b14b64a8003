"""Connections whose waits end with their request, whatever drips.

A socket's timeout begins anew with each byte: a server that sends one a second, of a head or of a
body, would hold its caller for days. Each read here is given what the request has left.
"""

import http.client
import io
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from urllib3.connection import HTTPConnection, HTTPSConnection

# Bytes per second that a large body must bring over the time for which the service may be silent;
# less, and it counts as cut: it is asked for again by another connection. 32 GETs at once, as many
# as there are threads for, come in at this rate over a line of 32 KB/s: a mobile one at its worst.
SLOWEST_BODY = 1024
# A smaller one comes within the request's deadline or not at all. No answer to a Complete or a
# copy, which services keep open with a blank now and then, says that it is as large.
LARGE_BODY = 256 * 1024


class TooSlow(Exception):
    """What was asked for has not come, or gone, in its time."""


class Patience:
    """The time that one exchange may take. Of the one thread that makes it."""

    def __init__(self, silence: float, deadline: float) -> None:
        """`silence` in seconds, of the service; `deadline` of time.monotonic()."""
        self.silence = silence
        self.deadline = deadline
        self._until = deadline
        self._least = 0  # bytes that must come in each window; 0: no matter how many
        self._got = 0
        self._window_ends = 0.0

    def head_begins(self) -> None:
        """A head is sent at once when the service is ready: silence covers all of it."""
        self._until = min(self.deadline, time.monotonic() + self.silence)

    def body_begins(self, length: int | None) -> None:
        """`length` None: it is not known."""
        self._until = self.deadline
        if length is not None and length >= LARGE_BODY:
            self._least = int(SLOWEST_BODY * self.silence)
            self._got = 0
            self._window_ends = time.monotonic() + self.silence

    def seconds(self) -> float:
        """That the next read or write may take. Raises TooSlow where there are none."""
        now = time.monotonic()
        left = self._until - now
        if left <= 0:
            raise TooSlow
        if self._least and now >= self._window_ends:
            if self._got < self._least:
                raise TooSlow
            self._got = 0
            self._window_ends = now + self.silence
        return self.silence if left > self.silence else left

    def is_over(self) -> bool:
        """The deadline has passed."""
        return time.monotonic() >= self.deadline

    def took(self, count: int) -> None:
        """So many bytes have come."""
        self._got += count


_current: ContextVar[Patience] = ContextVar("_current")


@contextmanager
def patient(patience: Patience) -> Iterator[None]:
    """The exchange that is made inside has this time. Not to be nested."""
    token = _current.set(patience)
    try:
        yield
    finally:
        _current.reset(token)


class _Reader(io.RawIOBase):
    """Reads from the socket, each time for as long as is left."""

    def __init__(self, sock: socket.socket, patience: Patience) -> None:
        self._sock = sock
        self._keeps_open = sock.makefile("rb", buffering=0)  # a socket counts its files
        self._patience = patience
        self._timeout = sock.gettimeout()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        seconds = self._patience.seconds()
        if seconds != self._timeout:  # setting it is a system call
            self._sock.settimeout(seconds)
            self._timeout = seconds
        count = self._sock.recv_into(buffer)
        self._patience.took(count)
        return count

    def close(self) -> None:
        if not self.closed:
            self._keeps_open.close()
        super().close()


class _Source:
    """What http.client takes for a socket to read from."""

    def __init__(self, sock: socket.socket, patience: Patience) -> None:
        self._sock = sock
        self._patience = patience

    def makefile(self, mode: str) -> io.BufferedReader:
        return io.BufferedReader(_Reader(self._sock, self._patience))


class _Response(http.client.HTTPResponse):
    """A proxy's answer to CONNECT is read by it as well."""

    def __init__(self, sock: Any, *arguments: Any, **named: Any) -> None:
        super().__init__(_Source(sock, _current.get()), *arguments, **named)  # type: ignore[arg-type]


def _acknowledge_at_once(connection: HTTPConnection) -> None:
    """A server that sends head and body of its answer apart, without TCP_NODELAY (Ceph's
    gateway does), waits with the second until the first is acknowledged: 40 ms late otherwise.
    """
    if connection.sock is not None:
        connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)


class PlainConnection(HTTPConnection):
    """Sends within the patience: urllib3 would give the body the connect timeout."""

    response_class = _Response

    def send(self, data: Any) -> None:
        if self.sock is None:
            self.connect()
        if self.sock is not None:
            self.sock.settimeout(_current.get().seconds())
        super().send(data)

    def getresponse(self) -> Any:
        _acknowledge_at_once(self)
        _current.get().head_begins()
        return super().getresponse()


class TlsConnection(PlainConnection, HTTPSConnection):
    """The same over TLS: what is below the patience is HTTPSConnection's."""
