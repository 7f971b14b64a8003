"""The model test on a service that loses answers and requests, or carries them out late.

`python -m tests.model.search` looks through more seeds.
"""

import logging

import pytest

from tests.model.search import failure
from tests.sizes import examples

# Of the mutating requests, 8 % meet one of the fates of unreliable.Fate.
SHARE = 0.08
STEPS = 80


@pytest.mark.bounded(300)
@pytest.mark.parametrize("first", range(0, examples(100), 25))
def test_lost_answers_leave_bytes_and_names_right(first: int) -> None:
    logging.disable(logging.CRITICAL)
    try:
        found = {
            seed: failure(seed, SHARE, STEPS, trace=False) for seed in range(first, first + 25)
        }
    finally:
        logging.disable(logging.NOTSET)
    assert {seed: what for seed, what in found.items() if what is not None} == {}
