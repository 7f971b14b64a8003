"""Which parts of a file go up before it is committed: those of its full slots."""

from typing import TYPE_CHECKING

from s3mount.writeback.flight import Flight

if TYPE_CHECKING:
    from s3mount.writeback.file_upload import FileUpload


class PartsAhead:
    """`size`: of the file, as last told."""

    def __init__(self, upload: "FileUpload") -> None:
        self.size = 0
        self._upload = upload
        self._ready: set[int] = set()  # full slots that wait for their upload

    def clear(self) -> None:
        self._ready.clear()

    def wrote(self) -> None:
        """Starts what writes have filled; of the first slot when the file grows beyond it."""
        if self._upload.file.finished or self._ready:
            self._collect()
            self._launch(hold_first=True)

    def press(self) -> bool:
        """A writer waits for room: starts every full slot that is not on the server as it is;
        True if that were any."""
        upload = self._upload
        schedule, file = upload.uploader.schedule, upload.file
        for slot in schedule.slots_within(file.present):
            if not file.dirty.overlaps(*schedule.bounds(slot)):
                continue
            if slot + 1 not in upload.flights and not upload.still_valid(slot + 1, None):
                self._ready.add(slot)
        return self._launch(hold_first=False)

    def _collect(self) -> None:
        """Full slots of the chunks that writes came to the end of."""
        upload = self._upload
        schedule, file = upload.uploader.schedule, upload.file
        finished, file.finished = file.finished, []
        for index in finished:
            slot = schedule.slot_of(index * upload.uploader.spool.pool.chunk_size)
            attempted = slot + 1 in upload.table.attempted
            if not attempted and file.present.covers(*schedule.bounds(slot)):
                self._ready.add(slot)

    def _launch(self, *, hold_first: bool) -> bool:
        """Starts the parts of ready slots; True if any started."""
        upload = self._upload
        uploader, file = upload.uploader, upload.file
        if upload.committing or upload.free or uploader.nursery is None:
            return False
        schedule = uploader.schedule
        started = False
        for slot in sorted(self._ready):
            start, end = schedule.bounds(slot)
            if slot == 0 and hold_first and self.size <= end and upload.upload_id is None:
                continue  # it may still become one PUT
            if file.promised_in_part(start, end):
                continue  # until the journal has what is here now
            self._ready.discard(slot)
            if slot + 1 in upload.flights or slot >= schedule.max_parts:
                continue
            # A commit may have sent it since it was found full, and it may be dropped by now.
            if not file.present.covers(start, end) or upload.still_valid(slot + 1, None):
                continue
            flight = Flight(slot + 1, start, end, uploader.next_part())
            upload.table.forget(flight.number)
            upload.flights[flight.number] = flight
            uploader.nursery.start_soon(flight.fly, upload)
            started = True
        return started
