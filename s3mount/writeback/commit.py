"""One commit of one file: plan, send what is missing, complete."""

import errno
import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import trio

from s3mount.core.config import MIB
from s3mount.core.errors import FilesystemError
from s3mount.core.extents import Extents
from s3mount.store import integrity
from s3mount.store.base import (
    ALWAYS,
    Condition,
    PutResult,
    WriteHeaders,
)
from s3mount.store.errors import (
    InvalidPart,
    NoSuchUpload,
    StoreError,
)
from s3mount.writeback.base_object import BaseObject
from s3mount.writeback.body import BaseView, FileBody, ReadBase
from s3mount.writeback.doubts import Sent
from s3mount.writeback.looking import find_ours, has_only, look_first
from s3mount.writeback.lost_answers import Unanswered
from s3mount.writeback.plan_steps import PlanSteps, server_copies, zero_cut_holes
from s3mount.writeback.upload_plan import (
    FileState,
    Keep,
    Multipart,
    Plan,
    PublishFirst,
    SinglePut,
    Step,
    plan_upload,
)

if TYPE_CHECKING:
    from s3mount.writeback.file_upload import FileUpload

log = logging.getLogger(__name__)

# Sent under headers that are wrong by now: up to here it is sent again, beyond that completed as
# it is and copied on the server, which for a moment shows the old metadata.
RESEND_LIMIT = 16 * MIB
# One CopyObject; larger objects are copied in parts side by side.
COPY_WHOLE_UP_TO = 128 * MIB
# A copied part that the store has to read and send itself is in memory as a whole.
READ_AND_SEND = 16 * MIB


