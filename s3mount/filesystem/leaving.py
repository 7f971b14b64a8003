"""Draining: what is pending is sent, counted, waited for or given up."""

import errno
from collections.abc import Callable

import trio

from s3mount.core.errors import FilesystemError
from s3mount.core.rate import seconds_left
from s3mount.filesystem.mutations import Mutations
from s3mount.filesystem.open_file import OpenFile
from s3mount.filesystem.stat import Change, Pending
from s3mount.filesystem.state import State
from s3mount.namespace import Inode
from s3mount.store.errors import StoreError
from s3mount.writeback.intents import Intent

# How often a waiting drain reports its progress, in seconds.
REPORT_EVERY = 0.5
# How often it looks whether the bytes that are put beside others' are there, or on the disk.
BEHIND = 0.05


class Leaving:
    def __init__(self, state: State, mutations: Mutations) -> None:
        self.state = state
        self.mutations = mutations

    def pending(self) -> Pending:
        unsent = self._unsent()
        traffic = self.state.uploader.traffic
        left, per_second = sum(file.unsent_bytes for file in unsent), traffic.per_second()
        errors = [
            f"{self.state.namespace.key(file.inode)}: {file.error}"
            for file in unsent
            if file.error is not None
        ]
        errors += [
            f"{intent.describe()}: {intent.error}"
            for intent in self.state.queue.each()
            if intent.error is not None
        ]
        return Pending(
            intents=sum(self.state.queue.by_kind.values()),
            bytes=left,
            files=len(unsent),
            errors=errors,
            unfinished=sum(file.is_being_written for file in unsent),
            sent=traffic.sent,
            per_second=per_second,
            eta=seconds_left(left, per_second),
        )

    def left(self) -> list[str]:
        """What is pending, by name."""
        intents = self.state.queue.unfinished()
        known = {intent.content for intent in intents if intent.content is not None}
        names = []
        for intent in intents:
            size = f" ({intent.size} bytes)" if intent.size else ""
            error = f": {intent.error}" if intent.error is not None else ""
            names.append(f"{intent.describe()}{size}{error}")
        for file in self._unsent():
            if file not in known:
                state = "still being written" if file.is_being_written else "unsent"
                names.append(f"{file.key!r} ({file.size} bytes, {state})")
        return names

    def _unsent(self) -> list[OpenFile]:
        return [
            file
            for file in list(self.state.open_files.values())
            if (file.dirty or file.put is not None) and (file.taken or not file.inode.detached)
        ]

    def _complete(self) -> list[OpenFile]:
        """Those that nobody is still writing: half a file is never published."""
        return [file for file in self._unsent() if not file.is_being_written]

    def _giving_way(self) -> bool:
        """Bytes are being put beside what other hosts have put in their place."""
        return any(file.taken and file.dirty and file.error is None for file in self._complete())

    def _on_the_way_to_the_disk(self) -> bool:
        """Bytes are, whose PUT enters the queue then."""
        return any(file.records.behind > 0 for file in self._complete())

    async def all_in_queue(self, prefix: str) -> None:
        """What was written below `prefix` and released without a close has its PUT in the queue."""
        for file in self._complete():
            while file.records.behind and file.key.startswith(prefix):
                await file.records.one_caught_up.wait()

    def _push(self) -> None:
        """All that can be sent is on its way, without any more delay; what failed has its pause."""
        for file in self._complete():
            idle = file.put is None and not file.records.behind
            if idle and file.error is None and not file.taken:
                self.mutations.send_behind(file)
        self.state.queue.hurry_new()

    async def drain(
        self, timeout: float | None, progress: Callable[[Pending], None] | None
    ) -> Pending:
        """Ends early when all that is left was refused: waiting does not help against that."""
        mark = self.state.queue.refusals
        for intent in self.state.queue.unfinished():
            self.state.queue.hurry(intent)
        with trio.move_on_after(float("inf") if timeout is None else timeout):
            while True:
                self._push()
                left = self.state.queue.unfinished()
                open_ended = [intent for intent in left if not _is_stuck(intent, mark)]
                behind = self._giving_way() or self._on_the_way_to_the_disk()
                if not open_ended and not behind:
                    break
                if progress is not None:
                    progress(self.pending())
                with trio.move_on_after(REPORT_EVERY):
                    if open_ended:
                        await open_ended[-1].changed.wait()
                    else:
                        await trio.sleep(BEHIND)
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

    async def retry(self, path: str) -> list[Change]:
        """What is pending for `path` (everything, if that is empty) is tried without a pause.

        Raises ENOENT where nothing is."""
        if not path.strip("/"):
            intents = self.state.queue.unfinished()
        else:
            file = self._file(path)
            if file is not None and file.dirty and file.put is None and not file.handles:
                file.error = None
                await self.mutations.record(file)
            key = self.state.config.prefix + path.strip("/")
            below = self.state.queue.unfinished(key + "/")
            intents = list(dict.fromkeys([*self._intents_at(path), *below]))
        if not intents:
            raise _nothing_pending(path)
        for intent in intents:
            self.state.queue.hurry(intent, by_hand=True)
        return [_change(intent) for intent in intents]

    def pending_at(self, path: str) -> list[Change]:
        """What this mount holds for `path` and the bucket does not have. Raises ENOENT: nothing."""
        found = [_change(intent) for intent in self._intents_at(path)]
        file = self._file(path)
        if not found and file is not None and file.dirty:
            error = None if file.error is None else str(file.error)
            found.append(Change(f"unsent bytes of {path!r}", "put", file.size, error))
        if not found:
            raise _nothing_pending(path)
        return found

    def cancel(self, path: str) -> list[Change]:
        """Gives up all of `pending_at`."""
        given_up = self.pending_at(path)
        intents = self._intents_at(path)
        for intent in intents:
            self.state.queue.give_up(intent)
        file = self._file(path)
        if file is not None and file.dirty and not intents:
            file.sent = file.changes
            if not file.handles:
                self.mutations.close(file)
        return given_up

    def _intents_at(self, path: str) -> list[Intent]:
        """Unfinished ones of what stands at `path`, and of what stood there before, in order."""
        inode = self._find(path)
        file = self._file(path)
        found = {*(self.mutations.of_file(file) if file is not None else [])}
        last = None if inode is None else self.mutations.last(inode)
        if last is not None:
            found.add(last)
        key = self.state.config.prefix + path.strip("/")
        found |= self.state.queue.holders(key) | self.state.queue.holders(key + "/")
        return sorted(found, key=lambda intent: intent.sequence)

    def _file(self, path: str) -> OpenFile | None:
        inode = self._find(path)
        return None if inode is None else self.state.open_files.get(inode)

    def _find(self, path: str) -> Inode | None:
        inode = self.state.namespace.root
        for name in filter(None, path.split("/")):
            found = self.state.namespace.peek(inode, name)
            if not isinstance(found, Inode):
                return None
            inode = found
        return inode


def _change(intent: Intent) -> Change:
    error = None if intent.error is None else str(intent.error)
    return Change(intent.describe(), intent.kind.value, intent.size, error)


def _is_stuck(intent: Intent, mark: int) -> bool:
    """Waiting does not help: it was refused since, or its file is being written anew."""
    return intent.was_refused(mark) or intent.stalled


def _nothing_pending(path: str) -> FilesystemError:
    return FilesystemError(errno.ENOENT, f"nothing is pending for {path!r}")
