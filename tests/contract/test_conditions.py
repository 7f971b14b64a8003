"""Writers that race on one key under a condition: at most one wins, on the services that say so."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import trio
from botocore.exceptions import ClientError

from s3mount.store.base import (
    Condition,
    ObjectStore,
    PutResult,
    WriteHeaders,
)
from s3mount.store.errors import (
    NotFound,
    PreconditionFailed,
)
from tests.servers import Bucket

NOTHING = WriteHeaders()
WRITERS = 24


async def race(store: ObjectStore, condition: Condition, *, parts: bool) -> list[PutResult]:
    """The results of those that won; all begin at once."""
    won: list[PutResult] = []

    async def write(number: int) -> None:
        body = f"writer {number}".encode()
        try:
            if not parts:
                won.append(await store.put("k", body, NOTHING, condition=condition))
                return
            upload_id = await store.create_upload("k", NOTHING)
            part = await store.upload_part("k", upload_id, 1, body)
            won.append(await store.complete_upload("k", upload_id, [part], condition=condition))
        except (PreconditionFailed, NotFound):
            if parts:
                await store.abort_upload("k", upload_id)

    async with trio.open_nursery() as nursery:
        for number in range(WRITERS):
            nursery.start_soon(write, number)
    return won


@pytest.mark.parametrize("parts", [False, True])
@pytest.mark.parametrize("absent", [False, True])
async def test_of_writers_with_one_condition_at_most_one_wins(
    store: ObjectStore, store_name: str, absent: bool, parts: bool
) -> None:
    can = await store.capabilities()
    if parts:
        honoured = can.complete_if_absent if absent else can.complete_if_match
    else:
        honoured = can.put_if_absent if absent else can.put_if_match
    condition = Condition(absent=True)
    if not absent:
        condition = Condition(etag=(await store.put("k", b"first", NOTHING)).etag)
    won = await race(store, condition, parts=parts)
    if not honoured:
        assert len(won) == WRITERS  # all of them believe that they did
    elif store_name == "moto":
        assert won  # its look and its change are two steps
    else:
        assert len(won) == 1
        assert (await store.head("k")).etag == won[0].etag


def refusal(call: Any, **arguments: Any) -> str:
    with pytest.raises(ClientError) as caught:
        call(**arguments)
    return str(caught.value.response["Error"]["Code"])


def test_the_strict_server_minds_conditions_of_copies_and_deletes(strict_bucket: Bucket) -> None:
    client, place = strict_bucket.client, {"Bucket": strict_bucket.name, "Key": "k"}
    etag, wrong = strict_bucket.put("k", b"data"), "0" * 32
    assert refusal(client.delete_object, **place, IfMatch=f'"{wrong}"') == "PreconditionFailed"
    copy = {"Bucket": strict_bucket.name, "Key": "copy", "CopySource": place}
    assert refusal(client.copy_object, **copy, CopySourceIfMatch=wrong) == "PreconditionFailed"
    client.copy_object(**copy, CopySourceIfMatch=etag)
    client.delete_object(**place, IfMatch=f'"{etag}"')
    assert strict_bucket.keys() == ["copy"]


def test_the_strict_server_takes_edits_of_one_key_one_by_one(strict_bucket: Bucket) -> None:
    """A counter that many raise at once, each by If-Match, counts every success."""
    strict_bucket.put("k", b"0")

    def raise_once(_: int) -> bool:
        found = strict_bucket.client.get_object(Bucket=strict_bucket.name, Key="k")
        value = b"%d" % (int(found["Body"].read()) + 1)
        try:
            strict_bucket.put("k", value, IfMatch=found["ETag"])
        except ClientError as error:
            assert error.response["Error"]["Code"] == "PreconditionFailed"  # noqa: PT017
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        won = sum(pool.map(raise_once, range(100)))
    assert strict_bucket.get("k") == b"%d" % won
    assert won >= 100 / 8
