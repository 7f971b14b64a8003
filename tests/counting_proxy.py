"""An HTTP proxy in front of an S3 endpoint: counts requests by S3 operation, injects faults.

    with CountingProxy(server.url) as proxy:
        ... use proxy.url as the endpoint (path-style addresses) ...
        assert proxy.counts == {"PutObject": 1}
        proxy.inject("ListObjectsV2", cut_xml, times=2)

The Host header passes through as it is, so signatures stay right.
"""

import contextlib
import re
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from io import BufferedReader
from types import TracebackType
from typing import Self
from urllib.parse import parse_qsl, unquote, urlsplit

_CHUNK = 256 * 1024


@dataclass(frozen=True)
class Seen:
    """One request as it came."""

    operation: str
    method: str
    target: str  # path and query, still encoded
    headers: dict[str, str]  # names in lower case
    size: int  # of the body

    @property
    def key(self) -> str:
        """Decoded; '' for requests to the bucket."""
        return unquote(urlsplit(self.target).path.lstrip("/").partition("/")[2])


@dataclass(frozen=True)
class Reply:
    """The answer as it will be sent. `sent`: how much of the body before the connection is cut
    (None: all, and the connection stays)."""

    status: str
    headers: list[tuple[str, str]]
    body: bytes
    sent: int | None = None

    def header(self, name: str) -> str:
        return next((value for key, value in self.headers if key.lower() == name), "")


class Drop(Exception):
    """Raised by a fault: the connection is reset without an answer."""


class Silence(Drop):
    """Raised by a fault: no answer ever comes, the connection stays open."""


# `before` sees the request and may answer in place of the service; `body` changes the bytes of
# the request on their way, not their number; `after` sees the answer.
Before = Callable[[Seen], Reply | None]
Body = Callable[[bytes], bytes]
After = Callable[[Seen, Reply], Reply]


@dataclass(frozen=True)
class Fault:
    before: Before | None = None
    after: After | None = None
    body: Body | None = None


def error_reply(status: int, code: str, headers: dict[str, str] | None = None) -> Reply:
    body = f"<Error><Code>{code}</Code><Message>injected</Message></Error>".encode()
    return Reply(
        f"{status} Injected",
        [("content-type", "application/xml"), *(headers or {}).items()],
        body,
    )


def answer(status: int, code: str, headers: dict[str, str] | None = None) -> Fault:
    """The service is not asked."""
    return Fault(before=lambda seen: error_reply(status, code, headers))


def _drop(seen: Seen) -> Reply | None:
    raise Drop


def _drop_answer(seen: Seen, reply: Reply) -> Reply:
    raise Drop


