"""The questions that capabilities.py asks a service: wrong values, to see whether it notices.

All on keys of our own, deleted at the end, and on uploads that are aborted. A question that is
answered neither by a success nor by a clear refusal (403, no connection) ends the probing with
that StoreError, so that nothing wrong is remembered.
"""

import contextlib
import secrets
from collections.abc import AsyncIterator, Sequence

import trio

from s3mount.store import questions
from s3mount.store.base import Capabilities
from s3mount.store.capabilities import Known
from s3mount.store.headers import RequestHeaders
from s3mount.store.parallel import side_by_side
from s3mount.store.probe_object import ProbeObject
from s3mount.store.sender import Sender

KEY_PREFIX = ".s3mount-probe-"
_CLEANUP_SECONDS = 10.0


class Prober:
    """Asks. `sender` must not retry: a refused checksum would be sent again and again."""

    def __init__(self, bucket: str, sender: Sender, headers: RequestHeaders) -> None:
        self._bucket = bucket
        self._sender = sender
        self._headers = headers

    async def probe(self, prefix: str) -> Known:
        """About thirty requests, as many as can be side by side: a mount or a tool waits for them
        once, for some eight round trips.

        Raises StoreError where an answer tells nothing.
        """
        async with self._on_keys_of_its_own(prefix) as objects:
            first, second, third, fourth = objects
            found: dict[str, bool] = {}
            checksums_known = trio.Event()

            async def checksums() -> None:
                try:
                    answer = await questions.checksums(second)
                    found["checks_crc32c"], found["checks_md5"], found["large_md5_etags"] = answer
                finally:
                    checksums_known.set()

            async def crc32c() -> bool:
                await checksums_known.wait()
                return found.get("checks_crc32c", False)

            async def if_match() -> None:
                found["put_if_absent"] = await questions.put_if_absent(first)
                found["put_if_match"], found["quoted"] = await questions.put_if_match(first)
                found["complete_if_match"] = await questions.complete_if_match(
                    first, found["quoted"], await crc32c()
                )

            async def copies() -> None:
                answer = await questions.copies(third)
                found["copy_source_if_match"], found["part_copy"] = answer

            async def subset() -> None:
                found["complete_subset"] = await questions.complete_subset(second, await crc32c())

            async def if_absent() -> None:
                await fourth.write()
                found["complete_if_absent"] = await questions.complete_if_absent(
                    fourth, await crc32c()
                )

            await side_by_side(checksums, if_match, copies, subset, if_absent)
            quoted = found.pop("quoted")
            versioned = any(one.versioned for one in objects)
            found["md5_etags"] = _all_seen([one.md5_etags for one in objects])
            found["multipart_etags"] = _all_seen([one.multipart_etags for one in objects])
            return Known(Capabilities(**found, versioned=versioned), quoted_if_match=quoted)

    @contextlib.asynccontextmanager
    async def _on_keys_of_its_own(self, prefix: str) -> AsyncIterator[Sequence[ProbeObject]]:
        objects = [
            ProbeObject(
                self._bucket,
                f"{prefix}{KEY_PREFIX}{secrets.token_hex(8)}",
                self._sender,
                self._headers,
            )
            for _ in range(4)
        ]
        try:
            yield objects
        finally:
            versioned = any(one.versioned for one in objects)
            for one in objects:  # some may not have heard it
                one.versioned = versioned
            with trio.move_on_after(_CLEANUP_SECONDS, shield=True):
                await side_by_side(*(one.clean_up for one in objects))


def _all_seen(found: Sequence[bool | None]) -> bool:
    """Whether it was seen, and never otherwise; None: not seen at all."""
    return True in found and False not in found
