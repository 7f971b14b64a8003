"""Faults of every kind that the network and the service have, by rule or by rate.

A `Fault` (tests/counting_proxy.py) is what one request suffers: over HTTP by the proxy, or without
network by the wire in memory (tests/memory_wire.py). `Weather` chooses faults by chance:

    with FaultProxy(server.url) as proxy:
        proxy.inject("CompleteMultipartUpload", error_inside_200, times=2)   # by rule
        proxy.weather = Weather(rate=0.1, seed=7)                            # by rate
        with proxy.outage():                                                 # nothing gets through
            ...
"""

import contextlib
import math
import random
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from tests.counting_proxy import (
    CountingProxy,
    Drop,
    Fault,
    Reply,
    Seen,
    Silence,
    answer,
    cut_xml,
    error_reply,
    lost_answer,
    reset,
    short_body,
    slow_down,
)

# Larger answers are checked by nobody where the service stores no checksum.
CHECKED_SIZE = 256 * 1024
_WHOLE = re.compile(r"bytes 0-(\d+)/(\d+)")


_etags = random.Random(1)


def _without(reply: Reply, name: str) -> list[tuple[str, str]]:
    return [(key, value) for key, value in reply.headers if key.lower() != name]


def flip(data: bytes) -> bytes:
    """One bit of it is another one."""
    if not data:
        return data
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 0x10]) + data[middle + 1 :]


def _flip_answer(seen: Seen, reply: Reply) -> Reply:
    return replace(reply, body=flip(reply.body)) if reply.status.startswith("2") else reply


def _other_etag(seen: Seen, reply: Reply) -> Reply:
    if not reply.header("etag"):
        return reply
    other = _etags.randbytes(16).hex()
    return replace(reply, headers=[*_without(reply, "etag"), ("ETag", f'"{other}"')])


def _other_etag_inside(seen: Seen, reply: Reply) -> Reply:
    wrong = rb"<ETag>&quot;" + b"0" * 32 + rb"-2&quot;</ETag>"
    return replace(reply, body=re.sub(rb"<ETag>.*?</ETag>", wrong, reply.body))


def _silence(seen: Seen) -> Reply | None:
    raise Silence


def _silence_after(seen: Seen, reply: Reply) -> Reply:
    raise Silence


INSIDE = b"<Error><Code>InternalError</Code><Message>injected</Message></Error>"


def _error_inside(seen: Seen, reply: Reply) -> Reply:
    return replace(reply, body=INSIDE)


corrupt_upload = Fault(body=flip)  # a bit flipped on the way up
corrupt_answer = Fault(after=_flip_answer)  # and on the way down
cut_answer = cut_xml  # half the body, the Content-Length that of the half
wrong_etag = Fault(after=_other_etag)
wrong_etag_inside = Fault(after=_other_etag_inside)  # in the XML of Complete and Copy
never_asked = Fault(before=_silence)  # no answer ever, nothing was done
never_answered = Fault(after=_silence_after)  # no answer ever, it was done
error_inside_200 = Fault(before=lambda seen: Reply("200 OK", [], INSIDE))  # it was not done
done_but_error_inside = Fault(after=_error_inside)  # it was


@dataclass(frozen=True)
class Kind:
    """A kind of fault, and which requests can suffer it without anybody being able to tell."""

    name: str
    fault: Fault
    suits: Callable[[Seen], bool] = lambda seen: True
    done: bool = False  # the service carries the request out nevertheless
    weight: int = 1  # how often it is chosen, relative to the others


def _of(*operations: str) -> Callable[[Seen], bool]:
    return lambda seen: seen.operation in operations


def _unless_head(seen: Seen) -> bool:
    return seen.method != "HEAD"


def _flipped_if_checked(seen: Seen, reply: Reply) -> Reply:
    """Only bytes of a whole object, small enough to be compared with its ETag: nothing can be
    said of parts of an object where the service stores no checksum."""
    found = _WHOLE.fullmatch(reply.header("content-range"))
    whole = found is not None and int(found[1]) + 1 == int(found[2])
    if not whole or len(reply.body) > CHECKED_SIZE or "-" in reply.header("etag"):
        return reply
    return _flip_answer(seen, reply)


def _etag_is_checked(seen: Seen) -> bool:
    return "if-match" in seen.headers if seen.method == "GET" else "content-md5" in seen.headers


_INSIDE = _of("CopyObject", "UploadPartCopy", "CompleteMultipartUpload")

