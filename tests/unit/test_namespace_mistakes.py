"""A mistake of the code's in work that nobody waits for is a line in the log, and not the end of
the mount."""

import pytest
import trio
import trio.testing

from s3mount.namespace.tree_walk import TreeWalk
from tests.unit.namespace_fixtures import Bench, names_of, running

pytestmark = pytest.mark.provokes


async def mistake(*arguments: object) -> None:
    raise ZeroDivisionError("a mistake")


async def test_attributes_asked_for_behind_a_listing(caplog: pytest.LogCaptureFixture) -> None:
    bench = Bench()
    bench.put("a", "b", "d/x", data=b"x" * 5000)
    names = bench.namespace()

    async def fail(operation: str, key: str) -> None:
        if operation == "HeadObject":
            await mistake()

    async with running(names):
        bench.store.before = fail
        assert await names_of(names, names.root) == ["a", "b", "d"]
        await trio.testing.wait_all_tasks_blocked()
        assert "attributes of 'b' failed unexpectedly" in caplog.text
        bench.store.before = None
        found = await names.lookup(names.root, "b")
        assert (await names.attributes(found)).mode == 0o100644


async def test_a_page_read_ahead(caplog: pytest.LogCaptureFixture) -> None:
    names = Bench().namespace()
    async with running(names):
        names._fetcher.start_quietly(mistake)
        await trio.testing.wait_all_tasks_blocked()
        assert "looking ahead failed unexpectedly" in caplog.text


async def test_a_walk(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench()
    bench.put(*(f"d{number}/f" for number in range(20)), data=b"1")
    names = bench.namespace()
    monkeypatch.setattr(TreeWalk, "_next_page", mistake)
    async with running(names):
        for name in await names_of(names, names.root):
            assert await names_of(names, await names.lookup(names.root, name)) == ["f"]
        assert "the flat listing of ''" in caplog.text
