"""Many ranges of one version in parallel, without keeping them in the cache."""

from collections.abc import Awaitable, Callable, Sequence

import trio

from s3mount.core.errors import FilesystemError
from s3mount.readpath.block_cache import BlockCache
from s3mount.readpath.getter import Getter
from s3mount.readpath.readahead import Range
from s3mount.readpath.remote import RemoteObject
from s3mount.store.errors import StoreError

Sink = Callable[[int, bytes], Awaitable[None]]

# Eight connections of 80 MB/s fill 500 MB/s.
PARALLEL = 8


def cut(ranges: Sequence[Range], size: int) -> list[Range]:
    """The same bytes in pieces of at most `size`."""
    return [
        (offset, min(offset + size, end))
        for start, end in ranges
        for offset in range(start, end, size)
    ]


async def load_ranges(
    getter: Getter,
    cache: BlockCache,
    remote: RemoteObject,
    pieces: Sequence[Range],
    sink: Sink,
) -> None:
    """Hands each piece to `sink(start, bytes)`, in any order, several at once.

    What is cached is not asked for. Pieces on their way count as cache memory until the sink has
    them. Raises the first error of the store or of the sink; the sink may have had some then.
    """
    left = iter(pieces)
    failure: list[StoreError | FilesystemError] = []

    async def work(scope: trio.CancelScope) -> None:
        for start, end in left:
            try:
                await _load(getter, cache, remote, (start, end), sink)
            except (StoreError, FilesystemError) as error:
                failure.append(error)
                scope.cancel()
                return

    async with trio.open_nursery() as nursery:
        for _ in range(min(PARALLEL, len(pieces))):
            nursery.start_soon(work, nursery.cancel_scope)
    if failure:
        raise failure[0]


async def _load(
    getter: Getter, cache: BlockCache, remote: RemoteObject, piece: Range, sink: Sink
) -> None:
    start, end = piece
    version = cache.known(remote.identity)
    segment = version.segments.find(start) if version else None
    if segment is not None and end <= segment.end:
        await sink(start, bytes(segment.view(start, end)))
        return
    await cache.reserve(end - start)
    try:
        await sink(start, await getter.pinned(remote, start, end))
    finally:
        cache.unreserve(end - start)
