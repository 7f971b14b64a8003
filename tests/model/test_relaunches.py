"""Random operations on mounts that die among them, and again while they recover.

`python -m tests.model.search --relaunches` looks at as many seeds as one likes.
"""

import logging

import pytest

from tests.model.acting import counts
from tests.model.search import failure
from tests.sizes import examples

SEEDS = 10
STEPS = 80


@pytest.mark.bounded(300)
@pytest.mark.parametrize("first", range(0, examples(40), SEEDS))
def test_what_was_acknowledged_survives_every_crash(first: int) -> None:
    counts.clear()
    logging.disable(logging.CRITICAL)
    try:
        found = {
            seed: failure(seed, 0.0, STEPS, trace=False, relaunches=True)
            for seed in range(first, first + SEEDS)
        }
    finally:
        logging.disable(logging.NOTSET)
    assert {seed: text for seed, text in found.items() if text is not None} == {}
    assert counts["crash"] > 2 * SEEDS
