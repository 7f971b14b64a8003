"""Copies within the service: what travels, and by which requests."""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import pytest

from s3mount.core.config import KIB, WritebackConfig
from s3mount.core.metadata import Attributes
from s3mount.store.base import WriteHeaders
from s3mount.store.errors import AccessDenied, PreconditionFailed, ServerError
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


TAGS = {"project": "s3 mount", "b": "2"}


async def tagged(store: MemoryStore) -> None:
    await store.put("k", DATA, WRITTEN)
    await store.put_tags("k", TAGS)


async def test_a_tagged_object_is_copied_in_one_request_that_keeps_its_tags() -> None:
    store = MemoryStore(minimum_part_size=1)
    await tagged(store)
    copier = copier_of(store)
    await copier.copy("k", "new", etag=None, attributes=None)
    assert requests(store) == {"CopyObject": 1}
    assert await store.tags("new") == TAGS
    before = Counter(store.counts())
    await copier.copy("k", "another", etag=None, attributes=None)
    # That the service keeps them is known by now.
    assert Counter(store.counts()) - before == {"HeadObject": 1, "CopyObject": 1}
    assert await store.tags("another") == TAGS


@pytest.mark.parametrize("limit", [10 * len(DATA), len(DATA) - 1], ids=["whole", "in parts"])
@pytest.mark.parametrize("copies_tags", [True, False])
@pytest.mark.parametrize("target", ["k", "new"])
async def test_tags_are_kept_by_every_kind_of_copy_and_service(
    limit: int, copies_tags: bool, target: str
) -> None:
    store = MemoryStore(minimum_part_size=1, copies_tags=copies_tags)
    await tagged(store)
    copier = copier_of(store, max_copy_size=limit)
    attributes = Attributes(0o100600, 1, 2, 3, 4, 5)
    for _ in range(2):
        made = await copier.copy("k", target, etag=None, attributes=attributes)
        assert made.tags_lost == ""
        assert await store.tags(target) == TAGS
        assert store.objects[target].metadata["mode"] == str(0o100600)
    assert store.objects[target].data == DATA
    assert ("UploadPartCopy" in requests(store)) == (limit < len(DATA))
    assert ("PutObjectTagging" in Counter(store.counts()) - Counter({"PutObjectTagging": 1})) == (
        not copies_tags
    )


@pytest.mark.parametrize(
    ("refused", "limit", "copies_tags"),
    [
        ("GetObjectTagging", len(DATA) - 1, True),
        ("PutObjectTagging", len(DATA) - 1, False),
        ("PutObjectTagging", 10 * len(DATA), False),
    ],
)
async def test_where_tags_are_refused_the_copy_is_made_and_that_is_said(
    refused: str, limit: int, copies_tags: bool, caplog: pytest.LogCaptureFixture
) -> None:
    store = MemoryStore(minimum_part_size=1, copies_tags=copies_tags)
    await tagged(store)

    def refuse(operation: str, key: str) -> None:
        if operation == refused:
            raise AccessDenied("no", operation=operation, key=key)

    store.before = refuse
    made = await copier_of(store, max_copy_size=limit).copy("k", "n", etag=None, attributes=None)
    assert store.objects["n"].data == DATA
    assert refused in made.tags_lost
    assert "the tags of 'n' are not kept" in caplog.text
    assert store.uploads == {}


async def test_an_upload_that_may_not_be_begun_with_tags_is_begun_without() -> None:
    class Refusing(MemoryStore):
        async def create_upload(self, key: str, headers: WriteHeaders) -> str:
            if "x-amz-tagging" in headers.headers:
                raise AccessDenied("s3:PutObjectTagging", operation="CreateMultipartUpload")
            return await super().create_upload(key, headers)

    store = Refusing(minimum_part_size=1)
    await tagged(store)
    copier = copier_of(store, max_copy_size=len(DATA) - 1)
    made = await copier.copy("k", "new", etag=None, attributes=None)
    assert store.objects["new"].data == DATA
    assert made.tags_lost == ""  # for they may be written afterwards
    assert await store.tags("new") == TAGS


async def test_tags_that_cannot_be_written_for_a_moment_fail_the_copy() -> None:
    """It is made again: a move would delete the source."""
    store = MemoryStore(minimum_part_size=1, copies_tags=False)
    await tagged(store)

    def fail(operation: str, key: str) -> None:
        if operation == "PutObjectTagging":
            raise ServerError("not now", operation=operation, key=key)

    store.before = fail
    with pytest.raises(ServerError):
        await copier_of(store).copy("k", "new", etag=None, attributes=None)
