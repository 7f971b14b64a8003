"""What the S3 store makes of faults between it and the service, by a proxy before moto."""

from dataclasses import replace
from pathlib import Path

import pytest
import trio

from s3mount.core.config import MIB
from s3mount.store import base, errors, retry
from s3mount.store.base import (
    Condition,
    ObjectStore,
    SlicedBody,
    WriteHeaders,
)
from s3mount.store.open import open_store
from tests.counting_proxy import (
    CountingProxy,
    Fault,
    Reply,
    Seen,
    answer,
    cut_xml,
    lost_answer,
    repeat_token,
    reset,
    short_body,
    slow_down,
)
from tests.fault_proxy import never_answered
from tests.servers import Bucket

NOTHING = WriteHeaders()
FOREVER = 50


@pytest.fixture
def store(proxied_store: ObjectStore) -> ObjectStore:
    return proxied_store


def in_answer(body: bytes) -> Fault:
    """200 with another body than the service's."""

    def after(seen: Seen, reply: Reply) -> Reply:
        return replace(reply, body=body)

    return Fault(after=after)


INSIDE = b"<Error><Code>InternalError</Code><Message>We did not do it</Message></Error>"


async def test_slow_down_is_retried_and_counted(store: ObjectStore, proxy: CountingProxy) -> None:
    proxy.inject("PutObject", slow_down, times=2)
    await store.put("k", b"data", NOTHING)
    counts = store.counts()
    assert (counts["Retries"], counts["SlowDowns"], counts["PutObject"]) == (2, 2, 3)
    assert proxy.counts == {"PutObject": 3}


@pytest.mark.parametrize(
    "fault", [reset, lost_answer, answer(500, "InternalError"), answer(503, "ServiceUnavailable")]
)
async def test_passing_failures_of_any_request_are_retried(
    store: ObjectStore, proxy: CountingProxy, fault: Fault
) -> None:
    await store.put("k", b"data", NOTHING)
    proxy.inject("*", fault)
    await store.put("k", b"data2", NOTHING)
    proxy.inject("*", fault)
    assert (await store.get("k")).data == b"data2"
    proxy.inject("*", fault)
    assert (await store.head("k")).size == 5
    proxy.inject("*", fault)
    assert [found.key for found in (await store.list("")).objects] == ["k"]
    proxy.inject("*", fault)
    await store.copy("k", "k2")
    proxy.inject("*", fault)
    assert await store.delete_many(["k"]) == []
    proxy.inject("*", fault)
    await store.delete("k2")
    assert (await store.list("")).objects == []
    assert store.counts()["Retries"] == 7


async def test_a_failure_that_lasts_is_raised_after_the_retries(
    store: ObjectStore, proxy: CountingProxy, caplog: pytest.LogCaptureFixture
) -> None:
    proxy.inject("GetObject", answer(500, "InternalError", {"x-amz-request-id": "ID7"}), times=4)
    with pytest.raises(errors.ServerError) as caught:
        await store.get("some key")
    assert proxy.counts["GetObject"] == 4
    assert (caught.value.status, caught.value.code) == (500, "InternalError")
    [line] = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert "GetObject 'some key': 500 InternalError" in line
    assert "ID7" in line


async def test_an_answer_of_a_conditional_put_that_was_lost_is_looked_for(
    store: ObjectStore, proxy: CountingProxy
) -> None:
    await store.capabilities()
    proxy.inject("PutObject", lost_answer)
    headers = WriteHeaders({"mode": "33188"})
    first = await store.put("k", b"mine", headers, condition=Condition(absent=True))
    assert first.etag == (await store.head("k")).etag
    proxy.inject("PutObject", lost_answer)
    await store.put("k", b"mine again", headers, condition=Condition(etag=first.etag))
    assert (await store.get("k")).data == b"mine again"


async def test_another_hosts_object_is_not_taken_for_our_lost_put(
    store: ObjectStore, proxy: CountingProxy, moto_bucket: Bucket
) -> None:
    await store.capabilities()

    def overtaken(seen: Seen) -> Reply | None:
        moto_bucket.put("k", b"them")
        return answer(500, "InternalError").before(seen)  # type: ignore[misc]

    proxy.inject("PutObject", Fault(before=overtaken))
    with pytest.raises(errors.PreconditionFailed):
        await store.put("k", b"mine", NOTHING, condition=Condition(absent=True))
    assert moto_bucket.get("k") == b"them"


