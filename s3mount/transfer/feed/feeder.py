"""A folder becomes what is below a key: walked and listed side by side, compared, sent.

    walk (a thread) --+
                      +-> merge -> decide, with HEADs where needed -> workers -> deletes
    LIST, page ahead -+

Each arrow is a bounded channel, so that memory does not depend on the size of either side.
"""

import os
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import trio

from s3mount.core.keys import FOLDER_SUFFIX, name_to_bytes, unreachable
from s3mount.namespace.remote import Remote
from s3mount.namespace.stat_cache import Row
from s3mount.store.base import ListedObject, ObjectStore
from s3mount.store.errors import BadCredentials, NoSuchBucket, StoreError
from s3mount.transfer.feed.decide import (
    Action,
    Comparing,
    Known,
    LocalEntry,
    RemoteEntry,
    decide,
    relevant,
)
from s3mount.transfer.feed.doomed import DoomedKeys
from s3mount.transfer.feed.local_tree import LocalTree, Walking, count
from s3mount.transfer.feed.merge import Merge, Pair
from s3mount.transfer.feed.performing import Item, Performer
from s3mount.transfer.feed.remote_tree import RemoteTree
from s3mount.transfer.feed.report import Report
from s3mount.transfer.versions import PARALLEL_HEADS, Versions, tells_mostly
from s3mount.writeback.parallel import all_of

# Names walked or decided together: a page of the listing.
BATCH = 1000
# Files sent in one PUT at once; the store's lane has 48 threads, and some are being read.
SMALL_WORKERS = 64
# Large files at once: the parts of one fill the line, the next ones hide its beginning and end.
LARGE_WORKERS = 4


@dataclass(frozen=True, slots=True)
class Feeding:
    """`top`: the directory; `prefix`: '' or with a slash at its end."""

    top: bytes
    prefix: str
    walking: Walking = field(default_factory=Walking)
    how: Comparing = field(default_factory=Comparing)
    dry_run: bool = False
    large_from: int = 0  # files of more bytes go to the workers for large ones


