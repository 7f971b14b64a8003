"""HEAD requests in the trio loop itself, on kept connections: no thread for each.

A walk over a tree asks for thousands of objects' metadata, a hundred at a time. A thread for each
costs 0.4 CPU ms, half of it in threads that wake each other; this way it is 0.15. Only the plain
case is handled here, an answer of 200 or 404 to a request that was sent once: whatever else comes
(redirects, expired credentials, 503, a broken connection) is left to wire.py and retry.py, which
ask again. HEAD changes nothing, so asking twice does no harm.
"""

import time

import trio

from s3mount.core.config import StoreConfig
from s3mount.store.answers import object_info
from s3mount.store.base import LaneUse, ObjectInfo
from s3mount.store.counts import Counts
from s3mount.store.errors import (
    NotFound,
    StoreError,
)
from s3mount.store.limit import AdaptiveLimiter
from s3mount.store.loop_client import BROKEN, LoopClient, Unanswered, message, read_head
from s3mount.store.request import Request

# Longer than any healthy answer takes; the slow way, with its own deadline, comes on top.
PATIENCE = 3.0
# HEADs at once for each thread of the metadata lane: they take none. 128 in flight ask for 10,000
# objects within 2.5 s at 30 ms a request.
HEADS_PER_THREAD = 2


class QuickHead:
    """`ask` answers, or returns None where the request should go the slow way."""

    def __init__(self, config: StoreConfig, client: LoopClient, counts: Counts) -> None:
        self._client = client
        self._counts = counts
        self._limiter = AdaptiveLimiter(HEADS_PER_THREAD * config.metadata_concurrency)
        self._patience = min(PATIENCE, config.read_timeout / 2, config.request_deadline / 10)

    async def ask(self, request: Request) -> ObjectInfo | None:
        """Raises NotFound."""
        async with self._limiter.capacity:
            if self._client.resting:
                return None
            try:
                with trio.fail_after(self._patience):
                    found = await self._exchange(request)
            except Unanswered as failure:
                if failure.slowed:
                    self._counts.add("SlowDowns")
                    self._limiter.slowed(time.monotonic())
                self._failed(failure.sent)
                return None
            except (*BROKEN, trio.TooSlowError):
                self._failed(True)
                return None
            self._limiter.succeeded()
            return found

    def use(self) -> LaneUse:
        return self._limiter.use()

    async def aclose(self) -> None:
        """And the client, which is others' too."""
        await self._client.aclose()

    def _failed(self, sent: bool) -> None:
        if sent:
            self._counts.add("Retries")
        self._client.rest()

    async def _exchange(self, request: Request) -> ObjectInfo:
        client = self._client
        route = await client.route()
        sent = message(route, request)
        while True:
            stream, kept = await client.take(route)
            asked_at = time.monotonic()
            self._counts.add(request.operation)
            try:
                await stream.send_all(sent)
                head = await read_head(stream)
            except BROKEN:
                await trio.aclose_forcefully(stream)
                if kept:
                    continue  # the service had closed the idle connection
                raise Unanswered from None
            except BaseException:
                # Cancelled: an answer may still come, which must not be another request's.
                with trio.CancelScope(shield=True):
                    await trio.aclose_forcefully(stream)
                raise
            break
        understood = head.status in {200, 404} and "transfer-encoding" not in head.headers
        if understood and not head.rest and head.keeps:
            client.keep(stream)
        else:
            await trio.aclose_forcefully(stream)
        if head.status == 404:
            raise NotFound(
                "",
                operation=request.operation,
                key=request.key or "",
                status=404,
                request_id=head.headers.get("x-amz-request-id", ""),
            )
        if not understood:
            raise Unanswered(slowed=head.status == 503)
        try:
            return object_info(request.key or "", head.headers, asked_at)
        except StoreError:
            raise Unanswered from None
