"""What tests know of a running service, and of a bucket of their own in it."""

import uuid
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config

from s3mount.core.config import StoreConfig


@dataclass(frozen=True)
class Server:
    """A running service. `state_dir` is the session's: capabilities are probed once."""

    name: str
    url: str
    access_key: str
    secret_key: str
    state_dir: Path | None = None

    def client(self, **overrides: Any) -> Any:
        """A boto3 client: the look from outside. `overrides` are botocore's Config's."""
        return boto3.client(
            "s3",
            endpoint_url=self.url,
            aws_access_key_id=self.access_key,
            aws_secret_access_key=self.secret_key,
            region_name="us-east-1",
            config=Config(
                request_checksum_calculation="when_required",
                response_checksum_validation="when_required",
                s3={"addressing_style": "path"},
                **overrides,
            ),
        )

    def create_bucket(self) -> "Bucket":
        bucket = Bucket(self, f"t-{uuid.uuid4().hex[:16]}")
        bucket.client.create_bucket(Bucket=bucket.name)
        return bucket


@dataclass(frozen=True)
class Bucket:
    server: Server
    name: str
    client: Any = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "client", self.server.client())

    def config(self, **overrides: Any) -> StoreConfig:
        config = StoreConfig(
            bucket=self.name,
            endpoint_url=self.server.url,
            access_key=self.server.access_key,
            secret_key=self.server.secret_key,
            state_dir=self.server.state_dir,
        )
        return replace(config, **overrides)

    def put(self, key: str, data: bytes = b"", **arguments: Any) -> str:
        """Another host writes; returns the ETag."""
        answer = self.client.put_object(Bucket=self.name, Key=key, Body=data, **arguments)
        return str(answer["ETag"]).strip('"')

    def get(self, key: str) -> bytes:
        return bytes(self.client.get_object(Bucket=self.name, Key=key)["Body"].read())

    def keys(self) -> list[str]:
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=self.name)
        return [found["Key"] for page in pages for found in page.get("Contents", ())]

    def remove(self) -> None:
        """With all that is in it, uploads and old versions too."""
        uploads = self.client.list_multipart_uploads(Bucket=self.name).get("Uploads", ())
        for upload in uploads:
            self.client.abort_multipart_upload(
                Bucket=self.name, Key=upload["Key"], UploadId=upload["UploadId"]
            )
        pages = self.client.get_paginator("list_object_versions").paginate(Bucket=self.name)
        # All first: moto's second page begins after a key that must still be there.
        for page in list(pages):
            versions = [*page.get("Versions", ()), *page.get("DeleteMarkers", ())]
            found = [{"Key": one["Key"], "VersionId": one["VersionId"]} for one in versions]
            if found:
                answer = self.client.delete_objects(Bucket=self.name, Delete={"Objects": found})
                assert not answer.get("Errors"), answer["Errors"]
        self.client.delete_bucket(Bucket=self.name)
