"""Requests of wire.py as calls: their lane, whether they may be abandoned, their answers' check."""

from collections.abc import Callable
from typing import TypeVar

from s3mount.store.call import Call, Lane, Performer, Quick
from s3mount.store.request import Answer, Request
from s3mount.store.wire import Wire

T = TypeVar("T")

# A PUT up to this size is as quick as a HEAD; larger ones go with the parts.
SMALL_PUT = 1024 * 1024
# CopyObject of 5 GiB and Complete of 10,000 parts answer late.
SERVER_SIDE_PATIENCE = 120.0
SERVER_SIDE_SILENCE = 3.0  # times the read timeout, in each attempt of them


class Sender:
    """Sends by the performer's rules: threads, retries, deadlines."""

    def __init__(self, wire: Wire, performer: Performer) -> None:
        self._wire = wire
        self._performer = performer

    async def read(
        self, request: Request, parse: Callable[[Answer], T], *, lane: Lane, size: int = 0
    ) -> T:
        """`parse` runs in the thread; a CorruptAnswer it raises is retried as any other."""
        return await self._performer.perform(
            Call(
                request.operation,
                request.key or request.about,
                lane,
                lambda deadline: parse(self._wire.send(request, deadline)),
                size=size,
            )
        )

    async def write(
        self,
        operation: str,
        key: str,
        build: Callable[[], Request],
        parse: Callable[[Answer], T],
        *,
        size: int = 0,
        patience: float = 0.0,
        quick: bool = False,
    ) -> T:
        """`build` (checksums) and `parse` run in the thread, of a `quick` request in the loop. Not
        abandoned when cancelled: the body belongs to the caller."""
        return await self._performer.perform(
            Call(
                operation,
                key,
                Lane.MUTATION if size <= SMALL_PUT else Lane.TRANSFER,
                lambda deadline: parse(self._wire.send(build(), deadline)),
                mutates=True,
                size=size,
                patience=patience,
                quick=Quick(build, parse) if quick else None,
            )
        )
