"""The questions that capabilities.py asks a service: wrong values, to see whether it notices.

All on one key of our own, deleted at the end, and on uploads that are aborted. A question that is
answered neither by a success nor by a clear refusal (403, no connection) ends the probing with
that StoreError, so that nothing wrong is remembered.
"""

import contextlib
import logging
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable

import trio

from s3mount.store.base import Capabilities
from s3mount.store.capabilities import Known
from s3mount.store.errors import StoreError
from s3mount.store.headers import RequestHeaders
from s3mount.store.questions import Questions
from s3mount.store.sender import Sender

log = logging.getLogger(__name__)

KEY_PREFIX = ".s3mount-probe-"
_CLEANUP_SECONDS = 10.0


class Prober:
    """Asks. `sender` must not retry: a refused checksum would be sent again and again."""

    def __init__(self, bucket: str, sender: Sender, headers: RequestHeaders) -> None:
        self._bucket = bucket
        self._sender = sender
        self._headers = headers

    async def probe(self, prefix: str) -> Known:
        """About thirty requests, in groups side by side: a mount waits for them once.

        Raises StoreError where an answer tells nothing.
        """
        async with contextlib.AsyncExitStack() as stack:
            questions = [
                await stack.enter_async_context(self._on_a_key_of_its_own(prefix)) for _ in range(4)
            ]
            first, second, third, fourth = questions
            found: dict[str, bool] = {}

            async def conditions_of_put() -> None:
                found["put_if_absent"] = await first.put_if_absent()
                found["put_if_match"], found["quoted"] = await first.put_if_match()

            async def checksums() -> None:
                found["checks_crc32c"], found["checks_md5"] = await second.checksums()

            async def copies() -> None:
                await third.write()
                found["copy_source_if_match"], found["part_copy"] = await third.copies()

            await _side_by_side(conditions_of_put, checksums, copies)
            crc32c = found["checks_crc32c"]

            async def complete_if_match() -> None:
                found["complete_if_match"] = await first.complete_if_match(found["quoted"], crc32c)

            async def complete_subset() -> None:
                found["complete_subset"] = await second.complete_subset(crc32c)

            async def complete_if_absent() -> None:
                await fourth.write()
                found["complete_if_absent"] = await fourth.complete_if_absent(crc32c)

            await _side_by_side(complete_if_match, complete_subset, complete_if_absent)
            quoted = found.pop("quoted")
            versioned = any(question.versioned for question in questions)
            found["md5_etags"] = _all_seen([question.md5_etags for question in questions])
            found["large_md5_etags"] = second.large_md5_etags
            found["multipart_etags"] = _all_seen([each.multipart_etags for each in questions])
            return Known(Capabilities(**found, versioned=versioned), quoted_if_match=quoted)

    @contextlib.asynccontextmanager
    async def _on_a_key_of_its_own(self, prefix: str) -> AsyncIterator["Questions"]:
        probing = Questions(
            self._bucket,
            f"{prefix}{KEY_PREFIX}{secrets.token_hex(8)}",
            self._sender,
            self._headers,
        )
        try:
            yield probing
        finally:
            with trio.move_on_after(_CLEANUP_SECONDS, shield=True):
                await probing.clean_up()


def _all_seen(found: list[bool | None]) -> bool:
    """Whether it was seen, and never otherwise; None: not seen at all."""
    return True in found and False not in found


async def _side_by_side(*questions: Callable[[], Awaitable[None]]) -> None:
    """Raises the first StoreError as it is."""
    failed: list[StoreError] = []

    async def guarded(question: Callable[[], Awaitable[None]]) -> None:
        try:
            await question()
        except StoreError as error:
            failed.append(error)

    async with trio.open_nursery() as nursery:
        for question in questions:
            nursery.start_soon(guarded, question)
    if failed:
        raise failed[0]
