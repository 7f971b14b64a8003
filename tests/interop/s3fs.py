"""Debian's s3fs on a bucket of the tests."""

import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from s3mount.fuse.mountpoint import find_mount
from tests.mounting import unmount_by
from tests.servers import Bucket

SECONDS = 120


@contextmanager
def s3fs_mount(bucket: Bucket, directory: Path) -> Iterator[Path]:
    """Mounted at the path; when it ends, s3fs has sent everything."""
    path = directory / "s3fs"
    path.mkdir(parents=True)
    passwd = directory / "passwd"
    passwd.write_text(f"{bucket.server.access_key}:{bucket.server.secret_key}\n")
    passwd.chmod(0o600)
    log = (directory / "s3fs.log").open("wb")
    process = subprocess.Popen(
        [
            *("s3fs", bucket.name, str(path), "-f", "-o", f"url={bucket.server.url}"),
            *("-o", f"use_path_request_style,passwd_file={passwd},use_xattr,allow_other"),
            *("-o", "endpoint=us-east-1,enable_noobj_cache"),
        ],
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        env={**os.environ, "LC_ALL": "C.UTF-8"},
    )
    try:
        deadline = time.monotonic() + SECONDS
        while find_mount(path) is None:
            assert process.poll() is None, (directory / "s3fs.log").read_text()
            assert time.monotonic() < deadline, "s3fs does not mount"
            time.sleep(0.05)
        yield path
    finally:
        try:
            if process.poll() is None:
                unmount_by("fusermount3", "-u", path)
            process.wait(timeout=SECONDS)
        finally:
            process.kill()
            process.wait()
            if find_mount(path) is not None:
                subprocess.run(["fusermount3", "-uz", path], check=True)
            log.close()
