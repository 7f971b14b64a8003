"""Fixtures: a store and a configuration in virtual time."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import trio.testing

from s3mount.core.config import MountConfig
from s3mount.store.memory import MemoryStore
from tests.model.mounted import memory_store, threads_in_line, tiny_config


@pytest.fixture
def autojump_clock() -> trio.testing.MockClock:
    return trio.testing.MockClock(autojump_threshold=0)


@pytest.fixture(autouse=True)
def _in_line(autojump_clock: trio.testing.MockClock) -> Iterator[None]:
    """Virtual time for every test here, and no thread that it would have to wait for."""
    with threads_in_line():
        yield


@pytest.fixture
def store() -> MemoryStore:
    return memory_store()


@pytest.fixture
def config(tmp_path: Path) -> MountConfig:
    return tiny_config(tmp_path)
