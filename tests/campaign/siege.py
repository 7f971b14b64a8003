"""One mount point, killed again and again under workloads, and checked after each new start."""

import os
import random
import signal
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from s3mount.cli.exits import DONE, UNFINISHED
from s3mount.control.client import NoMount, Refused, ask
from s3mount.writeback.recoverable import all_below
from tests.campaign.checking import BucketReader, recoverable_files, uploads_in
from tests.campaign.ledger import Entry, Tree, read_tree
from tests.campaign.mount_and_die import AN_HOUR_LATER, GO
from tests.campaign.registry import Report
from tests.campaign.victim import Dead, Failed, Victim
from tests.campaign.workloads import Cut, Workload
from tests.servers import Bucket

DRAIN_SECONDS = 120.0
DEATH_SECONDS = 60.0  # from a program's error to the end of the process
LEFT = (DONE, UNFINISHED)  # how a mount ends that was told to leave, if it is not killed before
JOIN_SECONDS = 60.0
# A file that is written gets a record every 250 ms of a process that runs; the rest is for those
# that run seldom. See mount_and_die.py.
DRAFT_BEATS = 40
# Of failures, see filesystem/damaged.py: never acknowledged, and acknowledged.
TORN, DAMAGED = "it was being closed when", "it was closed, and is damaged"
TIDY_SECONDS = 60.0  # orphaned uploads are aborted behind everything else
REPOSITORY = Path(__file__).parents[2]


