"""Looks for seeds whose random operations fail: `python -m tests.model.search --seeds 0-5000`.

One seed gives settings and operations; `--trace` shows what was done until it failed.
"""

import argparse
import logging
import random
import sys
import time
import traceback
from typing import Any

from s3mount.store.memory import ALL_CAPABILITIES, CEPH_CAPABILITIES, NO_CAPABILITIES
from tests.model.acting import Operation
from tests.model.examples import KINDS, RELAUNCH_KINDS, check
from tests.model.mounted import KIB


def drawn(
    seed: int, faults: float, steps: int, kinds: list[str]
) -> tuple[dict[str, Any], list[Operation]]:
    rng = random.Random(seed)
    how: dict[str, Any] = {
        "capabilities": rng.choice([ALL_CAPABILITIES, CEPH_CAPABILITIES, NO_CAPABILITIES]),
        "prefix": rng.choice(["", "p/q/"]),
        "latency": rng.choice([0.0, 0.02, 0.4]),
        "seed": rng.randrange(1000),
        "page_size": rng.choice([1000, 3]),
        "delay": rng.choice([0.5, 0.0]),
        "spool": rng.choice([512 * KIB, 64 * KIB]),
        "faults": faults,
        "durability": rng.choice(["close", "journal"]),
    }
    operations: list[Operation] = []
    for _ in range(steps):
        numbers = [rng.randrange(12) for _ in range(4)]
        operations.append((rng.choice(kinds), numbers[0], numbers[1], numbers[2], numbers[3]))
    return how, operations


def failure(
    seed: int,
    faults: float,
    steps: int,
    *,
    trace: bool,
    relaunches: bool = False,
) -> str | None:
    """What went wrong, in one line; with `trace` all of it is printed."""
    kinds = RELAUNCH_KINDS if relaunches else KINDS
    how, operations = drawn(seed, faults, steps, kinds)
    if relaunches:
        # Without room for it half a file is published now and then: that has tests of its own.
        how |= {"relaunches": True, "spool": 512 * KIB}
    tell = print if trace else lambda _: None
    if trace:
        print({name: value for name, value in how.items() if name != "capabilities"})
    try:
        check(how, operations, tell)
    except Exception as error:
        if trace:
            traceback.print_exc()
        return f"{type(error).__name__}: {error}".split("\n", maxsplit=1)[0][:300]
    return None


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", default="0-1000", help="FIRST-LAST, or one")
    parser.add_argument("--faults", type=float, default=0.08, help="share of mutating requests")
    parser.add_argument("--steps", type=int, default=80)
    parser.add_argument("--relaunches", action="store_true", help="after crashes now and then")
    parser.add_argument("--trace", action="store_true")
    options = parser.parse_args()
    first, _, last = options.seeds.partition("-")
    if options.trace:
        logging.basicConfig(level=logging.DEBUG, format="%(name)s: %(message)s", stream=sys.stdout)
        for name in ("asyncio", "urllib3"):
            logging.getLogger(name).setLevel(logging.WARNING)
    else:
        logging.disable(logging.CRITICAL)
    failed, started = 0, time.monotonic()
    seeds = range(int(first), int(last or first) + 1)
    for seed in seeds:
        found = failure(
            seed,
            options.faults,
            options.steps,
            trace=options.trace,
            relaunches=options.relaunches,
        )
        if found is not None:
            failed += 1
            print(f"{seed}: {found}", flush=True)
    print(f"{len(seeds)} seeds, {failed} failed, {time.monotonic() - started:.0f} s")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
