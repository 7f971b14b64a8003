"""The unfinished intents of each inode, and the names they pin."""

import errno
import logging
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager

from s3mount.core.errors import FilesystemError
from s3mount.filesystem.state import State
from s3mount.namespace import Inode, Pin
from s3mount.store.errors import (
    AccessDenied,
    StoreError,
)
from s3mount.writeback.intents import Intent, Kind
from s3mount.writeback.intents import State as IntentState

log = logging.getLogger(__name__)

Place = tuple[Inode, str]  # a directory and a name in it
# Kinds whose `source_etag` is the version that they act on.
ACTING = {Kind.COPY, Kind.ATTRIBUTES, Kind.DELETE}


class Ledger:
    """Each inode has at most one WAITING intent, into which later changes coalesce."""

    def __init__(self, state: State) -> None:
        self.state = state
        # The newest unfinished intent of an inode (numbers are given anew, inodes are not).
        self._last: dict[Inode, Intent] = {}
        self._unfinished: Counter[Inode] = Counter()
        self._pins: dict[Intent, list[Pin]] = {}

    # -- looking -------------------------------------------------------------------------------

    def last(self, inode: Inode) -> Intent | None:
        return self._last.get(inode)

    def waiting(self, inode: Inode) -> Intent | None:
        """The inode's intent that has not started: what it will do can still be changed."""
        intent = self._last.get(inode)
        return intent if intent is not None and intent.state is IntentState.WAITING else None

    def is_only(self, inode: Inode, intent: Intent | None) -> bool:
        """Nothing but `intent`, if that, is on its way for the inode."""
        return self._unfinished[inode] == (intent is not None)

    # -- changing ------------------------------------------------------------------------------

    def change(self) -> AbstractContextManager[None]:
        """A change of the tree, all that it records in one commit of the journal. No awaits in it.

        Raises FilesystemError (EIO, ENOSPC) at its end where it cannot be recorded.
        """
        return self.state.books.change()

    # -- waiting -------------------------------------------------------------------------------

    async def wait(self, intents: Iterable[Intent]) -> None:
        await self.state.queue.wait(
            intents,
            timeout=self.state.config.writeback.no_progress_timeout,
            progress=self.state.progress,
        )

    async def settle(self, *intents: Intent | None) -> None:
        """For --sync, and while the bucket refuses changes: waits for the outcome of these.

        What is refused then is undone, for its caller knows. Else they count as done from now on,
        and are retried until they are.
        """
        wanted = [intent for intent in intents if intent is not None]
        if not self.state.cautious:
            for intent in wanted:
                intent.acknowledged = True
            return
        try:
            await self.wait(wanted)
        except (StoreError, FilesystemError) as error:
            if not (isinstance(error, FilesystemError) and error.errno == errno.ETIMEDOUT):
                self._undo(wanted, error)
            raise
        self.state.cautious = self.state.config.writeback.sync

    def _undo(self, intents: Iterable[Intent], error: Exception) -> None:
        for intent in intents:
            # A file's bytes are kept all the same, and sent as soon as that is possible.
            if (
                intent.state is IntentState.WAITING
                and intent.kind is not Kind.PUT
                and not intent.acknowledged
            ):
                self.state.queue.withdraw(intent, error)

    # -- results -------------------------------------------------------------------------------

    def _namespace_failed(self, inodes: Sequence[Inode], error: Exception) -> None:
        """What was acknowledged did not happen: show what is really there from now on."""
        self._refused(error)
        for inode in inodes:
            self._forget_name(inode)
            if inode.directory is not None:
                self.state.namespace.forget_names(inode)

    def _forget_name(self, inode: Inode) -> None:
        parent = inode.parent
        if parent is not None and parent.directory is not None:
            self.state.namespace.forget_names(parent)
            self._tell_kernel(inode)

    def _tell_kernel(self, inode: Inode) -> None:
        """The name may mean something else now."""
        if inode.parent is not None and self.state.invalidate is not None:
            self.state.invalidate(inode.parent.number, inode.name.encode("utf-8", "replace"), 0)

    def _follow(self, key: str, etag: str, size: int) -> None:
        """What waits to be done to `key` acts on the version that we have just put there; also
        where renames of directories are to give it another name before."""
        trees = self.state.queue.trees_over(key)
        while True:
            for intent in self.state.queue.holders(key):
                waits = intent.state is IntentState.WAITING
                if waits and intent.acts_on == key and intent.kind in ACTING:
                    intent.source_etag, intent.size = etag, size
                    self.state.queue.changed(intent)
            moves = [tree for tree in trees if tree.source and key.startswith(tree.source)]
            if not moves:
                return
            key = moves[0].key + key[len(moves[0].acts_on) :]
            later = self.state.queue.trees_over(key)
            trees = [tree for tree in later if tree.sequence > moves[0].sequence]

    def _refused(self, error: Exception) -> None:
        if isinstance(error, AccessDenied):
            self.state.cautious = True

    # -- the queue -----------------------------------------------------------------------------

    @property
    def _delay(self) -> float:
        return self.state.config.writeback.namespace_delay

    def _key(self, inode: Inode) -> str:
        return self.state.namespace.key(inode)

    def _marker_key(self, inode: Inode) -> str:
        """s3fs keeps the root's own attributes with the key `/`."""
        return self.state.namespace.key(inode) or "/"

    def _add(
        self, inode: Inode | None, intent: Intent, *places: Place, delay: float = 0.0
    ) -> Intent:
        """Pins the names until the intent is finished: no listing may contradict it before."""
        self._pin(intent, places or (place_of(inode) if inode is not None else ()))
        before = intent.on_finished

        def finished(done: Intent) -> None:
            if inode is not None:
                self._unfinished[inode] -= 1
                if not self._unfinished[inode]:
                    del self._unfinished[inode]
                if self._last.get(inode) is done:
                    del self._last[inode]
            self._unpin(done)
            if before is not None:
                before(done)

        intent.on_finished = finished
        if intent.on_retry is None:
            intent.on_retry = lambda _, error: self._refused(error)
        if inode is not None:
            self._last[inode] = intent
            self._unfinished[inode] += 1
        if intent.recovered:
            return self.state.queue.restore(intent)
        intent.add_unanswered(self.state.uploader.doubts.unanswered(intent.acts_on))
        return self.state.queue.add(intent, delay=delay)

    def _unpin(self, intent: Intent) -> None:
        for pin in self._pins.pop(intent, ()):
            pin.release()

    def _pin(self, intent: Intent, places: Sequence[Place]) -> None:
        pins = self._pins.setdefault(intent, [])
        pins.extend(self.state.namespace.pin(parent, name) for parent, name in places)

    def hide_below(self, inode: Inode) -> None:
        """To be called of a directory made where one was removed just now: what is still to go
        away below is not in it."""
        prefix = self._key(inode)
        for intent in self.state.queue.unfinished(prefix):
            names = {
                key[len(prefix) :].partition("/")[0]
                for key in intent.held_keys()
                if key.startswith(prefix) and key != prefix
            }
            self._pin(intent, [(inode, name) for name in names])


def place_of(inode: Inode) -> tuple[Place, ...]:
    """Where the inode stands: directory and name; empty for the root."""
    return () if inode.parent is None else ((inode.parent, inode.name),)
