"""Requests that look before or after a conditional one, where the service cannot be relied on."""

from collections.abc import Collection, Iterable

from s3mount.core.metadata import OWN_NAMES
from s3mount.store.base import (
    Condition,
    ObjectInfo,
    ObjectStore,
    PutResult,
    WriteHeaders,
)
from s3mount.store.errors import (
    NotFound,
    PreconditionFailed,
)
from s3mount.writeback.base_object import BaseObject

# Metadata that no two writes have in common; a foreign object has an mtime of whole seconds alone.
_TELLING = {"mode", "uid", "gid", "mtime", "ctime"}


async def has_only(store: ObjectStore, key: str, known: BaseObject | None) -> bool:
    """Whether nothing is under `key`, or that version."""
    try:
        found = await store.head(key)
    except NotFound:
        return True
    return known is not None and found.etag == known.etag


async def look_first(
    store: ObjectStore,
    key: str,
    condition: Condition,
    *,
    absent_honoured: bool,
    match_honoured: bool,
) -> None:
    """Where the service does not honour the condition a HEAD just before narrows the window.

    Raises PreconditionFailed; costs nothing where the condition is honoured or there is none.
    """
    absent = condition.absent and not absent_honoured
    match = condition.etag is not None and not match_honoured
    if not absent and not match:
        return
    try:
        found = await store.head(key)
    except NotFound:
        if match:
            raise PreconditionFailed("is gone", operation="HeadObject", key=key) from None
        return
    if absent or found.etag != condition.etag:
        raise PreconditionFailed(
            f"is another version now ({found.etag})", operation="HeadObject", key=key
        )


async def find_ours(
    store: ObjectStore,
    key: str,
    size: int,
    headers: WriteHeaders,
    etags: Collection[str] = (),
    *,
    replaced: str | None = None,
    strict: bool = False,
) -> PutResult | None:
    """What is at `key`, if an earlier request of ours wrote it whose answer is not known; else
    None: nothing is there, or somebody else's object. Costs a HEAD; raises StoreErrors.

    `replaced`: the ETag of the version that was there before, which the request was to replace.
    `strict`: the ETag must be one of `etags` even if it is not known whether ETags tell anything
    here: where to send it once more does no harm. See `is_ours` for what the other arguments mean.
    """
    try:
        found = await store.head(key)
    except NotFound:
        return None
    if found.etag == replaced or not is_ours(found, size, headers, etags):
        return None
    can = await store.capabilities()
    telling = can.multipart_etags if "-" in found.etag else can.md5_etag(found.size)
    if etags and (telling or strict) and found.etag not in etags:
        # While a multipart upload is under way mtime stands still: two versions may share it.
        return None
    # Its own time, not that of this answer, tells this version from others'.
    return PutResult(found.etag, found.version_id, found.last_modified)


def may_be_ours(found: ObjectInfo, unanswered: Iterable[WriteHeaders]) -> bool:
    """Whether one of these requests has written `found`, whatever its bytes were: such as wrote
    all attributes, for others' metadata alone tell nothing."""
    return any(is_ours(found, found.size, headers) for headers in unanswered)


def is_ours(
    found: ObjectInfo, size: int, headers: WriteHeaders, etags: Collection[str] = ()
) -> bool:
    """Whether `found` is what a request with these headers and `size` bytes would have made.

    `etags`: what its ETag would be where ETags are MD5s: that of the body, that of the parts'
    MD5s, that of a copy's source; none where it is not known. An ETag alone proves nothing: the
    empty lock files of two hosts have the same one. So all of the metadata must be there as well:
    of what this mount writes, mtime and ctime have nanoseconds and are given once. They
    suffice where ETags are no MD5s (encryption), or a copy's parts were cut otherwise. What we did
    not write must not be there either: that of an extended attribute that was set and removed
    within a tick of the clock. Where `headers` carry no attributes of ours the ETag must be one of
    `etags`.
    """
    if found.size != size:
        return False
    there = {name.lower(): value for name, value in found.metadata.items()}
    sent = {name.lower(): value for name, value in headers.metadata.items()}
    if any(there.get(name) != value for name, value in sent.items()):
        return False
    if (there.keys() & OWN_NAMES) - sent.keys():
        return False
    return found.etag in etags or sent.keys() >= _TELLING
