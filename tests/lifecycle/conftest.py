"""Mounts that are gone after the test."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lifecycle.mounting import Mounts, mounts_below


@pytest.fixture
def mounts(tmp_path: Path) -> Iterator[Mounts]:
    with mounts_below(tmp_path) as mounts:
        yield mounts
