"""The buckets that these credentials own, by boto3: one rare request that is of no bucket."""

from collections.abc import Sequence
from dataclasses import dataclass

import trio
from botocore.exceptions import BotoCoreError, ClientError

from s3mount.core.config import StoreConfig
from s3mount.store import errors
from s3mount.store.answers import error_for
from s3mount.store.endpoint import Connection

_OPERATION = "ListBuckets"


@dataclass(frozen=True, slots=True)
class OwnBucket:
    name: str
    created: float  # seconds since the epoch


async def list_buckets(config: StoreConfig) -> Sequence[OwnBucket]:
    """By name. Raises StoreErrors: many credentials may use a bucket, but not list them."""
    with trio.move_on_after(config.request_deadline):
        return await trio.to_thread.run_sync(_list, config, abandon_on_cancel=True)
    raise errors.DeadlineExceeded("the answer does not come to an end", operation=_OPERATION)


def _list(config: StoreConfig) -> Sequence[OwnBucket]:
    connection = Connection(config)
    try:
        pages = connection.client().get_paginator("list_buckets").paginate()
        found = [
            OwnBucket(one["Name"], one["CreationDate"].timestamp())
            for page in pages
            for one in page.get("Buckets", ())
        ]
    except ClientError as error:
        told, meta = error.response.get("Error", {}), error.response.get("ResponseMetadata", {})
        raise error_for(
            _OPERATION,
            "",
            meta.get("HTTPStatusCode"),
            told.get("Code", ""),
            told.get("Message", ""),
            meta.get("RequestId", ""),
        ) from error
    except BotoCoreError as error:
        if "redentials" in type(error).__name__:
            raise errors.BadCredentials(f"no credentials: {error}") from error
        raise errors.ConnectionLost(str(error), operation=_OPERATION) from error
    finally:
        connection.close()
    return sorted(found, key=lambda one: one.name)
