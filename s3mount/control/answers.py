"""What a mount answers to each command, and whether an answer is that: the mount may be of an older
or newer version than who asks.

A shape is a type, a tuple of types, [shape] for a list, Values(shape) for a mapping whose names are
anything, or a mapping of the names that must be there to their shapes; others may be there, too.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

Json = Any
Shape = Any

# Of what the man page says of `s3mount status --json`: a new one only if a name is taken away or
# gets another meaning.
FORMAT = 1


@dataclass(frozen=True, slots=True)
class Values:
    of: Shape


NUMBER = (int, float)
MAYBE_NUMBER = (int, float, type(None))
MAYBE_TEXT = (str, type(None))

PENDING = {
    "intents": int,
    "bytes": int,
    "files": int,
    "unfinished": int,
    "journalled": bool,
    "errors": [str],
    "sent": int,
    "per_second": MAYBE_NUMBER,
    "eta": MAYBE_NUMBER,
}
CHANGES = {"count": int, "changes": [{"what": str, "bytes": int, "error": MAYBE_TEXT}]}
# Of the status what the other commands need.
IDENTITY = {"pid": int, "bucket": str, "prefix": str, "mountpoint": str}
BY_COMMAND: Mapping[str, Shape] = {
    "flush": PENDING,
    "drain": PENDING,
    "hurry": PENDING,
    "pending": PENDING,
    "watch": PENDING,
    "cancel": CHANGES,
    "retry": CHANGES,
    "status": IDENTITY,
}

_INTENT = {
    "kind": str,
    "what": str,
    "state": str,
    "attempts": int,
    "error": MAYBE_TEXT,
    "again_in": MAYBE_NUMBER,
}
_TRANSFER = {
    "path": str,
    "size": int,
    "sent": int,
    "per_second": MAYBE_NUMBER,
    "eta": MAYBE_NUMBER,
    "moving": bool,
    "open": bool,
    "attempts": int,
    "error": MAYBE_TEXT,
}
# Of the status what its words and its screen are made of.
STATUS = {
    **IDENTITY,
    "endpoint": MAYBE_TEXT,
    "read_only": bool,
    "uptime": NUMBER,
    "pending": {**PENDING, "phase": str},
    "queue": Values(int),
    "intents": [_INTENT],
    "transfers": [_TRANSFER],
    "failures": [str],
    "conflicts": [{"key": str, "kept": [str]}],
    "requests": Values(int),
    "totals": dict.fromkeys(
        ("files", "bytes", "requests", "retries", "slow_downs", "bytes_out", "bytes_in"), int
    ),
    "workers": Values(dict.fromkeys(("busy", "waiting", "limit", "most"), int)),
    "cache": dict.fromkeys(("hits", "misses", "cached_bytes", "memory_limit"), int),
    "journal": {},
    "spool": dict.fromkeys(("used", "limit", "waiting"), int),
    "namespace": {
        "unreachable": int,
        "unreachable_samples": Values(str),
        "shadowed": int,
        "shadowed_samples": Values(str),
    },
    "recovery": {"recovered": {"intents": int}, "recoverable": [str], "uploads": [str]},
}


def fits(answer: Json, shape: Shape) -> bool:
    """`shape` object: anything."""
    if shape is object:
        return True
    if isinstance(shape, Values):
        return isinstance(answer, dict) and all(fits(one, shape.of) for one in answer.values())
    if isinstance(shape, Mapping):
        return isinstance(answer, dict) and all(
            name in answer and fits(answer[name], inner) for name, inner in shape.items()
        )
    if isinstance(shape, list):
        return isinstance(answer, list) and all(fits(one, shape[0]) for one in answer)
    types = shape if isinstance(shape, tuple) else (shape,)
    return type(answer) in types  # True is no number here


def is_readable_status(answer: Json) -> bool:
    """Whether this version can tell what the mount says of itself."""
    return fits(answer, STATUS) and answer.get("format") == FORMAT
