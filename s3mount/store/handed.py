"""How much of a large body its connection has taken, for whoever shows the progress of it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

# Bytes of the body that the kernel has taken in this attempt; called in the thread that sends.
Report = Callable[[int], None]

_report: ContextVar[Report | None] = ContextVar("_report", default=None)


@contextmanager
def reporting(report: Report) -> Iterator[None]:
    """`report` hears of the bodies of requests made inside: after every 256 KiB, from 0 again when
    one is repeated. Bodies of up to 256 KiB may go without a report, and no store has to."""
    token = _report.set(report)
    try:
        yield
    finally:
        _report.reset(token)


def report_of_caller() -> Report | None:
    """What the caller of this request wants to hear, in whichever thread it is sent."""
    return _report.get()
