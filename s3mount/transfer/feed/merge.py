"""The source and the listing, name by name side by side."""

from collections import deque
from dataclasses import dataclass

import trio

from s3mount.transfer.feed.decide import LocalEntry, RemoteEntry


@dataclass(frozen=True, slots=True)
class Pair:
    """One name; at least one of both is there."""

    local: LocalEntry | None
    remote: RemoteEntry | None

    @property
    def path(self) -> str:
        one = self.local or self.remote
        assert one is not None
        return one.path


class Merge:
    """Both channels bring batches in ascending order of path + '/'."""

    def __init__(
        self,
        local: "trio.MemoryReceiveChannel[list[LocalEntry]]",
        remote: "trio.MemoryReceiveChannel[list[RemoteEntry]]",
    ) -> None:
        self._local_channel = local
        self._remote_channel = remote
        self._locals: deque[LocalEntry] = deque()
        self._remotes: deque[RemoteEntry] = deque()

    async def next_batch(self, limit: int) -> list[Pair]:
        """Fewer than `limit` only where the next would have to be waited for; empty at the end."""
        pairs: list[Pair] = []
        while len(pairs) < limit:
            if pairs and not (self._locals and self._remotes):
                break
            await self._fill()
            local = self._locals[0] if self._locals else None
            remote = self._remotes[0] if self._remotes else None
            if local is None and remote is None:
                break
            here, there = _order(local), _order(remote)
            if here is None or (there is not None and there < here):
                local = None
            elif there is None or here < there:
                remote = None
            if local is not None:
                self._locals.popleft()
            if remote is not None:
                self._remotes.popleft()
            pairs.append(Pair(local, remote))
        return pairs

    async def _fill(self) -> None:
        while not self._locals:
            try:
                self._locals.extend(await self._local_channel.receive())
            except trio.EndOfChannel:
                break
        while not self._remotes:
            try:
                self._remotes.extend(await self._remote_channel.receive())
            except trio.EndOfChannel:
                break


def _order(entry: LocalEntry | RemoteEntry | None) -> str | None:
    if entry is None:
        return None
    return f"{entry.path}/" if entry.path else ""
