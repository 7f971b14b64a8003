"""Requests that look before or after a conditional one, where the service cannot be relied on."""

import hashlib
from collections.abc import Sequence

from s3mount.store.base import Condition, NotFound, ObjectStore, PreconditionFailed, PutResult


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


async def completed_before(store: ObjectStore, key: str, etags: Sequence[str]) -> PutResult | None:
    """Whether the object at `key` was completed from parts with these ETags, which an earlier
    try did whose answer was lost. Only where ETags of parts are MD5s can it be told."""
    try:
        digest = hashlib.md5(b"".join(map(bytes.fromhex, etags)), usedforsecurity=False)
    except ValueError:
        return None
    try:
        found = await store.head(key)
    except NotFound:
        return None
    if found.etag != f"{digest.hexdigest()}-{len(etags)}":
        return None
    return PutResult(found.etag, found.version_id, found.answered_at)
