"""What is refused before any request is sent, because services differ in how they refuse it, and
whether what is there is what it should be."""

from collections.abc import Mapping

from s3mount.store.base import ObjectInfo, WriteHeaders
from s3mount.store.errors import (
    EntityTooLarge,
    KeyTooLong,
    MetadataTooLarge,
    PreconditionFailed,
)

MAX_KEY_BYTES = 1024  # S3's own; some services accept more and cannot be listed afterwards
MAX_METADATA_BYTES = 2048  # AWS: names and values of all x-amz-meta-* headers together
MAX_COPY_SIZE = 5 * 1024**3  # CopyObject and a single PUT


def check_key(operation: str, key: str) -> None:
    """Raises KeyTooLong. (A str of `n` characters has between `n` and `4n` UTF-8 bytes.)"""
    if 4 * len(key) <= MAX_KEY_BYTES:
        return
    if len(key.encode("utf-8", "surrogatepass")) > MAX_KEY_BYTES:
        raise KeyTooLong("the key is over 1024 bytes", operation=operation, key=key)


def check_metadata(operation: str, key: str, metadata: Mapping[str, str]) -> None:
    """Raises MetadataTooLarge."""
    size = sum(len(name) + len(value.encode()) for name, value in metadata.items())
    if size > MAX_METADATA_BYTES:
        raise MetadataTooLarge(
            f"{size} bytes of user metadata, {MAX_METADATA_BYTES} are allowed",
            operation=operation,
            key=key,
        )


def check_put_size(operation: str, key: str, size: int) -> None:
    """Raises EntityTooLarge."""
    if size > MAX_COPY_SIZE:
        raise EntityTooLarge("over 5 GiB in one request", operation=operation, key=key)


def check_match(operation: str, info: ObjectInfo, etag: str | None) -> None:
    """Some services ignore If-Match: what the answer says counts. Raises PreconditionFailed."""
    if etag is not None and info.etag != etag:
        raise PreconditionFailed(
            f"its ETag is {info.etag}, not {etag}", operation=operation, key=info.key
        )


def same_metadata(info: ObjectInfo, headers: WriteHeaders) -> bool:
    sent = {name.lower(): value for name, value in headers.metadata.items()}
    return dict(info.metadata) == sent
