"""Real mounts for tests: `s3mount` in a process of its own, as a user starts it."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from s3mount.fuse.mountpoint import find_mount
from tests.servers import Bucket

START_SECONDS = 30.0
END_SECONDS = 60.0

# What would let another bucket, account or proxy in from the developer's environment.
_FOREIGN = ("AWS_", "HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy")


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


_MAIN = "from s3mount.cli.main import main; main()"


@dataclass
class Mounted:
    """A bucket mounted by a process in the foreground, whose log is a file."""

    path: Path
    log_path: Path
    env: dict[str, str]
    process: subprocess.Popen[bytes]

    @property
    def log(self) -> str:
        return self.log_path.read_text()

    def run(self, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        """Another s3mount command, e.g. run("status", mount.path, "--json")."""
        return s3mount(*arguments, env=self.env)

    def status(self) -> dict[str, Any]:
        done = self.run("status", self.path, "--json")
        assert done.returncode == 0, done.stderr
        answer: dict[str, Any] = json.loads(done.stdout)
        return answer

    def flush(self) -> None:
        done = self.run("flush", self.path)
        assert done.returncode == 0, done.stderr

    def unmount(self) -> None:
        """Everything is in the bucket when this returns."""
        done = self.run("umount", self.path)
        assert done.returncode == 0, f"{done.stderr}\n{self.log}"
        assert self.process.wait(END_SECONDS) == 0, self.log

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def wait(self) -> int:
        return self.process.wait(END_SECONDS)

    def destroy(self) -> None:
        """However it ended; nothing of it is left."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        if find_mount(self.path) is not None:
            subprocess.run(["fusermount3", "-u", "-z", str(self.path)], check=False)


@dataclass
class Mounts:
    """Makes mounts below a directory of the test; the fixture `mounts` destroys them after it."""

    directory: Path
    made: list[Mounted] = field(default_factory=list)

    def start(
        self,
        bucket: Bucket,
        *options: str | Path,
        url: str | None = None,
        path: Path | None = None,
        sabotage: str = "",
    ) -> Mounted:
        """Returns when it answers. `url`: another way to the bucket's server (a proxy).
        `sabotage`: code that the mount's process runs first."""
        number = len(self.made)
        if path is None:
            path = self.directory / f"mnt{number}"
            path.mkdir()
        env = environment(bucket, self.directory)
        if url is not None:
            env["AWS_ENDPOINT_URL_S3"] = url
        log = self.directory / f"log{number}"
        with log.open("ab") as stream:
            process = subprocess.Popen(
                [
                    *(sys.executable, "-c", f"{sabotage}\n{_MAIN}", "mount", "-f"),
                    *(bucket.name, str(path), *map(str, options)),
                ],
                env=env,
                stdin=subprocess.DEVNULL,
                stderr=stream,
            )
        mounted = Mounted(path, log, env, process)
        self.made.append(mounted)
        wait_until(
            lambda: " is mounted on " in mounted.log or process.poll() is not None,
            START_SECONDS,
        )
        assert process.poll() is None, mounted.log
        return mounted


@contextlib.contextmanager
def mounts_below(directory: Path) -> Iterator[Mounts]:
    mounts = Mounts(directory)
    try:
        yield mounts
    finally:
        for mounted in mounts.made:
            mounted.destroy()


def wait_until(condition: Any, seconds: float = 10.0, message: str = "") -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, message or "it did not happen in time"
        time.sleep(0.01)


def names(path: Path) -> Sequence[str]:
    return sorted(os.listdir(path))
