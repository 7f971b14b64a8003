"""Programs that people use, on real mounts of real services.

After each, every object is looked at from outside, and everything again after a remount.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.mounting import Mounted
from tests.mounts.matrix import REQUESTS
from tests.mounts.programs import LONG, OPTIONS, PROGRAMS, SETS_DIRECTORY_TIMES, Job, Program
from tests.mounts.trees import assert_in_bucket, assert_same, describe
from tests.servers import Bucket


def case(program: Program) -> Any:
    marks = [pytest.mark.long] if program in LONG else []
    return pytest.param(program, id=program.__name__, marks=marks)


@pytest.mark.bounded(600)
@pytest.mark.matrix
@pytest.mark.parametrize("program", [case(program) for program in PROGRAMS])
def test_a_program_works_as_on_a_local_disk(
    program: Program,
    bucket: Bucket,
    mounted: Mounted,
    tmp_path: Path,
    record_property: Callable[[str, object], None],
) -> None:
    mount = mounted(bucket, "-o", "allow_other", *OPTIONS.get(program, ()))
    place = mount.path / "work"
    place.mkdir()
    program(Job(mount, place, tmp_path))
    mount.flush()
    times = program in SETS_DIRECTORY_TIMES
    tree = describe(place, directory_times=times)
    record_property(REQUESTS, mount.requests().total())
    mount.stop()
    assert_in_bucket(bucket, tree, "work/")
    mount.start()
    assert_same(describe(place, directory_times=times), tree, what="the tree after a remount")
