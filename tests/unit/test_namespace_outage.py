"""A service that does not answer: what is known is shown, what is not known waits or fails."""

import pytest
import trio

from s3mount.namespace.outage import AGAIN, PATIENCE, Outage
from s3mount.store.errors import (
    ConnectionLost,
    NotFound,
)


async def test_news_that_come_are_waited_for(autojump_clock: trio.abc.Clock) -> None:
    outage = Outage(trio.current_time)
    async with trio.open_nursery() as nursery:
        outage.run_in = nursery

        async def slow() -> None:
            for _ in range(10):
                await trio.sleep(PATIENCE / 2)
                outage.answered()

        assert await outage.news(slow)
        assert trio.current_time() >= 5 * PATIENCE


async def test_a_service_that_is_silent_is_not_waited_for_and_asked_again_later(
    autojump_clock: trio.abc.Clock,
) -> None:
    outage = Outage(trio.current_time)
    asked = 0

    async def never() -> None:
        nonlocal asked
        asked += 1
        await trio.sleep(3600)

    async with trio.open_nursery() as nursery:
        outage.run_in = nursery
        begun = trio.current_time()
        assert not await outage.news(never)
        assert trio.current_time() - begun <= PATIENCE + 0.1
        begun = trio.current_time()
        assert not await outage.news(never)
        assert (trio.current_time(), asked) == (begun, 1)
        await trio.sleep(AGAIN + 0.1)
        assert not await outage.news(never)
        assert asked == 2
        nursery.cancel_scope.cancel()


async def test_a_lost_connection_is_an_outage_and_a_refusal_is_raised(
    autojump_clock: trio.abc.Clock,
) -> None:
    outage = Outage(trio.current_time)

    async def lost() -> None:
        raise ConnectionLost("gone")

    async def missing() -> None:
        raise NotFound("no such key")

    async with trio.open_nursery() as nursery:
        outage.run_in = nursery
        assert not await outage.news(lost)
        outage.answered()
        with pytest.raises(NotFound):
            await outage.news(missing)
