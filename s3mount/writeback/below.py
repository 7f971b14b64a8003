"""All objects below a prefix, in memory at once: what the rename of a directory goes by."""

import errno
from collections.abc import Mapping

from s3mount.core.errors import FilesystemError
from s3mount.store.base import ListedObject, ObjectStore

# About 400 bytes each. `s3mount mv` goes page by page and has no such bound.
MOST_OBJECTS = 5_000_000


async def all_below(
    store: ObjectStore, prefix: str, known: Mapping[str, str] | None = None
) -> list[ListedObject]:
    """But for what `known` has in the same version (key -> ETag).

    Raises StoreErrors, and FilesystemError(EFBIG) where there are, with those, too many.
    """
    known = {} if known is None else known
    found: list[ListedObject] = []
    token: str | None = None
    while True:
        page = await store.list(prefix, delimiter="", token=token)
        found += [item for item in page.objects if known.get(item.key) != item.etag]
        if len(found) + len(known) > MOST_OBJECTS:
            text = f"{prefix!r} has more than {MOST_OBJECTS} objects; `s3mount mv` moves them"
            raise FilesystemError(errno.EFBIG, text)
        token = page.next_token
        if token is None:
            return found