# All that pass: what a service or a line does and does not do again the next time.
PASSING: Sequence[Kind] = (
    Kind("503 SlowDown", slow_down),
    Kind("503 ServiceUnavailable", answer(503, "ServiceUnavailable")),
    Kind("500 InternalError", answer(500, "InternalError")),
    Kind("reset before", reset),
    Kind("answer lost", lost_answer, done=True),
    Kind("silence before", never_asked),
    Kind("silence after", never_answered, done=True),
    Kind("body short of its length", short_body, _of("GetObject", "ListObjectsV2")),
    Kind("XML cut", cut_xml, _of("ListObjectsV2", "CopyObject", "CompleteMultipartUpload")),
    Kind("bit flipped up", corrupt_upload, _of("PutObject", "UploadPart")),
    Kind("bit flipped down", Fault(after=_flipped_if_checked), _of("GetObject")),
    Kind("ETag wrong", wrong_etag, _etag_is_checked),
    # For Completes alone, of which a run has few.
    Kind("ETag of Complete wrong", wrong_etag_inside, _of("CompleteMultipartUpload"), weight=12),
    Kind("200 with an error", error_inside_200, _INSIDE, weight=3),
    Kind("done, 200 with an error", done_but_error_inside, _INSIDE, weight=3),
    Kind("403 ExpiredToken", answer(403, "ExpiredToken"), _unless_head),
)


class Weather:
    """Which requests fail, and how, by chance; `suffered` counts the faults by their kinds.

    `patience`: seconds after which a client hears no answer any more, as may happen on a busy
    machine without a fault. `in_a_row`: a request that has failed so often passes: among some
    hundred requests one in a thousand runs has one that fails as often as a client tries it.
    """

    def __init__(
        self,
        rate: float,
        seed: int,
        kinds: Sequence[Kind] = PASSING,
        *,
        patience: float = math.inf,
        in_a_row: float = math.inf,
    ) -> None:
        self.rate = rate
        self.kinds = kinds
        self.patience = patience
        self.in_a_row = in_a_row
        self.requests = 0
        self.lost_uploads = 0  # whose id nobody learnt, or maybe nobody
        self.suffered: Counter[str] = Counter()
        self._failed: Counter[tuple[str, str]] = Counter()  # since it last passed
        self._random = random.Random(seed)
        self._lock = threading.Lock()  # guards all of it: the proxy asks from many threads

    def __call__(self, seen: Seen) -> Fault | None:
        with self._lock:
            self.requests += 1
            request = seen.method, seen.target
            if self._random.random() >= self.rate or self._failed[request] >= self.in_a_row:
                del self._failed[request]
                return self._timed() if seen.operation == "CreateMultipartUpload" else None
            # A HEAD has no body, so an error without a reason would be all that it tells.
            suiting = [kind for kind in self.kinds if kind.suits(seen)]
            [kind] = self._random.choices(suiting, [kind.weight for kind in suiting])
            self.suffered[kind.name] += 1
            self._failed[request] += 1
            if seen.operation == "CreateMultipartUpload" and kind.done:
                self.lost_uploads += 1
            return kind.fault

    def _timed(self) -> Fault:
        came = time.monotonic()

        def after(seen: Seen, reply: Reply) -> Reply:
            with self._lock:
                self.lost_uploads += time.monotonic() - came > self.patience / 2
            return reply

        return Fault(after=after)


def without(*names: str) -> list[Kind]:
    """The passing kinds but for these."""
    return [kind for kind in PASSING if kind.name not in names]


class Held:
    """Requests of one operation whose caller gives up while they are still on their way:
    `late` of them arrive at the service only when `release` is called."""

    def __init__(self) -> None:
        self.late: list[Seen] = []

    @property
    def fault(self) -> Fault:
        def before(seen: Seen) -> Reply | None:
            self.late.append(seen)
            raise Drop

        return Fault(before=before)


def refusing(code: str, status: int = 403, *, only: Sequence[str] = ()) -> Callable[[Seen], Fault]:
    """Weather in which every request (of `only`, if given) is refused."""

    def weather(seen: Seen) -> Fault:
        if only and seen.operation not in only:
            return Fault()
        return Fault(before=lambda _: error_reply(status, code, {"x-amz-request-id": "REFUSED"}))

    return weather


class FaultProxy(CountingProxy):
    """The counting proxy with outages."""

    @contextlib.contextmanager
    def outage(self) -> Iterator[None]:
        """No connection is answered, as when the network is gone; those open are reset."""
        self.down = True
        self.cut()
        try:
            yield
        finally:
            self.down = False
