"""The unfinished intents: which waits for which, and when each is due."""

import heapq
import random
from collections import deque
from collections.abc import Container, Iterator, Mapping

import trio

from s3mount.writeback.intents import Intent, IntentIndex, Kind, State


class IntentGraph:
    """An intent is *due* when its delay has passed and all that it waits for is finished; then it
    is *ready*, in a line in which it waits for its turn. No step costs more for there being
    thousands of others."""

    def __init__(self, shuffle: random.Random | None) -> None:
        self._shuffle = shuffle  # tests: any order that the DAG allows
        self._index = IntentIndex()
        # When, sequence, intent; also outdated entries, of which those that are true are others.
        self._due: list[tuple[float, float, Intent]] = []
        self._ready: deque[Intent] = deque()  # no deletes; some may have been put off since
        self._wake = trio.Event()

    # -- looking -------------------------------------------------------------------------------

    @property
    def by_kind(self) -> Mapping[Kind, int]:
        """How many are unfinished."""
        return self._index.by_kind

    def holders(self, key: str) -> set[Intent]:
        """Unfinished intents that hold exactly this key."""
        return set(self._index.holders(key))

    def trees_over(self, key: str) -> list[Intent]:
        """Unfinished renames of directories that `key` is in, in the order of their making."""
        return sorted(self._index.trees_over(key), key=lambda intent: intent.sequence)

    def each(self) -> Iterator[Intent]:
        """All that are unfinished, about in the order in which they were added: of a hundred
        thousand the first ones cost nothing."""
        return iter(self._index.all.values())

    def unfinished(self, prefix: str = "") -> list[Intent]:
        """In the order in which they were added."""
        return [
            intent
            for intent in sorted(self._index.all.values(), key=lambda i: i.sequence)
            if not prefix or any(key.startswith(prefix) for key in intent.held_keys())
        ]

    def is_busy_below(self, prefix: str) -> bool:
        """Whether an unfinished intent holds a key below `prefix`."""
        return any(
            key.startswith(prefix) and key != prefix
            for intent in self._index.all.values()
            for key in intent.held_keys()
        )

    # -- what is due ---------------------------------------------------------------------------

    def resume(self, intent: Intent, *, delay: float = 0.0) -> None:
        """Ends a deferral; whoever waits for it brings no attempt before `delay` has passed: one
        that is put off again at once, and hurried again, would keep the loop busy with nothing."""
        if intent.deferred:
            intent.not_before = trio.current_time() + delay
            if delay:
                intent.hurry_from = intent.not_before
            self._schedule(intent)

    def hurry(self, intent: Intent, *, by_hand: bool = False) -> None:
        """No more coalescing for this one and all that it waits for. What was refused keeps a
        short pause, unless `by_hand`."""
        pending = [intent]
        while pending:
            current = pending.pop()
            if by_hand:
                current.hurried, current.hurry_from = False, 0.0
            if current.state is State.WAITING and not current.hurried:
                current.hurried = True
                soonest = max(trio.current_time(), current.hurry_from)
                current.not_before = min(current.not_before, soonest)
                self._schedule(current)
                pending.extend(current.waits_for)

    def hurry_new(self, kinds: Container[Kind] = frozenset(Kind)) -> bool:
        """No more coalescing of what was never tried; True if that was any, or some is running.

        What failed keeps its pause.
        """
        found = False
        for intent in list(self._index.all.values()):
            if intent.kind not in kinds or intent.deferred:
                continue
            if intent.state is State.RUNNING:
                found = True
            elif not intent.attempts:
                found = found or not intent.hurried
                self.hurry(intent)
        return found

    def _take_due(self, now: float) -> list[Intent]:
        """Moves what is due into the line, but for deletes, which it answers."""
        due: list[Intent] = []
        while self._due and self._due[0][0] <= now:
            intent = heapq.heappop(self._due)[2]
            if _is_due(intent, now):
                due.append(intent)
        if self._shuffle is not None:
            due += self._ready
            self._ready.clear()
            self._shuffle.shuffle(due)
        self._ready += [intent for intent in due if intent.kind is not Kind.DELETE]
        return [intent for intent in due if intent.kind is Kind.DELETE]

    def _next_ready(self, now: float) -> Intent | None:
        """The first in the line that is still due."""
        while self._ready:
            intent = self._ready.popleft()
            if not _is_due(intent, now):
                continue
            if intent.kind is not Kind.DELETE:
                return intent
            self._schedule(intent)  # it became one since, and goes in a batch
        return None

    def _fill_batch(self, deletes: list[Intent]) -> list[Intent]:
        """A request for one delete takes all others along whose delay has not yet passed."""
        batch = list(dict.fromkeys(deletes))
        chosen = set(batch)
        for intent in self._index.all.values():
            if (
                intent.kind is Kind.DELETE
                and intent.state is State.WAITING
                and not intent.waits_for
                and not intent.deferred
                and intent.attempts == 0
                and intent not in chosen
            ):
                batch.append(intent)
        return batch

    # -- the graph -----------------------------------------------------------------------------

    def _link(self, intent: Intent, conflicts: set[Intent]) -> None:
        for other in conflicts:
            intent.waits_for.add(other)
            other.blocks.add(intent)
            if intent.hurried or other.deferred:
                self.hurry(other)
        self._index.add(intent)

    def _schedule(self, intent: Intent) -> None:
        if intent.not_before != float("inf"):
            heapq.heappush(self._due, (intent.not_before, intent.sequence, intent))
            self._wake.set()


def _is_due(intent: Intent, now: float) -> bool:
    return intent.state is State.WAITING and not intent.waits_for and intent.not_before <= now
