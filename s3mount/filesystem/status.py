"""What `s3mount status` shows of the file system, as JSON-able values."""

from dataclasses import asdict
from typing import Any

import trio

from s3mount.filesystem.stat import Pending
from s3mount.filesystem.state import State


def describe(state: State, pending: Pending) -> dict[str, Any]:
    queue: dict[str, int] = {}
    now = trio.current_time()
    intents = []
    for intent in state.queue.unfinished():
        queue[intent.kind.value] = queue.get(intent.kind.value, 0) + 1
        intents.append(
            {
                "what": intent.describe(),
                "state": intent.state.value,
                "age": round(now - intent.created_at, 3),
                "bytes": intent.size,
                "attempts": intent.attempts,
                "error": None if intent.error is None else str(intent.error),
            }
        )
    return {
        "pending": asdict(pending),
        "queue": queue,
        "intents": intents[:1000],
        "done": dict(state.queue.done_by_kind),
        "failures": list(state.queue.failures),
        "conflicts": [asdict(conflict) for conflict in state.conflicts],
        "transfers": [dict(transfer) for transfer in state.uploader.transfers()],
        "open_files": len(state.open_files),
        "requests": dict(state.store.counts()),
        "cache": state.readpath.stats(),
        "journal": dict(state.journal.report()),
        "spool": dict(state.spool.usage()),
        "namespace": state.namespace.report(),
    }
