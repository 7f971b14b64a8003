"""What the memory store offers tests beyond the contract."""

import hashlib

import pytest

from s3mount.store import base, errors
from s3mount.store.base import (
    Capabilities,
    Condition,
    WriteHeaders,
)
from s3mount.store.integrity import digest_for, multipart_etag
from s3mount.store.memory import CEPH_CAPABILITIES, NO_CAPABILITIES, MemoryStore

NOTHING = WriteHeaders()


async def test_other_hosts_work_through_the_side_door_uncounted() -> None:
    store = MemoryStore(clock=lambda: 1000.9)
    store.put_foreign("k", b"theirs", {"Mode": "1"}, {"Content-Type": "a/b"})
    got = await store.get("k")
    assert (got.data, got.info.last_modified, got.info.answered_at) == (b"theirs", 1000.0, 1000.0)
    assert dict(got.info.metadata) == {"mode": "1"}
    assert got.info.headers["content-type"] == "a/b"
    store.delete_foreign("k")
    store.delete_foreign("k")
    assert store.objects == {}
    assert store.counts() == {"GetObject": 1, "BytesIn": 6}


async def test_what_is_put_is_seen_through_the_side_door_without_a_copy() -> None:
    store, data = MemoryStore(), b"data"
    await store.put("k", data, WriteHeaders({"a": "1"}, {"x-amz-acl": "private"}))
    stored = store.objects["k"]
    assert stored.data is data
    assert dict(stored.headers) == {"x-amz-acl": "private"}
    upload_id = await store.create_upload("u", NOTHING)
    assert store.uploads[upload_id].key == "u"


async def test_hooks_see_every_request_and_may_fail_it_before_or_after() -> None:
    seen: list[tuple[str, str]] = []

    async def before(operation: str, key: str) -> None:
        seen.append((operation, key))
        if key == "early":
            raise errors.ConnectionLost("injected", ambiguous=True)

    def after(operation: str, key: str) -> None:
        if key == "late":
            raise errors.ConnectionLost("injected", ambiguous=True)

    store = MemoryStore(before=before, after=after)
    for key in ("early", "late"):
        with pytest.raises(errors.ConnectionLost):
            await store.put(key, b"", NOTHING)
    await store.list("p/")
    assert set(store.objects) == {"late"}
    assert seen == [("PutObject", "early"), ("PutObject", "late"), ("ListObjectsV2", "p/")]


async def test_a_service_without_capabilities_ignores_conditions() -> None:
    for capabilities in (NO_CAPABILITIES, CEPH_CAPABILITIES):
        store = MemoryStore(capabilities=capabilities)
        await store.put("k", b"1", NOTHING)
        upload_id = await store.create_upload("k", NOTHING)
        part = await store.upload_part("k", upload_id, 1, b"2")
        await store.complete_upload("k", upload_id, [part], condition=Condition(absent=True))
        assert store.objects["k"].data == b"2"
    assert (await store.capabilities()) == CEPH_CAPABILITIES
    with pytest.raises(errors.PreconditionFailed):
        await store.put("k", b"3", NOTHING, condition=Condition(absent=True))


async def test_a_versioned_bucket_keeps_what_was_replaced() -> None:
    store = MemoryStore(capabilities=Capabilities(versioned=True))
    first = await store.put("k", b"first", NOTHING)
    second = await store.put("k", b"second", NOTHING)
    await store.delete("k")
    with pytest.raises(errors.NotFound):
        await store.get("k")
    assert (await store.get("k", version_id=first.version_id)).data == b"first"
    assert (await store.head("k", version_id=second.version_id)).size == 6
    with pytest.raises(errors.NotFound):
        await store.get("k", version_id="nonsense")


async def test_archived_objects_show_but_do_not_open() -> None:
    store = MemoryStore()
    store.put_foreign("k", b"data", headers={"x-amz-storage-class": "GLACIER"})
    assert (await store.head("k")).headers["x-amz-storage-class"] == "GLACIER"
    assert (await store.list("")).objects[0].storage_class == "GLACIER"
    with pytest.raises(errors.Archived):
        await store.get("k")


async def test_etags_are_those_of_s3() -> None:
    store = MemoryStore(minimum_part_size=1)
    assert (await store.put("k", b"hello", NOTHING)).etag == "5d41402abc4b2a76b9719d911017c592"
    upload_id = await store.create_upload("k", NOTHING)
    parts = [await store.upload_part("k", upload_id, n, b"hello") for n in (1, 2)]
    result = await store.complete_upload("k", upload_id, parts)
    digest = hashlib.md5(b"hello").digest()
    assert result.etag == f"{hashlib.md5(digest * 2).hexdigest()}-2"
    assert result.etag == multipart_etag([part.etag for part in parts])
    copied = await store.copy("k", "copy")
    assert len(copied.etag) == 32  # a copy is a plain object


async def test_rules_of_uploads_are_enforced() -> None:
    store = MemoryStore()
    upload_id = await store.create_upload("k", NOTHING)
    parts = [await store.upload_part("k", upload_id, n, b"x") for n in (1, 2)]
    for wrong, kind in (
        ([], errors.InvalidRequest),
        (parts[::-1], errors.InvalidRequest),
        (parts, errors.InvalidRequest),  # the first is too small
        ([base.Part(3, parts[0].etag, 1)], errors.InvalidPart),
        ([base.Part(1, "0" * 32, 1)], errors.InvalidPart),
    ):
        with pytest.raises(kind):
            await store.complete_upload("k", upload_id, wrong)
    with pytest.raises(errors.InvalidRequest):
        await store.upload_part("k", upload_id, 10_001, b"x")
    for other_key, other_id in (("other", upload_id), ("k", "nonsense")):
        with pytest.raises(errors.NoSuchUpload):
            await store.complete_upload(other_key, other_id, parts[:1])
        with pytest.raises(errors.NoSuchUpload):
            await store.list_parts(other_key, other_id)
    await store.abort_upload("k", "nonsense")
    with pytest.raises(errors.InvalidRange):
        await store.put("s", b"12345", NOTHING)
        await store.upload_part_copy("k", upload_id, 3, "s", 3, 3)


def test_the_cheapest_digest_that_is_checked_is_sent() -> None:
    body = b"123456789"
    crc = digest_for(body, checks_crc32c=True)
    assert crc.headers() == {"x-amz-checksum-crc32c": "4waSgw=="}
    md5 = digest_for(body, checks_crc32c=False)
    assert md5.headers() == {"content-md5": "JfnnlDI7RTiF9RgfG2JNCw=="}
    sliced = base.SlicedBody(9, lambda offset, length: body[offset : offset + length], 4)
    assert digest_for(sliced, checks_crc32c=True) == crc
    assert multipart_etag(["abc"]) is None
