"""Intents: what is still to be done to the bucket, and in which order.

Every mutation of the bucket is an intent that names the keys it holds. An intent waits for every
older unfinished intent that holds one of its keys, or a prefix above one of them (a directory
rename holds two prefixes). Two intents without a key in common may run in any order. That is the
whole DAG, but for two rules about directories:

- a directory's own delete waits for everything still to be done to its children;
- a child's delete or move away waits for the directory's marker, if that is still to be written,
  or other hosts would see the directory vanish for a moment.

All methods but `wait`, `settled` and `run` are synchronous: what they decide is decided before
anything else runs.
"""

import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from enum import Enum
from typing import Protocol

import trio

from s3mount.core.metadata import Attributes
from s3mount.store.base import (
    ALWAYS,
    Condition,
    PutResult,
    WriteHeaders,
)


class Kind(Enum):
    PUT = "put"  # a file's bytes and metadata
    MKDIR = "mkdir"  # a directory marker with its metadata
    COPY = "copy"  # a file's rename: copy, then delete the source
    ATTRIBUTES = "attributes"  # metadata alone: a copy onto itself
    DELETE = "delete"
    RENAME_TREE = "rename-tree"  # a directory's rename: everything below a prefix


class State(Enum):
    WAITING = "waiting"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"


# So many different headers of requests without an answer are kept for one key: each attempt looks
# at what became of the one before, so that there are two, and more only where mounts die in a row.
MOST_UNANSWERED = 16


class Absent(Enum):
    ABSENT = "absent"


ABSENT = Absent.ABSENT
# What a key held: nothing, or an object with this ETag.
Expected = Absent | str


class NotYetError(Exception):
    """Raised by on_start: the intent is put off until it is resumed."""


class Content(Protocol):
    """The bytes of a PUT."""

    async def send(self, key: str, headers: WriteHeaders, condition: Condition) -> PutResult: ...


@dataclass(frozen=True, slots=True)
class MovedObject:
    """What became of one object below a renamed directory."""

    source_etag: str
    result: PutResult
    size: int


@dataclass(frozen=True, slots=True)
class CopyMade:
    """The first half of a rename: `attributes` were those wanted then; at `looked` (trio time)
    the source was the version `source_etag` (None: it is not there, or not ours to delete)."""

    result: PutResult
    attributes: Attributes | None
    source_etag: str | None
    looked: float


