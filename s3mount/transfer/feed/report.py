"""What a feed has done and what it could not do, while it goes on and at its end."""

import errno
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from s3mount.core.errors import FilesystemError
from s3mount.store.errors import StoreError
from s3mount.transfer.feed.decide import Action, LocalEntry

# Named in the summary for programs; all of them are told as they come.
MAX_FAILURES = 1000
# So many in a row that may pass, without one success: nothing answers, and each costs a minute.
GIVE_UP_AFTER = 64


class Gauge(Protocol):
    """What a progress bar shows (cli/progress.py)."""

    total_bytes: int | None
    done_bytes: int
    total_files: int | None
    done_files: int
    note: str


class NothingAnswers(FilesystemError):
    """The feed is given up."""

    def __init__(self, reason: str) -> None:
        super().__init__(
            errno.ETIMEDOUT,
            f"given up, the last {GIVE_UP_AFTER} failed like this: {reason}; what was sent is in"
            " the bucket, and the same command goes on where it was",
        )


@dataclass(slots=True)
class Report:
    """`done(action, path)` is called for each name that something was done for, `failed(path,
    reason)` for each that could not be."""

    gauge: Gauge
    done: Callable[[Action, str], None] = lambda action, path: None
    failed: Callable[[str, str], None] = lambda path, reason: None
    counts: Counter[Action] = field(default_factory=Counter)
    markers: int = 0  # directories, which counts[Action.SEND] does not count
    sent_bytes: int = 0
    kept_bytes: int = 0  # of interrupted uploads: the service had them already
    failures: list[tuple[str, str]] = field(default_factory=list)
    failed_count: int = 0
    problems: list[str] = field(default_factory=list)  # of the feed as a whole
    started: float = field(default_factory=time.monotonic)
    _in_a_row: int = 0
    _counted_files: int = 0
    _counted_bytes: int = 0
    _skipped_files: int = 0  # they need not be sent
    _skipped_bytes: int = 0

    def did(self, action: Action, path: str, *, directory: bool = False) -> None:
        if directory and action is Action.SEND:
            self.markers += 1
        else:
            self.counts[action] += 1
        self._in_a_row = 0
        if action is not Action.NOTHING:
            self.gauge.done_files += action is not Action.DELETE and not directory
            self.gauge.note = path
            self.done(action, path)

    def progress(self, amount: int) -> None:
        self.gauge.done_bytes += amount

    def unchanged(self, local: LocalEntry) -> None:
        """Nothing has to be done: it does not count for what is still to come."""
        self.did(Action.NOTHING, local.path)
        if not local.is_directory:
            self._skipped_files += 1
            self.not_to_send(local.size if local.is_regular else 0)

    def not_to_send(self, size: int) -> None:
        self._skipped_bytes += size
        self._show_totals()

    def counted(self, files: int, size: int) -> None:
        """The source has so many more, as far as it was counted."""
        self._counted_files += files
        self._counted_bytes += size
        self._show_totals()

    def _show_totals(self) -> None:
        """Of what is to be sent; they grow while the source is counted."""
        if self._counted_files:
            self.gauge.total_files = max(0, self._counted_files - self._skipped_files)
            self.gauge.total_bytes = max(0, self._counted_bytes - self._skipped_bytes)

    def fail(self, path: str, error: Exception | str) -> None:
        """Raises NothingAnswers where all fails."""
        reason = reason_of(error)
        self.failed_count += 1
        if len(self.failures) < MAX_FAILURES:
            self.failures.append((path, reason))
        self.failed(path, reason)
        if isinstance(error, StoreError) and error.transient:
            self._in_a_row += 1
            if self._in_a_row >= GIVE_UP_AFTER:
                raise NothingAnswers(reason)

    def summary(self, requests: Mapping[str, int]) -> dict[str, Any]:
        """JSON-able."""
        return {
            "sent": self.counts[Action.SEND],
            "directories": self.markers,
            "sent_bytes": self.sent_bytes,
            "resumed_bytes": self.kept_bytes,
            "attributes": self.counts[Action.ATTRIBUTES],
            "deleted": self.counts[Action.DELETE],
            "unchanged": self.counts[Action.NOTHING],
            "failed": self.failed_count,
            "failures": [{"path": path, "reason": reason} for path, reason in self.failures],
            "problems": self.problems,
            "seconds": round(time.monotonic() - self.started, 3),
            "requests": {name: count for name, count in sorted(requests.items()) if count},
        }


def reason_of(error: Exception | str) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error)
