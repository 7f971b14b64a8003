"""Where the bucket is and who asks: boto3's configuration, credentials and endpoint rules."""

import io
import logging
import re
import threading
import time
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import boto3
import botocore
import urllib3
from botocore.awsrequest import AWSResponse, HTTPHeaders
from botocore.config import Config
from botocore.credentials import ReadOnlyCredentials
from botocore.exceptions import BotoCoreError
from botocore.httpsession import get_cert_path
from botocore.utils import get_environ_proxies

from s3mount.core.config import StoreConfig
from s3mount.core.errors import ConfigurationError
from s3mount.store import errors

S3Client = Any  # its stubs would be another dependency of the tests

log = logging.getLogger(__name__)

# At DEBUG they log whole requests: session tokens, customer keys (ruling 20).
for _name in ("boto3", "botocore", "urllib3"):
    logging.getLogger(_name).setLevel(logging.WARNING)
# It warns of headers that are none with a traceback; what they were needed for is looked at here.
logging.getLogger("urllib3.connection").setLevel(logging.ERROR)

DEFAULT_REGION = "us-east-1"
_REGION = re.compile("[A-Za-z0-9-]{1,63}")
_HOST = re.compile("[A-Za-z0-9._:-]{1,255}")
# What botocore raises where a credential_process, a profile or a service of credentials says
# something that it does not expect.
_SOURCE_FAILED = (BotoCoreError, AttributeError, KeyError, OSError, TypeError, ValueError)
RELOAD_INTERVAL = 10.0  # seconds between two readings of credentials that were refused


@dataclass(frozen=True, slots=True)
class Endpoint:
    """The bucket's own address: `base_path` + '/' + key is the path of an object."""

    scheme: str
    host: str  # as urllib3 wants it, IPv6 in brackets
    port: int
    base_path: str  # '' (virtual-host style) or '/bucket', perhaps behind another prefix
    region: str

    @property
    def authority(self) -> str:
        """The Host header."""
        default = 443 if self.scheme == "https" else 80
        return self.host if self.port == default else f"{self.host}:{self.port}"


