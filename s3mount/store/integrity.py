"""Checksums of what is sent, in whatever form the service checks (ruling 13). No I/O."""

import base64
import hashlib
import logging
import re
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from awscrt import checksums

from s3mount.store.base import (
    LARGE_BODY,
    Body,
    Capabilities,
    Check,
    SlicedBody,
)

log = logging.getLogger(__name__)

# Bodies up to here are not worth waiting for the probing: their MD5 costs less than the request.
SMALL_BODY = 1024 * 1024
_PLAIN_MD5 = re.compile("[0-9a-f]{32}")


@dataclass(frozen=True, slots=True)
class Digest:
    """Hex MD5 and base64 CRC32C, as far as they were computed."""

    md5: str | None = None
    crc32c: str | None = None
    large: bool = False  # more bytes than any service is known to give another kind of ETag from

    def headers(self) -> dict[str, str]:
        found = {}
        if self.md5 is not None:
            found["content-md5"] = base64.b64encode(bytes.fromhex(self.md5)).decode()
        if self.crc32c is not None:
            found["x-amz-checksum-crc32c"] = self.crc32c
        return found


def _pieces(body: Body) -> Iterator[Any]:
    return body.slices() if isinstance(body, SlicedBody) else iter((body,))


def md5(body: Body) -> str:
    digest = hashlib.md5(usedforsecurity=False)
    for piece in _pieces(body):
        digest.update(piece)
    return digest.hexdigest()


class RunningCrc32c:
    """The checksum of what comes piece by piece. `text`: of all so far, base64."""

    def __init__(self) -> None:
        self._value = 0

    def update(self, piece: Any) -> None:
        self._value = checksums.crc32c(piece, self._value)

    @property
    def text(self) -> str:
        return base64.b64encode(self._value.to_bytes(4, "big")).decode()


def crc32c(body: Body) -> str:
    running = RunningCrc32c()
    for piece in _pieces(body):
        running.update(piece)
    return running.text


def digest_for(
    body: Body, *, checks_crc32c: bool, md5_tells: bool = True, check: Check | None = None
) -> Digest:
    """CRC32C where the service checks it, for it is 70 times cheaper; else the MD5, which the
    service checks (Content-MD5) or at least answers (its ETag). Of a large body for which it is
    known to do neither (`md5_tells` False) nothing: an MD5 costs more than all else that sending
    it takes. Then `check()`."""
    size = body.size if isinstance(body, SlicedBody) else memoryview(body).nbytes
    if checks_crc32c:
        digest = Digest(crc32c=crc32c(body))
    elif size > LARGE_BODY and not md5_tells:
        digest = Digest(large=True)
    else:
        digest = Digest(md5=md5(body), large=size > LARGE_BODY)
    if check is not None:
        check()
    return digest


class Md5Etags:
    """Compares answered ETags with our MD5, where they are one (ruling 13).

    Some services answer 32 hex digits that are none. Where the probing saw MD5s of small bodies, a
    mismatch of a small one is damage, always; where it saw others of a large one then, large ones
    are not compared. Where one of the kind matched before, a mismatch is damage, too. Else the
    first is taken for damage, so that the body is sent again, and a second one in a row means that
    this operation's ETags tell nothing, for the rest of the process. Called from many threads; a
    lost count is harmless.
    """

    def __init__(self, *, encrypted: bool) -> None:
        self._encrypted = encrypted
        self._mismatches: dict[str, int] = {}
        self._matched: set[str] = set()

    def may_tell(self, operation: str, can: Capabilities) -> bool:
        """Whether the ETags that it answers for large bodies may prove anything yet."""
        if _of_small_bodies_only(can):
            return False
        operation = f"{operation} of large bodies"
        return operation in self._matched or self._mismatches.get(operation, 0) < 2

    def check(
        self, operation: str, etag: str, digest: Digest, encryption: str, can: Capabilities
    ) -> str:
        """What is wrong with `etag`; '' if nothing is known to be. `encryption`: the answer's
        x-amz-server-side-encryption, or ''."""
        if digest.md5 is None or self._encrypted or not is_md5(etag):
            return ""
        if encryption not in {"", "AES256"} or (digest.large and _of_small_bodies_only(can)):
            return ""
        operation = f"{operation} of large bodies" if digest.large else operation
        if etag == digest.md5:
            self._matched.add(operation)
            return ""
        before = self._mismatches.get(operation, 0)
        if (digest.large or not can.md5_etags) and operation not in self._matched:
            if before >= 2:
                return ""
            self._mismatches[operation] = before + 1
            if before == 1:
                log.warning("the ETags of %s are no MD5s here: not compared any more", operation)
                return ""
        return f"stored with ETag {etag}, sent with MD5 {digest.md5}"


