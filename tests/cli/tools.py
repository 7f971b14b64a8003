"""The tools without a mount, called as a user calls them."""

import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from click.testing import CliRunner, Result

from s3mount.cli.main import main
from s3mount.store.probing import KEY_PREFIX
from tests.counting_proxy import CountingProxy, Drop, Fault, Reply, Seen
from tests.mounting import environment
from tests.servers import Bucket

WAIT_SECONDS = 100.0  # for what is sure to come, on however busy a machine


@dataclass(frozen=True)
class Tools:
    """`home` holds the caches."""

    bucket: Bucket
    home: Path

    def run(self, *words: str | Path, answer: str | None = None, status: int = 0) -> Result:
        """The command line in this process; it must end with `status`, and never by surprise."""
        with self._environment():
            result = CliRunner().invoke(main, list(map(str, words)), input=answer)
        assert result.exception is None or isinstance(result.exception, SystemExit), result.output
        assert "Traceback" not in result.output
        assert result.exit_code == status, result.output
        return result

    def lines(self, *words: str | Path) -> list[str]:
        """What it prints on standard output."""
        return self.run(*words).stdout.splitlines()

    @contextmanager
    def _environment(self) -> Iterator[None]:
        saved = dict(os.environ)
        wanted = environment(self.bucket, self.home)
        try:
            os.environ.clear()
            os.environ.update(wanted)
            yield
        finally:
            os.environ.clear()
            os.environ.update(saved)


class Halfway:
    """A fault that lets some requests pass and holds all others back until `go`. It is `reached`
    when the service has answered the first `passing` ones and `holding` more have come.

    `lost`: those that are held back never reach the service.
    """

    def __init__(self, passing: int, *, holding: int = 1, lost: bool = False) -> None:
        self.reached, self.go = threading.Event(), threading.Event()
        self.fault = Fault(before=self._hold, after=self._answered)
        self._passing, self._holding, self._lost = passing, holding, lost
        self._came = self._with_service = 0
        self._changed = threading.Condition()  # guards the counts: each connection has a thread

    def _hold(self, seen: Seen) -> None:
        if KEY_PREFIX in seen.key:
            return
        with self._changed:
            self._came += 1
            held = self._came > self._passing
            self._with_service += not held
            self._look()
        if held:
            if not self.go.wait(WAIT_SECONDS) or self._lost:
                raise Drop
            with self._changed:
                self._with_service += 1

    def _answered(self, seen: Seen, reply: Reply) -> Reply:
        if KEY_PREFIX not in seen.key:
            with self._changed:
                self._with_service -= 1
                self._look()
                self._changed.notify_all()
        return reply

    def _look(self) -> None:
        if self._came >= self._passing + self._holding and not self._with_service:
            self.reached.set()

    def settle(self) -> None:
        """Waits until the service has carried out all that was let through, also what its caller
        did not wait for."""
        with self._changed:
            assert self._changed.wait_for(lambda: not self._with_service, WAIT_SECONDS)


def interrupted(
    tools: Tools,
    words: Sequence[str | Path],
    operation: str,
    passing: int,
    *,
    given: bytes | None = None,
    program: str = "",
) -> str:
    """What the command says that is interrupted when so many requests of `operation` have passed
    and the next ones are on their way. Its standard input has `given` and does not end; `program`
    runs before it."""
    halfway = Halfway(passing)
    at_once = "from s3mount.cli import signals\nsignals.TELL_AFTER = 0.0"
    code = f"{at_once}\n{program}\nfrom s3mount.cli.main import main\nmain()"
    with CountingProxy(tools.bucket.server.url) as proxy:
        proxy.inject(operation, halfway.fault, times=1000)
        process = subprocess.Popen(
            [sys.executable, "-c", code, *map(str, words), "--endpoint-url", proxy.url],
            env=environment(tools.bucket, tools.home),
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        assert process.stdin is not None
        assert process.stderr is not None
        if given is not None:
            process.stdin.write(given)
            process.stdin.flush()
        assert halfway.reached.wait(WAIT_SECONDS), "it does not get so far"
        process.send_signal(signal.SIGINT)
        told = ""
        while "interrupted" not in told:
            # It has heard that then: before, the end of one request might let it begin the next.
            line = process.stderr.readline().decode()
            assert line, told
            told += line
        halfway.go.set()
        told += process.stderr.read().decode()
        assert process.wait(WAIT_SECONDS) == 130, told
        halfway.settle()
        process.stdin.close()
        process.stderr.close()
    assert "Traceback" not in told
    assert re.search(r"^s3mount: interrupted; ", told, re.MULTILINE), told
    return told
