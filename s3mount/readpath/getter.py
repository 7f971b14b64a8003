"""GETs of the way in: never bytes of another version, never fewer than asked for.

A range cannot be checked beyond its length, but a small object that comes whole is compared with
its ETag where that is an MD5.
"""

import errno
import logging
from collections.abc import Awaitable, Callable

from s3mount.core.config import KIB
from s3mount.core.errors import FilesystemError
from s3mount.readpath.remote import RemoteObject
from s3mount.store.base import (
    GetResult,
    ObjectStore,
)
from s3mount.store.errors import (
    AccessDenied,
    CorruptAnswer,
    InvalidRange,
    NotFound,
    PreconditionFailed,
)
from s3mount.store.integrity import is_md5, md5

_LOG = logging.getLogger(__name__)

# The store has retried already; these are for answers that only the version shows to be wrong.
CORRUPT_ATTEMPTS = 3
# A service may give ETags that only look like MD5s. Where no object has matched its ETag yet, so
# many identical answers prove it: corruption on the way would differ.
IDENTICAL_ANSWERS = 3
LARGE = 64 * KIB
# MD5 of so much takes 0.3 ms of the loop's time.
CHECKED_SIZE = 256 * KIB

_Ask = Callable[[], Awaitable[GetResult]]


class Getter:
    """Asks the store; remembers what its ETags are."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store
        self._etags = _Etags()

    async def pinned(self, remote: RemoteObject, start: int, end: int) -> bytes:
        """Bytes [start, end) of this version; the range lies within it.

        Raises FilesystemError(ESTALE) when the version is gone, FilesystemError(EIO) when answers
        stay corrupt, and the store's other errors. If our own copy moved the version meanwhile it
        is asked for at its new place.
        """
        while True:
            asked = (remote.key, remote.etag, remote.by_version)
            try:
                return (await self._not_corrupt(lambda: self._range(remote, start, end))).data
            except (NotFound, PreconditionFailed, InvalidRange, AccessDenied) as error:
                if asked != (remote.key, remote.etag, remote.by_version):
                    continue
                if isinstance(error, AccessDenied) and not remote.by_version:
                    raise
                if remote.version_id is None or remote.by_version:
                    raise FilesystemError(errno.ESTALE, f"this version is gone: {error}") from error
                remote.by_version = True  # replaced or deleted, but the service keeps versions

    async def newest(self, key: str, length: int) -> GetResult:
        """The first `length` bytes, or all, of whatever is there now. Errors as pinned()'s."""
        return await self._not_corrupt(lambda: self._store.get(key, 0, length))

    async def _range(self, remote: RemoteObject, start: int, end: int) -> GetResult:
        etag = remote.etag
        result = await self._store.get(
            remote.key,
            start,
            end - start,
            if_match=etag or None,
            version_id=remote.version_id if remote.by_version else None,
        )
        info = result.info
        if (etag and info.etag != etag) or info.size != remote.size:
            raise PreconditionFailed(
                "another version answered", operation="GetObject", key=info.key
            )
        if result.start != start or len(result.data) != end - start:
            raise CorruptAnswer("the wrong range was answered", operation="GetObject", key=info.key)
        return result

    async def _not_corrupt(self, ask: _Ask) -> GetResult:
        for attempt in range(1, CORRUPT_ATTEMPTS + 1):
            try:
                return await self._matching(ask)
            except CorruptAnswer as error:
                _LOG.warning("%s", error)
                if attempt == CORRUPT_ATTEMPTS:
                    raise FilesystemError(errno.EIO, f"answers stay corrupt: {error}") from error
        raise AssertionError("unreachable")

    async def _matching(self, ask: _Ask) -> GetResult:
        result = await ask()
        if self._etags.fit(result):
            return result
        for _ in range(IDENTICAL_ANSWERS - 1):
            again = await ask()
            if self._etags.fit(again):
                _LOG.warning("GetObject %r: a corrupt answer, asked again", result.info.key)
                return again
            if (again.info.etag, again.data) != (result.info.etag, result.data):
                raise _mismatch(result)
        if self._etags.are_md5s(result.info.size):
            raise _mismatch(result)
        _LOG.warning("GetObject %r: here ETags are no MD5s, or all is corrupt", result.info.key)
        self._etags.unmatched(result.info.size)
        return result


def _mismatch(result: GetResult) -> CorruptAnswer:
    return CorruptAnswer(
        "the bytes do not match the ETag", operation="GetObject", key=result.info.key
    )


class _Etags:
    """Whether ETags that look like MD5s are MD5s here, learnt from what came.

    Apart for larger objects, which services may hash otherwise.
    """

    def __init__(self) -> None:
        self._balance = {True: 0, False: 0}  # by 'is large': objects that matched less others

    def are_md5s(self, size: int) -> bool:
        return self._balance[size > LARGE] > 0

    def unmatched(self, size: int) -> None:
        self._balance[size > LARGE] -= 1

    def fit(self, result: GetResult) -> bool:
        """False: the bytes do not match an ETag that may be an MD5."""
        info = result.info
        if result.start or not 0 < info.size <= CHECKED_SIZE or len(result.data) != info.size:
            return True
        if not is_md5(info.etag) or self._balance[info.size > LARGE] < 0:
            return True
        if "kms" in info.headers.get("x-amz-server-side-encryption", ""):
            return True
        if md5(result.data) != info.etag:
            return False
        self._balance[info.size > LARGE] += 1
        return True
