"""What carries each kind of intent out, on the store.

All of them are idempotent: carried out twice in a row they leave the bucket as after once.
"""

import logging
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import replace
from functools import partial
from typing import Protocol

import trio

from s3mount.store import integrity
from s3mount.store.base import (
    ListedObject,
    ObjectInfo,
    ObjectStore,
    PutResult,
    WriteHeaders,
)
from s3mount.store.errors import (
    NotFound,
    PreconditionFailed,
    StoreError,
)
from s3mount.writeback.after_crash import AfterCrash, TreeLeft
from s3mount.writeback.below import all_below
from s3mount.writeback.copier import PARTS_FROM, Copied, Copier
from s3mount.writeback.doubts import Doubts, Sent
from s3mount.writeback.intents import CopyMade, Intent, Kind, MovedObject
from s3mount.writeback.looking import may_be_ours
from s3mount.writeback.parallel import all_of

log = logging.getLogger(__name__)

# Objects of a renamed directory copied at once; the store's lanes bound the requests.
TREE_COPIES = 64
# Deletes that had to wait longer than this look first: others may have put something new there.
LOOK_AFTER = 10.0
# A copy that took longer than this looks at its source again before it deletes that.
LOOK_AGAIN_AFTER = 1.0
DELETE_BATCH = 1000
# The ETag of an empty object.
NOTHING = integrity.md5(b"")

Replacing = Callable[[Sequence[str]], Awaitable[None]]


class Own(Protocol):
    """Which versions came from this mount, with all of their metadata."""

    def is_own(self, key: str, etag: str, last_modified: float) -> bool: ...

    def wrote(self, key: str, etag: str, at: float) -> None: ...

    def disown(self, key: str) -> None: ...