async def test_a_complete_whose_answer_was_lost_is_looked_for(
    store: ObjectStore, proxy: CountingProxy
) -> None:
    for second in (None, answer(404, "NoSuchUpload"), in_answer(b"")):
        upload_id = await store.create_upload("k", NOTHING)
        parts = [await store.upload_part("k", upload_id, 1, b"data")]
        proxy.inject("CompleteMultipartUpload", lost_answer)
        if second is not None:
            proxy.inject("CompleteMultipartUpload", second)
        result = await store.complete_upload("k", upload_id, parts)
        assert result.etag == (await store.head("k")).etag
        await store.delete("k")


async def test_an_upload_that_was_never_there_is_no_success(store: ObjectStore) -> None:
    await store.put("k", b"data", NOTHING)
    part = base.Part(1, "8d777f385d3dfec8815d20f7496026dc", 4)
    with pytest.raises(errors.ServerError):  # moto's answer; the object there has another ETag
        await store.complete_upload("k", "nonsense", [part])


async def test_a_body_held_up_on_its_way_is_sent_again(
    store: ObjectStore, proxy: CountingProxy
) -> None:
    for code in ("RequestTimeout", "IncompleteBody", "BadDigest"):
        proxy.inject("PutObject", answer(400, code))
        await store.put("k", b"data", NOTHING)
    assert store.counts()["Retries"] == 3


async def test_errors_inside_a_200_are_errors(store: ObjectStore, proxy: CountingProxy) -> None:
    await store.put("k", b"data", NOTHING)
    proxy.inject("CopyObject", in_answer(INSIDE))
    await store.copy("k", "copy")
    assert proxy.counts["CopyObject"] == 2
    proxy.inject("CopyObject", in_answer(INSIDE), times=FOREVER)
    with pytest.raises(errors.ServerError) as caught:
        await store.copy("k", "copy")
    assert caught.value.ambiguous
    upload_id = await store.create_upload("big", NOTHING)
    parts = [await store.upload_part("big", upload_id, 1, b"data")]
    never = Fault(before=lambda seen: Reply("200 OK", [], INSIDE))
    proxy.inject("CompleteMultipartUpload", never, times=FOREVER)
    with pytest.raises(errors.ServerError):
        await store.complete_upload("big", upload_id, parts)


async def test_a_copy_without_an_etag_is_not_believed(
    store: ObjectStore, proxy: CountingProxy
) -> None:
    await store.put("k", b"data", NOTHING)
    proxy.inject("CopyObject", in_answer(b"<CopyObjectResult/>"), times=FOREVER)
    with pytest.raises(errors.CorruptAnswer):
        await store.copy("k", "copy")


async def test_a_listing_that_is_cut_is_asked_for_again(
    store: ObjectStore, proxy: CountingProxy
) -> None:
    await store.put("k", b"data", NOTHING)
    for fault in (cut_xml, short_body):
        proxy.inject("ListObjectsV2", fault, times=2)
        assert [found.key for found in (await store.list("")).objects] == ["k"]
    proxy.inject("ListObjectsV2", cut_xml, times=FOREVER)
    with pytest.raises(errors.CorruptAnswer):
        await store.list("")


async def test_a_listing_that_repeats_its_token_is_corrupt(
    store: ObjectStore, proxy: CountingProxy
) -> None:
    for key in ("a", "b", "c"):
        await store.put(key, b"", NOTHING)
    first = await store.list("", max_keys=1)
    proxy.inject("ListObjectsV2", repeat_token, times=FOREVER)
    with pytest.raises(errors.CorruptAnswer):
        await store.list("", max_keys=1, token=first.next_token)


async def test_a_short_body_is_never_passed_on(store: ObjectStore, proxy: CountingProxy) -> None:
    data = bytes(range(256)) * 1000
    await store.put("k", data, NOTHING)
    proxy.inject("GetObject", short_body, times=2)
    assert (await store.get("k")).data == data
    proxy.inject("GetObject", short_body)
    assert (await store.get("k", 1000, 2000)).data == data[1000:3000]
    proxy.inject("GetObject", short_body, times=4)
    with pytest.raises(errors.CorruptAnswer):
        await store.get("k")


