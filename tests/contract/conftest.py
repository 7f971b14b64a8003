"""The stores that must keep the contract: memory, moto, strict and Ceph."""

from collections.abc import AsyncIterator, Iterator

import pytest

from s3mount.store import loop_client, quick_head, retry
from s3mount.store.base import ObjectStore
from s3mount.store.memory import MemoryStore
from s3mount.store.open import open_store
from tests.counting_proxy import CountingProxy
from tests.servers import Bucket


@pytest.fixture(params=["memory", "moto", "strict", "ceph"])
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


# Of which a HEAD's patience is a part.
LATE: dict[str, float] = {"read_timeout": 60.0, "request_deadline": 300.0}


@pytest.fixture
async def store(config_bucket: Bucket | None) -> AsyncIterator[ObjectStore]:
    opened: ObjectStore = (
        MemoryStore() if config_bucket is None else open_store(config_bucket.config(**LATE))
    )
    yield opened
    await opened.aclose()


@pytest.fixture(autouse=True)
def patience() -> Iterator[None]:
    """A HEAD that is answered late is asked again, and here it is counted."""
    # Not by `monkeypatch`: that would undo each test's own patches after its bucket has gone.
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(quick_head, "PATIENCE", 30.0)
        patched.setattr(loop_client, "CONNECT_PATIENCE", 30.0)
        yield


@pytest.fixture
def proxy(moto_bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> Iterator[CountingProxy]:
    monkeypatch.setattr(retry, "FIRST_DELAY", 0.001)
    monkeypatch.setattr(retry, "FIRST_DELAY_SLOWED", 0.001)
    with CountingProxy(moto_bucket.server.url) as started:
        yield started


@pytest.fixture
async def proxied_store(proxy: CountingProxy, moto_bucket: Bucket) -> AsyncIterator[ObjectStore]:
    config = moto_bucket.config(endpoint_url=proxy.url, state_dir=None, retries=3, **LATE)
    opened = open_store(config)
    yield opened
    await opened.aclose()
