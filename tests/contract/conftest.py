"""The stores that must keep the contract: memory, moto and Ceph."""

from collections.abc import AsyncIterator

import pytest

from s3mount.store.base import ObjectStore
from s3mount.store.memory import MemoryStore
from s3mount.store.open import open_store
from tests.servers import Bucket


@pytest.fixture(params=["memory", "moto", "ceph"])
def store_name(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture
def config_bucket(request: pytest.FixtureRequest, store_name: str) -> Bucket | None:
    """The bucket behind the store; None for the one in memory."""
    if store_name == "memory":
        return None
    bucket: Bucket = request.getfixturevalue(f"{store_name}_bucket")
    return bucket


@pytest.fixture
async def store(config_bucket: Bucket | None) -> AsyncIterator[ObjectStore]:
    opened: ObjectStore = (
        MemoryStore() if config_bucket is None else open_store(config_bucket.config())
    )
    yield opened
    await opened.aclose()
