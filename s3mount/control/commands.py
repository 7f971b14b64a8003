"""What a mount does for its control socket's clients."""

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import trio

import s3mount
from s3mount.control.answers import FORMAT
from s3mount.control.server import Command, CommandFailed
from s3mount.core.config import MountConfig
from s3mount.filesystem.filesystem import FileSystem
from s3mount.filesystem.stat import Change

Json = Any
# What the mount does at present, as status shows it.
SERVING, DRAINING, UNMOUNTED = "serving", "draining", "unmounted"

# Looking at what is pending takes about 3 us a file. Beyond so many seconds an answer is used for
# as long as makes looking take this share of the time.
CHEAP, LOOP_SHARE = 0.02, 0.05
# Reasons and changes that are told at a time: of a long queue the first ones say what it is.
ERRORS = 100


@dataclass(slots=True)
class MountState:
    """What the composition root and the commands both know of the mount."""

    config: MountConfig
    filesystem: FileSystem
    hurry: trio.Event = field(default_factory=trio.Event)  # leaves without waiting any more
    phase: str = SERVING
    started: float = field(default_factory=time.time)
    ended: trio.Event = field(default_factory=trio.Event)  # all is sent, or left behind
    watchers: int = 0

    _recent: dict[str, Json] = field(default_factory=dict)
    _recent_until: float = -float("inf")  # time.monotonic()

    def recent(self) -> dict[str, Json]:
        """As `pending`; of a long queue it may be some seconds old, so that clients who ask again
        and again take no more than a small share of the loop."""
        started = time.monotonic()
        if started >= self._recent_until:
            self._recent = self.pending()
            ended = time.monotonic()
            costly = ended - started > CHEAP
            self._recent_until = ended + (ended - started) / LOOP_SHARE if costly else ended
        return {**self._recent, "phase": self.phase}

    def pending(self) -> dict[str, Json]:
        pending = self.filesystem.pending()
        return {
            "phase": self.phase,
            "intents": pending.intents,
            "bytes": pending.bytes,
            "files": pending.files,
            "unfinished": pending.unfinished,
            "journalled": self.filesystem.durable,
            "errors": list(pending.errors[:ERRORS]),
            "sent": pending.sent,
            "per_second": _rounded(pending.per_second),
            "eta": _rounded(pending.eta),
        }


def _told(changes: Sequence[Change]) -> Json:
    return {"count": len(changes), "changes": [asdict(change) for change in changes[:ERRORS]]}


def _path(request: Mapping[str, Json]) -> str:
    path = request.get("path", "")
    if not isinstance(path, str):
        raise CommandFailed("'path' is to be a path below the mount point")
    return path


def _seconds(request: Mapping[str, Json], name: str, default: float) -> float:
    value = request.get(name)
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not value >= 0:
        raise CommandFailed(f"{name!r} is to be a number of seconds")
    return float(value)


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 1)


@dataclass(frozen=True, slots=True)
class _Commands:
    """Each is given the request, and answers its result."""

    state: MountState

    async def status(self, request: Mapping[str, Json]) -> Json:
        config = self.state.config
        return {
            "format": FORMAT,
            "version": s3mount.__version__,
            "pid": os.getpid(),
            "bucket": config.store.bucket,
            "prefix": config.prefix,
            "endpoint": config.store.endpoint_url,
            "mountpoint": str(config.mountpoint),
            "read_only": config.read_only,
            "durability": config.writeback.durability,
            "cache_dir": str(config.cache_dir),
            "uptime": round(time.time() - self.state.started, 1),
            **self.state.filesystem.status(),
            "pending": self.state.recent(),
        }

    async def flush(self, request: Mapping[str, Json]) -> Json:
        await self.state.filesystem.flush_all()
        return self.state.pending()

    async def drain(self, request: Mapping[str, Json]) -> Json:
        """Within `timeout` seconds, else as long as the mount itself would when it leaves."""
        limit = _seconds(request, "timeout", self.state.config.leave_timeout)
        await self.state.filesystem.drain(limit, None)
        return self.state.pending()

    async def hurry(self, request: Mapping[str, Json]) -> Json:
        """The mount was unmounted, or is about to be: what is not sent is left behind."""
        self.state.hurry.set()
        return self.state.pending()

    async def pending(self, request: Mapping[str, Json]) -> Json:
        return self.state.recent()

    async def watch(self, request: Mapping[str, Json]) -> Json:
        """Reports progress until the mount ends, then what it leaves behind."""
        self.state.watchers += 1
        try:
            await self.state.ended.wait()
        finally:
            self.state.watchers -= 1
        return self.state.pending()

    async def cancel(self, request: Mapping[str, Json]) -> Json:
        """The changes that are given up; with `preview` those that would be."""
        path = _path(request)
        if not path.strip("/"):
            raise CommandFailed("cancel needs the path of a file or directory in the mount")
        if request.get("preview") is True:
            changes = self.state.filesystem.pending_at(path)
        else:
            changes = await self.state.filesystem.cancel(path)
        return _told(changes)

    async def retry(self, request: Mapping[str, Json]) -> Json:
        """The changes that are tried now."""
        path = _path(request)
        return _told(await self.state.filesystem.retry(path))


def commands(state: MountState) -> Mapping[str, Command]:
    """By the name that a request carries."""
    all_of_them = _Commands(state)
    return {
        "status": all_of_them.status,
        "flush": all_of_them.flush,
        "drain": all_of_them.drain,
        "hurry": all_of_them.hurry,
        "pending": all_of_them.pending,
        "watch": all_of_them.watch,
        "cancel": all_of_them.cancel,
        "retry": all_of_them.retry,
    }
