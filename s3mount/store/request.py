"""One request as it goes over the wire, and its answer. No I/O.

Path and query are percent-encoded here and handed on as they are: a URL parser would drop `..`
and take `//x` for a host.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import quote

from botocore.credentials import ReadOnlyCredentials

from s3mount import __version__
from s3mount.store.base import Body, SlicedBody
from s3mount.store.endpoint import Endpoint
from s3mount.store.signing import Signer


@dataclass(frozen=True, slots=True)
class Request:
    """One HTTP request to the bucket (`key` None) or to an object in it."""

    operation: str  # S3's name
    method: str
    key: str | None
    query: tuple[tuple[str, str], ...] = ()
    headers: Mapping[str, str] = field(default_factory=dict)  # names in lower case
    body: Body = field(default=b"", repr=False)
    about: str = ""  # what the log calls it where there is no key: a prefix, the first key
    silence: float = 1.0  # times the read timeout that the service may work before it answers

    @property
    def size(self) -> int:
        return body_size(self.body)


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    headers: Mapping[str, str]  # case-insensitive
    body: bytes = field(repr=False)
    asked_at: float  # time.monotonic()

    @property
    def request_id(self) -> str:
        return self.headers.get("x-amz-request-id", "")


def body_size(body: Body) -> int:
    return body.size if isinstance(body, SlicedBody) else memoryview(body).nbytes


def encode_path(key: str) -> str:
    """Percent-encoded; surrogates of undecodable bytes (listings may hold them) as those bytes."""
    return quote(key.encode("utf-8", "surrogateescape"), safe="/-_.~")


def encode_query(query: tuple[tuple[str, str], ...]) -> str:
    return "&".join(
        f"{name}={quote(value.encode('utf-8', 'surrogateescape'), safe='-_.~')}"
        for name, value in query
    )


def addressed(
    request: Request, endpoint: Endpoint, signer: Signer, credentials: ReadOnlyCredentials | None
) -> tuple[str, dict[str, str]]:
    """Path with query, and all headers but those of the body's length, signed."""
    path = endpoint.base_path + "/"
    if request.key is not None:
        path += encode_path(request.key)
    elif endpoint.base_path:
        path = endpoint.base_path
    target = f"{path}?{encode_query(request.query)}" if request.query else path
    headers = {"host": endpoint.authority, **request.headers}
    if credentials is not None:
        url = f"{endpoint.scheme}://{endpoint.authority}{target}"
        signer.sign(credentials, request.method, url, headers)
    headers["user-agent"] = f"s3mount/{__version__}"
    return target, headers
