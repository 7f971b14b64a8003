"""The look from outside: what is in the bucket, and what a mount left on this machine."""

import json
import shutil
import sqlite3
import stat
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from s3mount.writeback.recoverable import RecoverableFile, all_below
from s3mount.writeback.sqlite_journal import SqliteJournal
from tests.campaign.ledger import Entry, Tree, file_entry
from tests.servers import Bucket


class BucketReader:
    """Reads trees of objects by boto3; a body once, as long as ETag and size say it is the same."""

    def __init__(self, bucket: Bucket) -> None:
        self._bucket = bucket
        self._bodies: dict[tuple[str, str, int], Entry] = {}

    def tree(self, prefix: str, *, bodies_only: bool = False) -> Tree:
        """What the objects below `prefix` are. `bodies_only`: without mode and time, and without
        a request for a body that is known."""
        pages = self._bucket.client.get_paginator("list_objects_v2").paginate(
            Bucket=self._bucket.name, Prefix=prefix
        )
        listed = [found for page in pages for found in page.get("Contents", ())]
        keys = [found["Key"] for found in listed]

        def entry(found: dict[str, Any]) -> Entry:
            body = self._bodies.get((found["Key"], found["ETag"], found["Size"]))
            return body if bodies_only and body is not None else self._entry(found["Key"])

        with ThreadPoolExecutor(4) as pool:
            entries = pool.map(entry, listed)
            tree = {
                key[len(prefix) :].rstrip("/"): entry
                for key, entry in zip(keys, entries, strict=True)
                if key != prefix
            }
        assert len(tree) in (len(keys), len(keys) - 1), f"file and directory of one name: {keys}"
        return tree

    def _entry(self, key: str) -> Entry:
        client, name = self._bucket.client, self._bucket.name
        answer = client.head_object(Bucket=name, Key=key)
        metadata = answer["Metadata"]
        mode = int(metadata.get("mode", "0"))
        if key.endswith("/"):
            return Entry("directory", mode=stat.S_IMODE(mode))
        if stat.S_ISLNK(mode):
            return Entry("link", client.get_object(Bucket=name, Key=key)["Body"].read().decode())
        body = (key, answer["ETag"], answer["ContentLength"])
        if body not in self._bodies:
            got = client.get_object(Bucket=name, Key=key, IfMatch=answer["ETag"])
            self._bodies[body] = file_entry(got["Body"].read())
        seconds, _, fraction = metadata.get("mtime", "0").partition(".")
        time = int(seconds) * 10**9 + int((fraction + "0" * 9)[:9])
        return replace(self._bodies[body], mode=stat.S_IMODE(mode), mtime_ns=time)


def recoverable_files(cache: Path, key: str) -> list[tuple[RecoverableFile, bytes]]:
    """What is kept of the file `key` that was never closed, and its bytes, zeros where unknown."""
    found = []
    for kept in all_below(cache):
        for entry in kept.list():
            if entry.key == key:
                data = bytearray(entry.size)
                body = (kept.directory / f"{entry.name}.data").read_bytes()
                for start, end in entry.ranges:
                    data[start:end] = body[start:end]
                found.append((entry, bytes(data)))
    return found


@dataclass(frozen=True)
class LeftUpload:
    """A multipart upload that somebody has to pay for, once it has parts."""

    key: str
    upload_id: str
    parts: int


def uploads_in(bucket: Bucket) -> list[LeftUpload]:
    client = bucket.client
    found = []
    for each in client.list_multipart_uploads(Bucket=bucket.name).get("Uploads", ()):
        key, upload_id = each["Key"], each["UploadId"]
        answer = client.list_parts(Bucket=bucket.name, Key=key, UploadId=upload_id)
        found.append(LeftUpload(key, upload_id, len(answer.get("Parts", ()))))
    return found


def journal_rows(cache: Path, scratch: Path) -> list[str]:
    """What is left in the journals below a cache directory; the mount has ended."""
    left = []
    for path in cache.rglob("journal.sqlite"):
        copy = scratch / "journal"
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(path.parent, copy, ignore=shutil.ignore_patterns("chunk-*"))
        base = sqlite3.connect(copy / "journal.sqlite")
        ((meta,),) = base.execute("SELECT data FROM meta").fetchall()
        base.close()
        contents = SqliteJournal(copy, json.loads(meta)["identity"]).load()
        left += [f"{intent.kind.value} {intent.key!r}" for intent in contents.intents]
        left += [f"file {file.key!r}" for file in contents.files.values()]
        left += [f"upload of {upload.key!r}" for upload in contents.uploads.values()]
    return left


def set_aside(cache: Path) -> list[str]:
    """Journals and spools that a mount could not read."""
    found = [*cache.rglob("*.corrupt-*"), *cache.rglob("spool.set-aside-*")]
    return sorted(str(path.relative_to(cache)) for path in found)


def spool_bytes(cache: Path) -> int:
    """Disk space of chunk files, after the mount ended."""
    return sum(path.stat().st_blocks * 512 for path in cache.rglob("chunk-*"))