def _cut_middle(seen: Seen, reply: Reply) -> Reply:
    return replace(reply, body=reply.body[: len(reply.body) // 2])


def _shorten(seen: Seen, reply: Reply) -> Reply:
    return replace(reply, sent=len(reply.body) // 2)


def _repeat(seen: Seen, reply: Reply) -> Reply:
    token = dict(parse_qsl(urlsplit(seen.target).query)).get("continuation-token")
    if token is None:
        return reply
    element = f"<NextContinuationToken>{token}</NextContinuationToken>".encode()
    body = re.sub(
        rb"<IsTruncated>\w+</IsTruncated>", b"<IsTruncated>true</IsTruncated>", reply.body
    )
    body = re.sub(rb"<NextContinuationToken>.*?</NextContinuationToken>", b"", body)
    return replace(
        reply, body=body.replace(b"</ListBucketResult>", element + b"</ListBucketResult>")
    )


slow_down = answer(503, "SlowDown")
reset = Fault(before=_drop)  # before the service saw it
lost_answer = Fault(after=_drop_answer)  # the service carried it out
cut_xml = Fault(after=_cut_middle)  # half the body, its length right
short_body = Fault(after=_shorten)  # less than Content-Length says, then a reset
repeat_token = Fault(after=_repeat)


def hang(seconds: float) -> Fault:
    """Answers late; the service is asked first."""

    def after(seen: Seen, reply: Reply) -> Reply:
        time.sleep(seconds)
        return reply

    return Fault(after=after)


class CountingProxy:
    """A context manager. `counts`, `requests` (all since `reset`), `bytes_in` (from the service)
    and `bytes_out`. `latency`: seconds before each request is passed on. `down`: connections are
    refused or reset. `weather` is asked for the fault of each request for which none was injected.
    """

    def __init__(self, upstream: str) -> None:
        parts = urlsplit(upstream)
        assert parts.hostname is not None
        self._upstream = (parts.hostname, parts.port or 80)
        self._lock = threading.Lock()
        self._faults: dict[str, list[Fault]] = {}
        self._sockets: set[socket.socket] = set()
        self._cuts = 0
        self.latency = 0.0
        self._down = False
        self.weather: Callable[[Seen], Fault | None] | None = None
        self.reset()

    def reset(self) -> None:
        """Forgets what was counted."""
        with self._lock:
            self.counts: Counter[str] = Counter()
            self.requests: list[Seen] = []
            self.bytes_in = self.bytes_out = 0

    def inject(self, operation: str, fault: Fault, *, times: int = 1) -> None:
        """The next `times` requests of `operation` ('*': of any) suffer `fault`."""
        with self._lock:
            self._faults.setdefault(operation, []).extend([fault] * times)

    def clear(self) -> None:
        """Faults that were not suffered yet are dropped."""
        with self._lock:
            self._faults.clear()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    @property
    def down(self) -> bool:
        return self._down

    @down.setter
    def down(self, value: bool) -> None:
        """Up again: whoever has called before is refused, though nobody has looked by now. A mount
        that is dead cannot change the bucket then."""
        if self._down and not value:
            self._refuse_callers()
        self._down = value

    def _refuse_callers(self) -> None:
        """Those who have called by now and wait; while it is down."""
        # Calls are taken in their order.
        with contextlib.suppress(OSError):
            here = self._listener.getsockname()
            with socket.create_connection(here) as last:
                last.recv(1)

    def __enter__(self) -> Self:
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=256)
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        # shutdown wakes the thread that sits in accept; close alone would not.
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()

    def cut(self) -> None:
        """Resets every open connection, also those that nobody has looked at yet."""
        down, self._down = self._down, True
        if not down:
            self._refuse_callers()
        with self._lock:
            sockets, self._sockets = self._sockets, set()
            self._cuts += 1
        for each in sockets:
            _close(each)
        self._down = down

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            cuts = self._cuts
            if self.down:
                _close(client)
                continue
            threading.Thread(target=self._serve, args=(client, cuts), daemon=True).start()

    def _serve(self, client: socket.socket, cuts: int) -> None:
        """`cuts`: how many there had been when the client was taken."""
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        upstream = None
        try:
            upstream = socket.create_connection(self._upstream, timeout=60)
            upstream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._join({client, upstream}, cuts)
            client_file, upstream_file = client.makefile("rb"), upstream.makefile("rb")
            while self._exchange(client, client_file, upstream, upstream_file):
                pass
        except Silence:
            with contextlib.suppress(OSError):
                client.recv(1)  # until the client has lost its patience
        except (OSError, Drop, ValueError):
            pass  # either side went away, or a fault wanted it so
        finally:
            for each in (client, upstream):
                if each is not None:
                    _close(each)
            with self._lock:
                self._sockets -= {client, upstream}

    def _join(self, sockets: set[socket.socket], cuts: int) -> None:
        """They are open, unless all were cut meanwhile."""
        with self._lock:
            if cuts != self._cuts:
                raise Drop
            self._sockets |= sockets

    def _exchange(
        self,
        client: socket.socket,
        client_file: BufferedReader,
        upstream: socket.socket,
        upstream_file: BufferedReader,
    ) -> bool:
        """One request and its answer; False at the end of the connection."""
        head, headers = _read_head(client_file)
        if not head:
            return False
        method, target, _ = head.split(" ", 2)
        size = int(headers.get("content-length", 0))
        seen = Seen(operation_of(method, target, headers), method, target, headers, size)
        fault = self._note(seen)
        if self.latency:
            time.sleep(self.latency)
        if self.down:
            raise Drop
        if fault.before is not None or fault.body is not None:
            body = client_file.read(size)
            if len(body) < size:  # the client is gone: nothing of it reaches the service
                raise Drop
            early = None if fault.before is None else fault.before(seen)
            if early is not None:
                return self._send(client, seen, early)
            if fault.body is not None:
                body = fault.body(body)
            upstream.sendall(_head_bytes(head, headers) + body)
        else:
            upstream.sendall(_head_bytes(head, headers))
            _relay(client_file, upstream, size)
        reply = _read_reply(upstream_file, method)
        if fault.after is not None:
            reply = fault.after(seen, reply)
        return self._send(client, seen, reply)

    def _note(self, seen: Seen) -> Fault:
        with self._lock:
            self.counts[seen.operation] += 1
            self.requests.append(seen)
            self.bytes_out += seen.size
            for name in (seen.operation, "*"):
                if self._faults.get(name):
                    return self._faults[name].pop(0)
        return (self.weather and self.weather(seen)) or Fault()

    def _send(self, client: socket.socket, seen: Seen, reply: Reply) -> bool:
        lines = [f"HTTP/1.1 {reply.status}"]
        framing = {"content-length", "transfer-encoding"}
        for name, value in reply.headers:
            if name.lower() not in framing:
                lines.append(f"{name}: {value}")
        length = str(len(reply.body))
        if seen.method == "HEAD":
            length = reply.header("content-length") or length
        if not reply.status.startswith(("204", "304")):
            lines.append(f"Content-Length: {length}")
        body = b"" if seen.method == "HEAD" else reply.body
        sent = body if reply.sent is None else body[: reply.sent]
        with self._lock:
            # Before they go: once the client has them a test may already have called `reset`.
            self.bytes_in += len(sent)
        client.sendall("\r\n".join([*lines, "", ""]).encode("latin-1") + sent)
        return reply.sent is None and reply.header("connection").lower() != "close"


def operation_of(method: str, target: str, headers: dict[str, str]) -> str:
    """S3's name of a path-style request."""
    parts = urlsplit(target)
    query = dict(parse_qsl(parts.query, keep_blank_values=True))
    has_key = bool(parts.path.lstrip("/").partition("/")[2])
    copies = "x-amz-copy-source" in headers
    if not has_key:
        if method == "GET":
            if "uploads" in query:
                return "ListMultipartUploads"
            return "ListObjectsV2" if query.get("list-type") == "2" else "ListObjects"
        if method == "POST" and "delete" in query:
            return "DeleteObjects"
        return {"PUT": "CreateBucket", "HEAD": "HeadBucket", "DELETE": "DeleteBucket"}[method]
    if "uploads" in query:
        return "CreateMultipartUpload"
    if "uploadId" in query:
        part = "UploadPartCopy" if copies else "UploadPart"
        return {
            "PUT": part,
            "POST": "CompleteMultipartUpload",
            "DELETE": "AbortMultipartUpload",
            "GET": "ListParts",
        }[method]
    if "tagging" in query:
        return f"{method.capitalize()}ObjectTagging"
    put = "CopyObject" if copies else "PutObject"
    names = {"PUT": put, "GET": "GetObject", "HEAD": "HeadObject", "DELETE": "DeleteObject"}
    return names[method]


def _read_head(file: BufferedReader) -> tuple[str, dict[str, str]]:
    first = file.readline().decode("latin-1").rstrip("\r\n")
    headers: dict[str, str] = {}
    while first:
        line = file.readline().decode("latin-1").rstrip("\r\n")
        if not line:
            break
        name, _, value = line.partition(":")
        headers[name.strip().lower()] = value.strip()
    return first, headers


def _head_bytes(first: str, headers: dict[str, str]) -> bytes:
    lines = [first, *(f"{name}: {value}" for name, value in headers.items()), "", ""]
    return "\r\n".join(lines).encode("latin-1")


def _relay(source: BufferedReader, target: socket.socket, size: int) -> None:
    while size > 0:
        piece = source.read1(min(size, _CHUNK))
        if not piece:
            raise Drop
        target.sendall(piece)
        size -= len(piece)


def _read_reply(file: BufferedReader, method: str) -> Reply:
    first, headers = _read_head(file)
    while first.split(" ")[1:2] == ["100"]:
        first, headers = _read_head(file)
    if not first:
        raise Drop
    status = first.split(" ", 1)[1]
    if method == "HEAD" or status[:3] in {"204", "304"}:
        body = b""
    elif headers.get("transfer-encoding", "").lower() == "chunked":
        body = _read_chunks(file)
    else:
        body = file.read(int(headers.get("content-length", 0)))
    return Reply(status, list(headers.items()), body)


def _read_chunks(file: BufferedReader) -> bytes:
    pieces = []
    while size := int(file.readline().split(b";")[0], 16):
        pieces.append(file.read(size))
        file.readline()
    file.readline()
    return b"".join(pieces)


def _close(each: socket.socket) -> None:
    with contextlib.suppress(OSError):
        each.shutdown(socket.SHUT_RDWR)
    each.close()
