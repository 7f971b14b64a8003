"""Virtual time without threads."""

from collections.abc import Iterator

import pytest

from tests.model.mounted import threads_in_line


@pytest.fixture(autouse=True)
def _in_line(request: pytest.FixtureRequest) -> Iterator[None]:
    """Virtual time would not wait for a thread: how far it had got was decided by the machine."""
    if "autojump_clock" in request.fixturenames:
        with threads_in_line():
            yield
    else:
        yield