class Feeder:
    def __init__(
        self,
        store: ObjectStore,
        feeding: Feeding,
        performer: Performer,
        remote: Remote,
        versions: Versions,
        report: Report,
    ) -> None:
        self._store = store
        self._feeding = feeding
        self._performer = performer
        self._remote = remote
        self._versions = versions
        self._report = report
        self._doomed = DoomedKeys()
        self._tree: LocalTree | None = None
        self._in_the_way: str | None = None  # what paths begin with that are not sent

    async def run(self, *, totals: bool = False) -> bool:
        """Raises what ends the feed as a whole; failures of single names are in the report.
        `totals`: the source is counted meanwhile, for the gauge. True: all of it was seen."""
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._remote.flush_regularly)
                if totals:
                    nursery.start_soon(self._count)
                await self._feed()
                nursery.cancel_scope.cancel()
            complete = self._tree is not None and self._tree.complete
            await self._delete(complete)
            return complete
        finally:
            self._doomed.close()

    async def run_one(self, pair: Pair) -> None:
        """A single file instead of a folder."""
        self._doomed.close()
        for item in await self._decided([pair]):
            await self._performer.perform(item)
        await self._remote.flush()

    async def _feed(self) -> None:
        locals_in, locals_out = trio.open_memory_channel[list[LocalEntry]](1)
        remotes_in, remotes_out = trio.open_memory_channel[list[RemoteEntry]](1)
        small_in, small_out = trio.open_memory_channel[Item](SMALL_WORKERS)
        large_in, large_out = trio.open_memory_channel[Item](LARGE_WORKERS)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._walk, locals_in)
            nursery.start_soon(self._list, remotes_in)
            for _ in range(SMALL_WORKERS):
                nursery.start_soon(self._work, small_out.clone())
            for _ in range(LARGE_WORKERS):
                nursery.start_soon(self._work, large_out.clone())
            small_out.close()
            large_out.close()
            async with small_in, large_in:
                merge = Merge(locals_out, remotes_out)
                while pairs := await merge.next_batch(BATCH):
                    for item in await self._decided(pairs):
                        small = item.local.size <= self._feeding.large_from
                        await (small_in if small else large_in).send(item)

    async def _walk(self, channel: "trio.MemorySendChannel[list[LocalEntry]]") -> None:
        feeding = self._feeding
        failures: list[tuple[str, Exception]] = []
        async with channel:
            tree = self._tree = await trio.to_thread.run_sync(
                LocalTree, feeding.top, feeding.walking, lambda *one: failures.append(one)
            )
            while batch := await trio.to_thread.run_sync(tree.next_batch, BATCH):
                await channel.send(batch)
                self._told(failures)
        self._told(failures)

    def _told(self, failures: list[tuple[str, Exception]]) -> None:
        while failures:
            self._report.fail(*failures.pop(0))

    async def _list(self, channel: "trio.MemorySendChannel[list[RemoteEntry]]") -> None:
        feeding = self._feeding
        tree = RemoteTree(self._store, feeding.prefix, flat=feeding.walking.depth != 1)
        first = True
        async with channel:
            while (batch := await tree.next_batch()) is not None:
                if first and feeding.prefix and (not batch or batch[0].path):
                    batch[:0] = await self._other_marker()
                first = False
                await channel.send(batch)

    async def _other_marker(self) -> list[RemoteEntry]:
        """The key root's own object, if its name has no slash: a marker, or a file in the way."""
        name = self._feeding.prefix.removesuffix("/")
        page = await self._store.list(name, delimiter="", max_keys=1)
        return [RemoteEntry("", one) for one in page.objects if one.key == name]

    async def _count(self) -> None:
        entries = count(self._feeding.top, self._feeding.walking)
        while (found := await trio.to_thread.run_sync(next, entries, None)) is not None:
            self._report.counted(*found)

    async def _work(self, channel: "trio.MemoryReceiveChannel[Item]") -> None:
        async with channel:
            async for item in channel:
                await self._performer.perform(item)

    # -- deciding

    async def _decided(self, pairs: Sequence[Pair]) -> list[Item]:
        """What is to be done for the local ones; the rest is dealt with here."""
        asking = [pair for pair in pairs if self._decide(pair, None) is Action.ASK]
        known = await self._ask(asking)
        items: list[Item] = []
        for pair in pairs:
            if pair.local is None:
                self._doom(pair.remote)
            elif self._in_the_way is None or not pair.path.startswith(self._in_the_way):
                there = known.get(pair.path)
                action = self._decide(pair, there)
                if action is not Action.ASK:  # else it could not be asked for, which was reported
                    self._take(items, pair, action, there)
        return items

    def _decide(self, pair: Pair, known: Known | None) -> Action:
        how = self._feeding.how
        if not pair.path:  # the key root itself is never deleted
            how = replace(how, delete=False)
        return decide(pair.local, pair.remote, how, known)

    def _take(self, items: list[Item], pair: Pair, action: Action, known: Known | None) -> None:
        local, remote = pair.local, pair.remote
        assert local is not None
        if action is Action.CONFLICT:
            self._conflict(local)
        elif action is Action.NOTHING:
            self._report.unchanged(local)
        else:
            items.append(Item(local, remote, action, known))
        if self._feeding.how.delete and remote is not None and local.path:
            self._doom_other_kind(local, remote, known)

    def _conflict(self, local: LocalEntry) -> None:
        """What is in a directory would hide the file in the bucket from mounts."""
        if local.is_directory:
            self._in_the_way = f"{local.path}/" if local.path else ""
            text = "is a directory here and a file in the bucket: nothing in it is sent"
        else:
            text = "is a file here and a directory in the bucket"
        self._report.fail(
            local.path or self._feeding.prefix, f"{text} (see --delete)" if local.path else text
        )

    def _doom_other_kind(self, local: LocalEntry, remote: RemoteEntry, known: Known | None) -> None:
        """A file where a directory is now, or the other way round."""
        if not local.is_directory:
            if remote.marker is not None:
                self._doomed.add(remote.marker.key)
            return
        listed = remote.listed
        if listed is None:
            return
        is_file = listed.size > 0
        if not is_file and remote.marker is None and known is not None and known.attributes:
            is_file = not stat.S_ISDIR(known.attributes.mode)
        if is_file:
            self._doomed.add(listed.key)

    async def _ask(self, pairs: Sequence[Pair]) -> dict[str, Known]:
        """By path; without those that could not be asked for, which are reported."""
        wanted: dict[str, ListedObject] = {}
        for pair in pairs:
            assert pair.local is not None
            there = relevant(pair.local, pair.remote)
            assert there is not None
            wanted[pair.path] = there
        if not wanted:
            return {}
        rows: Mapping[str, Row] = await self._versions.rows(wanted.values())
        known: dict[str, Known] = {}

        async def ask(path: str, listed: ListedObject) -> None:
            try:
                info, _ = await self._remote.head(listed.key)
            except (NoSuchBucket, BadCredentials):
                raise
            except StoreError as error:
                self._report.fail(path, error)
                return
            if info is None or (info.etag, info.size) != (listed.etag, listed.size):
                known[path] = Known(None)  # replaced or gone since it was listed
            else:
                known[path] = Known(self._versions.learn(info), int(info.last_modified))

        heads = []
        for path, listed in wanted.items():
            row = rows.get(listed.key)
            if row is not None and tells_mostly(row, listed):
                known[path] = Known(row.attributes, int(listed.last_modified))
            else:
                heads.append(partial(ask, path, listed))
        await all_of(heads, PARALLEL_HEADS)
        return known

    # -- deleting

    def _doom(self, remote: RemoteEntry | None) -> None:
        """A name that the source does not have, if it is within what is fed."""
        assert remote is not None
        if decide(None, remote, self._feeding.how) is not Action.DELETE:
            return
        if not remote.path or unreachable(remote.path, self._feeding.walking.escape):
            return
        if remote.listed is not None and not self._is_outside(remote.path, remote.listed):
            self._doomed.add(remote.listed.key)
        if remote.marker is not None and not self._is_outside(remote.path, None):
            self._doomed.add(remote.marker.key)

    def _is_outside(self, path: str, listed: ListedObject | None) -> bool:
        """Excluded, or deeper than the feed goes. `listed`: an object without slash, which, if
        it is empty, may be the marker of a directory."""
        walking = self._feeding.walking
        above = path.rpartition("/")[0]
        if listed is None:
            too_deep = not walking.descends_from(path)
            return too_deep or not walking.rules.admit_below(path, is_directory=True)
        if not walking.descends_from(above):
            return True
        if not walking.rules.admit_below(path, is_directory=False):
            return True
        if listed.size:
            return False
        if not walking.rules.admit_below(path, is_directory=True):
            return True
        # Also a legacy marker `x_$folder$` of a directory x that the source has.
        names = (path, path.removesuffix(FOLDER_SUFFIX))
        return any(os.path.isdir(self._on_disk(name)) for name in names)

    def _on_disk(self, path: str) -> bytes:
        escape = self._feeding.walking.escape
        raw = b"/".join(name_to_bytes(name, escape) for name in path.split("/"))
        return os.path.join(self._feeding.top, raw)

    def _doomed_key(self, key: str) -> None:
        self._doomed.add(key)

    async def _delete(self, complete: bool) -> None:
        if not self._feeding.how.delete:
            return
        if not complete:
            self._report.problems.append(
                "nothing was deleted: the source could not be looked at as a whole"
            )
            return
        try:
            await self._doomed.delete(
                self._store,
                lambda key: self._report.did(Action.DELETE, key),
                self._report.fail,
                dry_run=self._feeding.dry_run,
            )
        except StoreError as error:
            self._report.problems.append(f"not all was deleted: {error}")
