"""Where the bucket is and who asks: redirects, credentials that end, none at all."""

from pathlib import Path

import pytest

from s3mount.store import errors, loop_client
from s3mount.store.base import (
    ObjectStore,
    WriteHeaders,
)
from s3mount.store.open import open_store
from tests.counting_proxy import CountingProxy, answer
from tests.servers import Bucket

NOTHING = WriteHeaders()
FOREVER = 50


@pytest.fixture
def store(proxied_store: ObjectStore) -> ObjectStore:
    return proxied_store


async def test_the_region_of_the_bucket_is_learnt_once(
    store: ObjectStore, proxy: CountingProxy
) -> None:
    await store.put("k", b"data", NOTHING)
    for status, code, headers in (
        (301, "PermanentRedirect", {"x-amz-bucket-region": "eu-west-1"}),
        (400, "AuthorizationHeaderMalformed", {"x-amz-bucket-region": "ap-south-1"}),
        (307, "TemporaryRedirect", {"x-amz-bucket-region": "eu-central-1"}),
    ):
        proxy.inject("GetObject", answer(status, code, headers))
        assert (await store.get("k")).data == b"data"
        proxy.reset()
        assert (await store.get("k")).data == b"data"
        [seen] = proxy.requests
        assert f"/{headers['x-amz-bucket-region']}/s3/" in seen.headers["authorization"]
    assert store.counts().get("Retries", 0) == 0


async def test_a_redirect_to_another_address_is_followed(
    store: ObjectStore, proxy: CountingProxy, moto_bucket: Bucket
) -> None:
    await store.put("k", b"data", NOTHING)
    location = f"{moto_bucket.server.url}/{moto_bucket.name}/k"
    proxy.inject("GetObject", answer(307, "TemporaryRedirect", {"location": location}))
    assert (await store.get("k")).data == b"data"
    proxy.reset()
    assert (await store.get("k")).data == b"data"
    assert proxy.counts == {}  # asked at the new address at once


@pytest.fixture
def credentials_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "credentials"
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(path))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    return path


def write_credentials(path: Path, key: str) -> None:
    path.write_text(
        f"[default]\naws_access_key_id={key}\naws_secret_access_key=s\naws_session_token=T-{key}\n"
    )


@pytest.mark.parametrize("operation", ["PutObject", "HeadObject", "CompleteMultipartUpload"])
async def test_expired_credentials_are_read_anew(
    proxy: CountingProxy, moto_bucket: Bucket, credentials_file: Path, operation: str
) -> None:
    write_credentials(credentials_file, "OLD")
    config = moto_bucket.config(
        endpoint_url=proxy.url, state_dir=None, access_key=None, secret_key=None
    )
    store = open_store(config)
    await store.put("k", b"data", NOTHING)
    assert proxy.requests[-1].headers["x-amz-security-token"] == "T-OLD"
    upload_id = await store.create_upload("u", NOTHING)
    parts = [await store.upload_part("u", upload_id, 1, b"data")]
    write_credentials(credentials_file, "NEW")
    proxy.inject(operation, answer(403, "ExpiredToken"))
    if operation == "PutObject":
        await store.put("k", b"data", NOTHING)
    elif operation == "HeadObject":  # no body: the reason is asked for by a LIST
        proxy.inject("ListObjectsV2", answer(403, "ExpiredToken"))
        proxy.inject(operation, answer(403, "ExpiredToken"))  # HEADs have a quick way first
        await store.head("k")
    else:
        await store.complete_upload("u", upload_id, parts)
    assert proxy.requests[-1].headers["x-amz-security-token"] == "T-NEW"
    assert "Credential=NEW/" in proxy.requests[-1].headers["authorization"]
    await store.aclose()


async def test_expired_credentials_that_stay_the_same_are_refused(
    proxy: CountingProxy, moto_bucket: Bucket, credentials_file: Path
) -> None:
    write_credentials(credentials_file, "OLD")
    config = moto_bucket.config(
        endpoint_url=proxy.url, state_dir=None, access_key=None, secret_key=None
    )
    store = open_store(config)
    proxy.inject("PutObject", answer(403, "ExpiredToken"), times=FOREVER)
    with pytest.raises(errors.BadCredentials):
        await store.put("k", b"data", NOTHING)
    assert proxy.counts["PutObject"] == 1
    await store.aclose()


@pytest.fixture
def credentials_of_a_process(credentials_file: Path, tmp_path: Path) -> None:
    """They end within botocore's refresh window, which has ten minutes, and each run of the process
    gives others."""
    runs, script = tmp_path / "runs", tmp_path / "credentials.sh"
    script.write_text(
        f"""#!/bin/sh
echo run >>{runs}
ends=$(date -u -d '+5 minutes' +%Y-%m-%dT%H:%M:%SZ)
cat <<END
{{"Version": 1, "AccessKeyId": "KEY$(wc -l <{runs})", "SecretAccessKey": "s",
  "SessionToken": "t", "Expiration": "$ends"}}
END
"""
    )
    script.chmod(0o700)
    credentials_file.write_text(f"[default]\ncredential_process = {script}\n")


@pytest.mark.usefixtures("credentials_of_a_process")
async def test_credentials_of_a_process_are_asked_for_again_before_they_end(
    proxy: CountingProxy, moto_bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop_client, "CREDENTIALS_KEPT", 0.0)
    config = moto_bucket.config(
        endpoint_url=proxy.url, state_dir=None, access_key=None, secret_key=None
    )
    store = open_store(config)
    await store.put("k", b"data", NOTHING)
    await store.put("k", b"data", NOTHING)
    keys = [request.headers["authorization"].split("=KEY")[1] for request in proxy.requests]
    first, *_, last = (int(key.split("/")[0]) for key in keys)
    assert first < last
    await store.aclose()


async def test_no_credentials_at_all_is_said_before_any_request(
    proxy: CountingProxy,
    moto_bucket: Bucket,
    credentials_file: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    config = moto_bucket.config(endpoint_url=proxy.url, access_key=None, secret_key=None)
    store = open_store(config)
    with pytest.raises(errors.BadCredentials, match="credentials"):
        await store.check_bucket("")
    assert proxy.counts == {}
    await store.aclose()


async def test_anonymous_requests_are_not_signed(proxy: CountingProxy, moto_bucket: Bucket) -> None:
    moto_bucket.put("k", b"data", ACL="public-read")
    config = moto_bucket.config(
        endpoint_url=proxy.url, anonymous=True, access_key=None, secret_key=None
    )
    store = open_store(config)
    assert (await store.get("k")).data == b"data"
    assert all("authorization" not in seen.headers for seen in proxy.requests)
    await store.aclose()
