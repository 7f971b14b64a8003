"""The steps of one commit's plan: parts kept, sent and copied, side by side."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import trio

from s3mount.core.errors import FilesystemError
from s3mount.store.base import ObjectStore
from s3mount.store.errors import StoreError
from s3mount.writeback.base_object import BaseObject
from s3mount.writeback.body import BaseView
from s3mount.writeback.part_sending import send_part
from s3mount.writeback.part_table import SentPart
from s3mount.writeback.spooled_file import SpooledFile
from s3mount.writeback.upload_plan import Copy, Keep, Step

if TYPE_CHECKING:
    from s3mount.writeback.file_upload import FileUpload


async def server_copies(store: ObjectStore, base: BaseObject | None) -> bool:
    """Whether part copies are done by the server (see ObjectStore.upload_part_copy)."""
    if base is None or "%" in base.key:
        return False
    return (await store.capabilities()).part_copy


async def zero_cut_holes(file: SpooledFile, steps: Sequence[Step], size: int) -> None:
    """A dropped part that was cut and has grown again has zeros where its old bytes were."""
    for step in steps:
        if not isinstance(step, Keep) or not file.dropped.overlaps(step.start, step.end):
            continue
        holes = [
            hole
            for a, b in file.dropped.gaps(step.start, min(step.end, size))
            for hole in file.present.gaps(a, b)
        ]
        for start, end in holes:
            await file.write(start, bytes(end - start))


class PlanSteps:
    """`view` is of `base`; `since`: see FileBody."""

    def __init__(
        self, upload: "FileUpload", base: BaseObject | None, view: BaseView, since: int
    ) -> None:
        self._upload = upload
        self._base = base
        self._view = view
        self._since = since

    async def run(self, steps: Sequence[Step]) -> None:
        """All steps at once, bounded by bytes in flight. After a transient failure the others
        still finish: their parts are kept for the next commit. Raises the first failure."""
        failures: list[Exception] = []
        # Also those of numbers that are sent here, with other bounds: the last part of a file that
        # has grown since. Two requests for one number at once would leave either on the server.
        kept = {step.number for step in steps if isinstance(step, Keep)}
        await self._upload.stop_flights(set(self._upload.flights) - kept)
        self._upload.planned = frozenset(step.number for step in steps)

        async with trio.open_nursery() as nursery:

            async def guarded(step: Step) -> None:
                try:
                    await self._carry_out(step)
                except (StoreError, FilesystemError, OSError) as error:
                    failures.append(error)
                    if not getattr(error, "transient", False):
                        nursery.cancel_scope.cancel()

            for step in steps:
                # Parts that are there already are most of a large file's.
                if isinstance(step, Keep) and step.number in self._upload.table.sent:
                    continue
                nursery.start_soon(guarded, step)
        if failures:
            permanent = [error for error in failures if not getattr(error, "transient", False)]
            raise (permanent or failures)[0]

    async def _carry_out(self, step: Step) -> None:
        upload = self._upload
        if isinstance(step, Copy):
            await self._copy_part(step)
            return
        if isinstance(step, Keep):
            flight = upload.flights.get(step.number)
            if flight is not None:
                if flight.resting:
                    flight.scope.cancel()
                await flight.done.wait()
            if step.number in upload.table.sent:
                return
        await send_part(
            upload,
            step.number,
            step.start,
            step.end,
            self._view,
            etag=self._base.etag if self._base else None,
            since=self._since,
        )

    async def _copy_part(self, step: Copy) -> None:
        upload, base = self._upload, self._base
        store = upload.uploader.store
        assert base is not None
        assert upload.key is not None
        assert upload.upload_id is not None
        upload.table.attempt(step.number, step.start, step.end)
        # Where the store has to read and send the range itself it takes memory.
        weight = 0 if await server_copies(store, base) else step.end - step.start
        async with upload.uploader.memory.holding(weight):
            part = await store.upload_part_copy(
                upload.key,
                upload.upload_id,
                step.number,
                base.key,
                step.start,
                step.end - step.start,
                source_etag=base.etag,
            )
        upload.acknowledge(
            step.number, SentPart(part, step.start, step.end, self._since, base.etag)
        )
