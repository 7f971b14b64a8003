"""Real mounts for tests: the real command line in a process of its own, its log in a file.

Two fixtures hand them out. `mounted(bucket, ...)` is for tests of what a mount does: the test
fails if a mount's log holds an ERROR line or a traceback that it has not announced with
`Mount.expect`, and mounts are unmounted after it. `mounts.start(bucket, ...)` is for tests of how
a mount starts and ends: nothing is looked through, whatever is left is destroyed.
"""

import contextlib
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from s3mount.control.client import ask
from s3mount.fuse.mountpoint import resolve
from tests.servers import Bucket

# Generous: how busy the machine is decides no test.
START_SECONDS = 120.0
END_SECONDS = 120.0
MOUNTED = "is mounted on"
SUSPICIOUS = re.compile(r" ERROR |Traceback|CRITICAL")

# What would let another bucket, account or proxy in from the developer's environment.
_FOREIGN = ("AWS_", "HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy")
# `sabotage` for tests that count requests. On a loaded machine half a second may pass between two
# changes that belong together, and a second between two looks at a file.
PATIENT = """
from dataclasses import replace
import s3mount.filesystem.files
import s3mount.mount
s3mount.filesystem.files.FRESH = 600.0
run_mount = s3mount.mount.run_mount
def patient(config, hooks):
    writeback = replace(config.writeback, namespace_delay=60.0)
    return run_mount(replace(config, writeback=writeback), hooks)
s3mount.mount.run_mount = patient
"""
# The service is probed before a mount serves, however long that takes here: requests that came
# later would be counted, and suffer the faults that a test has for others.
_MAIN = f"""
import s3mount.mount
s3mount.mount.PROBE_TIMEOUT = {START_SECONDS}
from s3mount.cli.main import main
main()
"""


def environment(bucket: Bucket | None, home: Path) -> dict[str, str]:
    """For a process that uses the bucket; `home` holds its caches and has no ~/.aws."""
    own = {name: value for name, value in os.environ.items() if not name.startswith(_FOREIGN)}
    own |= {"HOME": str(home), "XDG_CACHE_HOME": str(home / "cache"), "LC_ALL": "C.UTF-8"}
    own["PATH"] = f"{Path(sys.executable).parent}:{own['PATH']}:/usr/sbin:/sbin"
    own["AWS_EC2_METADATA_DISABLED"] = "true"
    if bucket is not None:
        own |= {
            "AWS_ACCESS_KEY_ID": bucket.server.access_key,
            "AWS_SECRET_ACCESS_KEY": bucket.server.secret_key,
            "AWS_ENDPOINT_URL_S3": bucket.server.url,
            "AWS_REGION": "us-east-1",
        }
    return own


def s3mount(
    *arguments: str | Path, env: dict[str, str], seconds: float = END_SECONDS
) -> subprocess.CompletedProcess[str]:
    """The command line, to its end."""
    command = [sys.executable, "-m", "s3mount", *map(str, arguments)]
    return subprocess.run(
        command, env=env, capture_output=True, text=True, timeout=seconds, check=False
    )


