"""Whether a file has the bytes of an object, told by its ETag or its checksums. Blocks."""

import base64
import re
from collections.abc import Iterator, Mapping

from s3mount.core.config import MIB
from s3mount.core.part_schedule import PartSchedule
from s3mount.store import integrity
from s3mount.store.base import SlicedBody
from s3mount.transfer.local_file import LocalFile

_MULTIPART = re.compile("[0-9a-f]{32}-([0-9]+)")
_SLICE = 8 * MIB
# Part sizes of other tools: the AWS CLI, the SDKs, rclone, s3cmd, s3fs, Cyberduck, the console.
_COMMON_SIZES = tuple(size * MIB for size in (8, 5, 10, 15, 16, 17, 20, 25, 32, 50, 64, 100, 128))


def same_bytes(file: LocalFile, etag: str, schedule: PartSchedule) -> bool:
    """False also where the ETag does not tell (encrypted objects, parts of an unknown size).

    Raises FileChanged, OSError.
    """
    if integrity.is_md5(etag):
        equal = _md5(file, 0, file.size) == etag
        file.check()
        return equal
    multipart = _MULTIPART.fullmatch(etag)
    if multipart is None:
        return False
    for candidate in _schedules(schedule, file.size, int(multipart[1])):
        parts = [
            _md5(file, start, min(end, file.size))
            for start, end in map(candidate.bounds, candidate.slots(file.size))
        ]
        file.check()
        if integrity.multipart_etag(parts) == etag:
            return True
    return False


def same_checksum(file: LocalFile, stored: Mapping[str, str], schedule: PartSchedule) -> bool:
    """As same_bytes, by the checksums that are stored with an object (ObjectStore.checksums)."""
    for name, value in stored.items():
        text, dash, count = value.partition("-")
        if not dash:
            equal = _encoded(_digest(name, file, 0, file.size)) == text
            file.check()
            return equal
        for candidate in _schedules(schedule, file.size, int(count)):
            parts = integrity.CHECKSUMS[name]()
            for start, end in map(candidate.bounds, candidate.slots(file.size)):
                parts.update(_digest(name, file, start, min(end, file.size)))
            file.check()
            if _encoded(parts.digest()) == text:
                return True
    return False


def _digest(name: str, file: LocalFile, start: int, end: int) -> bytes:
    hasher = integrity.CHECKSUMS[name]()
    for offset in range(start, end, _SLICE):
        hasher.update(file.read(offset, min(_SLICE, end - offset)))
    return hasher.digest()


def _encoded(digest: bytes) -> str:
    return base64.b64encode(digest).decode()


def _schedules(ours: PartSchedule, size: int, count: int) -> Iterator[PartSchedule]:
    """Those that cut so many bytes into so many parts; ours first."""
    if len(ours.slots(size)) == count:
        yield ours
    for part_size in _COMMON_SIZES:
        if -(-size // part_size) == count and (part_size != ours.part_size or count > 1000):
            yield PartSchedule(part_size, max(count, 1), max(size, 1), equal=True)


def _md5(file: LocalFile, start: int, end: int) -> str:
    body = SlicedBody(end - start, lambda offset, length: file.read(start + offset, length), _SLICE)
    return integrity.md5(body)