@dataclass(slots=True, eq=False, kw_only=True)
class Intent:
    """One thing to be done; `key` is the target. Fields may change until it is RUNNING."""

    kind: Kind
    key: str
    source: str | None = None  # COPY: key; RENAME_TREE: prefix
    also_delete: tuple[str, ...] = ()  # DELETE: more keys (other marker forms); MKDIR: legacy ones
    source_etag: str | None = None  # the version this intent acts on; None: whatever is there
    attributes: Attributes | None = None  # None for COPY: metadata stays as it is
    # COPY: what stat shows where `attributes` leaves it as it is; RENAME_TREE: of the directory,
    # whose own marker has `source_etag`, if it has one. For a replay.
    shown: Attributes | None = None
    # PUT, MKDIR and ATTRIBUTES: what the attempt that began last writes (ATTRIBUTES: beside what
    # others' metadata the object has).
    headers: WriteHeaders | None = None
    # What requests whose answers nobody heard may have put under the key that it acts on: earlier
    # attempts, also of mounts that died, and those of intents in whose place it is. It is not
    # others' work if that is found there.
    unanswered: tuple[WriteHeaders, ...] = ()
    content: Content | None = None  # PUT
    condition: Condition = ALWAYS  # PUT
    size: int = 0  # bytes, for the status
    replaces: bool = False  # the target may hold an older object: dropping this is not enough
    file: int | None = None  # PUT: the id of the FileRecord with its bytes
    # What the target held when the intent was made; None: unknown, or whatever it is. Filled in by
    # on_start where it is known only then, and journalled before the request goes out.
    expects: Expected | None = None
    acknowledged: bool = False  # a program was told that it is done: it must never be lost
    copied_phase: bool = False  # COPY and RENAME_TREE: the copies are there, the deletes come next
    recovered: bool = False  # replayed after a crash: every executor looks before it acts
    created: float = field(default_factory=time.time)  # wall clock; a replayed one keeps its own
    # Replayed: when the mount that recorded it died, when one that replayed it came to life, when
    # that died, and so on (wall clock). They may themselves have put there what is in the bucket.
    lives: tuple[float, ...] = ()
    # Fills in the latest attributes, ETag and condition, just before the intent starts.
    on_start: "Callable[[Intent], None] | None" = None
    on_done: "Callable[[Intent, PutResult | None], None] | None" = None
    on_failed: "Callable[[Intent, Exception], None] | None" = None
    # COPY and RENAME_TREE: the copies are there, the deletes come next. (A tree has no result.)
    on_copied: "Callable[[Intent, PutResult | None], None] | None" = None
    # An attempt failed; another one follows.
    on_retry: "Callable[[Intent, Exception], None] | None" = None
    # on_start or the executor raised NotYetError.
    on_put_off: "Callable[[Intent], None] | None" = None
    # Called last, however the intent ended; also when it was cancelled.
    on_finished: "Callable[[Intent], None] | None" = None
    # The queue's own.
    sequence: int = -1
    state: State = State.WAITING
    waits_for: "set[Intent]" = field(default_factory=set)
    blocks: "set[Intent]" = field(default_factory=set)
    not_before: float = 0.0  # trio time; inf: until hurried by name (a reader holds the object)
    created_at: float = 0.0
    recorded_at: float = 0.0  # trio time: the journal has it as it is since then
    attempts: int = 0
    error: Exception | None = None  # the last one
    # An earlier attempt may have been carried out, for its answer is not known.
    doubtful: bool = False
    copy_made: CopyMade | None = None  # COPY: what is left to do is the source's delete
    hurried: bool = False
    retargeted: bool = False  # its key is another one than it was recorded with at first
    # PUT: the journal may have an older state of the same file, which a replay would send.
    supersedes: bool = False
    unwanted: bool = False  # given up while it ran in a batch with others
    # The last attempt of this one, or of one that it waits for, was refused, and nothing is tried
    # before a pause; and the how manieth refusal of the queue that was.
    refusal: Exception | None = None
    refused: int = 0
    hurry_from: float = 0.0  # trio time: whoever waits for it brings no attempt before
    scope: trio.CancelScope | None = None  # while RUNNING
    copied: "dict[str, MovedObject]" = field(default_factory=dict)  # RENAME_TREE: by new key
    finished: trio.Event = field(default_factory=trio.Event)
    changed: trio.Event = field(default_factory=trio.Event)  # set, and a new one: see tell()

    def add_unanswered(self, headers: Iterable[WriteHeaders]) -> None:
        self.unanswered = newest_of([*self.unanswered, *headers])

    def replaces_intent(self, other: "Intent") -> None:
        """Of the same key, dropped before this one was added; an attempt may have been made."""
        self.add_unanswered(other.may_have_written)

    @property
    def may_have_written(self) -> tuple[WriteHeaders, ...]:
        return self.unanswered if self.headers is None else (*self.unanswered, self.headers)

    @property
    def acts_on(self) -> str:
        """The key with the object that is sent, copied, changed or deleted."""
        return self.key if self.source is None else self.source

    def tell(self) -> None:
        """Who waits for it looks again: it is finished or was refused."""
        self.changed.set()
        self.changed = trio.Event()

    def let_go(self) -> None:
        """It is finished: the files and inodes that its callbacks hold are not its affair now."""
        self.content = None
        self.on_start = self.on_done = self.on_failed = self.on_copied = None
        self.on_retry = self.on_put_off = self.on_finished = None

    def was_refused(self, since: int) -> bool:
        """Whether it waits for another attempt after a refusal later than that of this number."""
        return self.refusal is not None and self.refused > since

    def held_keys(self) -> set[str]:
        """The keys held; a directory rename holds the two prefixes themselves as well."""
        held = {self.key, *self.also_delete}
        if self.source is not None:
            held.add(self.source)
        return held

    @property
    def deferred(self) -> bool:
        return self.state is State.WAITING and self.not_before == float("inf")

    @property
    def stalled(self) -> bool:
        """Whether it, or what it waits for, is put off until somebody resumes it."""
        pending, seen = [self], {self}
        while pending:
            current = pending.pop()
            if current.deferred:
                return True
            fresh = current.waits_for - seen
            seen |= fresh
            pending.extend(fresh)
        return False

    def describe(self) -> str:
        origin = f"{self.source!r} -> " if self.source is not None else ""
        return f"{self.kind.value} {origin}{self.key!r}"


