"""Which headers a request carries by the configuration. No I/O."""

import base64
import hashlib
from collections.abc import Mapping
from urllib.parse import quote

from s3mount.core.config import StoreConfig
from s3mount.store.answers import META_PREFIX
from s3mount.store.base import WriteHeaders

_CUSTOMER = "x-amz-server-side-encryption-customer-"
_COPY_CUSTOMER = "x-amz-copy-source-server-side-encryption-customer-"


class RequestHeaders:
    """Computed once a mount; each method returns a new dict, names in lower case."""

    def __init__(self, config: StoreConfig) -> None:
        common = {"x-amz-request-payer": "requester"} if config.requester_pays else {}
        self._read = {**common, **_customer_key(_CUSTOMER, config.sse_customer_key)}
        self._list = common
        self._copy_source = _customer_key(_COPY_CUSTOMER, config.sse_customer_key)
        write = {name.lower(): value for name, value in config.extra_headers.items()}
        if config.acl:
            write["x-amz-acl"] = config.acl
        if config.storage_class:
            write["x-amz-storage-class"] = config.storage_class
        if config.sse:
            write["x-amz-server-side-encryption"] = config.sse
        if config.sse_kms_key_id:
            write["x-amz-server-side-encryption-aws-kms-key-id"] = config.sse_kms_key_id
        self._write = write
        # Then an ETag is not the content's MD5.
        self.encrypted = config.sse == "aws:kms" or config.sse_customer_key is not None

    def read(self) -> dict[str, str]:
        """HEAD, GET and UploadPart."""
        return dict(self._read)

    def list(self) -> dict[str, str]:
        """LIST, DELETE, DeleteObjects."""
        return dict(self._list)

    def write(self, headers: WriteHeaders) -> dict[str, str]:
        """PUT, CreateMultipartUpload: what the caller names wins over the configuration."""
        merged = {**self._read, **self._write}
        merged.update((name.lower(), value) for name, value in headers.headers.items())
        merged.update(
            (META_PREFIX + name.lower(), value) for name, value in headers.metadata.items()
        )
        return {name: _one_line(value) for name, value in merged.items()}

    def copy(self, bucket: str, source: str, replace: WriteHeaders | None) -> dict[str, str]:
        """CopyObject. Without `replace` the service copies metadata and content headers."""
        if replace is None:
            merged = self.write(WriteHeaders())
        else:
            merged = self.write(replace)
            merged["x-amz-metadata-directive"] = "REPLACE"
        return {**merged, **self.copy_source(bucket, source)}

    def copy_source(self, bucket: str, source: str) -> dict[str, str]:
        """For CopyObject and UploadPartCopy both."""
        path = quote(source.encode("utf-8", "surrogateescape"), safe="/-_.~")
        return {"x-amz-copy-source": f"/{bucket}/{path}", **self._copy_source}


def _customer_key(prefix: str, key: bytes | None) -> Mapping[str, str]:
    if key is None:
        return {}
    digest = hashlib.md5(key, usedforsecurity=False).digest()
    return {
        f"{prefix}algorithm": "AES256",
        f"{prefix}key": base64.b64encode(key).decode(),
        f"{prefix}key-md5": base64.b64encode(digest).decode(),
    }


def _one_line(value: str) -> str:
    """Without line ends (they would start another header) and blanks around it."""
    return (value if value.isprintable() else " ".join(value.split())).strip()
