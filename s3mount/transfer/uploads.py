"""Multipart uploads in progress: found, measured, told apart from those that a journal on this
machine still needs, aborted."""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from s3mount.core.location import Location
from s3mount.store.base import ObjectStore, Part, Upload
from s3mount.store.errors import NoSuchUpload, StoreError
from s3mount.writeback.journal_files import IDENTITY, KnownJournal, look_at
from s3mount.writeback.parallel import all_of

PARALLEL_REQUESTS = 32
# Of the copy of a living process's journal, which may change meanwhile.
ATTEMPTS = 5


@dataclass(frozen=True, slots=True)
class FoundUpload:
    """`parts`: those that the service has. `journal`: of this machine, if it needs the upload."""

    upload: Upload
    parts: Sequence[Part]
    journal: KnownJournal | None = None

    @property
    def bytes(self) -> int:
        return sum(part.size for part in self.parts)


async def uploads_at(store: ObjectStore, location: Location) -> list[Upload]:
    """Those of the key itself and of what is below it as a directory; the oldest first."""
    key = location.key
    return sorted(
        (
            one
            for one in await store.list_uploads(key)
            if not key or key.endswith("/") or one.key == key or one.key.startswith(f"{key}/")
        ),
        key=lambda one: (one.initiated, one.key),
    )


async def measured(
    store: ObjectStore, uploads: Sequence[Upload], journals: Iterable[KnownJournal]
) -> list[FoundUpload]:
    """With their parts; those that have ended meanwhile are left out. `journals` must have been
    looked at after the uploads were listed: an upload is in its journal before it is begun."""
    found: list[FoundUpload | None] = [None] * len(uploads)
    journals = list(journals)

    async def measure(index: int, upload: Upload) -> None:
        try:
            parts = await store.list_parts(upload.key, upload.upload_id)
        except NoSuchUpload:
            return
        found[index] = FoundUpload(upload, parts, _owner(upload, journals))

    works = [partial(measure, *each) for each in enumerate(uploads)]
    await all_of(works, PARALLEL_REQUESTS)
    return [each for each in found if each is not None]


def _owner(upload: Upload, journals: Iterable[KnownJournal]) -> KnownJournal | None:
    """One whose id its journal never learnt may be this one."""
    for journal in journals:
        for record in journal.contents.uploads.values():
            if record.upload_id == upload.upload_id or (
                record.upload_id is None and record.key == upload.key
            ):
                return journal
    return None


async def abort(
    store: ObjectStore,
    uploads: Sequence[FoundUpload],
    done: Callable[[FoundUpload], None],
    failed: Callable[[FoundUpload, StoreError], None],
) -> None:
    """All of them; `failed` is told of those that are still there."""

    async def one(found: FoundUpload) -> None:
        try:
            await store.abort_upload(found.upload.key, found.upload.upload_id)
        except StoreError as error:
            failed(found, error)
        else:
            done(found)

    await all_of([partial(one, found) for found in uploads], PARALLEL_REQUESTS)


def journals_of(
    bucket: str, roots: Iterable[Path], directories: Iterable[Path] = ()
) -> list[KnownJournal]:
    """All journals of the bucket below these cache roots, whatever its endpoint is called, and in
    these `directories`. Blocks. One that cannot be looked at has a `problem`."""
    below = re.compile(re.escape(bucket) + "-[0-9a-f]{12}")
    places = {
        identity.parent
        for root in roots
        for identity in root.glob(f"{bucket}-*/*/*/{IDENTITY}")
        if below.fullmatch(identity.relative_to(root).parts[0])
    }
    found: list[KnownJournal] = []
    for directory in sorted(places | set(directories)):
        try:
            journal = look_at(directory, attempts=ATTEMPTS)
        except (OSError, ValueError) as error:
            journal = KnownJournal(directory, {}, False, problem=f"cannot be looked at: {error}")
        if journal is not None:
            found.append(journal)
    return found
