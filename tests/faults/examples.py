"""One example of the model test in bad weather: settings, operations, and how they are run.

All of the store's code is used but the socket (tests/memory_wire.py), in virtual time.
`python -m tests.faults.examples --seeds 0-1000` looks for seeds that fail.
"""

import argparse
import logging
import random
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any
from unittest.mock import patch

import trio

from s3mount.store.memory import ALL_CAPABILITIES, CEPH_CAPABILITIES, NO_CAPABILITIES
from tests.fault_proxy import Weather
from tests.memory_wire import store_in_memory
from tests.model.acting import Operation
from tests.model.driver import Driver
from tests.model.examples import KINDS
from tests.model.mounted import KIB, memory_store, run, scratch_directory, tiny_config

CAPABILITIES = (ALL_CAPABILITIES, CEPH_CAPABILITIES, NO_CAPABILITIES)
# With more faults than a service ever has, a request needs more attempts to get through.
MANY_ATTEMPTS = {"retries": 30, "request_deadline": 900.0}


def check(
    how: dict[str, Any],
    operations: list[Operation],
    tell: Callable[[str], None],
    *,
    rate: float,
    store: dict[str, Any] | None = None,
) -> Weather:
    """Raises what a program would have seen, or AssertionError where something is not right.

    `store`: settings of the StoreConfig.
    """
    weather = Weather(rate, how["seed"])
    chance, pauses = random.Random(how["seed"]), random.Random(how["seed"])
    with scratch_directory() as directory:
        config = tiny_config(
            directory, how["prefix"], spool_limit=how["spool"], namespace_delay=how["delay"]
        )

        async def work() -> None:
            memory = memory_store(capabilities=how["capabilities"])
            served = store_in_memory(
                memory,
                replace(config.store, **(store or {})),
                weather,
                lambda: pauses.random() * how["latency"],
                chance.random,
            )
            await served.capabilities()  # a mount probes before it serves
            driver = Driver(memory, config, random.Random(how["seed"]), served)
            try:
                await driver.run(operations)
            except BaseException:
                tell("\n".join(driver.trace))
                raise
            assert driver.unknown_uploads <= weather.lost_uploads

        # Four requests in a row that fail are no outage here, in which old names would be shown.
        with patch("s3mount.namespace.outage.PATIENCE", 1e9):
            run(work)
    return weather


def drawn(seed: int, steps: int) -> tuple[dict[str, Any], list[Operation]]:
    rng = random.Random(seed)
    how: dict[str, Any] = {
        "capabilities": rng.choice(CAPABILITIES),
        "prefix": rng.choice(["", "p/q/"]),
        "latency": rng.choice([0.0, 0.02, 0.4]),
        "seed": seed,
        "delay": rng.choice([0.5, 0.0]),
        "spool": rng.choice([512 * KIB, 64 * KIB]),
    }
    operations: list[Operation] = []
    for _ in range(steps):
        numbers = [rng.randrange(12) for _ in range(4)]
        operations.append((rng.choice(KINDS), numbers[0], numbers[1], numbers[2], numbers[3]))
    return how, operations


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", default="0-1000", help="FIRST-LAST, or one")
    parser.add_argument("--rate", type=float, default=0.3)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--trace", action="store_true")
    options = parser.parse_args()
    if not options.trace:
        logging.disable(logging.CRITICAL)
    # So that a seed fails alike each time (with PYTHONHASHSEED=0).
    trio._core._run._ALLOW_DETERMINISTIC_SCHEDULING = True  # type: ignore[misc]
    first, _, last = options.seeds.partition("-")
    failed, started = 0, time.monotonic()
    seeds = range(int(first), int(last or first) + 1)
    for seed in seeds:
        trio._core._run._r.seed(seed)
        random.seed(seed)
        how, operations = drawn(seed, options.steps)
        tell = print if options.trace else lambda _: None
        try:
            check(how, operations, tell, rate=options.rate, store=MANY_ATTEMPTS)
        except Exception as error:
            if options.trace:
                raise
            failed += 1
            print(f"{seed}: {type(error).__name__}: {error}"[:300], flush=True)
    print(f"{len(seeds)} seeds, {failed} failed, {time.monotonic() - started:.0f} s")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
