"""Directory trees: made, described, compared with each other and with the bucket's objects."""

import hashlib
import os
import random
import stat
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from decimal import Decimal
from pathlib import Path
from typing import Any

from tests.servers import Bucket

SECOND = 10**9
MIB = 1024 * 1024


@dataclass(frozen=True)
class Entry:
    """One name of a tree. `content` is a hash of the bytes, or the link's target."""

    mode: int
    uid: int
    gid: int
    mtime_ns: int
    size: int
    content: str


Tree = dict[str, Entry]


def data(seed: object, size: int) -> bytes:
    """The same pseudo-random bytes for the same seed."""
    return random.Random(str(seed)).randbytes(size)


def digest(content: bytes | bytearray) -> str:
    return hashlib.sha256(content).hexdigest()


def describe(root: Path, *, directory_times: bool = True) -> Tree:
    """Everything below `root`, by its relative path, read through the file system.

    Without `directory_times` those are 0: of a directory's times the bucket has those set last
    with utimens, for names that come and go change them only here.
    """
    tree: Tree = {}

    def walk(directory: bytes, prefix: str) -> None:
        with os.scandir(directory) as found:
            entries = sorted(found, key=lambda entry: entry.name)
        for entry in entries:
            name = prefix + os.fsdecode(entry.name)
            about = os.lstat(entry.path)
            tree[name] = _entry(entry.path, about)
            if stat.S_ISDIR(about.st_mode):
                if not directory_times:
                    tree[name] = replace(tree[name], mtime_ns=0)
                walk(entry.path, name + "/")

    walk(os.fsencode(root), "")
    return tree


def _entry(path: bytes, about: os.stat_result) -> Entry:
    content, size = "", 0
    if stat.S_ISREG(about.st_mode):
        size = about.st_size
        with open(path, "rb") as file:
            content = hashlib.file_digest(file, "sha256").hexdigest()
    elif stat.S_ISLNK(about.st_mode):
        content = os.fsdecode(os.readlink(path))
    return Entry(about.st_mode, about.st_uid, about.st_gid, about.st_mtime_ns, size, content)


def assert_same(found: Tree, expected: Tree, *, what: str = "the tree") -> None:
    """Names first, for a missing one explains more than its attributes."""
    assert sorted(found) == sorted(expected), f"names of {what} differ"
    wrong = {
        name: (found[name], expected[name]) for name in expected if found[name] != expected[name]
    }
    assert not wrong, f"{what}: (found, expected) of {wrong}"


def assert_in_bucket(bucket: Bucket, tree: Mapping[str, Entry], prefix: str = "") -> None:
    """Seen from outside: exactly these objects, with these bytes and attributes."""
    keys = {
        prefix + name + ("/" if stat.S_ISDIR(entry.mode) else ""): entry
        for name, entry in tree.items()
    }
    stored = bucket.keys()
    assert sorted(key for key in stored if key.startswith(prefix) and key != prefix) == (
        sorted(keys)
    )
    uploads = bucket.client.list_multipart_uploads(Bucket=bucket.name).get("Uploads", [])
    assert [upload["Key"] for upload in uploads] == []
    with ThreadPoolExecutor(8) as pool:
        wrong = list(pool.map(lambda item: _differs(bucket, *item), keys.items()))
    assert not any(wrong), [difference for difference in wrong if difference]


def _differs(bucket: Bucket, key: str, entry: Entry) -> str | None:
    """What is wrong with the object of `key`."""
    answer = bucket.client.get_object(Bucket=bucket.name, Key=key)
    body = answer["Body"].read()
    metadata = answer["Metadata"]
    expected: dict[str, Any] = {
        "mode": str(entry.mode),
        "uid": str(entry.uid),
        "gid": str(entry.gid),
    }
    found = {name: metadata.get(name) for name in expected}
    if not stat.S_ISDIR(entry.mode) or entry.mtime_ns:
        expected["mtime"] = entry.mtime_ns
        found["mtime"] = int(Decimal(metadata.get("mtime", "-1")) * SECOND)
    if stat.S_ISREG(entry.mode):
        expected["body"], found["body"] = entry.content, digest(body)
    elif stat.S_ISLNK(entry.mode):
        expected["body"], found["body"] = entry.content, os.fsdecode(body)
    else:
        expected["body"], found["body"] = b"", body
    if stat.S_ISDIR(entry.mode):
        expected["type"], found["type"] = "application/x-directory", answer["ContentType"]
    return None if found == expected else f"{key}: {found}, not {expected}"


def make_source(root: Path) -> Tree:
    """A source tree with a bit of everything; returns its description."""
    for name in ("src/core/deep/er/and/deeper", "docs", "empty", "private", "ünïcode 日本"):
        (root / name).mkdir(parents=True)
    for number in range(40):
        size = (0, 1, 700, 4095, 4096, 4097, 20_000)[number % 7]
        directory = ("src", "src/core", "src/core/deep/er/and/deeper", "docs")[number % 4]
        _write(root / directory / f"file{number:02}.c", data(number, size))
    _write(root / "large.bin", data("large", 9 * MIB + 17))
    _write(root / "medium.bin", data("medium", 3 * MIB))
    _write(root / "ünïcode 日本" / "naïve file.txt", b"text\n")
    _write(root / "run.sh", b"#!/bin/sh\necho ran\n", 0o755)
    _write(root / "read-only", b"r", 0o444)
    _write(root / "private" / "key", b"secret", 0o600)
    _write(root / "setuid", b"s", 0o4755)
    (root / "to-file").symlink_to("src/file00.c")
    (root / "to-directory").symlink_to("src/core")
    (root / "dangling").symlink_to("/no/such/ü place")
    os.mkfifo(root / "pipe", 0o640)
    os.chown(root / "docs" / "file03.c", 1000, 1001)
    os.chown(root / "to-file", 65534, 65534, follow_symlinks=False)
    os.chmod(root / "private", 0o700)
    os.chmod(root / "empty", 0o1777)
    for number, path in enumerate(sorted(root.rglob("*"), reverse=True)):
        moment = 1_500_000_000 * SECOND + number * 1_234_567_891
        os.utime(path, ns=(moment, moment), follow_symlinks=False)
    os.utime(root, ns=(SECOND, 1_400_000_000_123_456_789))
    return describe(root)


def _write(path: Path, content: bytes, mode: int = 0o644) -> None:
    path.write_bytes(content)
    path.chmod(mode)
