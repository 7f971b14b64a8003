"""A file is compared with an object without a byte of it being fetched."""

import base64
import hashlib
import os
import zlib
from pathlib import Path

import pytest
from awscrt import checksums

from s3mount.core.part_schedule import PartSchedule
from s3mount.store.answers import stored_checksums
from s3mount.transfer.feed.same_bytes import same_bytes, same_checksum
from s3mount.transfer.local_file import LocalFile

MIB = 1 << 20
OURS = PartSchedule(MIB, 10_000, 1 << 40)


@pytest.fixture
def data(tmp_path: Path) -> bytes:
    content = os.urandom(11 * MIB + 5)
    (tmp_path / "f").write_bytes(content)
    return content


def md5(data: bytes) -> bytes:
    return hashlib.md5(data, usedforsecurity=False).digest()


def cut(data: bytes, size: int) -> list[bytes]:
    return [data[start : start + size] for start in range(0, len(data), size)]


def in_parts(data: bytes, size: int) -> str:
    parts = cut(data, size)
    return f"{md5(b''.join(map(md5, parts))).hex()}-{len(parts)}"


@pytest.mark.parametrize("size", [MIB, 8 * MIB, 5 * MIB, 10 * MIB])
def test_the_etag_of_parts_of_our_size_or_a_common_one_tells(
    size: int, data: bytes, tmp_path: Path
) -> None:
    with LocalFile(tmp_path / "f") as file:
        assert same_bytes(file, in_parts(data, size), OURS)
        other = bytes([data[0] ^ 1]) + data[1:]
        assert not same_bytes(file, in_parts(other, size), OURS)


def test_the_etag_of_one_put_is_the_md5(data: bytes, tmp_path: Path) -> None:
    with LocalFile(tmp_path / "f") as file:
        assert same_bytes(file, md5(data).hex(), OURS)
        assert not same_bytes(file, md5(data[1:]).hex(), OURS)
        assert not same_bytes(file, "unknown", OURS)
        assert not same_bytes(file, in_parts(data, 3 * MIB), OURS)


def text(value: int | bytes, size: int = 4) -> str:
    raw = value if isinstance(value, bytes) else value.to_bytes(size, "big")
    return base64.b64encode(raw).decode()


def test_the_checksums_of_s3_tell(data: bytes, tmp_path: Path) -> None:
    stored = {
        "crc32c": text(checksums.crc32c(data)),
        "crc32": text(zlib.crc32(data)),
        "crc64nvme": text(checksums.crc64nvme(data), 8),
        "sha1": text(hashlib.sha1(data, usedforsecurity=False).digest()),
        "sha256": text(hashlib.sha256(data).digest()),
    }
    with LocalFile(tmp_path / "f") as file:
        for name, value in stored.items():
            assert same_checksum(file, {name: value}, OURS), name
            assert not same_checksum(file, {name: value[::-1]}, OURS), name
        assert not same_checksum(file, {}, OURS)


def test_the_checksum_of_the_parts_checksums_tells(data: bytes, tmp_path: Path) -> None:
    for size in (MIB, 8 * MIB):
        parts = cut(data, size)
        crcs = b"".join(checksums.crc32c(part).to_bytes(4, "big") for part in parts)
        value = f"{text(checksums.crc32c(crcs))}-{len(parts)}"
        with LocalFile(tmp_path / "f") as file:
            assert same_checksum(file, {"crc32c": value}, OURS)
            assert not same_checksum(file, {"crc32c": f"{text(1)}-{len(parts)}"}, OURS)


def test_checksums_are_read_from_the_answer_to_a_head() -> None:
    headers = {"X-Amz-Checksum-Crc32c": "abc=", "x-amz-checksum-type": "FULL_OBJECT", "etag": "e"}
    assert stored_checksums(headers) == {"crc32c": "abc="}