class Executors:
    """`before_replacing(keys)` is awaited before the bytes under `keys` cease to exist, `synced()`
    before objects go that the journal, as of its last sync, may still name."""

    def __init__(
        self,
        store: ObjectStore,
        copier: Copier,
        before_replacing: Replacing,
        own: Own,
        doubts: Doubts,
        synced: Callable[[], Awaitable[None]],
    ) -> None:
        self._store = store
        self._synced = synced
        self._own = own
        self._copier = copier
        self._before_replacing = before_replacing
        self._doubts = doubts
        self._after_crash = AfterCrash(store, own)

    async def execute(self, intent: Intent) -> PutResult | None:
        """Any kind but DELETE."""
        if intent.kind is Kind.RENAME_TREE:
            await self._rename_tree(intent)
            return None
        work = {Kind.PUT: self._put, Kind.MKDIR: self._mkdir}.get(intent.kind, self._copy)
        result = await work(intent)
        self._after_crash.note(intent, intent.key, result.etag)
        return result

    async def _put(self, intent: Intent) -> PutResult:
        if intent.content is None:
            raise ValueError("a PUT without content")
        await self._before_replacing([intent.key])
        return await intent.content.send(
            intent.key, intent.headers or WriteHeaders(), intent.condition
        )

    async def _mkdir(self, intent: Intent) -> PutResult:
        headers = intent.headers or WriteHeaders()
        sent = Sent(0, headers, (NOTHING,))
        await self._doubts.settle(intent.key, again=sent)
        result = await self._after_crash.marker(intent) if intent.recovered else None
        if result is None:
            with self._doubts.of([intent.key], sent):
                result = await self._store.put(intent.key, b"", headers)
        if intent.also_delete:
            await self._delete_all(list(intent.also_delete))
        return result

    async def _copy(self, intent: Intent) -> PutResult:
        """COPY, which deletes its source, and ATTRIBUTES, onto itself."""
        source = intent.source if intent.source is not None else intent.key
        if source == intent.key:
            return await self._copy_onto_itself(intent)
        made = intent.copy_made
        if made is None and intent.recovered:
            left = await self._after_crash.copy(intent)
            if left.copied is not None:
                looked = trio.current_time()
                made = CopyMade(left.copied, intent.attributes, left.source_etag, looked)
                intent.copy_made = made
        if made is None or intent.attributes != made.attributes:
            made = await self._copy_to_target(intent, source)
        # Readers must know the new place before the old one is gone.
        if intent.on_copied is not None:
            intent.on_copied(intent, made.result)
        if made.source_etag is not None and made.source_etag != made.result.etag:
            await self._synced()  # without the source a replay could not tell it from others' work
        await self._before_replacing([source])
        await self._doubts.settle(source, deleting=True)
        if made.source_etag is not None and await self._is_still(
            source, made.source_etag, made.looked
        ):
            with self._doubts.of([source], deletes=True):
                await self._store.delete(source)
        self._own.disown(source)
        return made.result

    async def _copy_onto_itself(self, intent: Intent) -> PutResult:
        await self._doubts.settle(intent.key)
        if intent.recovered:
            left = await self._after_crash.copy(intent)
            if left.copied is not None:
                return left.copied
        return (await self._make_copy(intent, intent.key, intent.source_etag)).result

    async def _copy_to_target(self, intent: Intent, source: str) -> CopyMade:
        """Where it was made before, and the attributes have changed since, the copy is made of
        the copy: the source may be gone."""
        wanted, looked, before = intent.attributes, trio.current_time(), intent.copy_made
        await self._doubts.settle(intent.key)
        if before is not None:
            copied = await self._make_copy(intent, intent.key, before.result.etag)
            made = replace(before, result=copied.result, attributes=wanted)
        else:
            await self._before_replacing([intent.key])
            copied = await self._make_copy(intent, source, intent.source_etag)
            made = CopyMade(copied.result, wanted, copied.info.etag, looked)
        intent.copy_made = made
        return made

    async def _make_copy(self, intent: Intent, source: str, etag: str | None) -> Copied:
        """Raises PreconditionFailed only if it was somebody else who changed the source."""
        copy = partial(
            self._copier.copy, source, intent.key, attributes=intent.attributes, renames=True
        )
        try:
            return await copy(etag=etag)
        except PreconditionFailed:
            found = await self._store.head(source)
            if not self._may_be_ours(found, intent):
                raise
            return await copy(etag=found.etag)

    def _may_be_ours(self, found: ObjectInfo, intent: Intent) -> bool:
        return self._doubts.is_ours(found) or may_be_ours(found, intent.unanswered)

    async def _is_still(self, source: str, etag: str, looked: float) -> bool:
        """Whether the source of a rename is what was copied: seen so just now, or asked again."""
        if trio.current_time() - looked <= LOOK_AGAIN_AFTER:
            return True
        try:
            found = await self._store.head(source)
        except NotFound:
            return False
        if found.etag != etag:
            log.warning("%r was renamed; others have put a new version there, it stays", source)
        return found.etag == etag

    # -- deletes -------------------------------------------------------------------------------

    async def delete_batch(self, intents: list[Intent]) -> dict[Intent, Exception]:
        """Returns those that failed, with the error."""
        recovered = [intent for intent in intents if intent.recovered]
        wanted, failures = await self._after_crash.deletes(recovered)
        for intent in intents:
            try:
                if not intent.recovered:
                    keys_left = await self._still_ours(intent)
                    wanted.extend((key, intent) for key in keys_left)
            except StoreError as error:
                failures[intent] = error
        by_key = dict(wanted)
        await self._before_replacing(list(by_key))
        for key, failure in await self._delete(list(by_key)):
            failures[by_key[key]] = failure
        return failures

    async def _delete(self, keys: list[str]) -> list[tuple[str, StoreError]]:
        """Those that failed. Where one request has no answer it is that of all its keys."""
        failed: list[tuple[str, StoreError]] = []
        for start in range(0, len(keys), DELETE_BATCH):
            batch = keys[start : start + DELETE_BATCH]
            for key in batch:
                self._own.disown(key)
            try:
                with self._doubts.of(batch, deletes=True):
                    if len(batch) == 1:
                        await self._store.delete(batch[0])
                        continue
                    failures = await self._store.delete_many(batch)
            except StoreError as error:
                failed += [(key, error) for key in batch]
            else:
                failed += [(failure.key, failure.error) for failure in failures]
        return failed

    async def _delete_all(self, keys: list[str]) -> None:
        """Raises the first failure."""
        for key in keys:
            await self._doubts.settle(key, deleting=True)
        failed = await self._delete(keys)
        if failed:
            raise failed[0][1]

    async def _still_ours(self, intent: Intent) -> tuple[str, ...]:
        """The keys to be deleted: without the first if others have put something new there."""
        keys = (intent.key, *intent.also_delete)
        for key in keys:
            await self._doubts.settle(key, deleting=True)
        late = intent.attempts or trio.current_time() - intent.created_at > LOOK_AFTER
        if not late or intent.source_etag is None:
            return keys
        try:
            info = await self._store.head(intent.key)
        except NotFound:
            return keys[1:]
        if info.etag != intent.source_etag and not self._may_be_ours(info, intent):
            log.warning("%s dropped: others have put a new version there", intent.describe())
            return keys[1:]
        return keys

    # -- directories ---------------------------------------------------------------------------

    async def _rename_tree(self, intent: Intent) -> None:
        """Copies everything, tells `on_copied`, then deletes: no moment without either name.

        The old prefix is listed again until nothing new is found in it. What an attempt before has
        copied is not copied again: a large directory would never get through a bad network.
        """
        source, target = intent.source, intent.key
        if source is None:
            raise ValueError("a RENAME_TREE without source")
        await self._doubts.settle_below(source, target)
        copied = intent.copied
        moved = {source + key[len(target) :]: one.source_etag for key, one in copied.items()}
        stays: set[str] = set()  # of a mount that died: what others have put in the way since
        missed: set[str] = set()  # listed, and not found: gone only if no listing shows it again
        while fresh := await all_below(self._store, source, moved):
            left = await self._after_crash.tree(intent, fresh) if intent.recovered else TreeLeft()
            absent: set[str] = set()

            async def one(
                item: ListedObject, left: TreeLeft = left, absent: set[str] = absent
            ) -> None:
                new_key = target + item.key[len(source) :]
                moved_object = left.copied.get(item.key)
                if item.key in left.theirs:
                    return
                if moved_object is None:
                    moved_object = await self._copy_below(item, new_key)
                if moved_object is None:
                    absent.add(item.key)
                else:
                    copied[new_key] = moved_object
                    self._after_crash.note(intent, new_key, moved_object.result.etag)

            await all_of([partial(one, item) for item in fresh], TREE_COPIES)
            lost = absent & missed
            moved.update({one.key: one.etag for one in fresh if one.key not in absent - lost})
            missed |= absent
            stays |= left.theirs | lost
        if intent.on_copied is not None:
            intent.on_copied(intent, None)
        await self._synced()  # else a replay would show the old place, with what is left there
        await self._delete_moved({*moved, *intent.also_delete} - stays)
        if stays:
            raise PreconditionFailed(
                f"{len(stays)} objects stay where they are, others have changed what they are"
                f" or where they were to be, or they are listed and not found: {min(stays)!r}",
                operation="CopyObject",
                key=source,
            )

    async def _delete_moved(self, moved: Collection[str]) -> None:
        """Markers last, deepest first: a directory never loses its marker before its children."""
        keys = sorted(moved, key=lambda key: (key.endswith("/"), -key.count("/"), key))
        await self._before_replacing(keys)
        await self._delete_all(keys)

    async def _copy_below(self, item: ListedObject, target: str) -> MovedObject | None:
        """None if the object vanished meanwhile.

        What this mount wrote is copied as it is, without a HEAD; others' objects may have no
        mtime of their own, which the Copier gives them.
        """
        key = item.key
        await self._before_replacing([target])
        try:
            if item.size < PARTS_FROM and self._own.is_own(key, item.etag, item.last_modified):
                with self._doubts.of([target]):
                    result = await self._store.copy(key, target, source_etag=item.etag)
                self._own.wrote(target, result.etag, result.answered_at)
                return MovedObject(item.etag, result, item.size)
        except PreconditionFailed:
            pass  # a new version meanwhile: that one, then
        except NotFound:
            return None
        self._own.disown(target)
        try:
            copied = await self._copier.copy(key, target, etag=None, attributes=None)
            return MovedObject(copied.info.etag, copied.result, copied.info.size)
        except NotFound:
            log.info("%r vanished while its directory was renamed", key)
            return None
