"""Ceph's RADOS Gateway with a one-node cluster behind it, by the script beside this file."""

import contextlib
import json
import os
import random
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

from botocore.exceptions import ReadTimeoutError

from tests.servers.endpoint import Server

SCRIPT = Path(__file__).with_name("ceph-rgw")
_PORTS = 10  # the script's: gateway, mon, OSD
# Below the range that the kernel gives to connections.
_FIRST_PORT, _LAST_PORT = 15_000, 32_000
# Purges the cluster when its standard input ends: also after the tests were killed.
_GUARD = 'cat >/dev/null; exec "$0" down --dir "$1" --purge'


def _claimed_ports() -> tuple[int, socket.socket]:
    """The first of ten free ports, and a socket on the one after them: who else looks for ports
    in this way finds it taken, also while none of the ten is in use yet."""
    while True:
        first = random.randrange(_FIRST_PORT, _LAST_PORT, _PORTS + 1)
        with contextlib.ExitStack() as probes:
            claim = socket.socket()
            try:
                claim.bind(("127.0.0.1", first + _PORTS))
                for port in range(first, first + _PORTS):
                    probe = probes.enter_context(socket.socket())
                    probe.bind(("127.0.0.1", port))
            except OSError:
                claim.close()
            else:
                return first, claim


class CephError(Exception):
    """The script failed; what it said."""


class CephServer:
    """A context manager. `conf` are lines for ceph.conf's [client] section."""

    ACCESS_KEY = "s3mounttest"
    SECRET_KEY = "s3mounttestsecret"

    def __init__(
        self, state_dir: Path | None = None, *, conf: tuple[str, ...] = (), size_gib: int = 8
    ) -> None:
        self._state_dir = state_dir
        self._conf = conf
        self._size = size_gib
        self._claim = socket.socket()

    def __enter__(self) -> "CephServer":
        missing = [
            name
            for name in ("ceph-mon", "ceph-osd", "radosgw", "radosgw-admin")
            if shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin") is None
        ]
        if missing:
            raise RuntimeError(f"{', '.join(missing)} missing: run {SCRIPT} install as root")
        # Short: the daemons' socket paths live below it.
        self.directory = Path(tempfile.mkdtemp(prefix="rgw-", dir="/tmp"))
        self._guard = subprocess.Popen(
            ["sh", "-c", _GUARD, str(SCRIPT), str(self.directory)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            self._start()
        except BaseException:
            self._purge()
            raise
        return self

    def _start(self) -> None:
        for attempt in range(4):  # other programs may have taken the ports meanwhile
            self._claim.close()
            self.port, self._claim = _claimed_ports()
            try:
                self.up()
            except CephError:
                if attempt == 3:
                    raise
            else:
                return

    def up(self) -> None:
        """Starts what does not run, a crashed gateway too."""
        command = ["up", "--port", str(self.port), "--size", str(self._size)]
        for line in self._conf:
            command += ["--conf", line]
        self._script(*command)

    @property
    def server(self) -> Server:
        url = f"http://127.0.0.1:{self.port}"
        return Server("ceph", url, self.ACCESS_KEY, self.SECRET_KEY, self._state_dir)

    def execute(self, *command: str) -> str:
        """E.g. execute('ceph', 'osd', 'set', 'pause'); returns its standard output."""
        return self._script("exec", "--", *command)

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """The gateway takes requests and answers none, until the end of the block.

        The command that pauses returns before the gateway knows of it: a request that is sent
        right after it may still be answered. So some are sent until none comes back; a single one
        may as well be late because the machine is busy.
        """
        bucket = self.server.create_bucket()
        impatient = self.server.client(read_timeout=2, retries={"max_attempts": 0})
        self.execute("ceph", "osd", "set", "pause")
        try:
            silent = 0
            for _ in range(100):
                try:
                    impatient.list_objects_v2(Bucket=bucket.name)
                    silent = 0
                except ReadTimeoutError:
                    silent += 1
                if silent == 2:
                    break
            else:
                raise TimeoutError("the gateway goes on answering")
            yield
        finally:
            self.execute("ceph", "osd", "unset", "pause")
        bucket.remove()

    def create_user(self, name: str) -> Server:
        """Another user of the same gateway."""
        answer: Any = json.loads(
            self.execute(
                "radosgw-admin", "user", "create", f"--uid={name}", f"--display-name={name}"
            )
        )
        key = answer["keys"][0]
        return Server("ceph", self.server.url, key["access_key"], key["secret_key"])

    def _script(self, command: str, *arguments: str) -> str:
        done = subprocess.run(
            [str(SCRIPT), command, "--dir", str(self.directory), *arguments],
            check=False,
            capture_output=True,
            text=True,
            timeout=120,
        )
        if done.returncode != 0:  # e.g. no room on the disk
            raise CephError(f"{SCRIPT.name} {command} {arguments}: {done.stderr}")
        return done.stdout

    def _purge(self) -> None:
        self._claim.close()
        self._guard.communicate(timeout=60)
        shutil.rmtree(self.directory, ignore_errors=True)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._purge()
