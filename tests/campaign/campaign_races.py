"""Two mounts race on one bucket: edits, appends, exclusive creates; no acknowledged one is lost."""

import argparse
import errno
import os
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import trio

from s3mount.store.base import Capabilities
from s3mount.store.open import open_store
from tests.campaign.registry import Report, campaign, chosen_server
from tests.mounting import Mount
from tests.servers import Bucket

MIB = 1024 * 1024
LARGE = 11 * MIB  # three parts of up to 5 MiB: its commits are Completes
RECORD = 32  # bytes that an edit of the large file writes
PATIENCE = 600.0  # seconds for one kind of race
OPTIONS = ("--part-size", "5M", "--metadata-ttl", "1")
LOST = (errno.ESTALE, errno.EEXIST)

Round = Callable[["Racer", int], None]


@dataclass
class Racer:
    """One thread on one mount, and what became of each of its changes."""

    name: str
    root: Path
    acknowledged: list[bytes] = field(default_factory=list)
    refused: list[bytes] = field(default_factory=list)  # at close: its bytes must be kept
    missed: int = 0  # at open: nothing was written
    failures: list[str] = field(default_factory=list)

    def change(self, path: str, flags: int, edit: Callable[[int], bytes]) -> None:
        """Opens, lets `edit(descriptor)` write and say by what its bytes are known again, and
        closes; notes what each step answered."""
        try:
            descriptor = os.open(self.root / path, flags, 0o644)
        except OSError as error:
            self._expect(error, "open")
            self.missed += 1
            return
        try:
            mark = edit(descriptor)
        except OSError as error:  # the version that it had opened is gone
            self._expect(error, "read or write")
            self.missed += 1
            os.close(descriptor)
            return
        try:
            os.close(descriptor)
        except OSError as error:
            self._expect(error, "close")
            self.refused.append(mark)
        else:
            self.acknowledged.append(mark)

    def _expect(self, error: OSError, step: str) -> None:
        if error.errno not in LOST:
            self.failures.append(f"{self.name}: {step}: {error}")

    # -- what races

    def count_up(self, _: int) -> None:
        """Read, add one, write: a lost update shows in the sum."""

        def edit(descriptor: int) -> bytes:
            value = b"%020d" % (int(os.pread(descriptor, 20, 0)) + 1)
            os.pwrite(descriptor, value, 0)
            return value

        self.change("counter", os.O_RDWR, edit)

    def append(self, number: int) -> None:
        def edit(descriptor: int) -> bytes:
            line = f"{self.name} {number:06}\n".encode()
            os.write(descriptor, line)
            return line

        self.change("log", os.O_WRONLY | os.O_APPEND, edit)

    def edit_large(self, number: int) -> None:
        """Each edit has a place of its own, so that all of them can be in the end."""

        def edit(descriptor: int) -> bytes:
            record = f"{self.name} {number:06}".encode().ljust(RECORD, b".")
            place = (number * 2 + self.name.startswith("b")) * 64 * 1024 % (LARGE - RECORD)
            os.pwrite(descriptor, record, place)
            return record

        self.change("large", os.O_WRONLY, edit)

    def lock(self, number: int) -> None:
        self._create(f"lock-{number:06}", 0)

    def lock_large(self, number: int) -> None:
        self._create(f"large-lock-{number:06}", LARGE)

    def _create(self, name: str, size: int) -> None:
        def edit(descriptor: int) -> bytes:
            mark = f"{name} of {self.name}\n".encode()
            os.write(descriptor, mark)
            if size:
                os.ftruncate(descriptor, size)
                os.pwrite(descriptor, bytes(MIB), size - MIB)
            return mark

        self.change(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, edit)