async def test_another_range_than_asked_for_is_never_passed_on(
    store: ObjectStore, proxy: CountingProxy
) -> None:
    await store.put("k", b"0123456789", NOTHING)

    def shifted(seen: Seen, reply: Reply) -> Reply:
        headers = [(n, v) for n, v in reply.headers if n.lower() != "content-range"]
        return replace(reply, headers=[*headers, ("Content-Range", "bytes 3-5/10")])

    proxy.inject("GetObject", Fault(after=shifted))
    assert (await store.get("k", 2, 3)).data == b"234"
    assert proxy.counts["GetObject"] == 2


async def test_a_service_that_ignores_ranges_and_if_match_is_cut_and_compared(
    store: ObjectStore, proxy: CountingProxy
) -> None:
    etag = (await store.put("k", b"0123456789", NOTHING)).etag

    def whole(seen: Seen) -> Reply | None:
        headers = [("ETag", f'"{etag}"'), ("Last-Modified", "Fri, 20 Nov 2026 11:00:00 GMT")]
        return Reply("200 OK", headers, b"0123456789")

    proxy.inject("GetObject", Fault(before=whole), times=2)
    assert (await store.get("k", 2, 3, if_match=etag)).data == b"234"
    with pytest.raises(errors.PreconditionFailed):
        await store.get("k", 2, 3, if_match="0" * 32)


async def test_stored_bytes_that_differ_from_those_sent_are_noticed(
    store: ObjectStore, proxy: CountingProxy
) -> None:
    def damaged(seen: Seen, reply: Reply) -> Reply:
        headers = [(n, v) for n, v in reply.headers if n.lower() != "etag"]
        return replace(reply, headers=[*headers, ("ETag", f'"{"0" * 32}"')])

    # Never an MD5: a service with other ETags, which costs one more request and no more.
    proxy.inject("PutObject", Fault(after=damaged), times=4)
    for _ in range(3):
        await store.put("k", b"data", NOTHING)
    assert proxy.counts["PutObject"] == 4
    # Once one matched it is damage, however often.
    await store.put("k", b"data", NOTHING)
    proxy.reset()
    proxy.inject("PutObject", Fault(after=damaged), times=3)
    await store.put("k", b"data", NOTHING)
    assert proxy.counts["PutObject"] == 4
    proxy.inject("PutObject", Fault(after=damaged), times=FOREVER)
    with pytest.raises(errors.CorruptAnswer, match="sent with MD5"):
        await store.put("k", b"data", NOTHING)


async def test_failed_keys_of_a_batch_are_named_and_passing_ones_retried(
    store: ObjectStore, proxy: CountingProxy
) -> None:
    def failure(key: str, code: str) -> str:
        return f"<Error><Key>{key}</Key><Code>{code}</Code><Message>m</Message></Error>"

    mixed = failure("a", "AccessDenied") + failure("b", "InternalError") + failure("c", "NoSuchKey")
    proxy.inject("DeleteObjects", in_answer(f"<DeleteResult>{mixed}</DeleteResult>".encode()))
    [failed] = await store.delete_many(["a", "b", "c"])
    assert failed.key == "a"
    assert isinstance(failed.error, errors.AccessDenied)
    assert proxy.counts["DeleteObjects"] == 2


async def test_a_service_without_batches_deletes_singly(
    store: ObjectStore, proxy: CountingProxy
) -> None:
    for key in ("a", "b"):
        await store.put(key, b"", NOTHING)
    proxy.inject("DeleteObjects", answer(501, "NotImplemented"))
    assert await store.delete_many(["a", "b"]) == []
    assert (await store.list("")).objects == []
    await store.delete_many(["a"])
    assert proxy.counts["DeleteObjects"] == 1


async def test_silence_ends_with_the_read_timeout_and_the_deadline(
    moto_bucket: Bucket, proxy: CountingProxy
) -> None:
    config = moto_bucket.config(
        endpoint_url=proxy.url, state_dir=None, read_timeout=0.2, request_deadline=0.5
    )
    store = open_store(config)
    proxy.inject("HeadObject", never_answered, times=FOREVER)
    with trio.fail_after(100), pytest.raises(errors.TransientError) as caught:
        await store.head("k")
    assert isinstance(caught.value, errors.DeadlineExceeded | errors.ConnectionLost)
    await store.aclose()


