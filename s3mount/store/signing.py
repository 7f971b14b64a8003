"""botocore's own S3 signer, spared the work that does not change from request to request."""

import hmac
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from hashlib import sha256
from typing import Any

from botocore.auth import SIGNED_HEADERS_BLACKLIST, SIGV4_TIMESTAMP, S3SigV4Auth
from botocore.credentials import ReadOnlyCredentials

_NOT_SIGNED = frozenset(SIGNED_HEADERS_BLACKLIST)


@dataclass(slots=True)
class Unsigned:
    """What botocore's signer reads and writes of a request. `headers` must hold 'host'."""

    method: str
    url: str  # path and query, percent-encoded, with scheme and host
    headers: dict[str, str]
    params: None = None
    context: dict[str, Any] = field(default_factory=dict)


class _HeaderMap(dict[str, str]):
    def get_all(self, name: str) -> list[str]:
        return [self[name]]


class UnsignedPayloadAuth(S3SigV4Auth):
    """Signs with UNSIGNED-PAYLOAD: the body is guarded by Content-MD5, a CRC or its ETag.

    One object serves all threads; the signing key is computed once a day.
    """

    def __init__(self, credentials: ReadOnlyCredentials, region: str) -> None:
        super().__init__(credentials, "s3", region)
        self._secret = credentials.secret_key
        self._region = region
        self._key_of = ("", b"")  # the day and its signing key
        self.skew = timedelta()  # added to this machine's time

    def _set_necessary_date_headers(self, request: Unsigned) -> None:
        """botocore's first step once it has set the timestamp."""
        if self.skew:
            now = datetime.strptime(request.context["timestamp"], SIGV4_TIMESTAMP)
            request.context["timestamp"] = (now + self.skew).strftime(SIGV4_TIMESTAMP)
        request.headers["X-Amz-Date"] = request.context["timestamp"]

    def _should_sha256_sign_payload(self, request: Unsigned) -> bool:
        return False

    def headers_to_sign(self, request: Unsigned) -> _HeaderMap:  # type: ignore[override]
        return _HeaderMap(_lowered(request.headers))

    def signature(self, string_to_sign: str, request: Unsigned) -> str:  # type: ignore[override]
        today = request.context["timestamp"][:8]
        day, key = self._key_of  # read once: another thread may replace the pair meanwhile
        if day != today:
            key = f"AWS4{self._secret}".encode()
            for step in (today, self._region, "s3", "aws4_request"):
                key = hmac.digest(key, step.encode(), sha256)
            self._key_of = (today, key)
        return hmac.digest(key, string_to_sign.encode(), sha256).hex()


def _lowered(headers: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    for name, value in headers.items():
        lower = name.lower()
        if lower not in _NOT_SIGNED:
            yield lower, value


class Signer:
    """Signs for one region; `sign` is given the credentials, which may change at any time."""

    def __init__(self, region: str) -> None:
        self.region = region
        self.skew = 0.0  # seconds that the service's clock is ahead of ours
        self._auth: UnsignedPayloadAuth | None = None

    def sign(
        self, credentials: ReadOnlyCredentials, method: str, url: str, headers: dict[str, str]
    ) -> None:
        """Adds the date, token and Authorization headers to `headers`, which must hold 'host'."""
        auth = self._auth
        if auth is None or auth.credentials != credentials:
            auth = UnsignedPayloadAuth(credentials, self.region)
            self._auth = auth
        auth.skew = timedelta(seconds=self.skew)
        auth.add_auth(Unsigned(method, url, headers))  # type: ignore[arg-type]
