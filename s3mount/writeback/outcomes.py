"""What becomes of an attempt: tried again, and when, or given up; and who is told of it.

Errors of intents stay until resolved. A transient one is retried for ever, a refusal (no
permission, quota, a suspended user, an error of the spool's disk) too, less and less often.
Whoever waits is told of a refusal at once, and of a lack of progress. Final are conflicts, a
source that is gone, what the service can never take, and what was cancelled.
"""

import errno
from collections.abc import Callable, Iterable

import trio

from s3mount.core.errors import FilesystemError
from s3mount.store.errors import (
    EntityTooLarge,
    KeyTooLong,
    MetadataTooLarge,
    NotFound,
    PreconditionFailed,
    StoreError,
)
from s3mount.writeback.intents import Intent, Kind, State

# Waits between the queue's own retries, on top of the store's: an outage may last for hours.
FIRST_RETRY, LAST_RETRY = 1.0, 30.0
# Somebody has to change a permission or a quota first; `s3mount retry` does not wait for it.
LAST_REFUSED_RETRY = 300.0
# Whoever waits for what was refused has it tried again, but not more often than after the pauses
# that grow up to this: programs that close or flush in a loop must not make a storm of requests.
LAST_HURRIED_RETRY = 5.0


class Unsendable(FilesystemError):
    """The bytes are damaged on the local disk for good, and what can be read of them is kept."""

    def __init__(self, text: str) -> None:
        super().__init__(errno.EIO, text)


_FINAL_ERRNO = {errno.ESTALE, errno.EEXIST, errno.ECANCELED, errno.EFBIG, errno.ENAMETOOLONG}


def is_transient(error: Exception) -> bool:
    return isinstance(error, StoreError) and error.transient


def is_final(intent: Intent, error: Exception) -> bool:
    """Whether no later attempt can do better, or one would destroy what others did."""
    if isinstance(error, FilesystemError):
        return isinstance(error, Unsendable) or error.errno in _FINAL_ERRNO
    if isinstance(error, NotFound):
        return intent.kind is not Kind.PUT  # of a PUT: what it is based on; that is a conflict
    return isinstance(error, (PreconditionFailed, EntityTooLarge, KeyTooLong, MetadataTooLarge))


def pause_after(intent: Intent, error: Exception) -> float:
    """Seconds until the next attempt; `intent.attempts` have been made."""
    longest = LAST_RETRY if is_transient(error) else LAST_REFUSED_RETRY
    return min(longest, FIRST_RETRY * 2.0 ** min(intent.attempts - 1, 10))


def refuse(intent: Intent, error: Exception, number: int) -> None:
    """Tells those who wait for the intent, and for all that waits for it, of the refusal."""
    for held_up in held_up_by(intent):
        held_up.refusal, held_up.refused = error, number
        held_up.tell()


def held_up_by(intent: Intent) -> set[Intent]:
    """The intent and all that cannot start before it is done."""
    pending, seen = [intent], {intent}
    while pending:
        fresh = pending.pop().blocks - seen
        seen |= fresh
        pending.extend(fresh)
    return seen


async def wait_for(
    intents: Iterable[Intent],
    *,
    since: int,
    timeout: float,
    progress: Callable[[], float],
) -> None:
    """Until all are finished, or put off.

    Raises the first final error, or a refusal later than `since`.

    Without progress for `timeout` seconds: ETIMEDOUT. What is not finished stays and is retried.
    """
    awaited = list(intents)
    started = trio.current_time()
    for intent in awaited:
        while not (intent.finished.is_set() or intent.stalled):
            if intent.refusal is not None and intent.was_refused(since):
                raise intent.refusal
            changed = intent.changed
            with trio.move_on_at(max(progress(), started) + timeout):
                await changed.wait()
            late = trio.current_time() >= max(progress(), started) + timeout
            if late and not changed.is_set():
                raise _timeout(intent, timeout)
    for intent in awaited:
        if intent.state is State.FAILED and intent.error is not None:
            raise intent.error


def _timeout(intent: Intent, seconds: float) -> FilesystemError:
    return FilesystemError(
        errno.ETIMEDOUT,
        f"{intent.describe()}: no progress for {seconds:.0f} s, still retried ({intent.error})",
    )


def cancelled(intent: Intent) -> FilesystemError:
    return FilesystemError(errno.ECANCELED, f"{intent.describe()}: cancelled on request")