@dataclass
class Races:
    bucket: Bucket
    roots: dict[str, Path]
    capabilities: Capabilities
    durability: str
    report: Report = field(default_factory=Report)
    racers: dict[str, list[Racer]] = field(default_factory=dict)  # by the kind of race

    # moto looks and writes in two steps: there a condition leaves a window of its own.
    @property
    def atomic(self) -> bool:
        return self.bucket.server.name != "moto"

    def race(self, kind: Round, rounds: int, *, threads: int = 1, together: bool = False) -> None:
        """`kind` by all racers at once; `together`: each round begins at the same moment."""
        racers = [
            Racer(f"{name}{number}", root)
            for name, root in self.roots.items()
            for number in range(threads)
        ]
        barrier = threading.Barrier(len(racers))

        def run(racer: Racer) -> None:
            barrier.wait(PATIENCE)
            for number in range(rounds):
                if together:
                    barrier.wait(PATIENCE)
                kind(racer, number)

        running = [threading.Thread(target=run, args=(racer,), daemon=True) for racer in racers]
        for thread in running:
            thread.start()
        for thread in running:
            thread.join(PATIENCE)
            if thread.is_alive():
                raise TimeoutError(f"{kind.__name__}: a racer did not come to its end")
        self.racers[kind.__name__] = racers

    # -- afterwards, both mounts are gone

    def check(self) -> None:
        names = self.bucket.keys()
        kept = {name: self.bucket.get(name) for name in names if ".conflict-" in name}
        for kind, racers in self.racers.items():
            for racer in racers:
                self.report.losses += racer.failures
            acknowledged = [mark for racer in racers for mark in racer.acknowledged]
            refused = [mark for racer in racers for mark in racer.refused]
            tried = len(acknowledged) + len(refused) + sum(racer.missed for racer in racers)
            self.report.figures |= {
                f"{kind}: tried": tried,
                f"{kind}: acknowledged": len(acknowledged),
                f"{kind}: refused at close": len(refused),
            }
            prefix = {"count_up": "counter", "append": "log", "edit_large": "large."}.get(kind)
            self._beside = [
                data for key, data in kept.items() if prefix is None or key.startswith(prefix)
            ]
            # As often as it was refused: two racers may have written the same number.
            for mark, times in Counter(refused).items():
                if sum(mark in data for data in self._beside) < times:
                    self.report.losses.append(f"{kind}: the bytes of {mark!r} are not kept")
            getattr(self, f"_check_{kind}")(kind, acknowledged)
        self.report.figures["conflict files"] = len(kept)
        uploads = self.bucket.client.list_multipart_uploads(Bucket=self.bucket.name)
        if uploads.get("Uploads"):
            self.report.losses.append(f"unfinished uploads are left: {uploads['Uploads']}")

    def _lost(self, kind: str, mark: bytes, *, exact: bool) -> None:
        """An acknowledged change is not there.

        With write-back a conflict may be found after the close, and then its bytes are beside.
        Where the service has no condition for such a commit it was the documented window.
        """
        if self.durability == "journal" and any(mark in data for data in self._beside):
            self.report.count(f"{kind}: put beside after the close")
        elif exact and self.atomic:
            self.report.losses.append(f"{kind}: {mark!r} is not there")
        else:
            self.report.count(f"{kind}: lost in the service's window")

    def _check_count_up(self, kind: str, acknowledged: list[bytes]) -> None:
        value = int(self.bucket.get("counter"))
        if value > len(acknowledged):
            self.report.losses.append(f"counted {value}, only {len(acknowledged)} acknowledged")
        missing = len(acknowledged) - value
        # One file beside has all that was counted up here before the conflict was found.
        beside = sum(int(data) for data in self._beside)
        if self.durability == "journal" and missing <= beside:
            self.report.figures[f"{kind}: put beside after the close"] = missing
        else:
            for number in range(missing):
                self._lost(kind, b"increment %d" % number, exact=self.capabilities.put_if_match)

    def _check_append(self, kind: str, acknowledged: list[bytes]) -> None:
        there = Counter(self.bucket.get("log").splitlines(keepends=True))
        for line in acknowledged:
            if not there[line]:
                self._lost(kind, line, exact=self.capabilities.put_if_match)
        self.report.losses += [f"{kind}: {line!r} twice" for line in there if there[line] > 1]

    def _check_edit_large(self, kind: str, acknowledged: list[bytes]) -> None:
        data = self.bucket.get("large")
        if len(data) != LARGE:
            self.report.losses.append(f"large has {len(data)} bytes")
        for record in acknowledged:
            if record not in data:
                self._lost(kind, record, exact=self.capabilities.complete_if_match)

    def _check_lock(self, kind: str, acknowledged: list[bytes]) -> None:
        self._check_locks(kind, acknowledged, exact=self.capabilities.put_if_absent)

    def _check_lock_large(self, kind: str, acknowledged: list[bytes]) -> None:
        self._check_locks(kind, acknowledged, exact=self.capabilities.complete_if_absent)

    def _check_locks(self, kind: str, acknowledged: list[bytes], *, exact: bool) -> None:
        """Each has one owner, the one that was told so."""
        owners: dict[str, list[bytes]] = {}
        for mark in acknowledged:
            owners.setdefault(mark.split()[0].decode(), []).append(mark)
        for name, marks in owners.items():
            held = self.bucket.get(name)[: len(marks[0])]
            if held not in marks:
                self.report.losses.append(f"{name} is held by {held!r}, told were {marks}")
            for mark in marks:
                if mark != held:
                    self._lost(kind, mark, exact=exact)
        if not owners:
            self.report.losses.append(f"{kind}: nobody got any")


