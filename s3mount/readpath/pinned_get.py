"""One ranged GET of one version: never bytes of another, never fewer than asked for."""

import errno
import logging

from s3mount.core.errors import FilesystemError
from s3mount.readpath.remote import RemoteObject
from s3mount.store.base import (
    AccessDenied,
    CorruptAnswer,
    GetResult,
    InvalidRange,
    NotFound,
    ObjectStore,
    PreconditionFailed,
)

_LOG = logging.getLogger(__name__)

# The store has retried already; these are for answers that only the version shows to be wrong.
CORRUPT_ATTEMPTS = 3


async def get_pinned(store: ObjectStore, remote: RemoteObject, start: int, end: int) -> bytes:
    """Bytes [start, end) of this version; the range lies within it.

    Raises FilesystemError(ESTALE) when the version is gone, FilesystemError(EIO) when answers stay
    corrupt, and the store's other errors. If our own copy moved the version meanwhile it is asked
    for at its new place.
    """
    corrupt = 0
    while True:
        asked = (remote.key, remote.etag, remote.by_version)
        try:
            result = await store.get(
                remote.key,
                start,
                end - start,
                if_match=remote.etag or None,
                version_id=remote.version_id if remote.by_version else None,
            )
            return _checked(result, asked[1], remote.size, start, end)
        except CorruptAnswer as error:
            corrupt += 1
            _LOG.warning("%s", error)
            if corrupt == CORRUPT_ATTEMPTS:
                raise FilesystemError(errno.EIO, f"answers stay corrupt: {error}") from error
        except (NotFound, PreconditionFailed, InvalidRange, AccessDenied) as error:
            if asked != (remote.key, remote.etag, remote.by_version):
                continue
            if isinstance(error, AccessDenied) and not remote.by_version:
                raise
            if remote.version_id is None or remote.by_version:
                raise FilesystemError(errno.ESTALE, f"this version is gone: {error}") from error
            remote.by_version = True  # replaced or deleted, but services keep versions


def _checked(result: GetResult, etag: str, size: int, start: int, end: int) -> bytes:
    info = result.info
    if (etag and info.etag != etag) or info.size != size:
        raise PreconditionFailed("another version answered", operation="GetObject", key=info.key)
    if result.start != start or len(result.data) != end - start:
        raise CorruptAnswer("the wrong range was answered", operation="GetObject", key=info.key)
    return result.data
