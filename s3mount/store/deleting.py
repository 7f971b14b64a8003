"""DELETE of one key and DeleteObjects of many, with what services do to odd keys."""

import base64
import hashlib
import logging
from collections.abc import Sequence

import trio

from s3mount.store import base, errors
from s3mount.store.headers import RequestHeaders
from s3mount.store.listing import delete_body, parse_delete, xml_can_carry
from s3mount.store.request import Request
from s3mount.store.retry import backoff
from s3mount.store.sender import Sender

log = logging.getLogger(__name__)

_BATCH_LIMIT = 1000  # S3's own
_ROUNDS = 4  # of a batch whose answer names keys that failed for a passing reason


class BatchDelete:
    def __init__(self, sender: Sender, headers: RequestHeaders) -> None:
        self._sender = sender
        self._headers = headers
        self._supported = True  # until the service answers 501

    async def one(self, key: str) -> None:
        """Succeeds for a key that is not there."""
        request = Request("DeleteObject", "DELETE", key, (), self._headers.list())
        try:
            await self._sender.write("DeleteObject", key, lambda: request, lambda _: None)
        except errors.NotFound:
            return

    async def many(self, keys: Sequence[str]) -> Sequence[base.DeleteFailure]:
        if len(keys) > _BATCH_LIMIT:
            raise errors.InvalidRequest("at most 1000 keys", operation="DeleteObjects")
        batch = [key for key in keys if self._supported and xml_can_carry(key)]
        failures = await self._singly([key for key in keys if key not in set(batch)])
        if batch:
            try:
                failures += await self._batch(batch)
            except errors.NotImplementedByService:
                log.info("the service has no DeleteObjects: deleting singly")
                self._supported = False
                failures += await self._singly(batch)
        return failures

    async def _batch(self, keys: Sequence[str]) -> list[base.DeleteFailure]:
        final: list[base.DeleteFailure] = []
        for attempt in range(_ROUNDS):
            failures = await self._request(keys)
            final += [failure for failure in failures if not failure.error.transient]
            passing = [failure for failure in failures if failure.error.transient]
            if not passing:
                return final
            if attempt == _ROUNDS - 1:
                return final + passing
            keys = [failure.key for failure in passing]
            await trio.sleep(backoff(attempt, passing[0].error, 0.5))
        return final

    async def _request(self, keys: Sequence[str]) -> list[base.DeleteFailure]:
        body = delete_body(keys)
        digest = hashlib.md5(body, usedforsecurity=False).digest()
        headers = self._headers.list()
        headers["content-md5"] = base64.b64encode(digest).decode()
        headers["content-type"] = "application/xml"
        request = Request(
            "DeleteObjects", "POST", None, (("delete", ""),), headers, body, about=keys[0]
        )
        return await self._sender.write(
            "DeleteObjects", keys[0], lambda: request, lambda answer: parse_delete(answer.body)
        )

    async def _singly(self, keys: Sequence[str]) -> list[base.DeleteFailure]:
        failures: list[base.DeleteFailure] = []

        async def delete(key: str) -> None:
            try:
                await self.one(key)
            except errors.StoreError as error:
                failures.append(base.DeleteFailure(key, error))

        async with trio.open_nursery() as nursery:
            for key in keys:
                nursery.start_soon(delete, key)
        return failures