@dataclass
class Siege:
    """The workloads of `kinds` on one mount, whose cache is `cache`."""

    bucket: Bucket
    directory: Path
    kinds: Sequence[type[Workload]]
    seed: int
    options: Sequence[str | Path] = ()
    cache: Path | None = None
    report: Report = field(default_factory=Report)
    url: str | None = None
    # After each death, see CrashDisk.cut; then changes of names of the last `window` seconds that
    # were not fsynced may be gone.
    power_cut: Callable[[], float] | None = None
    window: float = 0.0
    all_kept: bool = False

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)
        self.directory.mkdir(parents=True, exist_ok=True)
        self.cache = self.cache or self.directory / "cache"
        self.reader = BucketReader(self.bucket)
        self.mount = Victim(
            self.bucket, self.directory, self.options, cache=self.cache, url=self.url
        )
        self.arm = self.directory / "arm"
        self.hits = self.directory / "hits"
        self.mount.environment |= {"S3MOUNT_ARM": str(self.arm), "S3MOUNT_HITS": str(self.hits)}
        path = self.mount.environment.get("PYTHONPATH", "")
        self.mount.environment["PYTHONPATH"] = f"{REPOSITORY}:{path}"
        scratch = self.directory / "scratch"
        self.workloads = [kind(self.mount.path, scratch, self.seed) for kind in self.kinds]
        self.reached: Counter[str] = Counter()
        self.died_at: Counter[str] = Counter()
        self.prepared = False
        self.leaving = False
        self.an_hour_later = False
        self.beats: list[float] = []  # since the last check

    # -- the mount's life

    def start(self, order: str = "", *, an_hour_later: bool = False) -> None:
        """Raises Dead if it died, as `order` told it to, before it answered.

        `an_hour_later`: uploads whose id was never learnt are old enough to be aborted.
        """
        self._order(order)
        self.an_hour_later = an_hour_later
        self.mount.start_again(AN_HOUR_LATER if an_hour_later else GO)

    def _order(self, order: str) -> None:
        self.arm.with_suffix(".new").write_text(order)
        self.arm.with_suffix(".new").rename(self.arm)

    @property
    def dead(self) -> bool:
        return self.mount.process.poll() is not None

    def _has_died(self) -> bool:
        """Soon after a program's error."""
        with suppress(subprocess.TimeoutExpired):
            self.mount.process.wait(1.0)
        return self.dead

    def _require_death(self, reason: BaseException) -> None:
        """A program's error is right only if the mount is dead."""
        deadline = time.monotonic() + DEATH_SECONDS
        while not self.dead:
            if time.monotonic() > deadline:
                raise Failed(f"{reason!r} from a mount that lives") from reason
            time.sleep(0.01)
        status = self.mount.process.wait()
        if status != -signal.SIGKILL and not (self.leaving and status in LEFT):
            raise Failed(f"the mount ended with {status}:\n{self.mount.text()[-3000:]}")

    def count_death(self, moment: float | None = None) -> None:
        """Where it died (`moment`: when, by time.monotonic()), and what points it came by."""
        self._order("")
        place = "leaving" if self.leaving else "a random moment"
        if self.hits.exists():
            for line in self.hits.read_text().splitlines():
                if line.startswith("died at "):
                    place = line.removeprefix("died at ")
                else:
                    self.reached[line] += 1
            self.hits.unlink()
        beats = self.hits.with_suffix(".beats")
        if beats.exists():
            self.beats += [float(line) for line in beats.read_text().split("\n")[:-1]]
            beats.unlink()
        self.died_at[place] += 1
        self.report.count("kills")
        if self.leaving:
            self.report.count("kills while it was leaving")
        if ":" in place:
            self.report.count("kills at named points")
        now, safe_until = time.monotonic() if moment is None else moment, 0.0
        if self.power_cut is not None:
            self.mount.destroy()
            safe_until = self.power_cut()
            self.report.count("power cuts")
        for workload in self.workloads:
            workload.ledger.note(f"killed at {place}")
            if workload.ledger.died is None:
                workload.ledger.died, workload.ledger.safe_until = now, safe_until

    # -- load

    def load(self, order: str, seconds: float, *, leaving: float | None = None) -> None:
        """Workloads run until the mount has died: at `order`, or after `seconds`.

        `leaving`: it is told to leave by then, and killed so many seconds later.
        """
        self._order(order)
        errors: list[BaseException] = []
        chosen = self.random.sample(
            self.workloads, self.random.randrange(1, min(4, len(self.workloads)) + 1)
        )
        for workload in chosen:
            workload.begin()
        threads = [
            threading.Thread(target=self._steps, args=(workload, errors)) for workload in chosen
        ]
        for thread in threads:
            thread.start()
        deadline = time.monotonic() + seconds
        while not self.dead and time.monotonic() < deadline:
            time.sleep(0.005)
        if leaving is not None and not self.dead and not errors:
            self.leaving = True
            self.mount.signal(signal.SIGTERM)
            time.sleep(leaving)
        if not self.dead and (self.leaving or not errors):
            self.mount.process.kill()
        moment = time.monotonic()
        for error in list(errors):
            self._require_death(error)
        self.mount.process.wait(JOIN_SECONDS)
        for thread in threads:
            thread.join(JOIN_SECONDS)
            if thread.is_alive():
                raise Failed("a program hangs on a mount that is dead")
        for workload in chosen:
            workload.interrupted()
        self.count_death(moment)
        self.leaving = False
        unexpected = [error for error in errors if not isinstance(error, OSError | Cut)]
        if unexpected:
            raise unexpected[0]

    def _steps(self, workload: Workload, errors: list[BaseException]) -> None:
        try:
            while not self.dead:
                workload.step()
        except BaseException as error:
            workload.ledger.note(f"cut off: {error!r}")
            errors.append(error)

    # -- checks

    def check(self) -> None:
        """On a new mount; raises Dead if that dies meanwhile."""
        try:
            if not self.prepared:
                for workload in self.workloads:
                    workload.prepare()
                self.prepared = True
            self.drain()
            for workload in self.workloads:
                self._check(workload)
            self._check_uploads()
            for workload in self.workloads:
                workload.shrink()
        except (OSError, Cut, NoMount, ConnectionError) as error:
            self._require_death(error)
            self.count_death()
            raise Dead from None
        self.beats.clear()
        self.report.count("checks")

    def flush(self) -> None:
        """Everything acknowledged is in the bucket when this returns."""
        deadline = time.monotonic() + DRAIN_SECONDS
        while True:
            try:
                left = ask(self.mount.path, "flush", silence=DRAIN_SECONDS)
            except Refused as error:
                left = {"errors": [str(error)]}
            if left.get("intents") == 0 and left.get("files") == 0:
                break
            if time.monotonic() > deadline:
                raise Failed(f"not drained: {left}\n{ask(self.mount.path, 'status')}")
            time.sleep(0.1)

    def drain(self) -> None:
        """The same, and nothing was given up, nothing is left in the spool."""
        self.flush()
        deadline = time.monotonic() + TIDY_SECONDS
        status: dict[str, Any] = ask(self.mount.path, "status")
        for failure in status.get("failures", ()):
            if self.power_cut is None or DAMAGED in failure:
                self.lost(f"given up: {failure}")
            elif TORN in failure:
                # Nobody was told that it is there; the ledger says whether that is true.
                self.report.count("closes in progress that a cut tore")
            else:
                # The journal's last moments are gone, and what they did to the bucket is not: a
                # delete of what was written anew since is dropped, and told. The trees decide.
                self.report.count("replayed changes that the bucket had overtaken")
        # Chunks are given back once the journal's commit is synced.
        while status["spool"]["chunks"] and time.monotonic() < deadline:
            time.sleep(0.2)
            status = ask(self.mount.path, "status")
        if status["spool"]["chunks"]:
            self.lost(f"chunks of nobody in the spool: {status['spool']}")

    def _check(self, workload: Workload) -> None:
        if not workload.root.is_dir():
            stored = self.reader.tree(f"{workload.name}/")
            self.lost(f"{workload.name}: the directory is gone; the bucket has {sorted(stored)}")
            workload.prepare()
        wrong = workload.check_own()
        if wrong and self._has_died():
            raise Cut(wrong[0])
        self.lost(*wrong)
        if not workload.compare_content:
            self.flush()  # opening a database may have rolled its journal back
        shown = read_tree(workload.root)
        stored = self.reader.tree(f"{workload.name}/")
        if self.power_cut is not None:
            # The mkdir of the last moment may be lost, though a file in it was sent already.
            stored = {**implied(stored), **stored}
        difference = _difference(shown, stored)
        self.lost(*(f"{workload.name}/{path}: {text}" for path, text in difference.items()))
        self.report.count("files compared", len(shown))
        if workload.compare_content:
            self._check_unfinished(workload)
            self.lost(*self._settled(workload, shown))

    def _check_unfinished(self, workload: Workload) -> None:
        """What was written of files that were never closed is kept on this machine."""
        assert self.cache is not None
        ledger = workload.ledger
        if ledger.died is None:
            return
        for name, written in ledger.unfinished.items():
            kept = recoverable_files(self.cache, f"{workload.name}/{name}")
            beats = sum(written.since < beat < ledger.died for beat in self.beats)
            if self.power_cut is None and beats > DRAFT_BEATS:
                self.report.count("files never closed, and recovered")
                if [data for _, data in kept] != [written.data]:
                    sizes = [(entry.bytes, entry.size) for entry, _ in kept]
                    wrong = f"of {len(written.data)} bytes {sizes} are recoverable"
                    self.lost(f"{workload.name}/{name}: never closed; {wrong}")
            for entry, data in kept:
                if any(data[begin:end] != written.data[begin:end] for begin, end in entry.ranges):
                    self.lost(f"{workload.name}/{name}: other bytes are recoverable: {entry}")
        ledger.unfinished.clear()
        for directory in all_below(self.cache):
            for entry in directory.list():
                if entry.key.startswith(f"{workload.name}/"):
                    directory.drop(entry)

    def _settled(self, workload: Workload, shown: Tree) -> list[str]:
        ledger = workload.ledger
        if self.power_cut is None or ledger.died is None:
            return ledger.settle(shown)
        wrong, age = ledger.settle_after_cut(shown, self.window, all_kept=self.all_kept)
        if age:
            self.report.count("cuts that lost the last changes of names")
            name = "age of the oldest of them, ms"
            oldest = max(int(self.report.figures.get(name, 0)), round(age * 1000))
            self.report.figures[name] = oldest
        return wrong

    def check_bucket_before_recovery(self, *, all_closed: bool) -> None:
        """Nothing is there that is not a whole file. What was fsynced is there, and with
        `all_closed` (durability=close) the bytes of every file that was closed."""
        for workload in self.workloads:
            if not workload.compare_content:
                continue
            tree = self.reader.tree(f"{workload.name}/", bodies_only=True)
            self.lost(*workload.ledger.halves(tree))
            self.lost(*workload.ledger.missing(tree, all_closed=all_closed))

    def _check_uploads(self) -> None:
        """None is left but those whose id was never learnt, and these for an hour only."""
        # moto says of all uploads that they were begun in 2010, so that none of them is ours.
        all_old = self.an_hour_later and self.bucket.server.name != "moto"
        deadline = time.monotonic() + TIDY_SECONDS
        while left := [upload for upload in uploads_in(self.bucket) if upload.parts or all_old]:
            if time.monotonic() > deadline:
                self.lost(*(f"an upload is left: {upload}" for upload in left))
                return
            time.sleep(0.1)

    def lost(self, *losses: str) -> None:
        for loss in losses:
            self.report.losses.append(loss)
            self.workloads[0].ledger.note(f"LOST {loss}")
            print(f"  LOST: {loss}", flush=True)

    # -- the end

    def finish(self) -> None:
        """Unmounts a mount that lives."""
        self._order("")
        self.mount.unmount()
        if "Traceback" in (log := self.mount.text()):
            begin = log.index("Traceback")
            self.lost(f"the log has a traceback: {log[begin : begin + 1500]}")
        for workload in self.workloads:
            self.report.count("bytes written", workload.bytes)

    def destroy(self) -> None:
        self.mount.destroy()
        self.mount.dismiss()
        for workload in self.workloads:
            with suppress(OSError):
                workload.interrupted()

    def kill(self) -> None:
        os.kill(self.mount.process.pid, signal.SIGKILL)


def implied(stored: Tree) -> Tree:
    """The directories that other things are in, as a mount shows those without a marker."""
    above = [parent for path in stored for parent in PurePosixPath(path).parents]
    return {str(path): Entry("directory", mode=0o755) for path in above if path.name}


def _difference(shown: Tree, stored: Tree) -> dict[str, str]:
    """Between the mount and the bucket."""
    return {
        path: f"the mount shows {shown.get(path)}, the bucket has {stored.get(path)}"
        for path in sorted({*shown, *stored})
        if shown.get(path) != stored.get(path)
    }
