"""The contract of multipart uploads."""

from functools import partial

import pytest

from s3mount.store import errors
from s3mount.store.base import (
    Condition,
    ObjectStore,
    Part,
    SlicedBody,
    WriteHeaders,
)
from s3mount.store.open import open_store
from s3mount.writeback.parallel import all_of
from tests.servers import Bucket

NOTHING = WriteHeaders()
MIB = 1024 * 1024
FIRST = bytes(range(256)) * (5 * MIB // 256)


async def upload(store: ObjectStore, key: str, bodies: list[bytes]) -> tuple[str, list[Part]]:
    upload_id = await store.create_upload(key, NOTHING)
    parts = [
        await store.upload_part(key, upload_id, number, body)
        for number, body in enumerate(bodies, 1)
    ]
    return upload_id, parts


async def test_parts_become_one_object_with_its_headers(store: ObjectStore) -> None:
    headers = WriteHeaders({"mode": "33188"}, {"content-type": "video/mp4"})
    upload_id = await store.create_upload("big", headers)
    with pytest.raises(errors.NotFound):
        await store.head("big")
    body = SlicedBody(6 * MIB, lambda offset, length: b"s" * length, MIB)
    second = await store.upload_part("big", upload_id, 2, body)
    first = await store.upload_part("big", upload_id, 1, FIRST)
    third = await store.upload_part("big", upload_id, 7, b"tail")
    assert (first.number, first.size) == (1, 5 * MIB)
    result = await store.complete_upload("big", upload_id, [first, second, third])
    got = await store.get("big")
    assert got.data == FIRST + b"s" * 6 * MIB + b"tail"
    assert got.info.etag == result.etag
    assert result.etag.endswith("-3")
    assert dict(got.info.metadata) == {"mode": "33188"}
    assert got.info.headers["content-type"] == "video/mp4"
    assert await store.list_uploads("") == []


async def test_a_part_sent_again_replaces_the_first(store: ObjectStore) -> None:
    upload_id, _ = await upload(store, "k", [FIRST, b"old"])
    parts = await store.list_parts("k", upload_id)
    again = await store.upload_part("k", upload_id, 2, b"new tail")
    await store.complete_upload("k", upload_id, [parts[0], again])
    assert (await store.get("k", 5 * MIB)).data == b"new tail"


async def test_parts_and_uploads_are_listed(store: ObjectStore) -> None:
    upload_id, parts = await upload(store, "dir/a b+c", [FIRST, b"two"])
    other = await store.create_upload("elsewhere", NOTHING)
    assert list(await store.list_parts("dir/a b+c", upload_id)) == parts
    [found] = await store.list_uploads("dir/")
    assert (found.key, found.upload_id) == ("dir/a b+c", upload_id)
    assert found.initiated > 0
    assert {item.upload_id for item in await store.list_uploads("")} == {upload_id, other}


async def test_a_range_of_another_object_becomes_a_part(store: ObjectStore) -> None:
    data = FIRST + b"the end of the source"
    source = await upload(store, "source", [FIRST, data[5 * MIB :]])
    etag = (await store.complete_upload("source", *source)).etag
    upload_id = await store.create_upload("target", NOTHING)
    whole = await store.upload_part_copy(
        "target", upload_id, 1, "source", 0, 5 * MIB, source_etag=etag
    )
    tail = await store.upload_part_copy("target", upload_id, 2, "source", 5 * MIB + 4, 7)
    assert (whole.size, tail.size) == (5 * MIB, 7)
    await store.complete_upload("target", upload_id, [whole, tail])
    assert (await store.get("target")).data == FIRST + data[5 * MIB + 4 : 5 * MIB + 11]


@pytest.mark.parametrize("key", ["a%41", "a%zz", "a b+c", "ü/日本"])
async def test_parts_are_copied_from_odd_keys(store: ObjectStore, key: str) -> None:
    """Ceph's gateway decodes the source key twice and crashes on 'a%zz'."""
    await store.put(key, FIRST + b"tail", NOTHING)
    upload_id = await store.create_upload("target", NOTHING)
    part = await store.upload_part_copy("target", upload_id, 1, key, 3, 5 * MIB)
    await store.complete_upload("target", upload_id, [part])
    assert (await store.get("target")).data == (FIRST + b"tail")[3 : 3 + 5 * MIB]


async def test_a_part_of_another_version_is_refused(store: ObjectStore) -> None:
    etag = (await store.put("source", b"first", NOTHING)).etag
    await store.put("source", b"second", NOTHING)
    upload_id = await store.create_upload("target", NOTHING)
    with pytest.raises(errors.PreconditionFailed):
        await store.upload_part_copy("target", upload_id, 1, "source", 0, 5, source_etag=etag)
    assert list(await store.list_parts("target", upload_id)) == []


async def test_an_aborted_upload_is_gone(store: ObjectStore) -> None:
    upload_id, _ = await upload(store, "k", [b"data"])
    await store.abort_upload("k", upload_id)
    await store.abort_upload("k", upload_id)  # not there any more: as good as aborted
    assert await store.list_uploads("") == []
    with pytest.raises(errors.NotFound):
        await store.head("k")


async def test_the_parts_of_an_unknown_upload_are_not_listed(store: ObjectStore) -> None:
    upload_id, _ = await upload(store, "k", [b"data"])
    await store.abort_upload("k", upload_id)
    with pytest.raises(errors.NoSuchUpload):
        await store.list_parts("k", upload_id)


async def test_completing_with_a_wrong_etag_is_an_invalid_part(store: ObjectStore) -> None:
    upload_id, [part] = await upload(store, "k", [b"data"])
    wrong = Part(part.number, "0" * 32, part.size)
    with pytest.raises(errors.InvalidPart):
        await store.complete_upload("k", upload_id, [wrong])
    with pytest.raises(errors.NotFound):
        await store.head("k")


async def test_small_parts_but_the_last_are_refused(store: ObjectStore) -> None:
    upload_id, parts = await upload(store, "k", [b"small", b"last"])
    with pytest.raises(errors.InvalidRequest) as caught:
        await store.complete_upload("k", upload_id, parts)
    assert caught.value.code == "EntityTooSmall"


async def test_complete_heeds_conditions_where_the_capabilities_say_so(
    store: ObjectStore,
) -> None:
    can = await store.capabilities()
    etag = (await store.put("k", b"there", NOTHING)).etag
    for condition, honoured in (
        (Condition(absent=True), can.complete_if_absent),
        (Condition(etag="0" * 32), can.complete_if_match),
    ):
        upload_id, parts = await upload(store, "k", [b"new"])
        if honoured:
            with pytest.raises(errors.PreconditionFailed):
                await store.complete_upload("k", upload_id, parts, condition=condition)
            assert (await store.head("k")).etag == etag
        else:
            await store.complete_upload("k", upload_id, parts, condition=condition)
            etag = (await store.head("k")).etag
    upload_id, parts = await upload(store, "k", [b"newest"])
    await store.complete_upload("k", upload_id, parts, condition=Condition(etag=etag))
    upload_id, parts = await upload(store, "fresh", [b"new"])
    await store.complete_upload("fresh", upload_id, parts, condition=Condition(absent=True))
    assert (await store.get("k")).data == b"newest"
    assert (await store.get("fresh")).data == b"new"


async def test_leaving_parts_out_works_where_the_capabilities_say_so(store: ObjectStore) -> None:
    can = await store.capabilities()
    upload_id, parts = await upload(store, "k", [b"one", b"two"])
    if can.complete_subset:
        await store.complete_upload("k", upload_id, parts[:1])
        assert (await store.get("k")).data == b"one"
    else:
        with pytest.raises(errors.InvalidPart):
            await store.complete_upload("k", upload_id, parts[:1])


async def test_uploads_and_parts_beyond_a_page_are_all_listed(ceph_bucket: Bucket) -> None:
    """S3 answers a thousand at a time; the key may be the same over the page's end. (moto takes
    four times as long, and has no pages.)"""
    store = open_store(ceph_bucket.config())
    count, key = 1003, "dir/a b+c"
    begun: list[str] = []

    async def begin() -> None:
        begun.append(await store.create_upload(key, NOTHING))

    await all_of([begin] * count, 16)
    found = await store.list_uploads("dir/")
    assert sorted(one.upload_id for one in found) == sorted(begun)

    async def send(number: int) -> None:
        await store.upload_part(key, begun[0], number, b"%d" % number)

    await all_of([partial(send, number) for number in range(1, count + 1)], 16)
    parts = await store.list_parts(key, begun[0])
    assert [part.number for part in parts] == list(range(1, count + 1))
    assert sum(part.size for part in parts) == sum(len(str(n)) for n in range(1, count + 1))

    async def abort(upload_id: str) -> None:
        await store.abort_upload(key, upload_id)

    await all_of([partial(abort, upload_id) for upload_id in begun], 16)
    await store.aclose()
