"""Real mounts for tests: the real command line in a process of its own, its log looked through.

A test that uses `mounted` fails if a mount's log holds an ERROR line or a traceback that the test
has not announced with `Mount.expect`.
"""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from s3mount.fuse.mountpoint import unmount
from tests.lifecycle.mounting import environment
from tests.servers import Bucket

START_SECONDS = 40
STOP_SECONDS = 60
MOUNTED = "is mounted on"
SUSPICIOUS = re.compile(r" ERROR |Traceback|CRITICAL")


class Mount:
    """One mount point and the processes that serve it, one after the other."""

    def __init__(
        self, bucket: Bucket, directory: Path, options: tuple[str, ...], url: str, prefix: str
    ) -> None:
        self.bucket = bucket
        self.path = directory / "mnt"
        self.cache = directory / "cache"
        self.log = directory / "log"
        self.options = options
        self._url = url
        self._prefix = prefix
        self.environment = environment(bucket, directory)
        self._announced: list[str] = []
        self._process: subprocess.Popen[bytes] | None = None
        self.path.mkdir(parents=True)
        self.log.touch()

    # -- life ----------------------------------------------------------------------------------

    def start(self, *options: str) -> None:
        """Returns when it serves; raises with the log's end if it does not start."""
        name = self.bucket.name + (f":/{self._prefix}" if self._prefix else "")
        begin = self.log.stat().st_size
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "s3mount", name, str(self.path), "-f"),
                    *("--endpoint-url", self._url, "--cache-dir", str(self.cache)),
                    *(*self.options, *options),
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self.environment,
                cwd="/",
            )
        deadline = time.monotonic() + START_SECONDS
        while MOUNTED not in self.text(begin):
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(f"not mounted:\n{self.text(begin)[-3000:]}")
            time.sleep(0.02)

    def unmount(self) -> None:
        """As a user does; the process then sends what is pending and ends."""
        unmount(self.path)

    def stop(self, status: int = 0) -> None:
        """Unmounts and waits for the end, which must come with `status`."""
        process = self.process
        self.unmount()
        try:
            assert process.wait(timeout=STOP_SECONDS) == status, self.text()[-3000:]
        finally:
            if process.poll() is not None:
                self._process = None

    def remount(self, *options: str) -> None:
        """A new process with the same cache directory and an empty kernel cache."""
        self.stop()
        self.start(*options)

    def kill(self) -> None:
        """By SIGKILL; the mount point stays, dead."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(timeout=STOP_SECONDS)
        self._process = None

    def abandon(self) -> None:
        """Ends whatever is left, without asking whether it went well."""
        if self._process is not None:
            self._process.send_signal(signal.SIGCONT)
            if self._process.poll() is None:
                subprocess.run(["fusermount3", "-u", self.path], check=False, capture_output=True)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self._process.wait(timeout=10)
            if self._process.poll() is None:
                self._process.kill()
                self._process.wait()
            self._process = None
        while os.fsencode(self.path) in Path("/proc/self/mountinfo").read_bytes():
            subprocess.run(["fusermount3", "-uz", self.path], check=True, capture_output=True)

    @property
    def process(self) -> "subprocess.Popen[bytes]":
        assert self._process is not None, "not mounted"
        return self._process

    @property
    def running(self) -> bool:
        return self._process is not None

    # -- what is known of it ---------------------------------------------------------------------

    def text(self, begin: int = 0) -> str:
        """The log, from a byte on."""
        return self.log.read_bytes()[begin:].decode(errors="replace")

    def expect(self, *patterns: str) -> None:
        """ERROR lines and tracebacks that match one of the regular expressions are right."""
        self._announced += patterns

    def unannounced(self) -> list[str]:
        return [
            line
            for line in self.text().splitlines()
            if SUSPICIOUS.search(line)
            and not any(re.search(pattern, line) for pattern in self._announced)
        ]

    def command(self, name: str, *arguments: str) -> str:
        """`s3mount NAME MOUNTPOINT ARGUMENTS`."""
        done = subprocess.run(
            [sys.executable, "-m", "s3mount", name, str(self.path), *arguments],
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=STOP_SECONDS,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def status(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.command("status", "--json"))
        return found

    def requests(self) -> Counter[str]:
        """All requests of this process to the bucket, by operation."""
        counts = self.status()["requests"]
        # Bytes are counted beside them.
        return Counter({name: n for name, n in counts.items() if not name.startswith("Bytes")})

    def flush(self) -> None:
        self.command("flush")

    def memory_peak(self) -> int:
        """Bytes of RSS at most so far."""
        text = Path(f"/proc/{self.process.pid}/status").read_text()
        found = re.search(r"VmHWM:\s+(\d+) kB", text)
        assert found is not None
        return int(found[1]) * 1024


def run_in(directory: Path, script: str) -> None:
    """A shell script that begins in a directory of the mount.

    Not by `cwd`: Popen holds the GIL until the child has changed there, and what the mount then
    asks a proxy in this process would never be answered.
    """
    subprocess.run(
        ["bash", "-euc", f'cd "$0"; {script}', directory], check=True, timeout=STOP_SECONDS
    )


Mounted = Callable[..., Mount]


@pytest.fixture
def mounted(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Mounted]:
    """`mounted(bucket, *options, url=..., prefix=...)` starts a mount that lives as long as the
    test; `url` puts e.g. a proxy in between."""
    mounts: list[Mount] = []
    marker = request.node.get_closest_marker("bounded")
    bound = marker.args[0] if marker else 120

    def rescue() -> None:
        # A test that sits in a call to a mount that does not answer hears no signal; the call
        # ends when the mount's process does.
        for mount in mounts:
            if mount.running:
                mount.process.kill()

    def start(
        bucket: Bucket,
        *options: str,
        url: str | None = None,
        prefix: str = "",
        started: bool = True,
    ) -> Mount:
        directory = tmp_path_factory.mktemp("mount")
        mount = Mount(bucket, directory, options, url or bucket.server.url, prefix)
        mounts.append(mount)
        if started:
            mount.start()
        return mount

    timer = threading.Timer(bound + 3, rescue)
    timer.daemon = True
    timer.start()
    problems: list[str] = []
    try:
        yield start
        for mount in mounts:
            if mount.running:
                mount.stop()
    finally:
        timer.cancel()
        for mount in mounts:
            mount.abandon()
            problems += mount.unannounced()
            if problems or getattr(request.node, "failed", False):
                print(f"--- log of the mount on {mount.path}\n{mount.text()[-6000:]}")
    assert not problems, "unannounced in the log:\n" + "\n".join(problems)
