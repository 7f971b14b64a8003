"""Virtual time without threads; small servers that are gone after the test."""

from collections.abc import Callable, Iterator

import pytest

from tests.model.mounted import threads_in_line
from tests.unit.tiny_server import TinyServer


@pytest.fixture(autouse=True)
def _in_line(request: pytest.FixtureRequest) -> Iterator[None]:
    """Virtual time would not wait for a thread: how far it had got was decided by the machine."""
    if "autojump_clock" in request.fixturenames:
        with threads_in_line():
            yield
    else:
        yield


@pytest.fixture
def serve() -> Iterator[Callable[..., TinyServer]]:
    servers: list[TinyServer] = []

    def start(*arguments: object, **named: object) -> TinyServer:
        servers.append(TinyServer(*arguments, **named))  # type: ignore[arg-type]
        return servers[-1]

    yield start
    for server in servers:
        server.close()
