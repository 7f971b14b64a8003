"""Random operations on the file system and on a plain model of it give the same results."""

import logging
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, note, settings
from hypothesis import strategies as st

from s3mount.store.memory import ALL_CAPABILITIES, CEPH_CAPABILITIES, NO_CAPABILITIES
from tests.model.acting import Operation, counts
from tests.model.examples import KINDS, WEIGHTS, check
from tests.model.mounted import KIB
from tests.model.search import failure
from tests.sizes import examples

STEPS = 80

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
        "durability": st.sampled_from(["close", "journal"]),
        "spool": st.sampled_from([512 * KIB, 64 * KIB]),
    }
)


@pytest.mark.long
@pytest.mark.bounded(600)
def test_the_file_system_does_what_the_model_does() -> None:
    counts.clear()

    @settings(
        max_examples=examples(120),
        deadline=None,
        derandomize=True,
        database=None,
        phases=[Phase.explicit, Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
    )
    @given(how=settings_of_mount, operations=st.lists(operation, min_size=STEPS, max_size=STEPS))
    def tried(how: dict[str, Any], operations: list[Operation]) -> None:
        check(how, operations, note)

    logging.disable(logging.ERROR)  # conflicts are logged, thousands of times
    try:
        tried()
        # Hypothesis likes to repeat itself: it draws some kinds far less often than others.
        found = {seed: failure(seed, 0.0, STEPS, trace=False) for seed in range(examples(180))}
    finally:
        logging.disable(logging.NOTSET)
    assert {seed: what for seed, what in found.items() if what is not None} == {}
    print("\noperations:", ", ".join(f"{name} {counts[name]}" for name in WEIGHTS))
    print("in all:", sum(counts.values()))
    rare = {name: counts[name] for name in WEIGHTS if counts[name] < 100}
    assert not rare
