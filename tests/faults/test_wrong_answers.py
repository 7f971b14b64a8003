"""Answers that are well made and not true: nothing is deleted because of one of them."""

import pytest
import trio
from trio.testing import MockClock

from s3mount.store.errors import StoreError
from tests.counting_proxy import Fault, Seen, answer
from tests.faults.conftest import Service
from tests.model.bucket import contents, leftovers
from tests.model.mounted import Client

MISSING = answer(404, "NoSuchKey")
FILES = {"d/a": b"a" * 100, "d/b": b"b" * 200, "d/c": b"c" * 300}


async def fill(client: Client) -> None:
    await client.mkdir("d")
    for path, data in FILES.items():
        await client.write(path, data)
    await client.fsyncdir()


async def test_a_directorys_rename_asks_again_for_what_it_is_told_is_not_there(
    client: Client, service: Service, autojump_clock: MockClock
) -> None:
    """It is listed: what is not found, and so not copied, must not be deleted with the others."""
    await fill(client)
    service.fails("CopyObject", MISSING)
    await client.rename("d", "e")
    await client.fsyncdir()
    await trio.sleep(60)
    moved = {path.replace("d/", "e/"): data for path, data in FILES.items()}
    assert contents(service.memory) == {"e/": b"", **moved}
    assert leftovers(client.fs, service.memory) == []


async def test_what_is_listed_and_never_found_stays_where_it_is(
    client: Client, service: Service, autojump_clock: MockClock
) -> None:
    await fill(client)

    def rule(seen: Seen) -> Fault | None:
        named = seen.headers.get("x-amz-copy-source", "").endswith("d/b")
        return MISSING if seen.operation == "CopyObject" and named else None

    service.rule = rule
    await client.rename("d", "e")
    with pytest.raises(StoreError, match="listed and not found: 'd/b'"):
        await client.fsyncdir()
    await trio.sleep(60)
    found = contents(service.memory)
    assert {path: data for path, data in found.items() if data} == {
        "d/b": FILES["d/b"],
        "e/a": FILES["d/a"],
        "e/c": FILES["d/c"],
    }


async def test_what_vanishes_while_its_directory_is_renamed_holds_nothing_up(
    client: Client, service: Service, autojump_clock: MockClock
) -> None:
    await fill(client)

    def rule(seen: Seen) -> Fault | None:
        if seen.operation == "CopyObject":
            service.memory.delete_foreign("d/b")
        return None

    service.rule = rule
    await client.rename("d", "e")
    await client.fsyncdir()
    await trio.sleep(60)
    found = contents(service.memory)
    assert {path for path, data in found.items() if data} - {"e/b"} == {"e/a", "e/c"}
    assert leftovers(client.fs, service.memory) == []
