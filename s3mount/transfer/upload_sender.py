"""What files and streams have in common on their way up: single PUTs to a limit, else parts of an
upload that the journal knows, and a bound on what all of it takes of memory."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from s3mount.core.config import MIB
from s3mount.core.part_schedule import PartSchedule
from s3mount.store.base import Body, ObjectStore, Part, PutResult
from s3mount.writeback.begun_upload import BegunUpload
from s3mount.writeback.journal import Journal
from s3mount.writeback.memory_limit import MemoryLimit
from s3mount.writeback.part_table import SentPart

# Larger ones go up in parts, as through the mount (WritebackConfig.single_put_limit).
SINGLE_PUT_LIMIT = 8 * MIB
# Bodies in memory: sixteen parts of the default size, as through the mount.
BYTES_IN_FLIGHT = 128 * MIB

Progress = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class SentFile:
    """`sent`: bytes that travelled now; `kept`: those that the service had already."""

    result: PutResult
    sent: int
    kept: int = 0


class UploadSender:
    """An upload is in the journal from before its creation is asked for until it is known to be
    gone; the journal's next reader ends what cannot be ended now."""

    def __init__(
        self,
        store: ObjectStore,
        journal: Journal,
        schedule: PartSchedule,
        *,
        single_put_limit: int = SINGLE_PUT_LIMIT,
        bytes_in_flight: int = BYTES_IN_FLIGHT,
    ) -> None:
        self.single_put_limit = single_put_limit
        self.schedule = schedule
        self._store = store
        self._journal = journal
        self._memory = MemoryLimit(bytes_in_flight)

    def _upload(self) -> BegunUpload:
        return BegunUpload(
            self._store, self._journal, again=lambda work: None, left=lambda record: None
        )

    async def _send_part(
        self,
        upload: BegunUpload,
        number: int,
        start: int,
        end: int,
        body: Body,
        checksum: Callable[[], str | None] = lambda: None,
    ) -> Part:
        """Bytes [start, end) of what becomes the object. `checksum`: of what was sent, for the
        journal, where the service has none: it tells where ETags are no MD5s."""
        part = await self._store.upload_part(*_of(upload), number, body)
        upload.has(SentPart(part, start, end, 0, None), part.checksum or checksum())
        return part

    async def _complete(self, upload: BegunUpload, parts: Mapping[int, Part]) -> PutResult:
        ordered = [parts[number] for number in sorted(parts)]
        result = await self._store.complete_upload(*_of(upload), ordered)
        upload.ended()
        return result


def _of(upload: BegunUpload) -> tuple[str, str]:
    assert upload.key is not None
    assert upload.upload_id is not None
    return upload.key, upload.upload_id
