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

    def __init__(self, state_dir: Path | None = None) -> None:
        self._state_dir = state_dir

    def __enter__(self) -> Server:
        self._process = subprocess.Popen(
            [sys.executable, "-c", _CHILD],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert self._process.stdout is not None
        port = int(self._process.stdout.readline())
        return Server("moto", f"http://127.0.0.1:{port}", "moto", "moto-secret", self._state_dir)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._process.terminate()
        self._process.communicate(timeout=20)