def newest_of(headers: Iterable[WriteHeaders]) -> tuple[WriteHeaders, ...]:
    """Each once, in the order in which they were first sent; at most MOST_UNANSWERED."""
    found: list[WriteHeaders] = []
    for one in headers:
        if one not in found:
            found.append(one)
    return tuple(found[-MOST_UNANSWERED:])


def parent_of(key: str) -> str:
    """The prefix of the directory that holds `key`; works for markers (`a/b/` -> `a/`)."""
    head, slash, _ = key.rstrip("/").rpartition("/")
    return head + slash


# What carries an intent out. It raises StoreError or FilesystemError; deletes are batched.
Executor = Callable[[Intent], Awaitable[PutResult | None]]
BatchDelete = Callable[[list[Intent]], Awaitable[dict[Intent, Exception]]]


class IntentIndex:
    """Unfinished intents by the keys they hold, by the directory of these, and the trees."""

    def __init__(self) -> None:
        self.all: dict[int, Intent] = {}
        self.by_kind: Counter[Kind] = Counter()
        self._by_key: dict[str, set[Intent]] = {}
        self._by_parent: dict[str, set[Intent]] = {}
        self._trees: set[Intent] = set()

    def add(self, intent: Intent) -> None:
        if intent.sequence not in self.all:
            self.by_kind[intent.kind] += 1
        self.all[intent.sequence] = intent
        for key in intent.held_keys():
            self._by_key.setdefault(key, set()).add(intent)
            self._by_parent.setdefault(parent_of(key), set()).add(intent)
        if intent.kind is Kind.RENAME_TREE:
            self._trees.add(intent)

    def remove(self, intent: Intent) -> None:
        if self.all.pop(intent.sequence, None) is not None:
            self.by_kind[intent.kind] -= 1
        for key in intent.held_keys():
            for index, name in ((self._by_key, key), (self._by_parent, parent_of(key))):
                holders = index.get(name)
                if holders is not None:
                    holders.discard(intent)
                    if not holders:
                        del index[name]
        self._trees.discard(intent)

    def holders(self, key: str) -> set[Intent]:
        return self._by_key.get(key, set())

    def trees_over(self, key: str) -> set[Intent]:
        return {tree for tree in self._trees if inside(key, tree)}

    def is_made_way_for(self, key: str, intent: Intent) -> bool:
        """Whether a directory above `key` has its name only since `intent` or a newer one has taken
        something else away from there."""
        above = parent_of(key)
        while above:
            if above[:-1] == intent.source:
                return True
            takes = {other for other in self.holders(above) if other.kind is not Kind.MKDIR}
            takes |= self.holders(above[:-1])
            if any(other.sequence > intent.sequence for other in takes):
                return True
            above = parent_of(above)
        return False

    def conflicts(self, intent: Intent) -> set[Intent]:
        """All that `intent` must wait for."""
        keys = intent.held_keys()
        found: set[Intent] = set()
        for key in keys:
            found |= self.holders(key)
            if intent.kind is Kind.DELETE and key.endswith("/"):
                found |= self._by_parent.get(key, set())
        leaving = keys if intent.kind is Kind.DELETE else set()
        if intent.source is not None:
            leaving = leaving | {intent.source}
        for key in leaving:
            above = self.holders(parent_of(key))
            found |= {other for other in above if other.kind is Kind.MKDIR}
        for tree in self._trees:
            if any(inside(key, tree) for key in keys):
                found.add(tree)
        if intent.kind is Kind.RENAME_TREE:
            found |= {
                other
                for other in self.all.values()
                if any(inside(key, intent) for key in other.held_keys())
            }
        found.discard(intent)
        return found


def inside(key: str, tree: Intent) -> bool:
    return key.startswith(tree.key) or (tree.source is not None and key.startswith(tree.source))
