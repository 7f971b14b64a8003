"""A service in memory whose answers get lost, and whose requests do, or arrive late."""

import random
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from enum import Enum
from typing import Any, TypeVar

import trio

from s3mount.store import base
from s3mount.store.base import (
    ALWAYS,
    Body,
    Condition,
    WriteHeaders,
)
from s3mount.store.errors import (
    ConnectionLost,
    StoreError,
)
from s3mount.store.memory import MemoryStore
from tests.model.mounted import KIB, service_clock, ticking

T = TypeVar("T")

# How long after the connection broke a request may still be carried out, in seconds.
LATEST = 4.0
# And how long until the connection breaks.
PATIENCE = 2.0


class Fate(Enum):
    ANSWER_LOST = "carried out, the answer lost"
    DROPPED = "lost"
    LATE = "carried out later"


class UnreliableStore(MemoryStore):
    """Each mutating request meets one of the fates with probability `share`; the caller sees the
    connection break. `rng` decides, so that a run depends on its seed alone."""

    def __init__(self, share: float, rng: random.Random, **options: Any) -> None:
        options.setdefault("minimum_part_size", 4 * KIB)
        super().__init__(clock=service_clock, monotonic=ticking(), **options)
        self.share = share
        self.fates: Counter[tuple[str, Fate]] = Counter()
        self.told: list[str] = []  # what happened to which request
        self._rng = rng
        self._late = 0
        self._quiet = trio.Event()

    async def settled(self) -> None:
        """Until no request is on its way any more."""
        while self._late:
            self._quiet = trio.Event()
            await self._quiet.wait()

    async def forget_uploads(self, known: Callable[[], bool]) -> None:
        """Those that have parts, and those that the journal knows (`known`), must be aborted
        within two minutes. One whose id was never heard of has none, and stays."""
        for _ in range(120):
            if not known() and not any(upload.parts for upload in self.uploads.values()):
                break
            await trio.sleep(1.0)
        for upload_id, upload in list(self.uploads.items()):
            if self.share and not upload.parts:
                del self.uploads[upload_id]

    async def _send(self, operation: str, key: str, call: Callable[[], Awaitable[T]]) -> T:
        if self._rng.random() >= self.share:
            return await call()
        fate = self._rng.choice(list(Fate))
        self.fates[operation, fate] += 1
        self.told.append(f"{trio.current_time():.2f} {operation} {key!r}: {fate.value}")
        if fate is Fate.ANSWER_LOST:
            try:
                await call()
            except StoreError as error:
                self.told.append(f"  {error}")
        elif fate is Fate.LATE:
            self._late += 1
            trio.lowlevel.spawn_system_task(self._carry_out_late, operation, key, call)
        await trio.sleep(self._rng.random() * PATIENCE)
        raise ConnectionLost("reset", operation=operation, key=key, ambiguous=True)

    async def _carry_out_late(
        self, operation: str, key: str, call: Callable[[], Awaitable[Any]]
    ) -> None:
        await trio.sleep(self._rng.random() * (LATEST + PATIENCE))
        self.told.append(f"{trio.current_time():.2f} {operation} {key!r}: now")
        try:
            await call()
        except StoreError as error:
            self.told.append(f"  {error}")
        finally:
            self._late -= 1
            self._quiet.set()

    async def put(
        self,
        key: str,
        body: Body,
        headers: WriteHeaders,
        *,
        condition: Condition = ALWAYS,
        check: base.Check | None = None,
    ) -> base.PutResult:
        data = b"".join(body.slices()) if isinstance(body, base.SlicedBody) else bytes(body)
        send = super().put
        return await self._send(
            "PutObject", key, lambda: send(key, data, headers, condition=condition, check=check)
        )

    async def delete(self, key: str) -> None:
        send = super().delete
        await self._send("DeleteObject", key, lambda: send(key))

    async def delete_many(self, keys: Sequence[str]) -> Sequence[base.DeleteFailure]:
        send = super().delete_many
        return await self._send("DeleteObjects", ", ".join(keys), lambda: send(keys))

    async def copy(
        self,
        source: str,
        target: str,
        *,
        source_etag: str | None = None,
        replace: WriteHeaders | None = None,
        origin: base.ObjectStore | None = None,
    ) -> base.PutResult:
        send = super().copy
        return await self._send(
            "CopyObject",
            f"{source} -> {target}",
            lambda: send(source, target, source_etag=source_etag, replace=replace, origin=origin),
        )

    async def create_upload(self, key: str, headers: WriteHeaders) -> str:
        send = super().create_upload
        return await self._send("CreateMultipartUpload", key, lambda: send(key, headers))

    async def upload_part(
        self,
        key: str,
        upload_id: str,
        number: int,
        body: Body,
        *,
        check: base.Check | None = None,
    ) -> base.Part:
        data = b"".join(body.slices()) if isinstance(body, base.SlicedBody) else bytes(body)
        send = super().upload_part
        return await self._send(
            "UploadPart",
            f"{key} part {number}",
            lambda: send(key, upload_id, number, data, check=check),
        )

    async def complete_upload(
        self,
        key: str,
        upload_id: str,
        parts: Sequence[base.Part],
        *,
        condition: Condition = ALWAYS,
    ) -> base.PutResult:
        send = super().complete_upload
        return await self._send(
            "CompleteMultipartUpload",
            key,
            lambda: send(key, upload_id, parts, condition=condition),
        )

    async def abort_upload(self, key: str, upload_id: str) -> None:
        send = super().abort_upload
        await self._send("AbortMultipartUpload", key, lambda: send(key, upload_id))
