"""Copies within the service: what travels, and by which requests."""

from collections.abc import Mapping
from pathlib import Path

import pytest

from s3mount.core.config import KIB, WritebackConfig
from s3mount.store.base import WriteHeaders
from s3mount.store.errors import PreconditionFailed
from s3mount.store.memory import MemoryStore
from s3mount.transfer.copy_uploads import ToolUploads
from s3mount.writeback import copier
from s3mount.writeback.copier import Copier

DATA = bytes(range(256)) * 4 * 100  # 100 KiB
WRITTEN = WriteHeaders({"mode": "33184", "mtime": "17", "theirs": "x"}, {"content-type": "a/b"})


@pytest.fixture(autouse=True)
def _small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(copier, "PARTS_FROM", 64 * KIB)


def copier_of(store: MemoryStore, **settings: int) -> Copier:
    sizes = {"copy_part_size": 32 * KIB, "min_part_size": 16 * KIB, **settings}
    config = WritebackConfig(spool_dir=Path("/nowhere"), **sizes)  # type: ignore[arg-type]
    return Copier(store, config, ToolUploads(store))


def requests(store: MemoryStore) -> Mapping[str, int]:
    return {name: n for name, n in store.counts().items() if "Copy" in name or "Upload" in name}


async def test_an_object_of_another_bucket_is_copied_in_parts_with_its_metadata() -> None:
    here, there = MemoryStore("here", minimum_part_size=1), MemoryStore("there")
    await there.put("k", DATA, WRITTEN)
    made = await copier_of(here).copy("k", "new", etag=None, attributes=None, origin=there)
    stored = here.objects["new"]
    assert (stored.data, stored.metadata) == (DATA, WRITTEN.metadata)
    assert stored.headers["content-type"] == "a/b"
    assert made.result.etag == stored.etag
    assert requests(here) == {
        "CreateMultipartUpload": 1,
        "UploadPartCopy": 4,
        "CompleteMultipartUpload": 1,
    }


async def test_a_copy_in_parts_that_fails_leaves_no_upload() -> None:
    def changed(operation: str, key: str) -> None:
        if operation == "UploadPartCopy":
            store.put_foreign("k", b"new")

    store = MemoryStore(minimum_part_size=1, before=changed)
    await store.put("k", DATA, WRITTEN)
    with pytest.raises(PreconditionFailed):
        await copier_of(store).copy("k", "new", etag=None, attributes=None)
    assert not store.uploads
    assert "new" not in store.objects


async def test_a_tagged_object_is_copied_in_one_request_that_keeps_its_tags() -> None:
    store = MemoryStore(minimum_part_size=1)
    store.put_foreign("k", DATA, WRITTEN.metadata, {"x-amz-tagging": "a=1&b=2"})
    await copier_of(store).copy("k", "new", etag=None, attributes=None)
    assert requests(store) == {"CopyObject": 1}