async def test_the_deadline_bounds_all_retries_together(
    moto_bucket: Bucket, proxy: CountingProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def at_once(seconds: float) -> None:
        await trio.lowlevel.checkpoint()

    monkeypatch.setattr(retry, "FIRST_DELAY_SLOWED", 5.0)
    monkeypatch.setattr("trio.sleep", at_once)
    config = moto_bucket.config(
        endpoint_url=proxy.url, state_dir=None, retries=1000, request_deadline=100.0
    )
    store = open_store(config)
    proxy.inject("PutObject", slow_down, times=1000)
    with pytest.raises(errors.DeadlineExceeded) as caught:
        await store.put("k", b"", NOTHING)
    assert caught.value.code == "SlowDown"
    # Pauses of 2.5 to 5 s, then of 5 to 10 s.
    assert 5 <= proxy.counts["PutObject"] <= 21
    await store.aclose()


async def test_all_goes_on_when_the_network_is_back(
    store: ObjectStore, proxy: CountingProxy
) -> None:
    await store.put("k", b"data", NOTHING)
    proxy.down = True
    proxy.cut()
    with pytest.raises(errors.ConnectionLost):
        await store.get("k")
    with pytest.raises(errors.ConnectionLost):
        await store.delete_many(["k"])
    proxy.down = False
    assert (await store.get("k")).data == b"data"


async def test_bodies_are_framed_by_content_length_and_never_announced(
    store: ObjectStore, proxy: CountingProxy
) -> None:
    await store.capabilities()
    proxy.reset()
    data = bytes(3_000_000)
    await store.put("bytes", data, NOTHING)
    sliced = SlicedBody(len(data), lambda offset, length: data[offset : offset + length])
    await store.put("sliced", sliced, NOTHING)
    await store.put("empty", b"", NOTHING)
    assert [seen.size for seen in proxy.requests] == [3_000_000, 3_000_000, 0]
    for seen in proxy.requests:
        assert "expect" not in seen.headers
        assert "transfer-encoding" not in seen.headers
        assert seen.headers["content-length"] == str(seen.size)
        assert seen.headers["x-amz-content-sha256"] == "UNSIGNED-PAYLOAD"


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (403, "AccessDenied", errors.AccessDenied),
        (403, "InvalidAccessKeyId", errors.BadCredentials),
        (403, "SignatureDoesNotMatch", errors.BadCredentials),
        (403, "RequestTimeTooSkewed", errors.ClockSkewed),
        (403, "QuotaExceeded", errors.QuotaExceeded),
        (403, "UserSuspended", errors.AccessDenied),
        (403, "InvalidObjectState", errors.Archived),
        (404, "NoSuchBucket", errors.NoSuchBucket),
        (404, "NoSuchKey", errors.NotFound),
        (400, "EntityTooLarge", errors.EntityTooLarge),
        (400, "KeyTooLongError", errors.KeyTooLong),
        (400, "InvalidObjectName", errors.KeyTooLong),
        (400, "MetadataTooLarge", errors.MetadataTooLarge),
        (501, "NotImplemented", errors.NotImplementedByService),
        (412, "PreconditionFailed", errors.PreconditionFailed),
        (409, "ConditionalRequestConflict", errors.PreconditionFailed),
        (400, "SomethingElse", errors.InvalidRequest),
        (507, "XMinioStorageFull", errors.QuotaExceeded),
    ],
)
async def test_final_errors_have_their_types_and_are_not_retried(
    store: ObjectStore,
    proxy: CountingProxy,
    status: int,
    code: str,
    kind: type[errors.StoreError],
) -> None:
    proxy.inject("PutObject", answer(status, code))
    with pytest.raises(kind) as caught:
        await store.put("k", b"", NOTHING)
    assert type(caught.value) is kind
    assert (caught.value.status, caught.value.code, caught.value.key) == (status, code, "k")
    assert proxy.counts["PutObject"] == 1


