"""What a replayed intent still has to do: looked up in the bucket before anything is done.

The mount that recorded it may have carried it out in part or as a whole, and since then (a
minute or a week ago) others may have worked in the bucket. So it acts only on the versions that
it was made for; what it finds done is done; for all else it is dropped and reported, as
PreconditionFailed. PUTs look for themselves (filesystem/recovered_put.py): their bytes are kept.
"""

import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

from s3mount.core.metadata import encode, with_mtime
from s3mount.store.base import (
    KEPT_HEADERS,
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
from s3mount.writeback.below import all_below
from s3mount.writeback.copier import headers_of_copy
from s3mount.writeback.intents import ABSENT, Intent, MovedObject
from s3mount.writeback.looking import is_ours, may_be_ours
from s3mount.writeback.parallel import all_of

log = logging.getLogger(__name__)

LOOKS = 64  # at once; the store's lanes bound the requests
# LastModified has whole seconds; clocks are compared through a request that takes a moment.
CLOCK_SLACK = 2.0


class Own(Protocol):
    """Which versions this mount wrote since it began: see executors.Own."""

    def is_own(self, key: str, etag: str, last_modified: float) -> bool: ...


@dataclass(frozen=True, slots=True)
class Copying:
    """What is left of a COPY or ATTRIBUTES: `copied` is its result if it is there already, and
    `source_etag` the version of the source that is then to be deleted, if any is."""

    copied: PutResult | None = None
    source_etag: str | None = None


@dataclass(slots=True)
class TreeLeft:
    """What is left of a directory's rename. Keys are those of the source."""

    copied: dict[str, MovedObject] = field(default_factory=dict)
    theirs: set[str] = field(default_factory=set)  # not ours to move


def is_newer(last_modified: float, answered_at: float, intent: Intent) -> bool:
    """Written after the mount that recorded the intent died, or at least after the intent was
    made, and in no life of a mount that replayed it and died as well: by this machine's clock.
    While they lived their own earlier intents may have written it; and what others wrote then,
    the intent would have met as well."""
    skew = answered_at - time.time() if answered_at else 0.0
    written, ends, starts = last_modified - skew, intent.lives[0::2], intent.lives[1::2]
    if written <= max(intent.created, *ends[:1]) + CLOCK_SLACK:
        return False
    replays = zip(starts, ends[1:], strict=False)
    return not any(start - CLOCK_SLACK <= written <= end + CLOCK_SLACK for start, end in replays)


class AfterCrash:
    """Looks. It changes nothing."""

    def __init__(self, store: ObjectStore, own: Own) -> None:
        self._store = store
        self._own = own
        # Key -> ETag of what this process has put there: later intents were made for it, too.
        self._made: dict[str, str] = {}

    def note(self, intent: Intent, key: str, etag: str) -> None:
        """A replayed intent has put this version there."""
        if intent.recovered:
            self._made[key] = etag

    async def find(self, key: str) -> ObjectInfo | None:
        try:
            return await self._store.head(key)
        except NotFound:
            return None

    def _is_own(self, found: ObjectInfo | ListedObject) -> bool:
        if self._made.get(found.key) == found.etag:
            return True
        return self._own.is_own(found.key, found.etag, found.last_modified)

    def _is_meant(self, found: ObjectInfo, etag: str | None, intent: Intent) -> bool:
        """The version that the intent is about: the recorded one, or one that this mount wrote
        for an earlier intent or by a request without an answer. Of an unknown one all that can be
        told is that it is older."""
        if self._is_own(found) or may_be_ours(found, intent.unanswered):
            return True
        if etag is None:
            return not is_newer(found.last_modified, found.answered_at, intent)
        return found.etag == etag

    # -- kinds

    async def marker(self, intent: Intent) -> PutResult | None:
        """The marker, if it is there as it is to be. Raises PreconditionFailed.

        Its ETag tells nothing: all markers are empty.
        """
        found = await self.find(intent.key)
        if found is None:
            return None
        if intent.headers is not None and is_ours(found, 0, intent.headers):
            return _result(found)
        known = self._is_own(found) or found.etag == intent.expects
        newer = intent.expects is ABSENT or is_newer(found.last_modified, found.answered_at, intent)
        if found.size or (newer and not known):
            raise _theirs(intent, found)
        return None

    async def copy(self, intent: Intent) -> Copying:
        """COPY and ATTRIBUTES; sets the version to act on. Raises NotFound, PreconditionFailed."""
        if intent.source is None:
            return Copying(await self._attributes(intent))
        source, target = await self._find_both(intent.source, intent.key)
        meant = source is not None and self._is_meant(source, intent.source_etag, intent)
        if target is not None and intent.copied_phase:
            return Copying(
                _done(intent, target), source.etag if source is not None and meant else None
            )
        if source is not None and meant and not intent.copied_phase:
            if target is not None and not self._may_replace(target, intent):
                if not _is_copy(target, source, intent):
                    raise _theirs(intent, target)
                return Copying(_done(intent, target), source.etag)
            # The target may be the copy: to make it again is as good as to find that out.
            intent.source_etag, intent.size = source.etag, source.size
            return Copying()
        if target is not None and _is_copy(target, None, intent):
            return Copying(_done(intent, target))
        if source is None:
            raise NotFound("is gone", operation="CopyObject", key=intent.source)
        # Either others' work, or the last copy of what others have removed at the target.
        raise _theirs(intent, source)

    async def _find_both(
        self, source: str, target: str
    ) -> tuple[ObjectInfo | None, ObjectInfo | None]:
        found: dict[str, ObjectInfo | None] = {}

        async def one(key: str) -> None:
            found[key] = await self.find(key)

        await all_of([partial(one, source), partial(one, target)], 2)
        return found[source], found[target]

    async def _attributes(self, intent: Intent) -> PutResult | None:
        """The object, if it is as it is to be: then nothing is sent, for of a request that
        changes nothing and has no answer nobody could tell whether it is still to come."""
        found = await self._store.head(intent.key)
        meant = self._is_meant(found, intent.source_etag, intent)
        if meant:
            intent.source_etag, intent.size = found.etag, found.size
        # A copy onto itself may have given it another ETag.
        if _is_copy(found, None, intent):
            return _done(intent, found)
        if meant:
            return None
        raise _theirs(intent, found)

    def _may_replace(self, target: ObjectInfo, intent: Intent) -> bool:
        """What stands in the way: a rename replaces whatever it finds, but nothing that came
        after the mount that was asked for it had died."""
        return (
            self._is_own(target)
            or target.etag == intent.expects
            or not is_newer(target.last_modified, target.answered_at, intent)
        )

    async def deletes(
        self, intents: list[Intent]
    ) -> tuple[list[tuple[str, Intent]], dict[Intent, Exception]]:
        """Which keys of which intents are still to be deleted, and what kept one from looking.

        What others have put there stays; that is logged and is no failure of the rest.
        """
        wanted: list[tuple[str, Intent]] = []
        failures: dict[Intent, Exception] = {}

        async def one(key: str, etag: str | None, intent: Intent) -> None:
            try:
                found = await self.find(key)
            except StoreError as error:
                failures[intent] = error
                return
            if found is None:
                return
            if self._is_meant(found, etag, intent):
                wanted.append((key, intent))
            else:
                failures[intent] = _theirs(intent, found)

        works: list[Callable[[], Awaitable[None]]] = []
        for intent in intents:
            works.append(partial(one, intent.key, intent.source_etag, intent))
            works.extend(partial(one, key, None, intent) for key in intent.also_delete)
        await all_of(works, LOOKS)
        return wanted, failures

    # -- directories

    async def tree(self, intent: Intent, sources: list[ListedObject]) -> TreeLeft:
        """Which of `sources`, listed just now, are copied already, and which are not ours.

        Not ours: what others have put into the source since, and what has another one's object
        in its way. An object copied in parts has another ETag: then the metadata tell.
        """
        assert intent.source is not None
        left = TreeLeft()
        targets = {item.key: item for item in await all_below(self._store, intent.key)}

        async def one(item: ListedObject) -> None:
            assert intent.source is not None
            target = targets.get(intent.key + item.key[len(intent.source) :])
            own = self._is_own(item)
            if target is not None and await self._is_copied(item, target):
                result = PutResult(target.etag, None, target.last_modified)
                left.copied[item.key] = MovedObject(item.etag, result, item.size)
            elif not own and is_newer(item.last_modified, 0.0, intent):
                left.theirs.add(item.key)
                log.warning(
                    "%s: %r stays where it is, others have put it there since",
                    intent.describe(),
                    item.key,
                )
            elif (
                target is not None
                and not self._is_own(target)
                and is_newer(target.last_modified, 0.0, intent)
            ):
                left.theirs.add(item.key)
                log.warning(
                    "%s: %r stays where it is, others have put an object at its new place",
                    intent.describe(),
                    item.key,
                )

        await all_of([partial(one, item) for item in sources], LOOKS)
        return left

    async def _is_copied(self, source: ListedObject, target: ListedObject) -> bool:
        if source.size != target.size:
            return False
        if source.etag == target.etag and source.size:
            return True
        old, new = await self.find(source.key), await self.find(target.key)
        if old is None or new is None:
            return False
        return dict(new.metadata) == dict(with_mtime(old.metadata, old.last_modified))


def _is_copy(target: ObjectInfo, source: ObjectInfo | None, intent: Intent) -> bool:
    """Whether the target is what the copy makes of the source, or made of it while it was there."""
    attributes, etag = intent.attributes, intent.source_etag
    if source is None:
        if attributes is None:
            return target.etag == etag and target.size == intent.size
        etags = [] if etag is None else [etag]
        return is_ours(target, intent.size, WriteHeaders(encode(attributes)), etags)
    if source.size != target.size:
        return False
    wanted = headers_of_copy(source, target.key, attributes, renames=True)
    kept = {name: target.headers[name] for name in KEPT_HEADERS if name in target.headers}
    return (dict(target.metadata), kept) == (dict(wanted.metadata), dict(wanted.headers))


def _result(found: ObjectInfo) -> PutResult:
    return PutResult(found.etag, found.version_id, found.answered_at)


def _done(intent: Intent, found: ObjectInfo) -> PutResult:
    """Of a version that nobody knew yet the intent tells now what it is."""
    intent.size = found.size
    if intent.source_etag is None:
        intent.source_etag = found.etag
    return _result(found)


def _theirs(intent: Intent, found: ObjectInfo) -> PreconditionFailed:
    return PreconditionFailed(
        f"{intent.describe()}: dropped, others have put a new version there",
        operation="HeadObject",
        key=found.key,
    )
