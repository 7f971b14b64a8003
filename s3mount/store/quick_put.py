"""PUTs of small bodies in the trio loop itself, on kept connections: no thread for each.

A thread and its HTTP library cost 0.9 CPU ms a file, more than all else that creating one takes;
this way it is 0.2. Answers, and a connection that breaks, are taken as wire.py takes them. What
tells where, as whom or when to ask was refused: it goes by a thread then, as all does for a while
after a failure.
"""

import time
from typing import TypeVar

import trio
from urllib3 import HTTPHeaderDict

from s3mount.core.config import StoreConfig
from s3mount.store.call import Budget, Call
from s3mount.store.counts import Counts
from s3mount.store.errors import ConnectionLost, SlowDown
from s3mount.store.limit import Lanes
from s3mount.store.loop_client import (
    BROKEN,
    Head,
    LoopClient,
    Route,
    Unanswered,
    message,
    read_body,
    read_head,
)
from s3mount.store.request import Answer, Request
from s3mount.store.wire import Wire

T = TypeVar("T")

# Its checksum holds the loop up for at most a tenth of a millisecond.
QUICK_BODY = 64 * 1024


class QuickPuts:
    """Attempts: of calls that have a `quick` way by that, of all others by a thread."""

    def __init__(
        self,
        config: StoreConfig,
        wire: Wire,
        lanes: Lanes,
        client: LoopClient,
        counts: Counts,
    ) -> None:
        self._config = config
        self._wire = wire
        self._lanes = lanes
        self._client = client
        self._counts = counts

    async def attempt(self, call: Call[T], budget: Budget) -> T:
        """As Lanes.attempt: not abandoned when cancelled, for the bucket changes."""
        if call.quick is None or self._client.resting:
            return await self._lanes.attempt(call, budget)
        limiter = self._lanes.limiters[call.lane]
        await _acquire(limiter.capacity)
        started = time.monotonic()
        try:
            with trio.CancelScope(shield=True):
                answer = await self._answer(call.quick.build(), budget.left)
        except SlowDown:
            self._counts.add("SlowDowns")
            limiter.slowed(time.monotonic())
            raise
        finally:
            limiter.capacity.release()
            budget.spend(time.monotonic() - started)
        if answer is None:
            return await self._lanes.attempt(call, budget)
        limiter.succeeded()
        return call.quick.parse(answer)

    async def _answer(self, request: Request, seconds: float) -> Answer | None:
        """A success; None: not carried out. Raises the typed errors that Wire.send does."""
        try:
            route = await self._client.route()
            stream, _ = await self._client.take(route)
        except (Unanswered, *BROKEN, trio.TooSlowError):
            self._client.rest()
            return None
        asked_at = time.monotonic()
        limit = max(0.01, min(self._config.read_timeout, seconds))
        try:
            with trio.fail_after(limit):
                head, body = await self._exchange(stream, route, request)
        except (Unanswered, *BROKEN, trio.TooSlowError) as error:
            self._client.rest()
            raise ConnectionLost(
                f"{type(error).__name__}: {error}",
                operation=request.operation,
                key=request.key or "",
                ambiguous=True,
            ) from error
        answer = Answer(head.status, HTTPHeaderDict(head.headers), body, asked_at)
        if 200 <= head.status < 300:
            return answer
        refusal, again = await trio.to_thread.run_sync(
            self._wire.judge,
            route.endpoint,
            route.signer,
            route.credentials,
            request,
            answer,
            asked_at + seconds,
        )
        if again or refusal.transient:
            self._client.rest()
        if again:
            return None
        raise refusal

    async def _exchange(
        self, stream: trio.abc.Stream, route: Route, request: Request
    ) -> tuple[Head, bytes]:
        """Head and body of the answer; the connection is kept or closed."""
        self._counts.add(request.operation)
        kept = False
        try:
            sent = message(route, request, length=request.size)
            await stream.send_all(sent + bytes(request.body))  # type: ignore[arg-type]
            head = await read_head(stream)
            self._counts.add("BytesOut", request.size)
            kept = head.headers.get("content-length") == "0" and not head.rest and head.keeps
            if kept:
                self._client.keep(stream)
                return head, b""
            body = await read_body(stream, head)
            self._counts.add("BytesIn", len(body))
            return head, body
        finally:
            if not kept:
                await trio.aclose_forcefully(stream)


async def _acquire(capacity: trio.CapacityLimiter) -> None:
    """Going round the loop is for those who have to wait."""
    try:
        capacity.acquire_nowait()
    except trio.WouldBlock:
        await capacity.acquire()
