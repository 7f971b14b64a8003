"""Several requests at once, each of which is wanted whatever becomes of the others."""

from collections.abc import Awaitable, Callable

import trio


async def side_by_side(*works: Callable[[], Awaitable[None]]) -> None:
    """Runs all of them to their end, then raises the first error as it is, not in a group."""
    errors: list[Exception] = []

    async def one(work: Callable[[], Awaitable[None]]) -> None:
        try:
            await work()
        except Exception as error:
            errors.append(error)

    async with trio.open_nursery() as nursery:
        for work in works:
            nursery.start_soon(one, work)
    if errors:
        raise errors[0]
