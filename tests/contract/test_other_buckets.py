"""Copies from another bucket of the service, and the listing of all of its buckets."""

from collections.abc import AsyncIterator

import pytest

from s3mount.core.config import MIB
from s3mount.store import errors
from s3mount.store.base import ObjectStore, WriteHeaders
from s3mount.store.buckets import list_buckets
from s3mount.store.memory import MemoryStore
from s3mount.store.open import open_store
from tests.servers import Bucket

NOTHING = WriteHeaders()
WRITTEN = WriteHeaders({"mode": "33184", "foreign": "kept"}, {"content-type": "text/x-odd"})


@pytest.fixture
async def other(config_bucket: Bucket | None) -> AsyncIterator[ObjectStore]:
    """The store of a second bucket of the same service."""
    if config_bucket is None:
        yield MemoryStore("other")
        return
    bucket = config_bucket.server.create_bucket()
    store = open_store(bucket.config())
    yield store
    await store.aclose()
    bucket.remove()


@pytest.mark.parametrize("key", ["k", "a b+c", "a%41", "ü/日本"])
async def test_an_object_of_another_bucket_is_copied(
    store: ObjectStore, other: ObjectStore, key: str
) -> None:
    etag = (await other.put(key, b"theirs", WRITTEN)).etag
    await store.put(key, b"another object of that name here", NOTHING)
    await store.copy(key, "target", source_etag=etag, origin=other)
    got = await store.get("target")
    assert (got.data, dict(got.info.metadata)) == (b"theirs", WRITTEN.metadata)
    assert got.info.headers["content-type"] == "text/x-odd"


async def test_the_same_key_of_another_bucket_is_no_copy_onto_itself(
    store: ObjectStore, other: ObjectStore
) -> None:
    await other.put("k", b"theirs", WRITTEN)
    await store.copy("k", "k", origin=other)
    assert (await store.get("k")).data == b"theirs"


async def test_another_version_there_is_refused(store: ObjectStore, other: ObjectStore) -> None:
    mine = (await store.put("k", b"of this bucket", NOTHING)).etag
    await other.put("k", b"theirs", NOTHING)
    with pytest.raises(errors.PreconditionFailed):
        await store.copy("k", "target", source_etag=mine, origin=other)
    with pytest.raises(errors.NotFound):
        await store.head("target")


@pytest.mark.parametrize("key", ["k", "a%zz"])
async def test_a_range_of_an_object_of_another_bucket_becomes_a_part(
    store: ObjectStore, other: ObjectStore, key: str
) -> None:
    data = bytes(range(256)) * (5 * MIB // 256) + b"tail"
    etag = (await other.put(key, data, NOTHING)).etag
    upload_id = await store.create_upload("target", NOTHING)
    part = await store.upload_part_copy(
        "target", upload_id, 1, key, 3, 5 * MIB, source_etag=etag, origin=other
    )
    await store.complete_upload("target", upload_id, [part])
    assert (await store.get("target")).data == data[3 : 3 + 5 * MIB]


async def test_what_is_missing_there_is_not_found(store: ObjectStore, other: ObjectStore) -> None:
    await store.put("k", b"of this bucket", NOTHING)
    with pytest.raises(errors.NotFound):
        await store.copy("k", "target", origin=other)


async def test_the_buckets_of_a_service_are_listed(bucket: Bucket) -> None:
    found = await list_buckets(bucket.config(bucket=""))
    names = [one.name for one in found]
    assert bucket.name in names
    assert names == sorted(names)
    assert all(one.created > 1e9 for one in found)


async def test_wrong_credentials_list_no_buckets(ceph_bucket: Bucket) -> None:
    with pytest.raises(errors.BadCredentials):
        await list_buckets(ceph_bucket.config(bucket="", secret_key="wrong"))
