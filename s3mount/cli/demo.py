"""`s3mount demo`: an S3 service in this machine's memory, mounted, to try things out."""

import logging
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

import click

from s3mount.cli.asking import fail
from s3mount.cli.mount import complain
from s3mount.control.client import NoMount, Refused, ask
from s3mount.core.errors import ConfigurationError
from s3mount.fuse.mountpoint import find_mount, resolve

BUCKET = "demo"
TEXT = b"Written to a file, read back over HTTP.\n"
START_TIMEOUT = 60.0
# moto checks no signature, but that there is one.
CREDENTIALS = {"AWS_ACCESS_KEY_ID": "demo", "AWS_SECRET_ACCESS_KEY": "demo"}
SIGNATURE = "AWS demo:unchecked"


EXAMPLES = """\b
Examples:
  s3mount demo              in a new directory
  s3mount demo ~/try-it     there
  s3mount demo --check      shows it, looks whether all is right, and ends
"""


@click.command(epilog=EXAMPLES, short_help="A bucket in memory, mounted, to try things out.")
@click.argument("directory", required=False)
@click.option("--check", is_flag=True, help="Show it, verify it, unmount, and return 0.")
@click.option("--serve", is_flag=True, hidden=True)
def demo(directory: str | None, check: bool, serve: bool) -> None:
    """Mount a bucket of an S3 service that runs in memory on DIRECTORY, and show what happens.

    The mount stays, to play with; `s3mount umount DIRECTORY` ends it and the service.
    """
    if serve:
        sys.exit(_serve(Path(directory or "")))
    created = directory is None
    path = resolve(Path(directory or tempfile.mkdtemp(prefix="s3mount-demo-")))
    if find_mount(path) is not None:
        fail(f"{path} is mounted already; end that first: {_command()} umount {path}")
    try:
        path.mkdir(parents=True, exist_ok=True)
        service, endpoint = _start(path)
    except (ConfigurationError, OSError) as error:
        fail(str(error).removeprefix("s3mount: "))
    try:
        verified = _show(path, endpoint)
    except (OSError, NoMount, Refused) as error:
        complain(str(error))
        verified = False
    if check or not verified:
        ended = _end(path, service)
        if created and ended:
            path.rmdir()
        if not verified:
            fail("the demo failed: the object is not what the file was")
        if not ended:
            fail(f"{path} could not be unmounted")
        click.echo("All as it should be; unmounted.")
        return
    click.echo(f"\nThe bucket is mounted on {path}. Play with it: cp, vim, git, rsync ...")
    click.echo(f"To end it (what is in it is lost then): {_command()} umount {path}")


def _command() -> str:
    """How the user calls us."""
    called = sys.argv[0]
    return called if called.endswith("s3mount") and os.sep in called else "s3mount"


def _start(path: Path) -> tuple[subprocess.Popen[bytes], str]:
    """Starts service and mount in a process of their own; returns it and the service's URL."""
    click.echo("Starting an S3 service in memory, and mounting its bucket ...")
    with tempfile.TemporaryFile() as errors:
        child = subprocess.Popen(
            [sys.executable, "-m", "s3mount", "demo", "--serve", str(path)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
            start_new_session=True,
        )
        assert child.stdout is not None
        line = child.stdout.readline().decode().strip()
        if not line.startswith("http"):
            child.wait()
            errors.seek(0)
            raise ConfigurationError(errors.read().decode().strip() or "the demo did not start")
    return child, line


def _serve(path: Path) -> int:
    """The process behind the demo: prints the service's URL once the bucket is mounted."""
    try:
        from moto.server import ThreadedMotoServer
    except ImportError:
        complain("the demo needs moto: pip install 's3mount[demo]'")
        return 1
    os.environ.update(CREDENTIALS)
    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # a line for every request
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=port, verbose=False)
    server.start()
    endpoint = f"http://127.0.0.1:{port}"
    _request("PUT", f"{endpoint}/{BUCKET}")
    cache = tempfile.mkdtemp(prefix="s3mount-demo-cache-")
    mount = subprocess.Popen(
        [
            *(sys.executable, "-m", "s3mount", "mount", BUCKET, str(path), "-f"),
            *("--endpoint-url", endpoint, "--cache-dir", cache, "--log-level", "warning"),
        ],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
    )
    try:
        if not _wait_for(path, mount):
            return mount.wait(timeout=5) or 1
        print(endpoint, flush=True)
        return mount.wait()
    finally:
        server.stop()
        shutil.rmtree(cache, ignore_errors=True)


def _wait_for(path: Path, mount: subprocess.Popen[bytes]) -> bool:
    deadline = time.monotonic() + START_TIMEOUT
    while time.monotonic() < deadline and mount.poll() is None:
        try:
            ask(path, "status")
        except (NoMount, Refused, TimeoutError):
            time.sleep(0.05)
        else:
            return find_mount(path) is not None
    return False


def _request(method: str, url: str) -> tuple[dict[str, str], bytes]:
    """Straight to the service, past the mount: what is really in the bucket."""
    request = urllib.request.Request(url, method=method, headers={"Authorization": SIGNATURE})
    with urllib.request.urlopen(request, timeout=10) as answer:
        return {name.lower(): value for name, value in answer.headers.items()}, answer.read()


def _show(path: Path, endpoint: str) -> bool:
    """A file goes in, the object comes out; whether they are the same."""
    from rich.console import Console
    from rich.table import Table

    file = path / "hello.txt"
    file.write_bytes(TEXT)
    file.chmod(0o640)
    ask(path, "flush")
    headers, body = _request("GET", f"{endpoint}/{BUCKET}/{file.name}")
    found = file.stat()
    table = Table(title=f"{file} is the object {BUCKET}/{file.name}", title_justify="left")
    table.add_column("")
    table.add_column("the file, as programs see it")
    table.add_column("the object, as other S3 tools see it")
    table.add_row("content", TEXT.decode().strip(), body.decode(errors="replace").strip())
    table.add_row("size", str(found.st_size), headers.get("content-length", ""))
    table.add_row("mode", f"{found.st_mode:o} (octal)", headers.get("x-amz-meta-mode", ""))
    table.add_row("owner", str(found.st_uid), headers.get("x-amz-meta-uid", ""))
    table.add_row("modified", _seconds(found.st_mtime_ns), headers.get("x-amz-meta-mtime", ""))
    table.add_row("type", "", headers.get("content-type", ""))
    Console(highlight=False).print(table)
    return (
        body == TEXT
        and headers.get("x-amz-meta-mode") == str(found.st_mode)
        and headers.get("x-amz-meta-uid") == str(found.st_uid)
        and file.read_bytes() == TEXT
    )


def _seconds(nanoseconds: int) -> str:
    return f"{nanoseconds // 10**9}.{nanoseconds % 10**9:09d}"


def _end(path: Path, service: subprocess.Popen[bytes]) -> bool:
    """Sends, unmounts, and waits for the end of the processes."""
    if find_mount(path) is not None:
        command = [sys.executable, "-m", "s3mount", "umount", str(path)]
        if subprocess.run(command, check=False).returncode != 0:
            return False
    service.wait(timeout=START_TIMEOUT)
    return True
