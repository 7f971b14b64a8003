"""What `s3mount status` shows of the file system, as JSON-able values.

Names and meanings are those of the man page, for programs read them: none is taken away or used
for something else without a new FORMAT (control/answers.py).
"""

from collections.abc import Iterator
from dataclasses import asdict
from itertools import islice
from typing import Any

import trio

from s3mount.core.rate import seconds_left
from s3mount.filesystem.open_file import OpenFile
from s3mount.filesystem.state import State
from s3mount.writeback.intents import Intent, Kind
from s3mount.writeback.intents import State as IntentState

# The queue may be a hundred thousand changes long; the first ones tell what it is about.
SHOWN = 1000
# Counts of the store that are no operations.
_BESIDE = {
    "Retries": "retries",
    "SlowDowns": "slow_downs",
    "BytesOut": "bytes_out",
    "BytesIn": "bytes_in",
}


def describe(state: State) -> dict[str, Any]:
    counts = state.store.counts()
    requests = {name: count for name, count in counts.items() if name not in _BESIDE}
    traffic = state.uploader.traffic
    return {
        "queue": {kind.value: state.queue.by_kind[kind] for kind in Kind},
        "intents": [_intent(intent) for intent in islice(state.queue.each(), SHOWN)],
        "transfers": list(islice(_transfers(state), SHOWN)),
        "done": {kind.value: state.queue.done_by_kind.get(kind.value, 0) for kind in Kind},
        "failures": list(state.queue.failures),
        "conflicts": [asdict(conflict) for conflict in state.conflicts],
        "open_files": len(state.open_files),
        "requests": requests,
        "totals": {
            "files": state.queue.done_by_kind.get(Kind.PUT.value, 0),
            "bytes": traffic.acknowledged,
            "requests": sum(requests.values()),
            **{ours: counts.get(name, 0) for name, ours in _BESIDE.items()},
        },
        "workers": {name: asdict(use) for name, use in state.store.lanes().items()},
        "cache": state.readpath.stats(),
        "journal": dict(state.journal.report()),
        "spool": dict(state.spool.usage()),
        "namespace": state.namespace.report(),
    }


def _intent(intent: Intent) -> dict[str, Any]:
    now = trio.current_time()
    described = {
        "kind": intent.kind.value,
        "key": intent.key,
        "source": intent.source,
        "what": intent.describe(),
        "state": "deferred" if intent.deferred else intent.state.value,
        "age": round(now - intent.created_at, 3),
        "bytes": intent.size,
        "attempts": intent.attempts,
        "error": None if intent.error is None else str(intent.error),
        "again_in": None,
    }
    if intent.state is IntentState.WAITING and intent.attempts and not intent.deferred:
        described["again_in"] = round(max(0.0, intent.not_before - now), 1)
    if intent.kind is Kind.RENAME_TREE:
        described["copied"] = len(intent.copied)
    return described


def _transfers(state: State) -> Iterator[dict[str, Any]]:
    """Files that are being sent, or have an unfinished upload."""
    for file in state.open_files.values():
        if file.upload is not None and file.upload.active and not file.inode.detached:
            yield _transfer(state, file)


def _transfer(state: State, file: OpenFile) -> dict[str, Any]:
    assert file.upload is not None
    left, traffic = file.upload.unsent_bytes, file.upload.traffic
    per_second = traffic.per_second()
    eta = seconds_left(left, per_second)
    errors = [file.error, file.upload.error, None if file.put is None else file.put.error]
    error = next((each for each in errors if each is not None), None)
    return {
        "key": file.key,
        "path": file.key.removeprefix(state.config.prefix),
        "size": file.size,
        "sent": max(0, file.size - left),
        "per_second": None if per_second is None else round(per_second, 1),
        "eta": None if eta is None else round(eta, 1),
        "moving": bool(traffic.bodies),
        "open": file.is_being_written,
        "attempts": max(file.upload.failures, 0 if file.put is None else file.put.attempts),
        "error": None if error is None else str(error),
    }
