"""Real signatures, checked by Ceph: virtual-host style, odd keys, anonymous readers."""

import socket
from typing import Any

import pytest

from s3mount.store import errors
from s3mount.store.base import WriteHeaders
from s3mount.store.open import open_store
from tests.contract.test_objects import odd_keys
from tests.servers import Bucket

DOMAIN = "s3.test"  # the gateway's rgw_dns_name, see conftest.py


@pytest.fixture
def domain(monkeypatch: pytest.MonkeyPatch) -> str:
    """Every name below s3.test is this machine."""
    real = socket.getaddrinfo

    def resolve(host: Any, *arguments: Any, **named: Any) -> Any:
        local = isinstance(host, str) and host.endswith(DOMAIN)
        return real("127.0.0.1" if local else host, *arguments, **named)

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    return DOMAIN


async def test_odd_keys_are_signed_right_in_virtual_host_style(
    ceph_bucket: Bucket, domain: str
) -> None:
    port = ceph_bucket.server.url.rpartition(":")[2]
    config = ceph_bucket.config(
        endpoint_url=f"http://{domain}:{port}", addressing_style="virtual", state_dir=None
    )
    store = open_store(config)
    keys = odd_keys("ceph")
    for key in keys:
        await store.put(key, key.encode(), WriteHeaders({"mode": "1"}))
        assert (await store.get(key)).data == key.encode()
    page = await store.list("", delimiter="")
    assert [found.key for found in page.objects] == sorted(keys, key=str.encode)
    assert sorted(ceph_bucket.keys(), key=str.encode) == sorted(keys, key=str.encode)
    upload_id = await store.create_upload("a b/ü", WriteHeaders())
    part = await store.upload_part("a b/ü", upload_id, 1, b"data")
    await store.complete_upload("a b/ü", upload_id, [part])
    assert await store.delete_many(keys) == []
    assert ceph_bucket.keys() == ["a b/ü"]
    await store.aclose()


async def test_anyone_may_read_a_public_object_without_credentials(ceph_bucket: Bucket) -> None:
    ceph_bucket.put("public", b"data", ACL="public-read")
    ceph_bucket.put("private", b"data")
    store = open_store(ceph_bucket.config(anonymous=True, access_key=None, secret_key=None))
    assert (await store.get("public")).data == b"data"
    with pytest.raises(errors.AccessDenied):
        await store.get("private")
    await store.aclose()


async def test_every_header_of_a_write_is_signed_and_stored(ceph_bucket: Bucket) -> None:
    store = open_store(
        ceph_bucket.config(acl="public-read", extra_headers={"Content-Language": "de"})
    )
    metadata = {"mode": "33188", "spaces": "a  b   c", "unicode": "grün"}
    await store.put("k", b"data", WriteHeaders(metadata, {"content-type": "text/plain"}))
    answer = ceph_bucket.client.head_object(Bucket=ceph_bucket.name, Key="k")
    assert answer["ContentLanguage"] == "de"
    assert answer["ContentType"] == "text/plain"
    assert dict((await store.head("k")).metadata)["mode"] == "33188"
    assert dict((await store.head("k")).metadata)["unicode"] == "grün"
    grants = ceph_bucket.client.get_object_acl(Bucket=ceph_bucket.name, Key="k")["Grants"]
    assert any("AllUsers" in grant["Grantee"].get("URI", "") for grant in grants)
    await store.aclose()


async def test_without_an_option_nothing_becomes_public(ceph_bucket: Bucket) -> None:
    store = open_store(ceph_bucket.config())
    await store.put("k", b"data", WriteHeaders())
    await store.copy("k", "copy")
    upload_id = await store.create_upload("big", WriteHeaders())
    part = await store.upload_part("big", upload_id, 1, b"data")
    await store.complete_upload("big", upload_id, [part])
    for key in ("k", "copy", "big"):
        answer = ceph_bucket.client.get_object_acl(Bucket=ceph_bucket.name, Key=key)
        assert [grant["Permission"] for grant in answer["Grants"]] == ["FULL_CONTROL"]
    await store.aclose()


async def test_a_wrong_content_md5_would_be_refused_so_ours_is_right(ceph_bucket: Bucket) -> None:
    """Ceph checks Content-MD5; large bodies carry it too once the probe has shown that."""
    store = open_store(ceph_bucket.config())
    assert (await store.capabilities()).checks_md5
    data = bytes(range(256)) * 20_000
    await store.put("k", data, WriteHeaders())
    assert ceph_bucket.get("k") == data
    await store.aclose()
