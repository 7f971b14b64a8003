"""Puts the layers of a file system together."""

import random
import time
from collections.abc import Callable, Sequence
from functools import partial

from s3mount.core.config import MountConfig
from s3mount.core.part_schedule import PartSchedule
from s3mount.filesystem.filesystem import FileSystem
from s3mount.filesystem.mutations import Mutations
from s3mount.filesystem.state import State
from s3mount.namespace import Inode, Namespace, StatCache
from s3mount.readpath import ReadPath
from s3mount.store.base import (
    ObjectInfo,
    ObjectStore,
)
from s3mount.writeback.executors import Executors
from s3mount.writeback.intents import Kind
from s3mount.writeback.journal import Journal, MemoryJournal
from s3mount.writeback.queue import IntentQueue
from s3mount.writeback.spool import Spool
from s3mount.writeback.uploader import FileUpload, Uploader


async def open_filesystem(
    config: MountConfig,
    store: ObjectStore,
    *,
    clock: Callable[[], float] = time.monotonic,
    shuffle: random.Random | None = None,
    journal: Journal | None = None,
) -> FileSystem:
    """Ready for `FileSystem.run`; sends no request. What an earlier mount left in the journal
    waits for `FileSystem.recover`.

    `journal` is closed with the file system; without it nothing survives the process.
    """
    readpath = ReadPath(
        store,
        config.read,
        namespace=f"{config.store.endpoint_url}/{config.store.bucket}",
        clock=clock,
    )
    namespace = _open_namespace(
        config,
        store,
        readpath,
        clock,
        lambda inode: state.replaced(inode),  # noqa: PLW0108 (state is made below)
    )
    schedule = PartSchedule(
        config.writeback.part_size,
        config.writeback.max_parts,
        config.writeback.max_object_size,
        config.writeback.equal_parts,
    )
    journal = MemoryJournal() if journal is None else journal
    contents = journal.load()
    spool = Spool(config.writeback, schedule)
    spool.open({chunk.name for record in contents.files.values() for chunk in record.spool.chunks})
    uploader = Uploader(store, spool, config.writeback, schedule, journal)
    state = State(config, store, namespace, readpath, spool, uploader, clock, journal)
    mutations = Mutations(state)
    executors = Executors(
        store,
        state.copier,
        partial(_rescue, state),
        state,
        uploader.doubts,
        state.books.sync_if_possible,
    )
    state.queue = IntentQueue(
        executors.execute,
        executors.delete_batch,
        state.books,
        ordered=config.writeback.ordered,
        shuffle=shuffle,
    )
    state.publish = mutations.commit
    _relieve(state, mutations)
    return FileSystem(state, mutations, contents)


def _open_namespace(
    config: MountConfig,
    store: ObjectStore,
    readpath: ReadPath,
    clock: Callable[[], float],
    on_replaced: Callable[[Inode], None],
) -> Namespace:
    async def fetch_info(key: str, size: int | None) -> ObjectInfo:
        """A GET replaces the HEAD where the object is small: it is often read next."""
        if size is None or 0 < size <= config.read.small_object:
            limit = config.read.first_request if size is None else config.read.small_object
            return (await readpath.fetch_small(key, limit))[0]
        return await store.head(key)

    stat_cache = None
    if config.namespace.stat_cache_path is not None:
        stat_cache = StatCache(config.namespace.stat_cache_path, config.namespace.stat_cache_rows)
    return Namespace(
        store,
        config.namespace,
        config.defaults,
        config.prefix,
        stat_cache=stat_cache,
        clock=clock,
        fetch_info=fetch_info,
        on_replaced=on_replaced,
    )


async def _rescue(state: State, keys: Sequence[str]) -> None:
    """Readers of objects that are about to vanish get the rest first (design.md 18)."""
    for key in keys:
        for file in list(state.orphans.get(key, ())):
            await file.rescue()


def _relieve(state: State, mutations: Mutations) -> None:
    """What is done about a full spool, and when it is told that nothing can be."""
    spool, uploader = state.spool, state.uploader

    def publish_early(upload: FileUpload) -> bool:
        """Nothing else helps: this file is committed as it is."""
        for file in state.open_files.values():
            if file.upload is upload and not file.inode.detached:
                state.start_soon(partial(mutations.commit, file))
                return True
        return False

    def is_stuck() -> bool:
        filling = [file for file in state.open_files.values() if file.holds_spool]
        kept = bool(spool.pool.files.kept) or state.books.hurry()
        return bool(filling) and not kept and not any(file.can_drain for file in filling)

    spool.is_stuck = is_stuck
    state.books.on_synced = spool.wake
    uploader.on_early_publish = publish_early
    uploader.on_full = lambda: state.queue.hurry_new({Kind.PUT}) or state.books.hurry()
