"""What carries each kind of intent out, on the store.

All of them are idempotent: carried out twice in a row they leave the bucket as after once.
"""

import logging
from collections.abc import Awaitable, Callable, Collection, Sequence
from functools import partial
from typing import Protocol

import trio

from s3mount.store.base import (
    ListedObject,
    NotFound,
    ObjectStore,
    PreconditionFailed,
    PutResult,
    StoreError,
    WriteHeaders,
)
from s3mount.writeback.after_crash import AfterCrash, Copying, TreeLeft
from s3mount.writeback.copier import PARTS_FROM, Copier
from s3mount.writeback.intents import Intent, Kind, MovedObject
from s3mount.writeback.parallel import all_of

log = logging.getLogger(__name__)

# Objects of a renamed directory copied at once; the store's lanes bound the requests.
TREE_COPIES = 64
# Deletes that had to wait longer than this look first: others may have put something new there.
LOOK_AFTER = 10.0
# A copy that took longer than this looks at its source again before it deletes that.
LOOK_AGAIN_AFTER = 1.0
DELETE_BATCH = 1000

Replacing = Callable[[Sequence[str]], Awaitable[None]]


class Own(Protocol):
    """Which versions came from this mount, with all of their metadata."""

    def is_own(self, key: str, etag: str, last_modified: float) -> bool: ...

    def wrote(self, key: str, etag: str, at: float) -> None: ...

    def disown(self, key: str) -> None: ...


