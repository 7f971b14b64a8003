"""What is known of listed versions without a mount: the stat cache of the bucket's mounts."""

from collections.abc import Iterable, Mapping

from s3mount.core.config import AttributeDefaults
from s3mount.core.keys import FOLDER_SUFFIX, split_key
from s3mount.core.metadata import Attributes, is_directory_object
from s3mount.namespace.decoding import attributes_of
from s3mount.namespace.inode import Version
from s3mount.namespace.inode_table import number_of
from s3mount.namespace.remote import Remote
from s3mount.namespace.stat_cache import Row
from s3mount.store.base import ListedObject, ObjectInfo, PutResult

PARALLEL_HEADS = 128  # as the mount's (namespace/attribute_fetcher.py)


class Versions:
    """What is learnt here is stored with `remote`'s next flush."""

    def __init__(self, remote: Remote, defaults: AttributeDefaults) -> None:
        self._remote = remote
        self._defaults = defaults

    async def rows(self, objects: Iterable[ListedObject]) -> Mapping[str, Row]:
        """By key, of these and maybe more; whether a row is of the listed version is not looked
        at."""
        spans: dict[str, tuple[str, str]] = {}
        for listed in objects:
            directory, last = split_key(listed.key)
            low, high = spans.get(directory, (last, last))
            spans[directory] = min(low, last), max(high, last)
        loaded = await self._remote.rows([(where, *span) for where, span in spans.items()])
        return {row.key: row for part in loaded for row in part.values()}

    def learn(self, info: ObjectInfo, *, is_directory: bool = False) -> Attributes:
        """The attributes that a HEAD answered. `is_directory`: it is known to be a marker."""
        content_type = info.headers.get("content-type")
        attributes = attributes_of(
            info,
            self._defaults,
            is_directory=is_directory
            or is_directory_object(info.key, info.size, content_type, info.metadata),
        )
        version = Version(info.etag, info.size, info.last_modified, info.version_id)
        number = _number_of(info.key, folder=is_directory)
        self._remote.remember(Row.of(info.key, version, attributes, info.answered_at, number))
        return attributes

    def stored(self, key: str, result: PutResult, size: int, attributes: Attributes) -> None:
        """A request of ours has made this version. Its Last-Modified is not told: at most the
        answer's Date (see is_ours)."""
        if result.answered_at:
            version = Version(result.etag, size, result.answered_at, result.version_id)
            number = _number_of(key)
            self._remote.remember(Row.of(key, version, attributes, result.answered_at, number))


def _number_of(key: str, *, folder: bool = False) -> int:
    name_key = key.removesuffix("/")
    return number_of(name_key.removesuffix(FOLDER_SUFFIX) if folder else name_key)


def tells(row: Row, listed: ListedObject) -> bool:
    """Whether the row is beyond doubt of the listed version."""
    return not row.racy and row.matches(listed)


def tells_mostly(row: Row, listed: ListedObject) -> bool:
    """Good enough to decide whether a file is sent again: also where a request of ours has made
    this ETag, and the version is not newer than its answer. In doubt is a change of metadata
    alone, by somebody else, within the second of that request."""
    if not row.racy:
        return row.matches(listed)
    same = (row.etag, row.size) == (listed.etag, listed.size)
    return same and int(listed.last_modified) <= row.modified