class Mount:
    """One mount point and the processes that serve it in the foreground, one after the other.

    `log`, `cache` and, unless it is given, the mount point are below `directory`; with `cache`
    None the cache is where the command line puts it (`directory/cache`, for it is HOME).
    """

    def __init__(
        self,
        bucket: Bucket,
        directory: Path,
        options: Sequence[str | Path] = (),
        *,
        url: str | None = None,
        prefix: str = "",
        path: Path | None = None,
        log: Path | None = None,
        cache: Path | None = None,
    ) -> None:
        self.bucket = bucket
        self.path = directory / "mnt" if path is None else path
        self.log = directory / "log" if log is None else log
        self.options = tuple(map(str, options))
        if cache is not None:
            self.options = ("--cache-dir", str(cache), *self.options)
        self.url = bucket.server.url if url is None else url
        self.environment = environment(bucket, directory)
        self._prefix = prefix
        self._announced: list[str] = []
        self._process: subprocess.Popen[bytes] | None = None
        if path is None:  # a given one may be dead
            self.path.mkdir(parents=True)
        self.log.touch()

    # -- life ----------------------------------------------------------------------------------

    def start(self, *options: str, sabotage: str = "") -> None:
        """Returns when it serves; raises with the log's end if it does not start.

        `sabotage`: code that the mount's process runs first.
        """
        name = self.bucket.name + (f":/{self._prefix}" if self._prefix else "")
        begin = self.log.stat().st_size
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [
                    *(sys.executable, "-c", sabotage + _MAIN, "mount", "-f", name, str(self.path)),
                    *("--endpoint-url", self.url, *self.options, *options),
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
            time.sleep(0.01)

    def unmount(self) -> None:
        """By `s3mount umount`: everything is in the bucket when this returns."""
        done = self.run("umount", self.path)
        assert done.returncode == 0, f"{done.stderr}\n{self.text()[-3000:]}"
        assert self.wait() == 0, self.text()[-3000:]

    def unmount_from_outside(self) -> None:
        """By fusermount3: the process then sends what is pending and ends by itself."""
        unmount_by("fusermount3", "-u", self.path)

    def stop(self, status: int = 0) -> None:
        """fusermount3, then waits for the end, which must come with `status`."""
        self.unmount_from_outside()
        assert self.wait() == status, self.text()[-3000:]
        self._process = None

    def remount(self, *options: str) -> None:
        """A new process with the same cache directory and an empty kernel cache."""
        self.stop()
        self.start(*options)

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def wait(self, seconds: float = END_SECONDS) -> int:
        """The exit status, once the process has ended."""
        return self.process.wait(seconds)

    def kill(self) -> None:
        """By SIGKILL; the mount point stays, dead."""
        self.signal(signal.SIGKILL)
        self.wait()
        self._process = None

    def abandon(self) -> None:
        """Ends whatever is left, without asking whether it went well."""
        if self._process is not None:
            self._process.send_signal(signal.SIGCONT)
            if self._process.poll() is None:
                subprocess.run(["fusermount3", "-u", self.path], check=False, capture_output=True)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self._process.wait(timeout=30)
        self.destroy()

    def destroy(self) -> None:
        """At once; nothing of it is left."""
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        self._process = None
        deadline = time.monotonic() + END_SECONDS
        while os.fsencode(self.path) + b" " in Path("/proc/self/mountinfo").read_bytes():
            # It fails where what the process had begun unmounts it in this moment.
            subprocess.run(["fusermount3", "-uz", self.path], check=False, capture_output=True)
            assert time.monotonic() < deadline, f"{self.path} cannot be unmounted"

    @property
    def process(self) -> "subprocess.Popen[bytes]":
        assert self._process is not None, "not mounted"
        return self._process

    @property
    def running(self) -> bool:
        """Whether it was started and not ended by the test; it may have crashed."""
        return self._process is not None

    # -- what is known of it -------------------------------------------------------------------

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

    def run(self, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        """Another s3mount command, however it ends, e.g. run("status", mount.path, "--json")."""
        return s3mount(*arguments, env=self.environment)

    def command(self, name: str, *arguments: str) -> str:
        """`s3mount NAME MOUNTPOINT ARGUMENTS`, which must succeed."""
        done = self.run(name, self.path, *arguments)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def status(self) -> dict[str, Any]:
        """What `s3mount status --json` prints, without a process."""
        found: dict[str, Any] = ask(resolve(self.path), "status")
        return found

    def requests(self) -> Counter[str]:
        """All requests of this process to the bucket, by operation."""
        counts = self.status()["requests"]
        # Bytes are counted beside them.
        return Counter({name: n for name, n in counts.items() if not name.startswith("Bytes")})

    def flush(self) -> None:
        """What `s3mount flush` does, without a process."""
        left = ask(resolve(self.path), "flush")
        assert not left["errors"], left["errors"]

    def memory_peak(self) -> int:
        """Bytes of RSS at most so far."""
        text = Path(f"/proc/{self.process.pid}/status").read_text()
        found = re.search(r"VmHWM:\s+(\d+) kB", text)
        assert found is not None
        return int(found[1]) * 1024


def wait_until(condition: Callable[[], Any], seconds: float = 120.0, message: str = "") -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, message or "it did not happen in time"
        time.sleep(0.01)


def unmount_by(*command: str | Path) -> None:
    """Until it succeeds: a mount is busy while its watchdog asks it something."""
    said: list[str] = []

    def done() -> bool:
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        said.append(result.stderr)
        assert result.returncode == 0 or "busy" in result.stderr, said
        return result.returncode == 0

    wait_until(done, message="the mount stays busy")


def names(path: Path) -> Sequence[str]:
    return sorted(os.listdir(path))


def run_in(directory: Path, script: str) -> None:
    """A shell script that begins in a directory of the mount.

    Not by `cwd`: Popen holds the GIL until the child has changed there, and what the mount then
    asks a proxy in this process would never be answered.
    """
    subprocess.run(
        ["bash", "-euc", f'cd "$0"; {script}', directory], check=True, timeout=END_SECONDS
    )


# -- for tests of how mounts start and end ---------------------------------------------------------


@dataclass
class Mounts:
    """Makes mounts below a directory of the test, which is their HOME: they share its caches."""

    directory: Path
    made: list[Mount] = field(default_factory=list)

    def start(
        self,
        bucket: Bucket,
        *options: str | Path,
        url: str | None = None,
        path: Path | None = None,
        sabotage: str = "",
    ) -> Mount:
        """Returns when it answers. `url`: another way to the bucket's server (a proxy)."""
        number = len(self.made)
        if path is None:
            path = self.directory / f"mnt{number}"
            path.mkdir()
        mount = Mount(
            bucket,
            self.directory,
            options,
            url=url,
            path=path,
            log=self.directory / f"log{number}",
        )
        self.made.append(mount)
        mount.start(sabotage=sabotage)
        return mount


@pytest.fixture
def mounts(tmp_path: Path) -> Iterator[Mounts]:
    mounts = Mounts(tmp_path)
    try:
        yield mounts
    finally:
        for mount in mounts.made:
            mount.destroy()


# -- for tests of what a mount does ----------------------------------------------------------------


Mounted = Callable[..., Mount]


@pytest.fixture
def mounted(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Mounted]:
    """`mounted(bucket, *options, url=..., prefix=...)` starts a mount that lives as long as the
    test; `url` puts e.g. a proxy in between."""
    mounts: list[Mount] = []
    marker = request.node.get_closest_marker("bounded")
    bound = marker.args[0] if marker else 240

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
        sabotage: str = "",
    ) -> Mount:
        directory = tmp_path_factory.mktemp("mount")
        mount = Mount(bucket, directory, options, url=url, prefix=prefix, cache=directory / "cache")
        mounts.append(mount)
        if started:
            mount.start(sabotage=sabotage)
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