class Executors:
    """`before_replacing(keys)` is awaited before the bytes under `keys` cease to exist."""

    def __init__(
        self, store: ObjectStore, copier: Copier, before_replacing: Replacing, own: Own
    ) -> None:
        self._store = store
        self._own = own
        self._copier = copier
        self._before_replacing = before_replacing
        self._after_crash = AfterCrash(store, own)

    async def execute(self, intent: Intent) -> PutResult | None:
        """Any kind but DELETE."""
        if intent.kind is Kind.PUT:
            return await self._put(intent)
        if intent.kind is Kind.MKDIR:
            return await self._mkdir(intent)
        if intent.kind is Kind.RENAME_TREE:
            await self._rename_tree(intent)
            return None
        return await self._copy(intent)

    async def _put(self, intent: Intent) -> PutResult:
        if intent.content is None:
            raise ValueError("a PUT without content")
        await self._before_replacing([intent.key])
        return await intent.content.send(
            intent.key, intent.headers or WriteHeaders(), intent.condition
        )

    async def _mkdir(self, intent: Intent) -> PutResult:
        result = await self._after_crash.marker(intent) if intent.recovered else None
        if result is None:
            result = await self._store.put(intent.key, b"", intent.headers or WriteHeaders())
        if intent.also_delete:
            await self._raise_first(await self._store.delete_many(intent.also_delete))
        return result

    async def _copy(self, intent: Intent) -> PutResult:
        """COPY, which deletes its source, and ATTRIBUTES, onto itself."""
        source = intent.source if intent.source is not None else intent.key
        left = await self._after_crash.copy(intent) if intent.recovered else Copying()
        if left.copied is not None and source == intent.key:
            return left.copied
        if source != intent.key and left.copied is None:
            await self._before_replacing([intent.key])
        looked = trio.current_time()
        if left.copied is not None:
            result, etag = left.copied, left.source_etag
        else:
            result, etag = await self._copied(source, intent)
        if source != intent.key:
            # Readers must know the new place before the old one is gone.
            if intent.on_copied is not None:
                intent.on_copied(intent, result)
            await self._before_replacing([source])
            if etag is not None and await self._is_still(source, etag, looked):
                await self._store.delete(source)
            self._own.disown(source)
        return result

    async def _copied(self, source: str, intent: Intent) -> tuple[PutResult, str | None]:
        """What the copy has become, and the ETag of its source if that is there still."""
        try:
            copied = await self._copier.copy(
                source, intent.key, etag=intent.source_etag, attributes=intent.attributes
            )
        except NotFound:
            # A second run after the source was deleted: done if the target is what we wanted.
            if intent.attempts == 0 or source == intent.key:
                raise
            info = await self._store.head(intent.key)
            return PutResult(info.etag, info.version_id, info.answered_at), None
        return copied.result, copied.info.etag

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
                if not intent.recovered and await self._still_ours(intent):
                    wanted.extend((key, intent) for key in (intent.key, *intent.also_delete))
            except StoreError as error:
                failures[intent] = error
        await self._before_replacing([key for key, _ in wanted])
        by_key = dict(wanted)
        keys = list(by_key)
        for start in range(0, len(keys), DELETE_BATCH):
            for failure in await self._delete(keys[start : start + DELETE_BATCH]):
                failures[by_key[failure[0]]] = failure[1]
        return failures

    async def _delete(self, keys: list[str]) -> list[tuple[str, StoreError]]:
        for key in keys:
            self._own.disown(key)
        if len(keys) == 1:
            try:
                await self._store.delete(keys[0])
            except StoreError as error:
                return [(keys[0], error)]
            return []
        return [(failure.key, failure.error) for failure in await self._store.delete_many(keys)]

    async def _still_ours(self, intent: Intent) -> bool:
        late = intent.attempts or trio.current_time() - intent.created_at > LOOK_AFTER
        if not late or intent.source_etag is None:
            return True
        try:
            info = await self._store.head(intent.key)
        except NotFound:
            return False
        if info.etag != intent.source_etag:
            log.warning("%s dropped: others have put a new version there", intent.describe())
            return False
        return True

    async def _raise_first(self, failures: Sequence[object]) -> None:
        for failure in failures:
            error = getattr(failure, "error", None)
            if isinstance(error, Exception):
                raise error

    # -- directories ---------------------------------------------------------------------------

    async def _rename_tree(self, intent: Intent) -> None:
        """Copies everything, tells `on_copied`, then deletes: no moment without either name.

        The old prefix is listed again until nothing new is found in it.
        """
        source, target = intent.source, intent.key
        if source is None:
            raise ValueError("a RENAME_TREE without source")
        moved: dict[str, str] = {}
        stays: set[str] = set()  # of a mount that died: what others have put in the way since
        copied = intent.copied = {}
        while fresh := await self._tree(source, moved):
            left = await self._after_crash.tree(intent, fresh) if intent.recovered else TreeLeft()

            async def one(item: ListedObject, left: TreeLeft = left) -> None:
                new_key = target + item.key[len(source) :]
                moved_object = left.copied.get(item.key)
                if item.key in left.theirs:
                    return
                if moved_object is None:
                    moved_object = await self._copy_below(item, new_key)
                if moved_object is not None:
                    copied[new_key] = moved_object

            await all_of([partial(one, item) for item in fresh], TREE_COPIES)
            moved.update({item.key: item.etag for item in fresh})
            stays |= left.theirs
        if intent.on_copied is not None:
            intent.on_copied(intent, None)
        await self._delete_moved({*moved, *intent.also_delete} - stays)
        if stays:
            raise PreconditionFailed(
                f"{len(stays)} objects stay where they are, others have changed what they are"
                f" or where they were to be: {min(stays)!r}",
                operation="CopyObject",
                key=source,
            )

    async def _delete_moved(self, moved: Collection[str]) -> None:
        """Markers last, deepest first: a directory never loses its marker before its children."""
        keys = sorted(moved, key=lambda key: (key.endswith("/"), -key.count("/"), key))
        await self._before_replacing(keys)
        for start in range(0, len(keys), DELETE_BATCH):
            await self._raise_first(
                await self._store.delete_many(keys[start : start + DELETE_BATCH])
            )
        for key in keys:
            self._own.disown(key)

    async def _copy_below(self, item: ListedObject, target: str) -> MovedObject | None:
        """None if the object vanished meanwhile.

        What this mount wrote is copied as it is, without a HEAD; others' objects may have no
        mtime of their own, which the Copier gives them.
        """
        key = item.key
        await self._before_replacing([target])
        try:
            if item.size < PARTS_FROM and self._own.is_own(key, item.etag, item.last_modified):
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

    async def _tree(self, prefix: str, known: dict[str, str]) -> list[ListedObject]:
        """What is below `prefix`, but for what `known` has in the same version (key -> ETag)."""
        found: list[ListedObject] = []
        token: str | None = None
        while True:
            page = await self._store.list(prefix, delimiter="", token=token)
            found += [item for item in page.objects if known.get(item.key) != item.etag]
            token = page.next_token
            if token is None:
                return found
