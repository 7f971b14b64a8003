"""The service's name cannot be resolved: with the real client, sockets and all."""

import socket
from dataclasses import dataclass
from typing import Any

import pytest

from s3mount.store import errors
from s3mount.store.base import ObjectStore, WriteHeaders
from s3mount.store.open import open_store
from tests.servers import Bucket

HOST = "objects"  # no dots: moto takes what is before one for a bucket


@dataclass
class Names:
    """`failures`: how many questions for HOST have no answer from now on."""

    failures: int = 0
    asked: int = 0


@pytest.fixture
def resolver(monkeypatch: pytest.MonkeyPatch) -> Names:
    names, real = Names(), socket.getaddrinfo

    def resolve(host: Any, *arguments: Any, **named: Any) -> Any:
        if host != HOST:
            return real(host, *arguments, **named)
        names.asked += 1
        if names.asked <= names.failures:
            raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
        return real("127.0.0.1", *arguments, **named)

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    return names


def store_at_name(bucket: Bucket, **changes: Any) -> ObjectStore:
    port = bucket.server.url.rpartition(":")[2]
    url = f"http://{HOST}:{port}"
    return open_store(bucket.config(endpoint_url=url, state_dir=None, **changes))


async def test_a_name_that_resolves_again_in_time_costs_retries_only(
    moto_bucket: Bucket, resolver: Names
) -> None:
    resolver.failures = 3
    store = store_at_name(moto_bucket)
    await store.put("f", b"bytes", WriteHeaders())
    assert resolver.asked > 3
    assert 0 < store.counts()["Retries"] <= 3
    assert moto_bucket.get("f") == b"bytes"
    await store.aclose()


async def test_a_name_that_does_not_is_a_connection_that_was_never_made(
    moto_bucket: Bucket, resolver: Names
) -> None:
    """Nothing can have been carried out: so nobody has to look whether it was."""
    resolver.failures = 1 << 30
    store = store_at_name(moto_bucket, retries=2)
    with pytest.raises(errors.TransientError, match="resol") as raised:
        await store.put("f", b"bytes", WriteHeaders())
    assert isinstance(raised.value, errors.ConnectionLost)
    assert not raised.value.ambiguous
    assert moto_bucket.keys() == []
    resolver.failures = 0
    await store.put("f", b"bytes", WriteHeaders())
    assert moto_bucket.get("f") == b"bytes"
    await store.aclose()
