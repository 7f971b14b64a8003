"""One example of the model test: settings, operations, and how they are run."""

import random
from collections.abc import Callable
from typing import Any
from unittest.mock import patch

import trio
from trio._core import _run

from s3mount.store.base import Capabilities
from tests.model.acting import Operation
from tests.model.driver import Driver
from tests.model.mounted import run, scratch_directory, tiny_config
from tests.model.relaunching import RelaunchingDriver, one_tick
from tests.model.unreliable import UnreliableStore

# How often each operation is drawn, relative to the others.
WEIGHTS = {
    "write_file": 4,
    "create": 3,
    "open": 4,
    "write": 8,
    "read": 5,
    "read_file": 3,
    "flush": 3,
    "fsync": 2,
    "close": 3,
    "release": 2,
    "truncate": 2,
    "ftruncate": 2,
    "chmod": 2,
    "chown": 2,
    "utimens": 2,
    "setxattr": 2,
    "removexattr": 3,
    "stat": 2,
    "missing": 2,
    "mkdir": 4,
    "rmdir": 2,
    "rmdir_empty": 3,
    "unlink": 2,
    "unlink_open": 3,
    "symlink": 2,
    "mknod": 2,
    "rename": 4,
    "rename_over": 3,
    "rename_directory": 5,
    "readdir": 3,
    "pause": 3,
    "forget": 2,
    "fsyncdir": 2,
    "drain": 2,
    "compare": 2,
    "remount": 2,
    "foreign_put": 3,
    "foreign_replace": 2,
    "foreign_delete": 2,
    "conflict": 2,
}
KINDS = [name for name, weight in WEIGHTS.items() for _ in range(weight)]
# Of one that dies among the work of others, and again while it recovers.
RELAUNCH_KINDS = [*KINDS, *["crash"] * 6]


def slow(latency: float, seed: int) -> Callable[[str, str], Any] | None:
    """Requests take up to `latency` seconds, so that they overtake each other."""
    if not latency:
        return None
    rng = random.Random(seed)

    async def before(_: str, __: str) -> None:
        await trio.sleep(rng.random() * latency)

    return before


def check(how: dict[str, Any], operations: list[Operation], tell: Callable[[str], None]) -> None:
    service: Capabilities = how["capabilities"]
    relaunches = how.get("relaunches", False)
    with scratch_directory() as directory:
        config = tiny_config(
            directory,
            how["prefix"],
            spool_limit=how["spool"],
            namespace_delay=how["delay"],
            durability=how.get("durability", "close"),
        )

        async def work() -> None:
            store = UnreliableStore(
                how.get("faults", 0.0),
                random.Random(how["seed"]),
                capabilities=service,
                before=slow(how["latency"], how["seed"]),
                after=slow(how["latency"], how["seed"] + 1) if relaunches else None,
                page_size=how["page_size"],
            )
            kind = RelaunchingDriver if relaunches else Driver
            driver = kind(store, config, random.Random(how["seed"]))
            try:
                await driver.run(operations)
            except BaseException:
                tell("\n".join(driver.trace + store.told))
                raise

        # Tasks that can run are run in an order of trio's choosing: the seed's, too.
        with patch.object(_run, "_ALLOW_DETERMINISTIC_SCHEDULING", True):
            _run._r.seed(how["seed"])
            with one_tick():
                run(work)
