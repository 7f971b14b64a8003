"""Fixtures that every test may use: S3 services, buckets of their own, a bound on time."""

import logging
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

import pytest
from hypothesis import HealthCheck, settings

from tests.servers import Bucket, CephServer, MotoServer, Server, StrictServer
from tests.sizes import FULL

# Before the first directory of tests that uses them imports them.
pytest.register_assert_rewrite("tests.mounting", "tests.cli.tools")

DEFAULT_SECONDS = 240

# How long an example takes is no property of the code: the machine may have other work.
# New examples are looked for by the full size alone: a small run says whether a change broke what
# was right, and says the same each time.
settings.register_profile(
    "s3mount",
    deadline=None,
    derandomize=FULL == 1,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("s3mount")


def pytest_configure(config: pytest.Config) -> None:
    # Whatever started the tests in the background may have had SIGINT ignored; the programs that
    # the tests interrupt would inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.umask(0o022)  # other users look into what is made, and modes are compared
    config.addinivalue_line(
        "markers", f"bounded(seconds): ends the test after so long, not after {DEFAULT_SECONDS} s"
    )
    config.addinivalue_line(
        "markers", "provokes: the code is made to fail in a way that it logs with a traceback"
    )
    config.addinivalue_line(
        "markers", "long: begins before the others, so that no process is alone with it at the end"
    )


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: item.get_closest_marker("long") is None)


@pytest.fixture(autouse=True)
def _bounded(request: pytest.FixtureRequest) -> Iterator[None]:
    """No test hangs for ever."""
    marker = request.node.get_closest_marker("bounded")
    seconds = (marker.args[0] if marker else DEFAULT_SECONDS) * FULL

    def too_long(number: int, frame: FrameType | None) -> None:
        raise TimeoutError(f"the test took more than {seconds} s")

    previous = signal.signal(signal.SIGALRM, too_long)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    yield
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, previous)


class _Unexpected(logging.Handler):
    """What is logged with its traceback is a mistake of the code's, though it goes on."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.found: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if record.exc_info:
            self.found.append(f"{record.getMessage()}: {record.exc_info[1]!r}")


@pytest.fixture(autouse=True)
def _nothing_unexpected(request: pytest.FixtureRequest) -> Iterator[None]:
    handler = _Unexpected()
    logging.getLogger("s3mount").addHandler(handler)
    yield
    logging.getLogger("s3mount").removeHandler(handler)
    if request.node.get_closest_marker("provokes") is None:
        assert handler.found == []


@pytest.fixture(scope="session")
def state_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the session's stores remember capabilities."""
    return tmp_path_factory.mktemp("state")


@pytest.fixture(scope="session")
def moto_server(state_dir: Path) -> Iterator[Server]:
    with MotoServer(state_dir) as server:
        yield server


@pytest.fixture(scope="session")
def strict_server(state_dir: Path) -> Iterator[Server]:
    with StrictServer(state_dir) as server:
        yield server


@pytest.fixture(scope="session")
def ceph(state_dir: Path) -> Iterator[CephServer]:
    """The cluster itself: `ceph.server`, `ceph.execute(...)`, `ceph.up()`."""
    # The name is for virtual-host style; requests to 127.0.0.1 stay path-style.
    with CephServer(state_dir, conf=("rgw_dns_name = s3.test",)) as cluster:
        yield cluster


@pytest.fixture
def moto_bucket(moto_server: Server) -> Iterator[Bucket]:
    bucket = moto_server.create_bucket()
    yield bucket
    bucket.remove()


@pytest.fixture
def strict_bucket(strict_server: Server) -> Iterator[Bucket]:
    bucket = strict_server.create_bucket()
    yield bucket
    bucket.remove()


@pytest.fixture
def ceph_bucket(ceph: CephServer) -> Iterator[Bucket]:
    ceph.up()  # an earlier test may have crashed the gateway
    bucket = ceph.server.create_bucket()
    yield bucket
    bucket.remove()


@pytest.fixture(params=["moto", "ceph"])
def bucket(request: pytest.FixtureRequest) -> Bucket:
    """A fresh bucket on each of the services in turn."""
    found: Bucket = request.getfixturevalue(f"{request.param}_bucket")
    return found
