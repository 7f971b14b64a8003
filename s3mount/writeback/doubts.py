"""Keys whose last change has no answer: it may have been carried out, or may be yet.

design.md 10: such a key takes no new mutation until it has been looked at.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import trio

from s3mount.store.base import (
    ObjectInfo,
    ObjectStore,
    WriteHeaders,
)
from s3mount.store.errors import StoreError
from s3mount.store.retry import lost_attempts
from s3mount.writeback.looking import find_ours, is_ours

# How long after its connection broke a request may still be carried out. A service that reads a
# request acts on it within a moment, or when it comes back to life: then a look, which has to wait
# in the same line, sees what became of it. What a proxy holds back for longer nobody can tell.
LATE = 10.0
# Between two looks.
PAUSE = 1.0
# Above this many keys those that nothing can happen to any more are forgotten.
MANY = 1000


@dataclass(frozen=True, slots=True)
class Sent:
    """What a request would have put under its key (see looking.is_ours)."""

    size: int
    headers: WriteHeaders
    etags: tuple[str, ...] = ()


@dataclass(slots=True)
class _Doubt:
    until: float = 0.0  # trio time: from then on nothing comes any more
    requests: int = 0  # that may still come
    deletes: bool = True  # all of them
    sent: list[Sent] = field(default_factory=list)  # since the last answer


class Doubts:
    """One per mount. What is known of a key here is only what this process sent."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store
        self._doubts: dict[str, _Doubt] = {}

    @contextmanager
    def of(
        self, keys: Iterable[str], sent: Sent | None = None, *, deletes: bool = False
    ) -> Iterator[None]:
        """Around one mutating request of `keys`, so that a lost answer is remembered, that of an
        attempt before the one that succeeded too."""
        try:
            with lost_attempts() as lost:
                yield
        except StoreError as error:
            if error.ambiguous:
                self.add(keys, sent, deletes=deletes)
            raise
        except trio.Cancelled:
            self.add(keys, sent, deletes=deletes)
            raise
        else:
            for key in keys:
                self.answered(key)
            if lost:
                self.add(keys, None, deletes=deletes)

    def add(self, keys: Iterable[str], sent: Sent | None, *, deletes: bool = False) -> None:
        """A request has no answer. With neither `sent` nor `deletes`: what it writes is unknown."""
        now = trio.current_time()
        if len(self._doubts) > MANY:
            self._doubts = {
                key: doubt for key, doubt in self._doubts.items() if doubt.until > now or doubt.sent
            }
        for key in keys:
            doubt = self._doubts.setdefault(key, _Doubt())
            if doubt.until <= now:
                doubt.requests, doubt.deletes = 0, True
            doubt.until = now + LATE
            doubt.requests += 1
            doubt.deletes = doubt.deletes and deletes
            if sent is not None:
                doubt.sent.append(sent)

    def know(self, key: str, sent: Sent, better: Sent) -> None:
        """More is known of a request that was added."""
        doubt = self._doubts.get(key)
        if doubt is not None:
            doubt.sent = [better if one is sent else one for one in doubt.sent]

    def answered(self, key: str) -> None:
        """A newer request was: what is there is known, but the older one may still come."""
        doubt = self._doubts.get(key)
        if doubt is None:
            return
        if doubt.until <= trio.current_time():
            del self._doubts[key]
        else:
            doubt.sent.clear()  # which a look would see no more

    def is_ours(self, found: ObjectInfo) -> bool:
        """Whether a request of ours without an answer has written what is there."""
        doubt = self._doubts.get(found.key)
        return doubt is not None and any(
            is_ours(found, sent.size, sent.headers, sent.etags) for sent in doubt.sent
        )

    def unanswered(self, key: str) -> list[WriteHeaders]:
        """Of the requests since the last answer that may have written what is there."""
        doubt = self._doubts.get(key)
        return [] if doubt is None else [sent.headers for sent in doubt.sent]

    async def settle(self, key: str, *, deleting: bool = False, again: Sent | None = None) -> None:
        """Returns when a new mutation of the key cannot be overtaken by an older one.

        At once where nothing is in doubt, or all that is does the same: deletes, before a delete
        (`deleting`), or what is now sent `again`. Raises StoreErrors of its looks.
        """
        doubt = self._doubts.get(key)
        while doubt is not None and (left := doubt.until - trio.current_time()) > 0:
            same = sum(sent == again for sent in doubt.sent)
            if (deleting and doubt.deletes) or same == doubt.requests:
                return
            if await self._carried_out(key, doubt):
                return
            await trio.sleep(min(PAUSE, left))

    async def settle_below(self, *prefixes: str) -> None:
        """The same for all keys that begin with one of these."""
        for key in list(self._doubts):
            if key.startswith(prefixes):
                await self.settle(key)

    async def _carried_out(self, key: str, doubt: _Doubt) -> bool:
        """Whether the one request in doubt has been carried out by now.

        Of a delete that cannot be told: there may have been nothing before.
        """
        if doubt.requests != 1 or len(doubt.sent) != 1:
            return False
        (sent,) = doubt.sent
        if not await find_ours(self._store, key, sent.size, sent.headers, sent.etags):
            return False
        doubt.until = 0.0
        return True