class Commit:
    """Used once. While it runs it alone touches the file's parts; flights only finish."""

    def __init__(
        self,
        upload: "FileUpload",
        key: str,
        headers: WriteHeaders,
        size: int,
        base: BaseObject | None,
        visible: int,
        condition: Condition,
        read_base: ReadBase | None,
        since: int,
    ) -> None:
        """`since`: the file's write_count when `size` was its size."""
        self._upload = upload
        self._file = upload.source
        self._uploader = upload.uploader
        self._store = upload.uploader.store
        self.key = key
        self._headers = headers
        self._size = size
        self._base = base
        self._visible = min(visible, base.size if base else 0, size)
        self._condition = condition
        self._read_base = read_base
        self._since = since
        self._dirty: Extents | None = None  # None: what the file says

    def again(self) -> "Commit":
        """The same once more."""
        return Commit(
            self._upload,
            self.key,
            self._headers,
            self._size,
            self._base,
            self._visible,
            self._condition,
            self._read_base,
            self._since,
        )

    def repeats(self, earlier: Unanswered) -> bool:
        """Whether that request was to do just what this commit is to do."""
        return (
            not earlier.stage
            and earlier.key == self.key
            and (earlier.sent.size, earlier.sent.headers) == (self._size, self._headers)
            and earlier.stamp == self._file.write_count
        )

    @property
    def unconditional(self) -> bool:
        return self._condition == ALWAYS

    def as_unanswered(self, result: PutResult) -> Unanswered:
        return Unanswered(self.key, self._sent(result.etag), self._since)

    def _replaced(self, key: str) -> str | None:
        return self._base.etag if self._base is not None and self._base.key == key else None

    def _sent(self, *etags: str) -> Sent:
        return Sent(self._size, self._headers, etags)

    async def run(self) -> PutResult:
        if self._upload.published is not None:
            self._build_on(*self._upload.published)
        await self._settle_flights()
        try:
            result = await self._attempt()
        except (NoSuchUpload, InvalidPart) as error:
            if self._file.dropped.overlaps(0, self._size):
                raise FilesystemError(
                    errno.EIO, f"{self.key!r}: parts already sent are gone: {error}"
                ) from error
            log.warning("%r is sent anew: %s", self.key, error)
            await self._upload.stop_flights()
            await self._upload.discard_upload()
            result = await self._attempt()
        return result

    async def _settle_flights(self) -> None:
        """Parts on their way that are wrong by now, or rest after a failure, are stopped: else an
        old body might arrive after its successor."""
        etag = self._base.etag if self._base else None
        wrong = {
            number for number in self._upload.flights if not self._upload.still_valid(number, etag)
        }
        await self._upload.stop_flights(wrong)

    async def _attempt(self) -> PutResult:
        while True:
            if self._copies_as_a_whole():
                return await self._copy_whole()
            if self._file.breaks_promise and self._upload.on_overwrite is not None:
                await self._upload.on_overwrite()
            plan = await self._plan()
            if self._file.breaks_promise and self._upload.on_overwrite is not None:
                continue
            if isinstance(plan, SinglePut):
                return await self._put()
            if isinstance(plan, PublishFirst):
                await self._publish(plan.steps, plan.size, plan.dirty)
            elif plan.restart:
                await self._upload.stop_flights()
                await self._upload.discard_upload()
            elif not self._mismatch():
                await self._upload.ensure_upload(lambda: (self.key, self._headers))
                # A part sent ahead may have begun it meanwhile, with what was true then.
                if not self._mismatch():
                    return await self._multipart(plan)
            elif self._resends():
                await self._upload.stop_flights()
                await self._upload.discard_upload()
            else:
                await self._publish(plan.steps, self._size, Extents())

    async def _plan(self) -> Plan:
        upload = self._upload
        limits = self._uploader.limits(await self._store.capabilities())
        if not await server_copies(self._store, self._base):
            limits = replace(limits, copy_part_size=min(limits.copy_part_size, READ_AND_SEND))
        # No await from here until the plan is known to `droppable`.
        on_server = dict(upload.table.attempted)
        for flight in upload.flights.values():
            on_server[flight.number] = (flight.start, flight.end)
        etag = self._base.etag if self._base else None
        state = FileState(
            size=self._size,
            visible=self._visible,
            dirty=self._file.dirty if self._dirty is None else self._dirty,
            dropped=self._file.dropped,
            on_server=on_server,
            valid=frozenset(n for n in on_server if upload.still_valid(n, etag)),
            free=upload.free,
        )
        try:
            plan = plan_upload(state, self._uploader.schedule, limits, self._base is not None)
        except ValueError as error:
            raise FilesystemError(errno.EIO, f"{self.key!r}: {error}") from error
        restarts = isinstance(plan, Multipart) and (plan.restart or self._resends())
        if isinstance(plan, SinglePut) or restarts:
            upload.planned = frozenset()
        else:
            # Of a part to be sent, one on its way with other bounds may still arrive: not that.
            upload.planned = frozenset(step.number for step in plan.steps if isinstance(step, Keep))
        return plan

    # -- an upload under another key or other headers

    def _mismatch(self) -> bool:
        """Whether the upload (perhaps one whose creation is not answered yet) has another key or
        other headers."""
        upload = self._upload
        return upload.key is not None and (
            upload.key != self.key or upload.headers != self._headers
        )

    def _resends(self) -> bool:
        """Whether the upload has another key or headers, and is begun again with the right ones."""
        if not self._mismatch() or self._file.dropped.overlaps(0, self._size):
            return False
        attempted = sum(end - start for start, end in self._upload.table.attempted.values())
        return self._upload.key != self.key or attempted <= RESEND_LIMIT

    async def _publish(self, steps: Sequence[Step], size: int, dirty: Extents) -> None:
        """Completes the unfinished upload under its own key and headers; the rest of this commit
        is an edit of that object."""
        upload = self._upload
        key, headers = upload.key or self.key, upload.headers or self._headers
        await upload.ensure_upload(lambda: (key, headers))
        if key != self.key:
            if not await has_only(self._store, key, self._base):
                raise FilesystemError(
                    errno.ESTALE,
                    f"{self.key!r}: its bytes are in an upload to {key!r}, where another object is",
                )
        elif dirty or size != self._size:
            if self._uploader.config.refuse_early_publish:
                raise FilesystemError(errno.ENOSPC, f"{key!r}: its spool was needed for others")
            log.warning("%r is published before it is complete: the spool had no room", key)
        await zero_cut_holes(self._file, steps, self._size)
        stamp = self._file.write_count
        await self._carry_out(steps)
        condition = self._condition if key == self.key else ALWAYS
        result = await self._complete(steps, key, condition, stamp, stage=bool(dirty))
        published = BaseObject(key, result.etag, size, result.version_id)
        upload.was_published(published, stamp)
        upload.forget_upload()
        self._build_on(published, stamp)
        self._dirty = dirty

    def _build_on(self, published: BaseObject, stamp: int) -> None:
        """`published` becomes the base. Bytes cut off since `stamp` do not show through it."""
        self._base = published
        cut = self._file.lowest_size_since(stamp)
        self._visible = min(published.size, self._size, published.size if cut is None else cut)
        self._read_base = self._read_published
        if published.key == self.key:
            self._condition = Condition(etag=published.etag)
        else:
            self._upload.lost.leftover = published.key

    async def _read_published(self, offset: int, length: int) -> bytes:
        assert self._base is not None
        got = await self._store.get(self._base.key, offset, length, if_match=self._base.etag)
        return got.data

    # -- carrying out

    async def _carry_out(self, steps: Sequence[Step]) -> None:
        view = BaseView(self._visible, self._read_base)
        await PlanSteps(self._upload, self._base, view, self._since).run(steps)

    async def _put(self) -> PutResult:
        """The whole object in one request, then the end of an upload that is not needed."""
        can = await self._store.capabilities()
        await look_first(
            self._store,
            self.key,
            self._condition,
            absent_honoured=can.put_if_absent,
            match_honoured=can.put_if_match,
        )
        async with (
            self._uploader.memory.holding(self._size),
            FileBody(
                self._file,
                self._uploader.spool,
                0,
                self._size,
                base=BaseView(self._visible, self._read_base),
                since=self._since,
                limiter=self._uploader.readers,
            ) as body,
        ):
            lost = self._upload.lost
            try:
                with (
                    lost.request(
                        self.key, self._sent(), self._since, replaced=self._replaced(self.key)
                    ),
                    self._upload.traffic.sending(0, self._size),
                ):
                    result = await self._store.put(
                        self.key,
                        body.body,
                        self._headers,
                        condition=self._condition,
                        check=body.check,
                    )
            except StoreError as error:
                if error.ambiguous:
                    lost.know_etag(await trio.to_thread.run_sync(integrity.md5, body.body))
                raise
        await self._upload.end_upload()
        return result

    async def _multipart(self, plan: Multipart) -> PutResult:
        self._upload.free = plan.free
        await self._carry_out(plan.steps)
        result = await self._complete(plan.steps, self.key, self._condition, self._since)
        self._upload.forget_upload()
        return result

    async def _complete(
        self,
        steps: Sequence[Step],
        key: str,
        condition: Condition,
        stamp: int,
        *,
        stage: bool = False,
    ) -> PutResult:
        upload = self._upload
        assert upload.upload_id is not None
        if key == self.key:
            can = await self._store.capabilities()
            await look_first(
                self._store,
                key,
                condition,
                absent_honoured=can.complete_if_absent,
                match_honoured=can.complete_if_match,
            )
        parts = [upload.table.sent[step.number].part for step in steps]
        etag = integrity.multipart_etag([part.etag for part in parts])
        size = sum(part.size for part in parts)
        sent = Sent(size, upload.headers or self._headers, () if etag is None else (etag,))
        try:
            with upload.lost.request(
                key, sent, stamp, replaced=self._replaced(key), completes=True, stage=stage
            ):
                result = await self._store.complete_upload(
                    key, upload.upload_id, parts, condition=condition
                )
        except NoSuchUpload:
            found = await find_ours(self._store, key, size, sent.headers, sent.etags)
            if found is None:
                raise
            result = found
        return result

    def _copies_as_a_whole(self) -> bool:
        """Whether all that is left is the copy of a published object."""
        base = self._base
        return (
            self._upload.published is not None
            and base is not None
            and self._dirty is not None
            and not self._dirty
            and self._size == base.size == self._visible
            and self._size <= min(COPY_WHOLE_UP_TO, self._uploader.config.max_copy_size)
        )

    async def _copy_whole(self) -> PutResult:
        base = self._base
        assert base is not None
        if base.key != self.key:
            await look_first(
                self._store,
                self.key,
                self._condition,
                absent_honoured=False,
                match_honoured=False,
            )
        with self._upload.lost.request(self.key, self._sent(), self._since):
            return await self._store.copy(
                base.key, self.key, source_etag=base.etag, replace=self._headers
            )
