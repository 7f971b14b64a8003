"""Fixtures: a store and a configuration in virtual time."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from s3mount.core.config import MountConfig
from s3mount.store.memory import MemoryStore
from tests.model.mounted import memory_store, threads_in_line, tiny_config


@pytest.fixture(autouse=True)
def _in_line() -> Iterator[None]:
    """No thread that virtual time (the autojump_clock of each test) would have to wait for."""
    with threads_in_line():
        yield


@pytest.fixture
def store() -> MemoryStore:
    return memory_store()


@pytest.fixture
def config(tmp_path: Path) -> MountConfig:
    return tiny_config(tmp_path)
