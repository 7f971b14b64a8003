"""What a program of the matrix is given, and what it uses."""

import os
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from tests.mounting import Mount

# Requests that change the bucket.
MUTATIONS = (
    "PutObject",
    "UploadPart",
    "UploadPartCopy",
    "CreateMultipartUpload",
    "CopyObject",
    "DeleteObject",
    "DeleteObjects",
)


@dataclass(frozen=True)
class Job:
    """`place` is an empty directory on the mount, `scratch` one on a local disk."""

    mount: Mount
    place: Path
    scratch: Path


Program = Callable[[Job], None]
PROGRAMS: list[Program] = []


def program(function: Program) -> Program:
    PROGRAMS.append(function)
    return function


def run(
    *command: str | Path, cwd: Path | None = None, env: Mapping[str, str] = MappingProxyType({})
) -> str:
    """Its standard output; asserts that it succeeds and complains of nothing."""
    done = subprocess.run(
        command,
        cwd=cwd,
        env={**os.environ, "LC_ALL": "C.UTF-8", **env},
        capture_output=True,
        text=True,
        timeout=500,  # less than the test has
        check=False,
    )
    assert done.returncode == 0, f"{command}: {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def shell(script: str, cwd: Path) -> str:
    return run("bash", "-euc", script, cwd=cwd)


def mutations(job: Job) -> int:
    """Requests so far that changed the bucket."""
    counts = job.mount.requests()
    return sum(counts[name] for name in MUTATIONS)


def wait_until(condition: Callable[[], Any], seconds: float = 100) -> bool:
    """Whether it came true in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True
