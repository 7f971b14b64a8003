"""The queue that carries intents out: order, coalescing delay, retries, batched deletes."""

import logging
import random
from collections.abc import Callable, Iterable

import trio

from s3mount.core.errors import FilesystemError
from s3mount.store.base import PutResult
from s3mount.store.errors import StoreError
from s3mount.writeback.bookkeeping import Bookkeeper
from s3mount.writeback.intent_graph import IntentGraph
from s3mount.writeback.intents import (
    BatchDelete,
    Executor,
    Intent,
    Kind,
    NotYetError,
    State,
)
from s3mount.writeback.outcomes import (
    LAST_HURRIED_RETRY,
    cancelled,
    held_up_by,
    is_final,
    is_transient,
    pause_after,
    refuse,
    wait_for,
)

log = logging.getLogger(__name__)

# Intents under way at once; the store's lanes bound the requests, this bounds tasks and memory.
CONCURRENT_INTENTS = 64
# DeleteObjects takes 1000 keys at most.
DELETE_BATCH = 1000
# The journal syncs by itself 0.1 s after a commit; a slow disk takes longer.
SURELY_SYNCED = 2.0


class IntentQueue(IntentGraph):
    """One per mount. Needs `run` as a background task."""

    def __init__(
        self,
        execute: Executor,
        delete_batch: BatchDelete,
        journal: Bookkeeper,
        *,
        ordered: bool = False,
        shuffle: random.Random | None = None,
    ) -> None:
        """`ordered`: each intent waits for the one added before it, whatever their keys."""
        super().__init__(shuffle)
        self._execute = execute
        self._delete_batch = delete_batch
        self._journal = journal
        self._ordered = ordered
        self._newest: Intent | None = None
        self._finished_at: dict[str, float] = {}  # keys of late, in order of trio time
        self.refusals = 0  # attempts so far that were refused; see Intent.was_refused
        self._running = 0
        self.progress_at = 0.0  # trio time of the last intent that finished
        self.done_by_kind: dict[str, int] = {}
        self.failures: list[str] = []  # final ones, newest last, at most 100

    # -- adding and changing -------------------------------------------------------------------

    def add(self, intent: Intent, *, delay: float = 0.0) -> Intent:
        """Records the intent; it starts after `delay` seconds and all that it waits for."""
        intent.sequence = self._journal.new_id()
        intent.created_at = trio.current_time()
        intent.not_before = intent.created_at + delay
        self._link(intent, self._all_before(intent))
        self._journal.record(intent)
        self._schedule(intent)
        log.debug("#%d %s: added", intent.sequence, intent.describe())
        return intent

    def restore(self, intent: Intent) -> Intent:
        """One of a mount that died, in its place of the order (its `sequence`), due at once.

        To be called in that order, before anything is added. The journal has it already.
        """
        intent.created_at = intent.not_before = trio.current_time()
        self._link(intent, self._all_before(intent))
        self._schedule(intent)
        log.debug("#%d %s: recovered", intent.sequence, intent.describe())
        return intent

    def _all_before(self, intent: Intent) -> set[Intent]:
        """What a new intent must wait for."""
        conflicts = self._index.conflicts(intent)
        if self._ordered:
            newest = self._newest
            if newest is not None and newest.state in (State.WAITING, State.RUNNING):
                conflicts.add(newest)
            self._newest = intent
        return conflicts

    def changed(self, intent: Intent) -> None:
        """The data of an unfinished intent changed: so does its record."""
        if intent.state in (State.WAITING, State.RUNNING):
            self._journal.update(intent)

    def report(self, failure: str) -> None:
        """Something acknowledged will not be done; for the status."""
        self.failures.append(failure)
        del self.failures[:-100]

    def retarget(self, intent: Intent, *, key: str) -> bool:
        """Gives a WAITING intent another target; False if that must be an intent of its own.

        Invariant: an intent only ever waits for older ones, so the graph has no cycle. (Swapping
        two names by three renames would otherwise end in two intents that wait for each other.) And
        a replay in the old order must find the directory there: `mv f g; mkdir f; mv g f/h`.
        """
        if intent.state is not State.WAITING or intent.copy_made is not None:
            return False
        if self._index.is_made_way_for(key, intent):
            return False
        old_key = intent.key
        self._index.remove(intent)
        intent.key = key
        conflicts = self._index.conflicts(intent)
        if self._ordered:
            conflicts |= intent.waits_for
        if any(other.sequence > intent.sequence for other in conflicts):
            intent.key = old_key
            self._index.add(intent)
            return False
        for other in intent.waits_for:
            other.blocks.discard(intent)
        intent.waits_for.clear()
        self._link(intent, conflicts)
        intent.retargeted = True
        self._journal.update(intent)
        self._schedule(intent)
        return True

    def become_delete(self, intent: Intent, keys: list[str], *, defer: bool) -> None:
        """What a WAITING rename was to move was removed: its keys are deleted in its place.

        `keys` are among those it holds. It keeps its place in the order, for newer intents may
        wait for it to free its source.
        """
        self._index.remove(intent)
        intent.kind = Kind.DELETE
        intent.source = None
        intent.key, intent.also_delete = keys[0], tuple(keys[1:])
        intent.on_start = intent.on_done = intent.on_copied = None
        self._index.add(intent)
        self._journal.update(intent)
        if defer and not intent.blocks:
            intent.not_before = float("inf")
        elif intent.blocks:
            self.hurry(intent)

    def cancel(self, intent: Intent) -> bool:
        """Drops a WAITING intent; those who wait for it see success. False: too late."""
        if intent.state is not State.WAITING:
            return False
        with self._journal.aftermath():
            self._finish(intent, State.CANCELLED)
        return True

    def give_up(self, intent: Intent) -> None:
        """Ends the intent with ECANCELED, wherever it stands; what it was to do is not done.

        Who waits for it hears so at once; a request under way ends first, for another one may not
        overtake it, and may still be carried out, as may a delete in a batch.
        """
        if intent.state is State.WAITING:
            self.withdraw(intent, cancelled(intent))
        elif intent.state is State.RUNNING and intent.scope is not None:
            self.refusals += 1
            intent.refusal, intent.refused = cancelled(intent), self.refusals
            intent.tell()
            intent.scope.cancel()
        elif intent.state is State.RUNNING:
            intent.unwanted = True

    def withdraw(self, intent: Intent, error: Exception) -> None:
        """A WAITING intent is given up for good, and the bucket shown as it is (on_failed)."""
        intent.error = error
        self._fail(intent)

    # -- waiting -------------------------------------------------------------------------------

    async def wait(
        self, intents: Iterable[Intent], *, timeout: float, progress: Callable[[], float]
    ) -> None:
        """Hurries them, also what failed before, and waits until all are finished.

        Raises the first final error, and at once that of an attempt that was refused: then the
        intent stays and is retried. `progress` tells the trio time of the last byte acknowledged:
        without any for `timeout` seconds the wait ends with ETIMEDOUT.
        """
        awaited = [intent for intent in intents if not intent.stalled]
        since = self.refusals
        for intent in awaited:
            self.hurry(intent)
        await wait_for(
            awaited,
            since=since,
            timeout=timeout,
            progress=lambda: max(progress(), self.progress_at),
        )

    # -- running -------------------------------------------------------------------------------

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        async with trio.open_nursery() as nursery:
            task_status.started()
            while True:
                pause = self._start_due(nursery)
                with trio.move_on_after(pause):
                    await self._wake.wait()
                self._wake = trio.Event()

    def _start_due(self, nursery: trio.Nursery) -> float:
        """Starts what can start; returns the seconds until more may be due."""
        now = trio.current_time()
        deletes = self._take_due(now)
        while self._running < CONCURRENT_INTENTS and (intent := self._next_ready(now)):
            self._begin(intent)
            nursery.start_soon(self._carry_out, intent)
        if deletes:
            batch = self._fill_batch(deletes)
            for start in range(0, len(batch), DELETE_BATCH):
                chunk = batch[start : start + DELETE_BATCH]
                for intent in chunk:
                    self._begin(intent)
                nursery.start_soon(self._carry_out_deletes, chunk)
        return max(0.0, self._due[0][0] - now) if self._due else float("inf")

    def _begin(self, intent: Intent) -> None:
        intent.state = State.RUNNING
        intent.refusal = None
        self._running += 1
        log.debug("#%d %s: starts", intent.sequence, intent.describe())

    def _must_be_durable(self, intent: Intent) -> bool:
        """Whether the bucket must not hear of it before the journal's disk has.

        After a power cut both names of what was renamed would be there for good; of two changes of
        names or attributes the later one alone; and the journal would still have what was done to
        the same key just before, which a replay would do again, over this, or an older state of
        the same file, by which a replay would take this for others' work. (Of a file's first PUT
        the program itself is told no sooner.)
        """
        if intent.retargeted or intent.kind in (Kind.COPY, Kind.RENAME_TREE):
            return True
        first = intent.kind is Kind.PUT and not intent.supersedes
        if not first and not self._journal.is_synced(intent):
            return True
        horizon = trio.current_time() - SURELY_SYNCED
        return any(
            self._finished_at.get(key, float("-inf")) > horizon for key in intent.held_keys()
        )

    def _note_finished(self, intent: Intent) -> None:
        now = trio.current_time()
        for key in intent.held_keys():
            self._finished_at.pop(key, None)
            self._finished_at[key] = now
        while next(iter(self._finished_at.values()), now) < now - SURELY_SYNCED:
            del self._finished_at[next(iter(self._finished_at))]

    async def _carry_out(self, intent: Intent) -> None:
        result: PutResult | None = None
        must_be_durable = self._must_be_durable(intent)  # as it was recorded by its callers
        try:
            if intent.on_start is not None:
                intent.on_start(intent)
                # After a crash its own outcome is recognised by what it was about to write.
                with self._journal.aftermath():
                    self._journal.update(intent)
            with trio.CancelScope() as intent.scope:
                if must_be_durable:
                    await self._journal.sync_if_possible()
                result = await self._execute(intent)
            if intent.scope.cancelled_caught:
                raise cancelled(intent)  # noqa: TRY301
        except NotYetError:
            self._running -= 1
            intent.state, intent.hurried = State.WAITING, False
            intent.not_before = float("inf")
            intent.error = None  # that of an attempt before is not what it waits for
            for held_up in held_up_by(intent):
                held_up.tell()
            if intent.on_put_off is not None:
                intent.on_put_off(intent)
            self._wake.set()
        except (StoreError, FilesystemError, OSError) as error:
            self._failed(intent, error)
        except Exception as error:
            log.exception("%s: unexpected failure", intent.describe())
            self._failed(intent, error)
        else:
            self._succeeded(intent, result)

    async def _carry_out_deletes(self, intents: list[Intent]) -> None:
        try:
            if any(self._must_be_durable(intent) for intent in intents):
                await self._journal.sync_if_possible()
            for intent in intents:
                if intent.on_start is not None:
                    intent.on_start(intent)
            failures = await self._delete_batch(intents)
        except (StoreError, OSError) as error:
            failures = dict.fromkeys(intents, error)
        except Exception as error:
            log.exception("deletes: unexpected failure")
            failures = dict.fromkeys(intents, error)
        for intent in intents:
            if intent in failures:
                self._failed(intent, failures[intent])
            else:
                self._succeeded(intent, None)

    def _succeeded(self, intent: Intent, result: PutResult | None) -> None:
        self._running -= 1
        name = intent.kind.value
        self.done_by_kind[name] = self.done_by_kind.get(name, 0) + 1
        with self._journal.aftermath():
            # Before its keys are free: what follows from it must be in the queue by then.
            if intent.on_done is not None:
                intent.on_done(intent, result)
            self._finish(intent, State.DONE)

    def _failed(self, intent: Intent, error: Exception) -> None:
        self._running -= 1
        intent.attempts += 1
        intent.doubtful = intent.doubtful or (isinstance(error, StoreError) and error.ambiguous)
        # Dropping it is not enough any more: it may have changed the bucket.
        intent.replaces = intent.replaces or is_transient(error)
        intent.error = cancelled(intent) if intent.unwanted else error
        if is_final(intent, intent.error):
            self._fail(intent)
        else:
            self._try_again(intent, error)

    def _try_again(self, intent: Intent, error: Exception) -> None:
        pause = pause_after(intent, error)
        level = logging.WARNING if is_transient(error) else logging.ERROR
        log.log(level, "%s: %s; again in %.0f s", intent.describe(), error, pause)
        intent.state = State.WAITING
        intent.hurried = False
        intent.scope = None
        intent.not_before = trio.current_time() + pause
        self._schedule(intent)
        if intent.on_retry is not None:
            intent.on_retry(intent, error)
        if not is_transient(error):
            intent.hurry_from = trio.current_time() + min(pause, LAST_HURRIED_RETRY)
            self.refusals += 1
            refuse(intent, error, self.refusals)
        self._wake.set()

    def _fail(self, intent: Intent) -> None:
        """For good: reported, and what was acknowledged is undone here as far as it can be."""
        assert intent.error is not None
        log.error("%s: given up: %s", intent.describe(), intent.error)
        self.failures.append(f"{intent.describe()}: {intent.error}")
        del self.failures[:-100]
        with self._journal.aftermath():
            if intent.on_failed is not None:
                intent.on_failed(intent, intent.error)
            self._finish(intent, State.FAILED)

    def _finish(self, intent: Intent, state: State) -> None:
        """In one commit with what its end causes."""
        intent.state = state
        log.debug("#%d %s: %s", intent.sequence, intent.describe(), state.value)
        self.progress_at = trio.current_time()
        self._index.remove(intent)
        for other in intent.waits_for:
            other.blocks.discard(intent)
        for other in intent.blocks:
            other.waits_for.discard(intent)
            if not other.waits_for:
                self._schedule(other)
        intent.waits_for.clear()
        intent.blocks.clear()
        self._journal.forget(intent)
        self._note_finished(intent)
        if intent.on_finished is not None:
            intent.on_finished(intent)
        intent.let_go()
        intent.finished.set()
        intent.tell()
        self._wake.set()