class Connection:
    """The boto3 session of one bucket. All methods may block (credential sources ask the
    network) and may be called from any thread."""

    def __init__(self, config: StoreConfig) -> None:
        self.config = config
        # Guards what follows it; never held while a request to the bucket is under way, but
        # while credentials are being fetched.
        self._lock = threading.Lock()
        self._region = config.region
        self._endpoint_url = config.endpoint_url
        self._session: boto3.Session | None = None
        self._client: S3Client | None = None
        self._endpoint: Endpoint | None = None
        self._reloaded_at = -RELOAD_INTERVAL

    def endpoint(self) -> Endpoint:
        with self._lock:
            if self._endpoint is None:
                self._endpoint = self._resolve(self._client_locked())
            return self._endpoint

    def credentials(self) -> ReadOnlyCredentials | None:
        """Fresh ones (refreshed if they end soon); None for anonymous requests."""
        if self.config.anonymous:
            return None
        with self._lock:
            session = self._session_locked()
        try:
            found = session.get_credentials()
            frozen = None if found is None else found.get_frozen_credentials()
        except _SOURCE_FAILED as error:
            raise errors.BadCredentials(f"no credentials: {error}") from error
        if frozen is None or not frozen.access_key:
            raise errors.BadCredentials(
                "no credentials found: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, a profile, "
                "or passwd_file"
            )
        if not all((text or "").isprintable() for text in frozen):
            raise errors.BadCredentials(
                "the credentials that were found hold line ends or other characters that no request"
                " can carry: copy them anew to where they come from"
            )
        return frozen

    def reload_credentials(self, refused: ReadOnlyCredentials | None) -> bool:
        """Reads the credentials anew from their source; True if they differ from `refused`."""
        if refused is None or self.config.access_key is not None:
            return False
        with self._lock:
            now = time.monotonic()
            if now - self._reloaded_at >= RELOAD_INTERVAL:
                self._reloaded_at = now
                self._session = self._client = None
        return self.credentials() != refused

    def use_region(self, region: str) -> None:
        """The bucket turned out to be in `region`; what cannot be one is not believed."""
        if not _REGION.fullmatch(region):
            return
        with self._lock:
            log.info("bucket %s is in region %s", self.config.bucket, region)
            self._region = region
            self._client = self._endpoint = None

    def use_location(self, url: str) -> None:
        """A redirect named another address of the bucket, `url` without the key; what cannot be
        one is not believed."""
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError:
            return
        hostname = parts.hostname or ""
        if not _HOST.fullmatch(hostname) or parts.scheme not in {"http", "https"}:
            return
        with self._lock:
            current = self._endpoint
            region = current.region if current else DEFAULT_REGION
            log.info("bucket %s is at %s", self.config.bucket, parts.netloc)
            bucket_host = hostname.startswith(f"{self.config.bucket}.")
            self._endpoint = _endpoint(
                parts.scheme,
                hostname,
                port,
                "" if bucket_host else f"/{self.config.bucket}",
                region,
            )
            host = parts.netloc.removeprefix(f"{self.config.bucket}.")
            self._endpoint_url = f"{parts.scheme}://{host}"
            self._client = None

    def client(self) -> S3Client:
        """boto3's own, for what is rare and of no bucket. Raises ConfigurationError."""
        with self._lock:
            return self._client_locked()

    def ca_bundle(self) -> str:
        """The certificates to trust: our option's, AWS_CA_BUNDLE, the profile's, botocore's."""
        if self.config.ca_bundle:
            return self.config.ca_bundle
        with self._lock:
            session = self._session_locked()
        configured = session._session.get_config_variable("ca_bundle")
        return str(configured or get_cert_path(True))

    def close(self) -> None:
        with self._lock:
            if self._client is not None:
                self._client.close()
            self._client = self._session = None

    # -- with the lock held

    def _session_locked(self) -> boto3.Session:
        if self._session is None:
            config = self.config
            try:
                self._session = boto3.Session(
                    aws_access_key_id=config.access_key,
                    aws_secret_access_key=config.secret_key,
                    aws_session_token=config.session_token,
                    region_name=self._region,
                    profile_name=config.profile,
                )
            except BotoCoreError as error:  # ProfileNotFound
                raise ConfigurationError(str(error)) from error
        return self._session

    def _client_locked(self) -> S3Client:
        if self._client is None:
            try:
                self._client = self._new_client()
            except _SOURCE_FAILED as error:
                raise ConfigurationError(f"the S3 client refuses: {error}") from error
        return self._client

    def _new_client(self) -> S3Client:
        config = self.config
        # It sends nothing (_resolve); redirects and retries are seen to by wire.py and retry.py.
        settings = Config(
            signature_version=botocore.UNSIGNED if config.anonymous else "s3v4",
            s3={"addressing_style": config.addressing_style, "payload_signing_enabled": False},
            retries={"total_max_attempts": 1, "mode": "standard"},
            connect_timeout=config.connect_timeout,
            read_timeout=config.read_timeout,
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
            parameter_validation=False,
        )
        verify: bool | str | None = config.ca_bundle if config.verify_tls else False
        session = self._session_locked()
        region = self._region
        if session.region_name == "":
            # AWS_DEFAULT_REGION= in an environment: nothing can be signed with that.
            region = region or DEFAULT_REGION
        return session.client(
            "s3",
            endpoint_url=self._endpoint_url,
            region_name=region,
            verify=verify,
            config=settings,
        )

    def _resolve(self, client: S3Client) -> Endpoint:
        """Asks botocore for the URL and the signing region of a request without sending it."""
        seen: list[Any] = []

        def capture(request: Any, **_: object) -> AWSResponse:
            seen.append(request)
            body: Any = io.BytesIO()
            raw = urllib3.HTTPResponse(body, preload_content=False)
            return AWSResponse(request.url, 200, HTTPHeaders(), raw)

        event = "before-send.s3.HeadObject"
        client.meta.events.register_first(event, capture)
        try:
            client.head_object(Bucket=self.config.bucket, Key="k")
        except _SOURCE_FAILED as error:
            if "redentials" in type(error).__name__:
                raise errors.BadCredentials(str(error)) from error
            raise ConfigurationError(f"no request can be made: {error}") from error
        finally:
            client.meta.events.unregister(event, capture)
        parts = urlsplit(seen[0].url)
        region = client.meta.region_name
        authorization = seen[0].headers.get("Authorization", b"")
        if isinstance(authorization, bytes):
            authorization = authorization.decode()
        scope = authorization.partition("Credential=")[2].partition(",")[0].split("/")
        if len(scope) >= 5:  # key id (may hold slashes) / day / region / s3 / aws4_request
            region = scope[-3]
        if region in {None, "", "aws-global"}:
            region = DEFAULT_REGION
        base_path = parts.path.removesuffix("/k")
        return _endpoint(parts.scheme, parts.hostname or "", parts.port, base_path, region)


def _endpoint(
    scheme: str, hostname: str, port: int | None, base_path: str, region: str
) -> Endpoint:
    host = f"[{hostname}]" if ":" in hostname else hostname
    return Endpoint(scheme, host, port or (443 if scheme == "https" else 80), base_path, region)


def https_proxy(endpoint: Endpoint) -> str | None:
    """HTTPS_PROXY unless NO_PROXY excepts the host. Plain http goes without a proxy: one would
    need absolute URLs, which urllib3 changes (`..`)."""
    proxies = get_environ_proxies(f"{endpoint.scheme}://{endpoint.authority}")
    proxy = proxies.get("https") or None
    return f"http://{proxy}" if proxy and "://" not in proxy else proxy
