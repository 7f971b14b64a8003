"""The look from outside: what is in the bucket, and what a mount left on this machine."""

import json
import shutil
import sqlite3
import stat
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from s3mount.writeback.sqlite_journal import SqliteJournal
from tests.campaign.ledger import Entry, Tree, file_entry
from tests.servers import Bucket


def bucket_tree(bucket: Bucket, prefix: str) -> Tree:
    """What the objects below `prefix` are, read by boto3."""
    pages = bucket.client.get_paginator("list_objects_v2").paginate(
        Bucket=bucket.name, Prefix=prefix
    )
    keys = [found["Key"] for page in pages for found in page.get("Contents", ())]
    with ThreadPoolExecutor(4) as pool:
        entries = pool.map(lambda key: _object_entry(bucket, key), keys)
        tree = {
            key[len(prefix) :].rstrip("/"): entry
            for key, entry in zip(keys, entries, strict=True)
            if key != prefix
        }
    assert len(tree) in (len(keys), len(keys) - 1), f"a file and a directory of one name: {keys}"
    return tree


def _object_entry(bucket: Bucket, key: str) -> Entry:
    answer = bucket.client.get_object(Bucket=bucket.name, Key=key)
    body, metadata = answer["Body"].read(), answer["Metadata"]
    mode = int(metadata.get("mode", "0"))
    if key.endswith("/"):
        return Entry("directory", mode=stat.S_IMODE(mode))
    if stat.S_ISLNK(mode):
        return Entry("link", body.decode())
    seconds, _, fraction = metadata.get("mtime", "0").partition(".")
    time = int(seconds) * 10**9 + int((fraction + "0" * 9)[:9])
    return replace(file_entry(body, stat.S_IMODE(mode)), mtime_ns=time)


def contents_in(tree: Tree) -> set[str]:
    return {entry.digest for entry in tree.values() if entry.kind == "file"}


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
