"""One mount for all tests here, and a directory of the local disk to compare it with."""

import os
import shutil
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.mounting import Mount
from tests.posix.sides import Sides, tick
from tests.servers import Server

BOUND = 900.0  # seconds; a call to a mount that does not answer ends when its process does


@pytest.fixture(scope="session")
def posix_mount(moto_server: Server) -> Iterator[Mount]:
    if os.geteuid() != 0:
        pytest.skip("asks as several users, which only root may")
    # Not pytest's own directory: other users cannot enter that.
    directory = Path(tempfile.mkdtemp(prefix="s3mount-posix-"))
    directory.chmod(0o755)
    bucket = moto_server.create_bucket()
    mount = Mount(bucket, directory, ("-o", "allow_other", "--xattrs"), cache=directory / "cache")

    def rescue() -> None:
        if mount.running:
            mount.process.kill()

    timer = threading.Timer(BOUND, rescue)
    timer.daemon = True
    try:
        mount.start()
        timer.start()
        yield mount
        mount.stop()
        assert not mount.unannounced()
    finally:
        timer.cancel()
        mount.abandon()
        bucket.remove()
        shutil.rmtree(directory)


@pytest.fixture
def sides(posix_mount: Mount, request: pytest.FixtureRequest) -> Iterator[Sides]:
    """A fresh directory on each side."""
    local = posix_mount.path.parent / "local"
    roots = (posix_mount.path / request.node.name, local / request.node.name)
    for root in roots:
        root.mkdir(parents=True)
        root.chmod(0o777)
    mask = os.umask(0)
    tick()
    yield Sides(*roots)
    os.umask(mask)
    for root in roots:
        shutil.rmtree(root)
