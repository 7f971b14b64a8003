"""What each service cannot do: one table, each row a test that shows it.

| limit | moto | Ceph 16.2 |
|---|---|---|
| newline in a key | 404 | ok |
| character that XML 1.0 lacks in a key | 500 from Create | raw in XML if not encoded |
| If-Match of GET | ok | ok |
| If-Match of PUT | ETag quoted or not | unquoted ETag only |
| If-None-Match of PUT in a versioned bucket | 412 | ignored |
| If-None-Match / If-Match of Complete | 412 / ignored | ignored / ignored |
| If-Match of a copy's source | ignored | ignored |
| wrong Content-MD5 | taken | BadDigest |
| wrong CRC32C | taken | taken |
| Complete's first answer | has an ETag | has an empty ETag |
| Complete leaving parts out | taken | InvalidPart |
| Complete again | ok | ok |
| Complete of an unknown upload | 500 | NoSuchUpload |
| many requests at once | served | 503 SlowDown if limited |
| UploadPartCopy from a key with '%' | ok | 404, or a crash |
| key over 1024 bytes | taken | InvalidObjectName |
"""

from dataclasses import asdict
from typing import Any

import pytest
import trio
from botocore.exceptions import ClientError

from s3mount.store import base, errors
from s3mount.store.base import (
    Condition,
    WriteHeaders,
)
from s3mount.store.open import open_store
from tests.servers import Bucket, CephServer

NOTHING = WriteHeaders()


async def capabilities_of(bucket: Bucket) -> dict[str, bool]:
    store = open_store(bucket.config(state_dir=None))
    try:
        return asdict(await store.capabilities())
    finally:
        await store.aclose()


def honoured(**values: bool) -> dict[str, bool]:
    return asdict(base.Capabilities(**values))


async def test_moto_honours_these(moto_bucket: Bucket) -> None:
    assert await capabilities_of(moto_bucket) == honoured(
        put_if_absent=True,
        put_if_match=True,
        complete_if_absent=True,
        part_copy=True,
        complete_subset=True,
        md5_etags=True,
        large_md5_etags=True,
        multipart_etags=True,
    )
    assert moto_bucket.keys() == []


async def test_the_strict_server_honours_everything(strict_bucket: Bucket) -> None:
    wanted = dict.fromkeys(asdict(base.Capabilities()), True) | {"versioned": False}
    assert await capabilities_of(strict_bucket) == wanted
    assert strict_bucket.keys() == []


async def test_ceph_honours_these(ceph_bucket: Bucket) -> None:
    assert await capabilities_of(ceph_bucket) == honoured(
        put_if_absent=True,
        put_if_match=True,
        part_copy=True,
        checks_md5=True,
        md5_etags=True,
        large_md5_etags=True,
        multipart_etags=True,
    )
    assert ceph_bucket.keys() == []


async def test_ceph_ignores_if_none_match_in_a_versioned_bucket(ceph_bucket: Bucket) -> None:
    ceph_bucket.client.put_bucket_versioning(
        Bucket=ceph_bucket.name, VersioningConfiguration={"Status": "Enabled"}
    )
    found = await capabilities_of(ceph_bucket)
    assert not found["put_if_absent"]
    assert found["versioned"]
    versions = ceph_bucket.client.list_object_versions(Bucket=ceph_bucket.name)
    assert versions.get("Versions", []) == []  # the probe leaves nothing behind


async def test_old_versions_are_read_by_their_ids(bucket: Bucket) -> None:
    bucket.client.put_bucket_versioning(
        Bucket=bucket.name, VersioningConfiguration={"Status": "Enabled"}
    )
    store = open_store(bucket.config(state_dir=None))
    first = await store.put("k", b"first", WriteHeaders({"n": "1"}))
    second = await store.put("k", b"second", WriteHeaders({"n": "2"}))
    assert first.version_id
    assert first.version_id != second.version_id
    assert (await store.head("k")).version_id == second.version_id
    await store.delete("k")
    with pytest.raises(errors.NotFound):
        await store.get("k")
    old = await store.get("k", 1, 3, version_id=first.version_id)
    assert (old.data, dict(old.info.metadata)) == (b"irs", {"n": "1"})
    assert old.info.version_id == first.version_id
    assert (await store.head("k", version_id=second.version_id)).size == 6
    await store.aclose()


async def test_a_gateway_under_pressure_is_asked_less_often() -> None:
    with CephServer(conf=("rgw_max_concurrent_requests = 2",)) as cluster:
        bucket = cluster.server.create_bucket()
        store = open_store(bucket.config(retries=30, assume_conditional_writes=False))
        async with trio.open_nursery() as nursery:
            for number in range(100):
                nursery.start_soon(store.put, f"k{number:03}", b"data", NOTHING)
        counts = store.counts()
        await store.aclose()
        assert counts["SlowDowns"] > 0
        assert counts["PutObject"] == 100 + counts["Retries"]
        assert len(bucket.keys()) == 100


