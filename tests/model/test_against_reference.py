"""Random operations on the file system and on a plain model of it give the same results."""

import logging
import random
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, note, settings
from hypothesis import strategies as st

from s3mount.store.base import Capabilities
from s3mount.store.memory import ALL_CAPABILITIES, CEPH_CAPABILITIES, NO_CAPABILITIES
from tests.model.driver import Driver, Operation, counts
from tests.model.mounted import KIB, memory_store, run, scratch_directory, tiny_config

EXAMPLES = 600
STEPS = 80

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

number = st.integers(0, 11)
operation = st.tuples(st.sampled_from(KINDS), number, number, number, number)
capabilities = st.sampled_from([ALL_CAPABILITIES, CEPH_CAPABILITIES, NO_CAPABILITIES])
settings_of_mount = st.fixed_dictionaries(
    {
        "capabilities": capabilities,
        "prefix": st.sampled_from(["", "p/q/"]),
        "latency": st.sampled_from([0.0, 0.02, 0.4]),
        "seed": st.integers(0, 1000),
        "page_size": st.sampled_from([1000, 3]),
        "delay": st.sampled_from([0.5, 0.0]),
        "spool": st.sampled_from([512 * KIB, 64 * KIB]),
    }
)


def slow(latency: float, seed: int) -> Callable[[str, str], Any] | None:
    """Requests take up to `latency` seconds, so that they overtake each other."""
    if not latency:
        return None
    import trio

    rng = random.Random(seed)

    async def before(_: str, __: str) -> None:
        await trio.sleep(rng.random() * latency)

    return before


def check(
    how: dict[str, Any], operations: list[Operation], tell: Callable[[str], None] = note
) -> None:
    service: Capabilities = how["capabilities"]
    with scratch_directory() as directory:
        config = tiny_config(
            directory, how["prefix"], spool_limit=how["spool"], namespace_delay=how["delay"]
        )

        async def work() -> None:
            store = memory_store(
                capabilities=service,
                before=slow(how["latency"], how["seed"]),
                page_size=how["page_size"],
            )
            driver = Driver(store, config, random.Random(how["seed"]))
            try:
                await driver.run(operations)
            except BaseException:
                tell("\n".join(driver.trace))
                raise

        run(work)


@pytest.mark.bounded(600)
def test_the_file_system_does_what_the_model_does() -> None:
    counts.clear()

    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        derandomize=True,
        database=None,
        phases=[Phase.explicit, Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
    )
    @given(how=settings_of_mount, operations=st.lists(operation, min_size=STEPS, max_size=STEPS))
    def examples(how: dict[str, Any], operations: list[Operation]) -> None:
        check(how, operations)

    logging.disable(logging.ERROR)  # conflicts are logged, thousands of times
    try:
        examples()
    finally:
        logging.disable(logging.NOTSET)
    print("\noperations:", ", ".join(f"{name} {counts[name]}" for name in WEIGHTS))
    print("in all:", sum(counts.values()))
    rare = {name: counts[name] for name in WEIGHTS if counts[name] < 100}
    assert not rare
