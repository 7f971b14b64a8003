"""Deleting objects without a mount: a thousand a request, a directory's marker after what is in
it."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial

from s3mount.store.base import ListedObject, ObjectStore
from s3mount.store.errors import StoreError
from s3mount.writeback.parallel import all_of

BATCH = 1000  # keys of one DeleteObjects, S3's own bound
PARALLEL_BATCHES = 4
KEPT_FAILURES = 20  # of which the key and the reason are told; the rest is counted


@dataclass(slots=True)
class Outcome:
    """What a tool has done so far. Its owner may show it at any time."""

    objects: int = 0
    bytes: int = 0
    failed: int = 0
    missing: int = 0  # of several things that were named, those that are not there
    failures: list[tuple[str, Exception]] = field(default_factory=list)

    def fail(self, key: str, error: Exception) -> None:
        self.failed += 1
        if len(self.failures) < KEPT_FAILURES:
            self.failures.append((key, error))


class MarkersLast:
    """Puts keys that come in S3's order into one in which each marker comes after all that is
    below it. What it holds back is the path to where it is."""

    def __init__(self) -> None:
        self._open: list[ListedObject] = []

    def sort(
        self, objects: Iterable[ListedObject]
    ) -> tuple[list[ListedObject], list[ListedObject]]:
        """Those that can go at once, and markers that can go once those have gone."""
        at_once: list[ListedObject] = []
        closed: list[ListedObject] = []
        for one in objects:
            while self._open and not one.key.startswith(self._open[-1].key):
                closed.append(self._open.pop())
            (self._open if one.key.endswith("/") else at_once).append(one)
        return at_once, closed

    def rest(self) -> list[ListedObject]:
        rest = list(reversed(self._open))
        self._open.clear()
        return rest


class Remover:
    """`outcome` grows while it goes on, and may be shared. `each` is told of every key that is
    gone, or, in a dry run, would be."""

    def __init__(
        self,
        store: ObjectStore,
        *,
        outcome: Outcome | None = None,
        dry_run: bool = False,
        each: Callable[[str], None] = lambda key: None,
    ) -> None:
        self.outcome = Outcome() if outcome is None else outcome
        self._store = store
        self._dry_run = dry_run
        self._each = each

    async def tree(self, prefix: str, markers: Sequence[str] = ()) -> None:
        """All that begins with `prefix`, then `markers`. What cannot be deleted is in the outcome.

        Raises StoreErrors of the listing: what is left is then as it was.
        """
        order, after, done = MarkersLast(), "", False
        while not done:
            found: list[ListedObject] = []
            while not done and len(found) < PARALLEL_BATCHES * BATCH:
                # By key, not by token: what the token names may be gone by then.
                page = await self._store.list(prefix, delimiter="", start_after=after)
                found += page.objects
                after = page.objects[-1].key if page.objects else after
                done = page.next_token is None
            at_once, closed = order.sort(found)
            await self.objects(at_once)
            await self._markers(closed)
        await self._markers(order.rest())
        await self._markers([ListedObject(key, 0, "", 0) for key in markers])

    async def _markers(self, markers: Sequence[ListedObject]) -> None:
        """Not if something stays below one of them, perhaps: its attributes stay as well."""
        if not self.outcome.failed:
            await self.objects(markers)

    async def objects(self, objects: Sequence[ListedObject]) -> None:
        batches = [objects[start : start + BATCH] for start in range(0, len(objects), BATCH)]
        await all_of([partial(self._batch, batch) for batch in batches], PARALLEL_BATCHES)

    async def _batch(self, batch: Sequence[ListedObject]) -> None:
        failed: dict[str, StoreError] = {}
        if not self._dry_run:
            try:
                failures = await self._store.delete_many([one.key for one in batch])
                failed = {failure.key: failure.error for failure in failures}
            except StoreError as error:
                failed = {one.key: error for one in batch}
        for one in batch:
            if one.key in failed:
                self.outcome.fail(one.key, failed[one.key])
            else:
                self.outcome.objects += 1
                self.outcome.bytes += one.size
                self._each(one.key)


@dataclass(frozen=True, slots=True)
class Survey:
    """What is below a prefix; `more`: at least so much, the rest was not counted."""

    objects: int
    bytes: int
    more: bool


async def survey(store: ObjectStore, prefix: str, enough: int) -> Survey:
    """Counts up to about `enough` objects."""
    objects = size = 0
    token: str | None = None
    while True:
        page = await store.list(prefix, delimiter="", token=token)
        objects += len(page.objects)
        size += sum(one.size for one in page.objects)
        token = page.next_token
        if token is None or objects >= enough:
            return Survey(objects, size, token is not None)
