"""What this service honours, found out with wrong values, once an endpoint and bucket (12).

`CapabilityProbe` decides when to probe and what to remember; probing.py asks the service.
"""

import hashlib
import json
import logging
import os
import tempfile
import time
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path

import trio

from s3mount.core.config import StoreConfig
from s3mount.store.base import Capabilities, Condition
from s3mount.store.errors import StoreError

log = logging.getLogger(__name__)

FORMAT = 1  # of the file; another number is probed anew
AGAIN_AFTER = 300.0  # seconds until a probe that failed is tried again


@dataclass(frozen=True, slots=True)
class Known:
    capabilities: Capabilities = field(default_factory=Capabilities)
    quoted_if_match: bool = True  # Ceph 16 answers 412 to every quoted ETag of a PUT's If-Match

    def if_match(self, etag: str) -> str:
        return f'"{etag}"' if self.quoted_if_match else etag

    def of_put(self, condition: Condition) -> dict[str, str]:
        """The headers of a PUT: only what the service honours."""
        if condition.absent and self.capabilities.put_if_absent:
            return {"if-none-match": "*"}
        if condition.etag is not None and self.capabilities.put_if_match:
            return {"if-match": self.if_match(condition.etag)}
        return {}


class CapabilityProbe:
    """Probes at the first `known()`; every later one answers at once."""

    def __init__(self, config: StoreConfig, probe: Callable[[str], Awaitable[Known]]) -> None:
        """`probe(prefix)` asks the service; it raises StoreError where it could not."""
        self._config = config
        self._probe = probe
        self._path = _state_path(config)
        self._lock = trio.Lock()  # one probing at a time; guards nothing else
        self._known: Known | None = None
        self._failed_at = -AGAIN_AFTER
        self.prefix = ""  # where the probe's key may be written

    def known_so_far(self) -> Known:
        """The safe answers where nothing has been probed yet."""
        return self._known or self._assumed(Known())

    async def known(self) -> Known:
        """Never raises StoreError: what cannot be probed gets the safe answer."""
        if self._known is not None:
            return self._known
        async with self._lock:
            if self._known is None and time.monotonic() - self._failed_at >= AGAIN_AFTER:
                await self._find_out()
        return self.known_so_far()

    async def _find_out(self) -> None:
        found = await trio.to_thread.run_sync(_load, self._path)
        if found is None:
            try:
                found = await self._probe(self.prefix)
            except StoreError as error:
                log.warning("the service could not be probed, the safe ways are taken: %s", error)
                self._failed_at = time.monotonic()
                return
            log.info("the service honours: %s", _names(found.capabilities))
            await trio.to_thread.run_sync(_save, self._path, found)
        self._known = self._assumed(found)

    def _assumed(self, known: Known) -> Known:
        """The option that the user sets against what was probed."""
        value = self._config.assume_conditional_writes
        if value is None:
            return known
        return replace(
            known,
            capabilities=replace(
                known.capabilities,
                put_if_absent=value,
                put_if_match=value,
                complete_if_absent=value,
                complete_if_match=value,
            ),
        )


def _names(capabilities: Capabilities) -> str:
    return ", ".join(name for name, value in asdict(capabilities).items() if value) or "nothing"


def _state_path(config: StoreConfig) -> Path | None:
    if config.state_dir is None:
        return None
    place = f"{config.endpoint_url or config.region or 'aws'} {config.bucket}"
    digest = hashlib.sha256(place.encode()).hexdigest()[:24]
    return config.state_dir / f"capabilities-{digest}.json"


def _load(path: Path | None) -> Known | None:
    """None where nothing usable is remembered; a damaged file is probed anew."""
    if path is None:
        return None
    try:
        stored = json.loads(path.read_bytes())
        if stored["format"] != FORMAT:
            return None
        values = stored["capabilities"]
        names = [each.name for each in fields(Capabilities)]
        if set(values) != set(names) or not all(isinstance(values[name], bool) for name in names):
            return None
        return Known(Capabilities(**values), bool(stored["quoted_if_match"]))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        log.warning("%s cannot be used: %s", path, error)
        return None


def _save(path: Path | None, known: Known) -> None:
    """Atomic: a reader sees the old file or the new one. Failing costs only another probing."""
    if path is None:
        return
    stored = {
        "format": FORMAT,
        "capabilities": asdict(known.capabilities),
        "quoted_if_match": known.quoted_if_match,
    }
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(prefix=path.name, dir=path.parent)
        try:
            with os.fdopen(descriptor, "w") as file:
                json.dump(stored, file)
            Path(name).replace(path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
    except OSError as error:
        log.warning("%s cannot be written: %s", path, error)
