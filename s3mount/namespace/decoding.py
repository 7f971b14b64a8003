"""From a HEAD's answer to attributes."""

from s3mount.core.config import AttributeDefaults
from s3mount.core.metadata import Attributes, decode
from s3mount.store.base import ObjectInfo


def attributes_of(
    info: ObjectInfo, defaults: AttributeDefaults, *, is_directory: bool = False
) -> Attributes:
    """What the object's own metadata say, and `defaults` where they say nothing."""
    return decode(
        info.metadata,
        is_directory=is_directory,
        size=info.size,
        content_type=info.headers.get("content-type"),
        last_modified=info.last_modified,
        defaults=defaults,
    )