async def test_no_request_goes_through_boto3(
    store: ObjectStore, proxy: CountingProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    await store.capabilities()
    upload_id = await store.create_upload("u", NOTHING)

    def forbidden(*arguments: object, **named: object) -> None:
        raise AssertionError(f"boto3 was asked: {arguments[1:]}")

    monkeypatch.setattr("botocore.client.BaseClient._make_api_call", forbidden)
    proxy.reset()
    await store.put("k", b"data", NOTHING)
    await store.head("k")
    await store.get("k")
    await store.list("")
    await store.upload_part("u", upload_id, 1, b"data")
    await store.copy("k", "k2")
    await store.delete_many(["k", "k2"])
    await store.delete("k")
    assert proxy.counts == {
        "PutObject": 1,
        "HeadObject": 1,
        "GetObject": 1,
        "ListObjectsV2": 1,
        "UploadPart": 1,
        "CopyObject": 1,
        "DeleteObjects": 1,
        "DeleteObject": 1,
    }
    await store.abort_upload("u", upload_id)
    assert proxy.counts["AbortMultipartUpload"] == 1


async def test_a_first_small_put_is_one_request(store: ObjectStore, proxy: CountingProxy) -> None:
    await store.put("k", b"data", NOTHING)
    assert proxy.counts == {"PutObject": 1}


@pytest.mark.parametrize("fault", [reset, lost_answer, answer(500, "InternalError")])
async def test_probing_leaves_nothing_behind_in_bad_weather(
    store: ObjectStore, proxy: CountingProxy, moto_bucket: Bucket, fault: Fault
) -> None:
    proxy.inject("DeleteObject", fault, times=3)
    await store.capabilities()
    assert moto_bucket.keys() == []


@pytest.mark.parametrize("versioned", [False, True])
@pytest.mark.parametrize(
    "operation", ["PutObject", "CopyObject", "CompleteMultipartUpload", "UploadPart"]
)
async def test_probing_leaves_nothing_behind_of_what_it_never_heard_of(
    proxy: CountingProxy, moto_bucket: Bucket, operation: str, versioned: bool
) -> None:
    if versioned:
        moto_bucket.client.put_bucket_versioning(
            Bucket=moto_bucket.name, VersioningConfiguration={"Status": "Enabled"}
        )
    proxy.inject(operation, lost_answer, times=10)
    store = open_store(moto_bucket.config(endpoint_url=proxy.url, state_dir=None))
    await store.capabilities()
    assert await store.list_uploads("") == []
    assert moto_bucket.keys() == []
    if operation == "CompleteMultipartUpload":  # the other answers tell that there are versions
        left = moto_bucket.client.list_object_versions(Bucket=moto_bucket.name)
        assert "Versions" not in left
        assert "DeleteMarkers" not in left
    await store.aclose()


async def test_probing_finds_the_uploads_whose_ids_it_never_learnt(
    store: ObjectStore, proxy: CountingProxy, moto_bucket: Bucket
) -> None:
    proxy.inject("CreateMultipartUpload", lost_answer, times=2)
    await store.capabilities()
    assert await store.list_uploads("") == []
    assert moto_bucket.keys() == []


def no_md5_etags_of_large_bodies(seen: Seen) -> Fault | None:
    """32 hex digits that are no MD5, as some services answer for performance's sake."""

    def after(seen: Seen, reply: Reply) -> Reply:
        others = [one for one in reply.headers if one[0].lower() != "etag"]
        return replace(reply, headers=[*others, ("ETag", '"00000000000000000000000000000000"')])

    large = seen.method == "PUT" and seen.size > base.LARGE_BODY
    return Fault(after=after) if large else None


async def test_nothing_is_sent_twice_where_etags_of_large_bodies_are_no_md5s(
    proxy: CountingProxy, moto_bucket: Bucket, tmp_path: Path
) -> None:
    proxy.weather = no_md5_etags_of_large_bodies
    body = bytes(2 * MIB)
    config = moto_bucket.config(endpoint_url=proxy.url, state_dir=tmp_path)
    for _ in range(2):  # the second process has it from the first one's probing
        store = open_store(config)
        can = await store.capabilities()
        assert (can.md5_etags, can.large_md5_etags) == (True, False)
        upload_id = await store.create_upload("k", NOTHING)
        proxy.reset()
        await store.upload_part("k", upload_id, 1, body)
        await store.put("large", body, NOTHING)
        assert proxy.counts == {"UploadPart": 1, "PutObject": 1}
        await store.abort_upload("k", upload_id)
        await store.aclose()
    assert moto_bucket.get("large") == body
