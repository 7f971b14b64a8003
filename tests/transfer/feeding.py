"""A source on disk, fed to a store in memory, and what a later look at both sees."""

import os
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from s3mount.cli.progress import Bar
from s3mount.core.config import AttributeDefaults, WritebackConfig
from s3mount.namespace.stat_cache import StatCache
from s3mount.store.base import ObjectStore
from s3mount.store.memory import MemoryStore
from s3mount.transfer.feed.decide import Comparing
from s3mount.transfer.feed.feeder import Feeding
from s3mount.transfer.feed.local_tree import Walking
from s3mount.transfer.feed.report import Report
from s3mount.transfer.feed.session import Place, open_session

KIB = 1024
PART = 64 * KIB
DEFAULTS = AttributeDefaults(uid=1000, gid=1000)
WALKING = {"depth", "rules", "follow", "escape"}
COMPARING = {"missing_only", "checksum", "delete", "directories"}


@dataclass
class Rig:
    directory: Path
    store: ObjectStore = field(default_factory=lambda: MemoryStore(minimum_part_size=1))
    prefix: str = ""
    part_size: int = PART
    remembers: bool = True  # the stat cache
    done: list[str] = field(default_factory=list)
    bar: Bar = field(default_factory=lambda: Bar(""))

    def __post_init__(self) -> None:
        self.source = self.directory / "source"
        self.source.mkdir(exist_ok=True)

    @property
    def memory(self) -> MemoryStore:
        assert isinstance(self.store, MemoryStore)
        return self.store

    def make(self, *paths: str, mtime: float | None = 1_000_000_000.25) -> None:
        for path in paths:
            target = self.source / path
            target.parent.mkdir(parents=True, exist_ok=True)
            if path.endswith("/"):
                target.mkdir(exist_ok=True)
            else:
                target.write_text(path)
            if mtime is not None:
                os.utime(target, (mtime, mtime))

    def feeding(self, **options: Any) -> Feeding:
        xattrs = options.pop("xattrs", False)
        walking = {name: options.pop(name) for name in WALKING & options.keys()}
        comparing = {name: options.pop(name) for name in COMPARING & options.keys()}
        feeding = Feeding(
            os.fsencode(self.source),
            self.prefix,
            Walking(root=self.prefix, xattrs=xattrs, **walking),
            Comparing(xattrs=xattrs, **comparing),
            large_from=self.part_size,
        )
        return replace(feeding, **options)

    async def feed(self, *, totals: bool = False, **options: Any) -> Report:
        """`done` has what was done: 'send a/b', ..."""
        feeding = self.feeding(**options)
        self.done = []
        report = Report(
            self.bar, done=lambda action, path: self.done.append(f"{action.value} {path}")
        )
        config = WritebackConfig(
            self.directory / "spool",
            part_size=self.part_size,
            single_put_limit=self.part_size,
            min_part_size=1,
        )
        cache = StatCache(self.directory / "attributes", 10_000) if self.remembers else None
        place = Place(self.directory / "shared", "b", self.prefix, str(self.source))
        async with open_session(
            *(self.store, place, config, DEFAULTS, cache, report), dry_run=feeding.dry_run
        ) as session:
            await session.feed_folder(feeding, totals=totals)
        return report

    def requests(self) -> dict[str, int]:
        """Since the last call, without bytes."""
        now = {name: count for name, count in self.store.counts().items() if "Bytes" not in name}
        before, self._before = getattr(self, "_before", {}), now
        changed = {name: count - before.get(name, 0) for name, count in now.items()}
        return {name: count for name, count in changed.items() if count}
