"""One script on one machine, and what a power cut at any of its steps leaves to the next mount."""

import itertools
import shutil
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import trio
import trio.testing
from trio._core import _run

from s3mount.writeback.recoverable import Recoverable
from tests.model.bucket import leftovers
from tests.model.mounted import Client, tiny_config
from tests.model.power_ledger import Ledger, Step, Tree, fits, tree_of, tree_shown
from tests.model.power_scripts import PATIENCE, Script
from tests.model.relaunching import one_clock, one_tick
from tests.model.volatile_machine import Image, Machine, Pace, Remains, remains

# The machine is on again after so many seconds.
OFF = 2.0
A_WHILE = 5.0
# An upload whose id was never learnt is aborted an hour later.
LEFT_UPLOADS = 4400.0


class Trial:
    """Lives the script through; `images`: the machine at each step of it."""

    def __init__(
        self, directory: Path, steps: list[Step], durability: str, pace: Pace, spool_limit: int
    ) -> None:
        self._directory = directory
        self._durability = durability
        self._pace = pace
        self._config = tiny_config(directory, durability=durability, spool_limit=spool_limit)
        self._ledger = Ledger(steps, durability)
        self._machine = Machine(directory / "first", self._config, pace)
        self._lives = itertools.count(1)
        _alone(lambda: self._live(steps))
        self.images = self._machine.images

    async def _live(self, steps: list[Step]) -> None:
        machine = self._machine
        async with machine.running() as client:
            with trio.fail_after(PATIENCE):
                await Script(steps, machine.store).run(client, machine.acknowledge)
            assert not await client.fs.drain(PATIENCE)
            await trio.sleep(A_WHILE)
            machine.step("at the end")
            assert leftovers(client.fs, machine.store) == []
        every = len(steps)
        (allowed,) = list(self._ledger.allowed(every, [0] * every, 0))[:1]
        _check("stored without a cut", [allowed], tree_of(machine.store))

    def recover(
        self, left: Remains, first: Remains | None = None, *, watched: bool = False
    ) -> list[Image]:
        """The next mount, on what is left; it must end as the ledger allows. `first`: what the
        first cut had left, where this is that of another one during the recovery. Answers the
        images of this life, if it is to be watched."""
        directory = self._directory / f"life-{next(self._lives)}"
        machine = Machine(directory, self._config, self._pace, left, watched=watched)
        try:
            _alone(lambda: self._go_on(machine, first or left), left.image.at + OFF)
        except BaseException as error:
            error.add_note(f"first: {first}" if first is not None else "no cut before")
            error.add_note(str(left))
            raise
        finally:
            shutil.rmtree(directory)
        return machine.images

    async def _go_on(self, machine: Machine, origin: Remains) -> None:
        done = origin.image.done
        allowed = list(self._ledger.allowed(done, self._machine.acknowledged, origin.commits))
        async with machine.running() as client:
            with trio.fail_after(PATIENCE):
                await client.fs.recover()
                if self._durability == "journal":
                    # What a cut has damaged is known only when the bucket was looked at.
                    _check("at first", allowed, await tree_shown(client, may_be_stale=True))
                assert not await client.fs.drain(PATIENCE), client.fs.status()
                _check("shown", allowed, await tree_shown(client))
            unlearnt = bool(machine.journal.load().uploads)
            await trio.sleep(LEFT_UPLOADS if unlearnt else A_WHILE)
            machine.step("at the end")
            _check("stored", allowed, tree_of(machine.store))
            self._check_reports(client, self._ledger.writing(done))
            kept_uploads = [entry for entry in _kept(machine).list() if entry.in_upload]
            assert kept_uploads or leftovers(client.fs, machine.store) == []
        assert kept_uploads or not machine.chunk_files()
        written = self._ledger.writing(done)
        assert all(entry.key in written for entry in _kept(machine).list())

    def _check_reports(self, client: Client, writing: Iterable[str]) -> None:
        """Nothing is reported but, in close mode, a close that the cut came into."""
        closing = writing if self._durability == "close" else ()
        for failure in client.fs.status()["failures"]:
            assert "it was being closed when the machine went down" in failure, failure
            assert any(repr(path) in failure for path in closing), failure


def _kept(machine: Machine) -> Recoverable:
    return Recoverable(machine.config.cache_dir / "recoverable")


def variants(image: Image, number: int, *, every: bool) -> Iterator[Remains]:
    """What may be left of it: journals and spools, or one of these, as `number` says."""
    last = len(image.journal) - 1
    commits = list(dict.fromkeys((0, last // 2, last)))
    spools: tuple[str | int, ...] = ("drop", "keep", number)
    choices = list(itertools.product(commits, spools))
    for kept, how in choices if every else [choices[number % len(choices)]]:
        yield remains(image, kept, how)


def _alone(work: Callable[[], Any], at: float = 0.0) -> None:
    """`work()` in virtual time from `at` on, and each time in the same way."""
    clock = trio.testing.MockClock(autojump_threshold=0)
    clock.jump(at)
    with one_clock(), one_tick(), patch.object(_run, "_ALLOW_DETERMINISTIC_SCHEDULING", True):
        _run._r.seed(0)
        try:
            trio.run(work, clock=clock)
        except BaseExceptionGroup as group:
            error: BaseException = group
            while isinstance(error, BaseExceptionGroup):
                error = error.exceptions[0]
            raise error from None


def _check(when: str, allowed: list[dict[str, Any]], found: Tree) -> None:
    if any(fits(tree, found) for tree in allowed):
        return
    nearest = min(allowed, key=lambda tree: len(_differing(tree, found)))
    lines = [
        f"{path!r}: {nearest.get(path)} was acknowledged, there is {found.get(path)}"
        for path in _differing(nearest, found)
    ]
    raise AssertionError("\n".join([f"{when}:", *lines]))


def _differing(tree: Tree, found: Tree) -> list[str]:
    return [
        path
        for path in sorted(tree.keys() | found.keys())
        if path not in tree or not tree[path].matches(found.get(path))
    ]
