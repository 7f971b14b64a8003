"""One journal taken up by mount after mount, each of which is killed at a chosen moment."""

import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import trio
import trio.testing

from s3mount.core.config import MountConfig
from s3mount.filesystem.build import open_filesystem
from s3mount.store.memory import MemoryStore
from s3mount.writeback.journal_records import JournalContents
from tests.model.mounted import EPOCH, Client
from tests.model.relaunching import MortalJournal, MortalStore

A_WHILE = 5.0
PATIENCE = 3600.0


class Lives:
    """`left`: what the journal of the last mount has."""

    def __init__(self, store: MemoryStore, config: MountConfig) -> None:
        self.store = store
        self.left = JournalContents()
        self._config = config
        self._number = 0

    @asynccontextmanager
    async def one(self) -> AsyncIterator[Client]:
        """Until the end of the block: then the mount is dead, whatever it was doing. The hooks of
        the store are of one life. Recovery goes on behind the block."""
        store, journal = MortalStore(self.store), MortalJournal(self.left)
        fs = await open_filesystem(
            self._of_this_life(), store, clock=self.store.monotonic, journal=journal
        )
        try:
            async with trio.open_nursery() as nursery:
                await nursery.start(fs.run)
                nursery.start_soon(fs.recover)
                await trio.testing.wait_all_tasks_blocked()
                with trio.fail_after(PATIENCE):
                    yield Client(fs)
                store.dead = journal.dead = True
                self.left = replace(journal.load(), written_at=EPOCH + trio.current_time())
                self._keep_spool()
                self.store.before = self.store.after = None
                nursery.cancel_scope.cancel()
        finally:
            fs.state.spool.close()

    async def last(self) -> list[str]:
        """A life at whose end nothing is left to do; answers the failures in its status."""
        async with self.one() as client:
            assert not await client.fs.drain(600.0)
            await trio.sleep(A_WHILE)
            failures = list(client.fs.status()["failures"])
        assert not self.left.intents
        return failures

    def _of_this_life(self) -> MountConfig:
        directory = self._config.cache_dir / f"life-{self._number}"
        directory.mkdir(exist_ok=True)
        writeback = replace(self._config.writeback, spool_dir=directory / "spool")
        return replace(self._config, cache_dir=directory, writeback=writeback)

    def _keep_spool(self) -> None:
        before = self._of_this_life().writeback.spool_dir
        self._number += 1
        shutil.copytree(before, self._of_this_life().writeback.spool_dir)
