"""moto as a process of its own, so that its work is not counted as ours."""

import subprocess
import sys
from pathlib import Path
from types import TracebackType

from tests.servers.endpoint import Server

_CHILD = """
import logging, sys
from moto.server import ThreadedMotoServer
logging.getLogger("werkzeug").setLevel(logging.ERROR)
server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
server.start()
print(server.get_host_and_port()[1], flush=True)
sys.stdin.read()  # ends when the tests do, however they end
"""


class MotoServer:
    """A context manager; moto checks no signatures."""

    NAME = "moto"
    COMMAND: tuple[str, ...] = ("-c", _CHILD)

    def __init__(self, state_dir: Path | None = None) -> None:
        self._state_dir = state_dir

    def __enter__(self) -> Server:
        self._process = subprocess.Popen(
            [sys.executable, *self.COMMAND],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd=Path(__file__).parents[2],
            text=True,
        )
        assert self._process.stdout is not None
        port = int(self._process.stdout.readline())
        url = f"http://127.0.0.1:{port}"
        return Server(self.NAME, url, "moto", "moto-secret", self._state_dir)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._process.terminate()
        self._process.communicate(timeout=20)


class StrictServer(MotoServer):
    """moto that honours every condition on every request, one after the other for each key, and
    checks every checksum: what AWS does and no other server here."""

    NAME = "strict"
    COMMAND = ("-m", "tests.servers.strict_app")
