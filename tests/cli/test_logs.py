"""Where log lines go."""

import logging
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from s3mount.cli import logs
from s3mount.cli.logs import Logs


@pytest.fixture(autouse=True)
def _logging_as_before() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    for handler in root.handlers:
        if handler not in handlers:
            handler.close()
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.getLogger("s3mount").setLevel(logging.NOTSET)


def test_a_daemon_logs_to_syslog(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "log"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as syslog:
        syslog.bind(str(path))
        syslog.settimeout(10)
        monkeypatch.setattr(logs, "SYSLOG", path)
        Logs(name="bucket").leave_terminal()
        logging.getLogger("s3mount.test").warning("key 'a': request 42")
        line = syslog.recv(4096).decode()
    assert line.startswith("<28>s3mount[")  # facility daemon, severity warning
    assert "WARNING s3mount.test [bucket]: key 'a': request 42" in line


WRITER = """
import logging, os, sys
from s3mount.cli.logs import Logs
found = os.fstat(2)
environment = {"JOURNAL_STREAM": f"{found.st_dev}:{found.st_ino}"} if sys.argv[1] == "yes" else {}
Logs().start(quiet=False, environment=environment)
logging.getLogger("s3mount.test").error("first line\\nsecond line")
"""


def written(journal: str) -> list[str]:
    command = [sys.executable, "-c", WRITER, journal]
    done = subprocess.run(command, stderr=subprocess.PIPE, text=True, check=True)
    return done.stderr.splitlines()


def test_lines_for_the_journal_carry_their_priority_and_no_time() -> None:
    assert written("yes") == ["<3>ERROR s3mount.test: first line", "<3>second line"]


def test_lines_for_a_terminal_carry_the_time() -> None:
    first, second = written("no")
    assert first[:2] == "20"
    assert first.endswith("ERROR s3mount.test: first line")
    assert second == "second line"
