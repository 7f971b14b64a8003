"""What requests and traffic cost: an estimate from counts and a list of prices."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from difflib import get_close_matches

from s3mount.core.config import GIB
from s3mount.core.errors import ConfigurationError


@dataclass(frozen=True, slots=True)
class Prices:
    """Per 1000 requests of a class, and per GB (2^30 bytes, as AWS bills) from the service.

    The defaults are the list prices of AWS S3 Standard in us-east-1 (2025). Storage, taxes, the
    free 100 GB a month, and that traffic within a region costs nothing are not looked at.
    """

    put: float = 0.005  # PutObject, parts, creating and completing uploads
    copy: float = 0.005  # CopyObject, UploadPartCopy
    list: float = 0.005  # of objects, uploads and parts
    get: float = 0.0004  # GetObject, HeadObject and all others
    delete: float = 0.0  # DeleteObject, DeleteObjects, AbortMultipartUpload
    per_gb_out: float = 0.09
    currency: str = "USD"


@dataclass(frozen=True, slots=True)
class Cost:
    requests: float
    traffic: float

    @property
    def total(self) -> float:
        return self.requests + self.traffic


_CLASSES = {
    "PutObject": "put",
    "CreateMultipartUpload": "put",
    "UploadPart": "put",
    "CompleteMultipartUpload": "put",
    "PutObjectTagging": "put",
    "CopyObject": "copy",
    "UploadPartCopy": "copy",
    "ListBuckets": "list",
    "ListObjectsV2": "list",
    "ListObjectVersions": "list",
    "ListMultipartUploads": "list",
    "ListParts": "list",
    "DeleteObject": "delete",
    "DeleteObjects": "delete",
    "AbortMultipartUpload": "delete",
}


def cost(prices: Prices, requests: Mapping[str, int], bytes_received: int) -> Cost:
    """`requests` by S3 operation name; `bytes_received` is what came from the service."""
    thousands = sum(
        count / 1000 * float(getattr(prices, _CLASSES.get(name, "get")))
        for name, count in requests.items()
    )
    return Cost(thousands, bytes_received / GIB * prices.per_gb_out)


def read_prices(values: Mapping[str, object], where: str) -> Prices:
    """Raises ConfigurationError naming `where` for names that are not known and for what is no
    price; what is left out is the default."""
    known = [each.name for each in fields(Prices)]
    for name, value in values.items():
        if name not in known:
            close = get_close_matches(name, known, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"there are {', '.join(known)}"
            raise ConfigurationError(f"{where}: {name!r} is no price; {hint}")
        if name == "currency":
            valid = isinstance(value, str)
        else:
            number = isinstance(value, (int, float)) and not isinstance(value, bool)
            valid = number and 0 <= float(str(value)) < float("inf")
        if not valid:
            raise ConfigurationError(f"{where}: {name} = {value!r} is no price")
    return Prices(**values)  # type: ignore[arg-type]
