"""Copies and moves within the service: no byte passes through this machine.

A move is a copy, a look at it, and only then the delete of what was copied, if that is still
there: at every moment there is the old name or the new one, or both.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

from s3mount.core.config import WritebackConfig
from s3mount.core.keys import ROOT_MARKER
from s3mount.store.base import ListedObject, ObjectInfo, ObjectStore
from s3mount.store.errors import NotFound, PreconditionFailed, StoreError
from s3mount.transfer.copy_uploads import ToolUploads
from s3mount.transfer.removing import MarkersLast, Outcome, Remover
from s3mount.writeback.copier import Copied, Copier, Progress
from s3mount.writeback.parallel import all_of

# Objects at once, as of a directory's rename in a mount; the store's lanes bound the requests.
PARALLEL_COPIES = 64

Each = Callable[[str, str], None]


class Transfer:
    """From one bucket (`origin`; None: the same one) into that of `store`. `outcome` may be
    shared. `each` is told of every key that is done, or, in a dry run, would be; `progress` of
    bytes as they are copied."""

    def __init__(
        self,
        store: ObjectStore,
        origin: ObjectStore | None,
        *,
        outcome: Outcome | None = None,
        move: bool = False,
        dry_run: bool = False,
        each: Each = lambda source, target: None,
        progress: Progress = lambda amount: None,
    ) -> None:
        self.outcome = Outcome() if outcome is None else outcome
        self.vanished = 0  # listed, and gone before they were copied
        self.untagged: list[tuple[str, str]] = []  # target keys without their tags, and why
        self._store = store
        self._origin = origin
        self._source = origin or store
        self._move = move
        self._dry_run = dry_run
        self._each = each
        self._progress = progress
        self._uploads = ToolUploads(store)
        config = WritebackConfig(spool_dir=Path())  # for its sizes; nothing is spooled
        self._copier = Copier(store, config, self._uploads)

    @property
    def left(self) -> Sequence[str]:
        """Keys whose unfinished uploads may still be in the bucket."""
        return self._uploads.left

    async def file(self, info: ObjectInfo, target: str) -> None:
        """Raises StoreErrors; then the source is where it was."""
        if not self._dry_run:
            copied = await self._copy(info.key, target, info.etag)
            if self._move:
                found = await self._source.head(info.key)
                self._check_unchanged(info.key, copied, found.etag, found.last_modified)
                await self._source.delete(info.key)
        self._done(info.key, target, info.size)

    async def tree(self, source: str, target: str, markers: Mapping[str, str]) -> None:
        """All that begins with `source`, under keys that begin with `target`; then `markers`, by
        source key. An object that cannot be copied is in the outcome, and the others go on.

        Raises StoreErrors of the listing. Begun again, a move goes on with what is left.
        """
        order, after, done = MarkersLast(), "", False
        while not done:
            page = await self._source.list(source, delimiter="", start_after=after)
            done = page.next_token is None
            objects = [one for one in page.objects if self._is_wanted(one.key, target)]
            copied = await self._copy_all(objects, source, target)
            if page.objects:
                await self._delete_moved(source, after, page.objects[-1].key, copied, order)
                after = page.objects[-1].key
        await self._delete_markers(order.rest())
        for key, new_key in markers.items():
            info = await self._source.head(key)
            await self.file(info, new_key)

    @staticmethod
    def _is_wanted(key: str, target: str) -> bool:
        """What keeps the attributes of a bucket's root means nothing below another name."""
        return key != ROOT_MARKER or target == ""

    async def _copy_all(
        self, objects: Sequence[ListedObject], source: str, target: str
    ) -> dict[str, Copied]:
        copied: dict[str, Copied] = {}

        async def one(listed: ListedObject) -> None:
            new_key = target + listed.key[len(source) :]
            try:
                if not self._dry_run:
                    copied[listed.key] = await self._copy(listed.key, new_key, None)
            except NotFound as error:
                # It may be the copy that was not found; or the answer was wrong.
                if await self._is_there(listed.key):
                    self.outcome.fail(listed.key, error)
                else:
                    self.vanished += 1
                return
            except StoreError as error:
                self.outcome.fail(listed.key, error)
                return
            self._done(listed.key, new_key, listed.size)

        await all_of([partial(one, listed) for listed in objects], PARALLEL_COPIES)
        return copied

    async def _is_there(self, key: str) -> bool:
        """Not known counts as there."""
        try:
            await self._source.head(key)
        except NotFound:
            return False
        except StoreError:
            return True
        return True

    async def _copy(self, source: str, target: str, etag: str | None) -> Copied:
        """Of a move, the copy has been seen in its place when this returns."""
        copied = await self._copier.copy(
            source,
            target,
            etag=etag,
            attributes=None,
            origin=self._origin,
            progress=self._progress,
        )
        if copied.tags_lost:
            self.untagged.append((target, copied.tags_lost))
        if self._move:
            there = await self._store.head(target)
            if there.etag != copied.result.etag or there.size != copied.info.size:
                raise PreconditionFailed(
                    "is another version than the copy just made of it: others have written there",
                    operation="HeadObject",
                    key=target,
                )
        return copied

    def _done(self, source: str, target: str, size: int) -> None:
        self.outcome.objects += 1
        self.outcome.bytes += size
        self._each(source, target)

    # -- the second half of a move

    async def _delete_moved(
        self, source: str, after: str, last: str, copied: Mapping[str, Copied], order: MarkersLast
    ) -> None:
        """Those of the keys up to `last` that are still what was copied, as a new listing shows."""
        if not self._move or self._dry_run:
            return
        unchanged: list[ListedObject] = []
        more = True
        while more:
            page = await self._source.list(source, delimiter="", start_after=after)
            for now in page.objects:
                if now.key <= last and now.key in copied:
                    try:
                        self._check_unchanged(now.key, copied[now.key], now.etag, now.last_modified)
                        unchanged.append(now)
                    except PreconditionFailed as error:
                        self.outcome.fail(now.key, error)
            after = page.objects[-1].key if page.objects else last
            more = page.next_token is not None and after < last
        at_once, closed = order.sort(unchanged)
        await self._delete(at_once)
        await self._delete_markers(closed)

    @staticmethod
    def _check_unchanged(key: str, copied: Copied, etag: str, last_modified: float) -> None:
        """A change of metadata alone keeps the ETag."""
        same = etag == copied.info.etag and int(last_modified) == int(copied.info.last_modified)
        if not same:
            raise PreconditionFailed(
                "was copied, and then changed by others: it stays as well",
                operation="DeleteObject",
                key=key,
            )

    async def _delete_markers(self, markers: Sequence[ListedObject]) -> None:
        """Not if something stays below one of them, perhaps: its attributes stay as well."""
        if not self.outcome.failed:
            await self._delete(markers)

    async def _delete(self, objects: Sequence[ListedObject]) -> None:
        remover = Remover(self._source)
        await remover.objects(objects)
        for key, error in remover.outcome.failures:
            self.outcome.fail(key, error)
        self.outcome.failed += remover.outcome.failed - len(remover.outcome.failures)
