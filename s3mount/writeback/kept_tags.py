"""Tags of copies: CopyObject takes them along on AWS, while Ceph drops them where metadata is
replaced; a copy in parts has those that its upload begins with, which Ceph ignores."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from urllib.parse import urlencode

from s3mount.store.base import ObjectInfo, ObjectStore, PutResult, WriteHeaders
from s3mount.store.errors import NotFound, StoreError

log = logging.getLogger(__name__)

# Of an upload's beginning, and of a copy.
CREATE, COPY = "CreateMultipartUpload", "CopyObject"


@dataclass(slots=True)
class Tags:
    """Of the source. `lost`: why the copy does not have them."""

    count: int = 0
    values: Mapping[str, str] = field(default_factory=dict)
    lost: str = ""


class KeptTags:
    """Costs nothing for objects without tags, and as soon as it was seen that the service keeps
    them nothing more for CopyObject."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store
        self._kept_by: set[str] = set()  # COPY, CREATE

    async def of(self, info: ObjectInfo, origin: ObjectStore, operation: str) -> Tags:
        """Raises StoreErrors that pass: to be tried again, rather than to go on without."""
        tags = Tags(count_of(info))
        if not tags.count or (operation == COPY and COPY in self._kept_by):
            return tags
        try:
            tags.values = await origin.tags(info.key)
        except StoreError as error:
            if error.transient or isinstance(error, NotFound):
                raise
            tags.lost = str(error)
        return tags

    async def see_to(self, tags: Tags, operation: str, target: str, made: PutResult) -> str:
        """Once the copy is made: why it does not have the tags; '' if it has. Raises StoreErrors
        that pass."""
        if not tags.count or operation in self._kept_by:
            return ""
        try:
            await self._see_to(tags, operation, target, made)
        except NotFound:
            return ""  # others have deleted it since
        except StoreError as error:
            if error.transient:
                raise
            tags.lost = str(error)
        if tags.lost:
            log.warning("the tags of %r are not kept: %s", target, tags.lost)
        return tags.lost

    async def _see_to(self, tags: Tags, operation: str, target: str, made: PutResult) -> None:
        found = await self._store.head(target)
        if found.etag != made.etag:
            tags.lost = ""  # others have written there since
        elif count_of(found) >= tags.count:
            tags.lost = ""
            self._kept_by.add(operation)
        elif tags.values:
            await self._store.put_tags(target, tags.values)


def count_of(info: ObjectInfo) -> int:
    return int(info.headers.get("x-amz-tagging-count", "0"))


def with_tags(headers: WriteHeaders, tags: Tags) -> WriteHeaders:
    """For the beginning of an upload."""
    if not tags.values:
        return headers
    return replace(headers, headers={**headers.headers, "x-amz-tagging": urlencode(tags.values)})
