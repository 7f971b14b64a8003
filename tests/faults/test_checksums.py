"""Bytes damaged on their way, by what the service checks or keeps: each direction, each form."""

import re
from dataclasses import replace

import pytest
from trio.testing import MockClock

from s3mount.core.config import StoreConfig
from s3mount.store import base, errors
from s3mount.store.base import (
    ALWAYS,
    Condition,
    WriteHeaders,
)
from s3mount.store.memory import ALL_CAPABILITIES, CEPH_CAPABILITIES, NO_CAPABILITIES, MemoryStore
from s3mount.store.s3 import S3Store
from tests.counting_proxy import Fault, Reply, Seen
from tests.fault_proxy import corrupt_answer, corrupt_upload, wrong_etag_inside
from tests.memory_wire import store_in_memory

NOTHING = WriteHeaders()
DATA = bytes(range(251)) * 400
SERVICES = [ALL_CAPABILITIES, CEPH_CAPABILITIES, NO_CAPABILITIES]

pytestmark = pytest.mark.usefixtures("in_line")


class Once:
    """The first request of an operation suffers the fault."""

    def __init__(self) -> None:
        self.fault: Fault | None = None
        self.operation = ""

    def __call__(self, seen: Seen) -> Fault | None:
        if seen.operation != self.operation:
            return None
        fault, self.fault = self.fault, None
        return fault

    def set(self, operation: str, fault: Fault) -> None:
        self.operation, self.fault = operation, fault


async def opened(can: base.Capabilities) -> tuple[MemoryStore, S3Store, Once]:
    once, memory = Once(), MemoryStore(capabilities=can, minimum_part_size=1)
    store = store_in_memory(memory, StoreConfig(bucket="b"), once)
    await store.capabilities()
    return memory, store, once


@pytest.mark.parametrize("can", SERVICES)
@pytest.mark.parametrize("condition", [ALWAYS, Condition(absent=True)])
async def test_a_body_damaged_on_its_way_up_is_replaced(
    can: base.Capabilities, condition: Condition, autojump_clock: MockClock
) -> None:
    """Where the service stores what it cannot check, our own damage is nobody else's object."""
    honours = replace(can, put_if_absent=True, put_if_match=True)
    memory, store, once = await opened(honours)
    once.set("PutObject", corrupt_upload)
    await store.put("k", DATA, NOTHING, condition=condition)
    assert once.fault is None
    assert memory.objects["k"].data == DATA


@pytest.mark.parametrize("can", SERVICES)
async def test_a_part_damaged_on_its_way_up_is_sent_again(
    can: base.Capabilities, autojump_clock: MockClock
) -> None:
    memory, store, once = await opened(can)
    upload_id = await store.create_upload("k", NOTHING)
    once.set("UploadPart", corrupt_upload)
    parts = [await store.upload_part("k", upload_id, n, DATA) for n in (1, 2)]
    await store.complete_upload("k", upload_id, parts)
    assert once.fault is None
    assert memory.objects["k"].data == DATA * 2


@pytest.mark.parametrize("can", SERVICES)
async def test_a_whole_object_damaged_on_its_way_down_is_asked_for_again(
    can: base.Capabilities, autojump_clock: MockClock
) -> None:
    _, store, once = await opened(can)
    await store.put("k", DATA, NOTHING)
    once.set("GetObject", corrupt_answer)
    assert (await store.get("k", 0, len(DATA))).data == DATA
    assert once.fault is None


async def test_a_stored_checksum_guards_an_object_whose_etag_is_no_md5(
    autojump_clock: MockClock,
) -> None:
    _, store, once = await opened(ALL_CAPABILITIES)
    upload_id = await store.create_upload("k", NOTHING)
    await store.complete_upload("k", upload_id, [await store.upload_part("k", upload_id, 1, DATA)])
    once.set("GetObject", corrupt_answer)
    assert (await store.get("k")).data == DATA
    assert once.fault is None