def refusal(call: Any, **arguments: Any) -> str:
    with pytest.raises(ClientError) as caught:
        call(**arguments)
    return str(caught.value.response["Error"]["Code"])


def test_moto_has_no_newline_in_a_key(moto_bucket: Bucket) -> None:
    code = refusal(moto_bucket.client.put_object, Bucket=moto_bucket.name, Key="a\nb")
    assert code == "404"


def test_ceph_wants_the_etag_of_if_match_unquoted(ceph_bucket: Bucket) -> None:
    etag = ceph_bucket.put("k", b"1")
    arguments = {"Bucket": ceph_bucket.name, "Key": "k", "Body": b"2"}
    call = ceph_bucket.client.put_object
    assert refusal(call, IfMatch=f'"{etag}"', **arguments) == "PreconditionFailed"
    call(IfMatch=etag, **arguments)
    assert ceph_bucket.get("k") == b"2"


def test_moto_takes_the_etag_of_if_match_quoted_or_not(moto_bucket: Bucket) -> None:
    call = moto_bucket.client.put_object
    for form in ('"{}"', "{}"):
        etag = moto_bucket.put("k", b"1")
        arguments = {"Bucket": moto_bucket.name, "Key": "k", "Body": b"2"}
        wrong = form.format("0" * 32)
        assert refusal(call, IfMatch=wrong, **arguments) == "PreconditionFailed"
        call(IfMatch=form.format(etag), **arguments)
        assert moto_bucket.get("k") == b"2"


def test_both_ignore_if_match_of_a_copys_source(bucket: Bucket) -> None:
    bucket.put("source", b"data")
    bucket.client.copy_object(
        Bucket=bucket.name,
        Key="target",
        CopySource={"Bucket": bucket.name, "Key": "source"},
        CopySourceIfMatch="0" * 32,
    )
    assert bucket.get("target") == b"data"


def test_ceph_checks_content_md5(ceph_bucket: Bucket) -> None:
    wrong = "XrY7u+Ae7tCTyyK7j1rNww=="  # of 'hello world'
    arguments = {"Bucket": ceph_bucket.name, "Key": "k", "ContentMD5": wrong}
    assert refusal(ceph_bucket.client.put_object, Body=b"other", **arguments) == "BadDigest"


def test_moto_does_not_check_content_md5(moto_bucket: Bucket) -> None:
    wrong = "XrY7u+Ae7tCTyyK7j1rNww=="
    moto_bucket.put("k", b"other", ContentMD5=wrong)
    assert moto_bucket.get("k") == b"other"


def test_both_take_a_wrong_crc32c(bucket: Bucket) -> None:
    bucket.put("k", b"data", ChecksumCRC32C="AAAAAA==")
    assert bucket.get("k") == b"data"


def test_cephs_first_answer_to_complete_lacks_the_etag(ceph_bucket: Bucket) -> None:
    client, place = ceph_bucket.client, {"Bucket": ceph_bucket.name, "Key": "k"}
    upload = {**place, "UploadId": client.create_multipart_upload(**place)["UploadId"]}
    etag = client.upload_part(**upload, PartNumber=1, Body=b"data")["ETag"]
    parts = {"Parts": [{"PartNumber": 1, "ETag": etag}]}
    first = client.complete_multipart_upload(**upload, MultipartUpload=parts)
    again = client.complete_multipart_upload(**upload, MultipartUpload=parts)
    assert first["ETag"] == ""
    assert again["ETag"].endswith("-1")


async def test_complete_on_ceph_is_not_sent_twice_for_the_missing_etag(
    ceph_bucket: Bucket,
) -> None:
    store = open_store(ceph_bucket.config())
    upload_id = await store.create_upload("k", NOTHING)
    part = await store.upload_part("k", upload_id, 1, b"data")
    before = store.counts()
    result = await store.complete_upload("k", upload_id, [part])
    after = store.counts()
    assert result.etag.endswith("-1")
    assert after["CompleteMultipartUpload"] == before["CompleteMultipartUpload"] + 1
    assert after["HeadObject"] == before.get("HeadObject", 0) + 1
    await store.aclose()


