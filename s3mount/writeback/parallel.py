"""Several requests at once, of which the first failure counts."""

from collections.abc import Awaitable, Callable, Iterable

import trio


async def all_of(works: Iterable[Callable[[], Awaitable[None]]], limit: int) -> None:
    """Runs at most `limit` of them at a time; the first error cancels the rest and is raised as
    it is, not in a group."""
    works = list(works)
    if len(works) <= 1:
        for work in works:
            await work()
        return
    limiter = trio.CapacityLimiter(limit)
    errors: list[Exception] = []
    async with trio.open_nursery() as nursery:

        async def one(work: Callable[[], Awaitable[None]]) -> None:
            async with limiter:
                try:
                    await work()
                except Exception as error:
                    errors.append(error)
                    nursery.cancel_scope.cancel()

        for work in works:
            nursery.start_soon(one, work)
    if errors:
        raise errors[0]