@pytest.mark.parametrize("can", SERVICES)
async def test_a_complete_with_anothers_etag_is_looked_at(
    can: base.Capabilities, autojump_clock: MockClock
) -> None:
    memory, store, once = await opened(can)
    upload_id = await store.create_upload("k", NOTHING)
    parts = [await store.upload_part("k", upload_id, 1, DATA)]
    once.set("CompleteMultipartUpload", wrong_etag_inside)
    result = await store.complete_upload("k", upload_id, parts)
    assert result.etag == memory.objects["k"].etag
    assert store.counts()["HeadObject"] == 1


async def test_a_complete_whose_object_is_another_is_not_believed(
    autojump_clock: MockClock,
) -> None:
    memory, store, once = await opened(CEPH_CAPABILITIES)
    upload_id = await store.create_upload("k", NOTHING)
    parts = [await store.upload_part("k", upload_id, 1, DATA)]

    def never_made(seen: Seen) -> Reply:
        memory.put_foreign("k", b"something else")
        etag = "<ETag>&quot;0123-1&quot;</ETag>"
        body = f"<CompleteMultipartUploadResult>{etag}</CompleteMultipartUploadResult>"
        return Reply("200 OK", [], body.encode())

    once.set("CompleteMultipartUpload", Fault(before=never_made))
    with pytest.raises(errors.CorruptAnswer, match="not our object there"):
        await store.complete_upload("k", upload_id, parts)


async def test_a_complete_whose_checksum_is_not_that_of_its_parts_is_not_believed(
    autojump_clock: MockClock,
) -> None:
    _, store, once = await opened(ALL_CAPABILITIES)
    upload_id = await store.create_upload("k", NOTHING)
    parts = [await store.upload_part("k", upload_id, 1, DATA)]

    def other(seen: Seen, reply: Reply) -> Reply:
        wrong = rb"<ChecksumCRC32C>AAAAAA==-1<"
        return replace(reply, body=re.sub(rb"<ChecksumCRC32C>.*?<", wrong, reply.body))

    once.set("CompleteMultipartUpload", Fault(after=other))
    await store.complete_upload("k", upload_id, parts)  # the next answer and a look clear it up
    assert store.counts()["CompleteMultipartUpload"] == 2


# -- damage in this machine's own memory


@pytest.mark.parametrize("can", SERVICES)
@pytest.mark.parametrize("operation", ["PutObject", "UploadPart"])
async def test_what_its_owner_finds_damaged_before_it_is_sent_is_not_sent(
    can: base.Capabilities, operation: str, autojump_clock: MockClock
) -> None:
    memory, store, _ = await opened(can)
    before = store.counts()

    def damaged() -> None:
        raise errors.CorruptAnswer("damaged in memory")

    with pytest.raises(errors.CorruptAnswer, match="damaged in memory"):
        if operation == "PutObject":
            await store.put("k", DATA, NOTHING, check=damaged)
        else:
            upload_id = await store.create_upload("k", NOTHING)
            await store.upload_part("k", upload_id, 1, DATA, check=damaged)
    assert store.counts().get(operation, 0) == before.get(operation, 0)
    assert memory.objects == {}


@pytest.mark.parametrize("can", SERVICES)
@pytest.mark.parametrize("operation", ["PutObject", "UploadPart"])
async def test_what_is_damaged_after_its_owner_looked_does_not_fit_its_checksum(
    can: base.Capabilities, operation: str, autojump_clock: MockClock
) -> None:
    """The checksum is taken first, then the owner looks: in between nothing is unguarded."""
    memory, store, _ = await opened(can)
    body, calls = bytearray(DATA), []

    def flip_after_the_look() -> None:
        calls.append(bytes(body))
        if len(calls) < 3:
            body[1000] ^= 1
        if len(calls) == 2:  # still damaged when it is looked at again: whole from now on
            raise errors.CorruptAnswer("damaged in memory")

    if operation == "PutObject":
        await store.put("k", body, NOTHING, check=flip_after_the_look)
    else:
        upload_id = await store.create_upload("k", NOTHING)
        part = await store.upload_part("k", upload_id, 1, body, check=flip_after_the_look)
        await store.complete_upload("k", upload_id, [part])
    assert len(calls) == 3
    assert memory.objects["k"].data == DATA