def test_ceph_does_not_find_the_source_of_a_part_copy_with_a_percent(
    ceph_bucket: Bucket,
) -> None:
    ceph_bucket.put("a%41", b"data")
    client, place = ceph_bucket.client, {"Bucket": ceph_bucket.name, "Key": "k"}
    upload = {**place, "UploadId": client.create_multipart_upload(**place)["UploadId"]}
    source = {"Bucket": ceph_bucket.name, "Key": "a%41"}
    arguments = {**upload, "PartNumber": 1, "CopySource": source, "CopySourceRange": "bytes=0-1"}
    assert refusal(client.upload_part_copy, **arguments) == "NoSuchKey"


async def test_the_gateway_lives_through_part_copies_from_a_key_that_crashes_it(
    ceph: CephServer, ceph_bucket: Bucket
) -> None:
    ceph_bucket.put("a%zz", b"0123456789")
    store = open_store(ceph_bucket.config())
    upload_id = await store.create_upload("k", NOTHING)
    part = await store.upload_part_copy("k", upload_id, 1, "a%zz", 2, 5)
    await store.complete_upload("k", upload_id, [part])
    assert ceph_bucket.get("k") == b"23456"
    assert "UploadPartCopy" not in store.counts() or store.counts()["UploadPartCopy"] == 2  # probe
    await store.aclose()


def test_ceph_refuses_keys_over_1024_bytes(ceph_bucket: Bucket) -> None:
    arguments = {"Bucket": ceph_bucket.name, "Key": "x" * 1025}
    assert refusal(ceph_bucket.client.put_object, **arguments) == "InvalidObjectName"


def test_moto_takes_keys_over_1024_bytes(moto_bucket: Bucket) -> None:
    moto_bucket.put("x" * 1025, b"data")
    assert moto_bucket.get("x" * 1025) == b"data"


@pytest.mark.parametrize("key", ["bell\x07", "esc\x1b[0m", "del\x7f", "nul-free \x01"])
async def test_keys_that_xml_cannot_carry_work_on_ceph(ceph_bucket: Bucket, key: str) -> None:
    store = open_store(ceph_bucket.config())
    await store.put(key, b"data", NOTHING)
    await store.copy(key, f"{key} copy")
    upload_id = await store.create_upload(f"{key} big", NOTHING)
    part = await store.upload_part(f"{key} big", upload_id, 1, b"big data")
    assert list(await store.list_parts(f"{key} big", upload_id)) == [part]
    await store.list_uploads("")
    await store.complete_upload(f"{key} big", upload_id, [part])
    listed = [found.key for found in (await store.list("")).objects]
    assert listed == [key, f"{key} big", f"{key} copy"]
    assert await store.delete_many(listed) == []
    assert (await store.list("")).objects == []
    await store.aclose()


async def test_a_bucket_over_its_quota_says_so(ceph: CephServer) -> None:
    user = ceph.create_user("small")
    bucket = user.create_bucket()
    scope = ["--uid=small", "--quota-scope=bucket"]
    ceph.execute("radosgw-admin", "quota", "set", *scope, "--max-objects=2")
    ceph.execute("radosgw-admin", "quota", "enable", *scope)
    store = open_store(bucket.config(state_dir=None, assume_conditional_writes=False))
    with pytest.raises(errors.QuotaExceeded):
        # As many as it takes: the gateway may learn of it later than the command ends.
        for number in range(2000):
            await store.put(f"k{number}", b"data", NOTHING)
    await store.aclose()
    bucket.remove()


async def test_the_bucket_of_another_user_is_denied(ceph: CephServer, ceph_bucket: Bucket) -> None:
    stranger = Bucket(ceph.create_user("stranger"), ceph_bucket.name)
    store = open_store(stranger.config())
    with pytest.raises(errors.AccessDenied):
        await store.check_bucket("")
    with pytest.raises(errors.AccessDenied):
        await store.put("k", b"", NOTHING)
    # What cannot be probed gets the safe answers, without an error.
    assert await store.capabilities() == base.Capabilities()
    await store.aclose()


async def test_bad_credentials_and_a_missing_bucket_are_told_apart(ceph_bucket: Bucket) -> None:
    for overrides, expected in (
        ({"access_key": "nobody"}, errors.BadCredentials),
        ({"secret_key": "wrong"}, errors.BadCredentials),
        ({"bucket": "no-such-bucket-here"}, errors.NoSuchBucket),
    ):
        store = open_store(ceph_bucket.config(**overrides))
        with pytest.raises(expected) as caught:
            await store.check_bucket("")
        assert "wrong" not in str(caught.value)
        await store.aclose()


async def test_conditions_that_are_not_honoured_are_not_sent(ceph_bucket: Bucket) -> None:
    store = open_store(ceph_bucket.config(assume_conditional_writes=False))
    await store.put("k", b"1", NOTHING)
    await store.put("k", b"2", NOTHING, condition=Condition(absent=True))
    assert ceph_bucket.get("k") == b"2"
    await store.aclose()