def _of_small_bodies_only(can: Capabilities) -> bool:
    """As the probing has seen; nothing of the kind where it could not be made."""
    return can.md5_etags and not can.md5_etag(LARGE_BODY + 1)


def is_md5(etag: str) -> bool:
    """Might be the MD5 of the content (it is not where the object is encrypted by SSE-C, KMS)."""
    return _PLAIN_MD5.fullmatch(etag) is not None


def multipart_etag(part_etags: list[str]) -> str | None:
    """The ETag of a multipart object of these parts; None if theirs are no MD5s."""
    if not part_etags or not all(is_md5(etag) for etag in part_etags):
        return None
    joined = b"".join(bytes.fromhex(etag) for etag in part_etags)
    return f"{hashlib.md5(joined, usedforsecurity=False).hexdigest()}-{len(part_etags)}"


def composite_crc32c(crcs: list[str | None]) -> str | None:
    """S3's checksum of a multipart object whose parts have these CRC32Cs (base64); None if one is
    unknown, or no such thing."""
    known = [crc for crc in crcs if crc is not None]
    if not known or len(known) < len(crcs):
        return None
    try:
        joined = b"".join(map(base64.b64decode, known))
    except ValueError:
        return None
    return f"{crc32c(joined)}-{len(known)}"


def wrong_checksum(headers: Mapping[str, str], body: bytes) -> str:
    """What is wrong with the body of a whole object by the checksums stored with it, which the
    answer's headers (names in lower case) hold; '' where nothing is, or none is stored.

    That of a multipart object ('...-N') speaks of its parts and tells nothing here.
    """
    for name in CHECKSUMS:
        stored = headers.get(f"x-amz-checksum-{name}", "")
        if not stored or "-" in stored or headers.get("x-amz-checksum-type") == "COMPOSITE":
            continue
        hasher = CHECKSUMS[name]()
        hasher.update(body)
        found = base64.b64encode(hasher.digest()).decode()
        if found != stored:
            return f"{name} is {found}, stored with {stored}"
    return ""


class Hasher(Protocol):
    def update(self, piece: bytes, /) -> None: ...

    def digest(self) -> bytes: ...


class _Crc:
    def __init__(self, step: Callable[[bytes, int], int], size: int) -> None:
        self._step = step
        self._size = size
        self._value = 0

    def update(self, piece: bytes, /) -> None:
        self._value = self._step(piece, self._value)

    def digest(self) -> bytes:
        return self._value.to_bytes(self._size, "big")


# Those that S3 stores with an object, by the end of their header's name; the cheapest first.
CHECKSUMS: Mapping[str, Callable[[], Hasher]] = {
    "crc32c": lambda: _Crc(checksums.crc32c, 4),
    "crc64nvme": lambda: _Crc(checksums.crc64nvme, 8),
    "crc32": lambda: _Crc(zlib.crc32, 4),
    "sha1": lambda: hashlib.sha1(usedforsecurity=False),
    "sha256": lambda: hashlib.sha256(usedforsecurity=False),
}
