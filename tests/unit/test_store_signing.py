"""Signatures: ours must be botocore's, and cover every x-amz header."""

import datetime
from typing import Any

import pytest
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials, ReadOnlyCredentials

from s3mount.store.request import encode_path, encode_query
from s3mount.store.signing import Signer

KEYS = [
    "plain",
    "a b+c",
    "a%41",
    "..",
    "a/../b",
    "//x",
    "ü/日本",
    "new\nline",
    "q?x=1&y#z",
    "~'()*!",
]


class PlainPayload(S3SigV4Auth):
    def payload(self, request: Any) -> str:
        return "UNSIGNED-PAYLOAD"


@pytest.fixture
def frozen(monkeypatch: pytest.MonkeyPatch) -> None:
    now = datetime.datetime(2026, 11, 20, 12, 0, 0)
    monkeypatch.setattr("botocore.auth.get_current_datetime", lambda *_: now)


@pytest.mark.parametrize("token", [None, "session-token"])
@pytest.mark.parametrize("base_path", ["", "/bucket"])
@pytest.mark.usefixtures("frozen")
def test_the_signature_is_botocores_for_odd_keys(base_path: str, token: str | None) -> None:
    signer = Signer("eu-west-1")
    for key in KEYS:
        query = encode_query((("uploadId", "a+/b="), ("partNumber", "1"), ("uploads", "")))
        url = f"https://bucket.host:8443{base_path}/{encode_path(key)}?{query}"
        headers = {
            "host": "bucket.host:8443",
            "x-amz-meta-mode": "33188",
            "x-amz-acl": "private",
            "content-md5": "abc",
        }
        expected = AWSRequest(method="PUT", url=url, headers=dict(headers))
        auth = PlainPayload(Credentials("AK", "SK", token), "s3", "eu-west-1")
        auth.add_auth(expected)
        signer.sign(ReadOnlyCredentials("AK", "SK", token), "PUT", url, headers)
        assert headers["Authorization"] == expected.headers["Authorization"]
        signed = headers["Authorization"].partition("SignedHeaders=")[2].partition(",")[0]
        assert {"x-amz-meta-mode", "x-amz-acl", "content-md5", "host"} <= set(signed.split(";"))
        assert ("x-amz-security-token" in signed) == (token is not None)


@pytest.mark.usefixtures("frozen")
def test_new_credentials_sign_differently_at_once() -> None:
    signer = Signer("us-east-1")
    seen = set()
    for credentials in (
        ReadOnlyCredentials("A", "S1", None),
        ReadOnlyCredentials("A", "S2", None),
        ReadOnlyCredentials("B", "S2", None),
        ReadOnlyCredentials("A", "S1", "token"),
    ):
        headers = {"host": "h"}
        signer.sign(credentials, "GET", "http://h/k", headers)
        seen.add(headers["Authorization"])
    assert len(seen) == 4


def test_the_signing_key_follows_the_day(monkeypatch: pytest.MonkeyPatch) -> None:
    signer, credentials = Signer("us-east-1"), ReadOnlyCredentials("AK", "SK", None)
    for day in (20, 21, 20):
        now = datetime.datetime(2026, 11, day)
        monkeypatch.setattr("botocore.auth.get_current_datetime", lambda *_, now=now: now)
        headers = {"host": "h"}
        signer.sign(credentials, "GET", "http://h/k", headers)
        expected = AWSRequest(method="GET", url="http://h/k", headers={"host": "h"})
        PlainPayload(Credentials("AK", "SK"), "s3", "us-east-1").add_auth(expected)
        assert headers["Authorization"] == expected.headers["Authorization"]


def test_paths_keep_dots_and_slashes_and_escape_the_rest() -> None:
    assert encode_path("a/../b//c") == "a/../b//c"
    assert encode_path("a b+c%?#ü\n~") == "a%20b%2Bc%25%3F%23%C3%BC%0A~"
    assert encode_path("raw\udcff") == "raw%FF"  # an undecodable byte of a listing