def capabilities_of(bucket: Bucket) -> Capabilities:
    async def ask() -> Capabilities:
        store = open_store(bucket.config())
        try:
            return await store.capabilities()
        finally:
            await store.aclose()

    return trio.run(ask)


@contextmanager
def two_mounts(bucket: Bucket, directory: Path, *options: str) -> Iterator[dict[str, Path]]:
    """Unmounted at the end, by `s3mount umount`: everything is in the bucket then."""
    mounts = []
    try:
        for name in "ab":
            place = directory / name
            mounts.append(Mount(bucket, place, OPTIONS + options))
            mounts[-1].start()
        yield {mount.path.parent.name: mount.path for mount in mounts}
        for mount in mounts:
            mount.unmount()
    finally:
        for mount in mounts:
            mount.destroy()


def run_races(
    bucket: Bucket, directory: Path, durability: str, edits: int, locks: int, large: int
) -> Report:
    """`edits`, `locks`: in all, by both mounts; `large`: of each kind on a file of 11 MiB."""
    bucket.put("counter", b"%020d" % 0)
    bucket.put("log", b"")
    bucket.put("large", bytes(LARGE))
    with two_mounts(bucket, directory, f"--durability={durability}") as roots:
        races = Races(bucket, roots, capabilities_of(bucket), durability)
        races.race(Racer.count_up, edits // 4)
        races.race(Racer.append, edits // 8, threads=2)
        races.race(Racer.lock, locks // 2, together=True)
        races.race(Racer.edit_large, large // 2)
        races.race(Racer.lock_large, large // 2, together=True)
    races.check()
    return races.report


@campaign("races", __doc__)
def races(arguments: argparse.Namespace) -> Report:
    whole = Report()
    with chosen_server(arguments) as server:
        for durability in arguments.durability.split(","):
            bucket = server.create_bucket()
            directory = Path(arguments.directory, durability)
            sizes = (arguments.edits, arguments.locks, arguments.large)
            whole.add(run_races(bucket, directory, durability, *sizes), durability)
    return whole


@races.options
def _options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--durability", default="close,journal", help="modes, with commas")
    parser.add_argument("--edits", type=int, default=1000, help="of small files, by both mounts")
    parser.add_argument("--locks", type=int, default=1000, help="exclusive creates")
    parser.add_argument("--large", type=int, default=40, help="of each kind, on files of 11 MiB")
