"""Ceph's RADOS Gateway with a one-node cluster behind it, by the script beside this file."""

import json
import os
import random
import shutil
import socket
import subprocess
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Any

from tests.servers.endpoint import Server

SCRIPT = Path(__file__).with_name("ceph-rgw")
_PORTS = 10  # the script's: gateway, mon, OSD
# Purges the cluster when its standard input ends: also after the tests were killed.
_GUARD = 'cat >/dev/null; exec "$0" down --dir "$1" --purge'


def _free_ports() -> int:
    """The first of ten free ports below the range the kernel gives to connections."""
    while True:
        first = random.randrange(15_000, 32_000)
        sockets = []
        try:
            for port in range(first, first + _PORTS):
                probe = socket.socket()
                sockets.append(probe)
                probe.bind(("127.0.0.1", port))
        except OSError:
            continue
        else:
            return first
        finally:
            for probe in sockets:
                probe.close()


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
        for attempt in range(4):  # another run may have taken the ports meanwhile
            self.port = _free_ports()
            try:
                self.up()
            except subprocess.CalledProcessError:
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
        return subprocess.run(
            [str(SCRIPT), command, "--dir", str(self.directory), *arguments],
            check=True,
            capture_output=True,
            text=True,
            timeout=120,
        ).stdout

    def _purge(self) -> None:
        self._guard.communicate(timeout=60)
        shutil.rmtree(self.directory, ignore_errors=True)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._purge()
