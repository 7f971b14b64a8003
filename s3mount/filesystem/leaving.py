"""Draining: what is pending is sent, counted, waited for or given up."""

import errno
from collections.abc import Callable

import trio

from s3mount.core.errors import FilesystemError
from s3mount.filesystem.mutations import Mutations
from s3mount.filesystem.open_file import OpenFile
from s3mount.filesystem.stat import Pending
from s3mount.filesystem.state import State
from s3mount.namespace import Inode
from s3mount.store.base import StoreError

# How often a waiting drain reports its progress, in seconds.
REPORT_EVERY = 0.5


class Leaving:
    def __init__(self, state: State, mutations: Mutations) -> None:
        self.state = state
        self.mutations = mutations

    def pending(self) -> Pending:
        unsent = self._unsent()
        intents = self.state.queue.unfinished()
        errors = [
            f"{self.state.namespace.key(file.inode)}: {file.error}"
            for file in unsent
            if file.error is not None
        ]
        errors += [
            f"{intent.describe()}: {intent.error}" for intent in intents if intent.error is not None
        ]
        return Pending(
            intents=len(intents),
            bytes=sum(file.size for file in unsent),
            files=len(unsent),
            errors=errors,
        )

    def _unsent(self) -> list[OpenFile]:
        return [
            file
            for file in list(self.state.open_files.values())
            if (file.dirty or file.put is not None) and not file.inode.detached
        ]

    def _complete(self) -> list[OpenFile]:
        """Those that nobody is still writing: half a file is never published."""
        return [
            file for file in self._unsent() if not any(handle.writable for handle in file.handles)
        ]

    def _push(self) -> None:
        """Everything that can be sent is on its way, without any more delay."""
        for file in self._complete():
            if file.put is None and file.error is None:
                self.mutations.put(file)
        for intent in self.state.queue.unfinished():
            self.state.queue.hurry(intent)

    async def drain(
        self, timeout: float | None, progress: Callable[[Pending], None] | None
    ) -> Pending:
        with trio.move_on_after(float("inf") if timeout is None else timeout):
            while True:
                self._push()
                left = self.state.queue.unfinished()
                if not left:
                    break
                if progress is not None:
                    progress(self.pending())
                with trio.move_on_after(REPORT_EVERY):
                    await left[-1].finished.wait()
        return self.pending()

    async def flush_all(self) -> None:
        failed: list[Exception] = []
        for file in self._complete():
            file.error = None
            try:
                await self.mutations.commit(file)
            except (StoreError, FilesystemError) as error:
                failed.append(error)
        await self.mutations.wait(self.state.queue.unfinished())
        if failed:
            raise failed[0]

    def cancel(self, path: str) -> str:
        """What this mount holds for `path` and the bucket does not have is given up."""
        inode = self._find(path)
        given_up: list[str] = []
        file = self.state.open_files.get(inode)
        intents = {*(self.mutations.of_file(file) if file is not None else [])}
        last = self.mutations.last(inode)
        if last is not None:
            intents.add(last)
        for intent in intents:
            given_up.append(intent.describe())
            self.state.queue.give_up(intent)
        if file is not None and file.dirty and not intents:
            given_up.append(f"{file.size} unsent bytes of {path!r}")
            file.sent = file.changes
            if not file.handles:
                self.mutations.close(file)
        if not given_up:
            raise FilesystemError(errno.ENOENT, f"nothing is pending for {path!r}")
        return "given up: " + ", ".join(given_up)

    def _find(self, path: str) -> Inode:
        inode = self.state.namespace.root
        for name in filter(None, path.split("/")):
            found = self.state.namespace.peek(inode, name)
            if not isinstance(found, Inode):
                raise FilesystemError(errno.ENOENT, f"nothing is pending for {path!r}")
            inode = found
        return inode
