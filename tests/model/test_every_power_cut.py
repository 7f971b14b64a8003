"""A machine that loses its power at any step of short scripts: what the next mount makes of that.

What is left of a step: the journal as of its last sync, or with some of the commits after that;
of each chunk file what was synced, what is there now, or a mixture; and the bucket, where the
request on its way was carried out or was not. Nothing that close (with write-back), fsync or
(else) close acknowledged may be lost, of other changes the last ones only; nothing may be left
over, and no failure be reported that is none. Then once more, with a cut during that recovery.
"""

import itertools
from pathlib import Path

import pytest

from tests.model.mounted import KIB
from tests.model.power_scripts import SCRIPTS
from tests.model.power_trial import Trial, variants
from tests.model.volatile_machine import Pace
from tests.sizes import FULL

SLOW_DISK, SLOW_NETWORK = Pace(0.05, 0.0), Pace(0.001, 0.04)
AMPLE, SMALL = 256 * KIB, 16 * KIB
MACHINES = [(SLOW_DISK, AMPLE), (SLOW_NETWORK, AMPLE), (SLOW_NETWORK, SMALL)]
# In CI each case is tried on one machine, in every third step; every eighth recovery is cut again,
# in every fourth of its steps.
EVERY = FULL > 1
STEPS, RECOVERIES, STEPS_OF_RECOVERIES = (1, 8, 2) if EVERY else (3, 8, 4)
CASES = [(name, durability) for name in SCRIPTS for durability in ("close", "journal")]


@pytest.mark.parametrize(("name", "durability"), CASES)
def test_what_was_acknowledged_is_there(tmp_path: Path, name: str, durability: str) -> None:
    number = CASES.index((name, durability))
    machines = MACHINES if EVERY else [MACHINES[(number // 2) % len(MACHINES)]]
    for at, (pace, spool) in enumerate(machines):
        (directory := tmp_path / f"machine-{at}").mkdir()
        trial = Trial(directory, SCRIPTS[name], durability, pace, spool)
        recoveries = itertools.count(number)
        for step in range(number % STEPS, len(trial.images), STEPS):
            for left in variants(trial.images[step], step, every=EVERY):
                again = next(recoveries) % RECOVERIES == 0
                images = trial.recover(left, watched=again)
                for then in range(step % STEPS_OF_RECOVERIES, len(images), STEPS_OF_RECOVERIES):
                    for left_then in variants(images[then], step + then, every=False):
                        trial.recover(left_then, left)
