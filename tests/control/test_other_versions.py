"""Commands that meet a mount of an older or newer version: one line with the remedy, whatever it
answers."""

import contextlib
import json
import socket
import threading
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from s3mount.cli import asking, status, umount
from s3mount.cli.main import main
from s3mount.control import client
from s3mount.control.answers import FORMAT, PENDING, STATUS, Values, fits, is_readable_status
from s3mount.fuse.mountpoint import FUSE_TYPE, MountEntry
from tests.cli.status_example import example

MOUNTPOINT = Path("/mnt/tested")


class OldMount:
    """Answers each command with `result`, after `progress`."""

    def __init__(self, path: Path) -> None:
        self.result: Any = None
        self.progress: Any = None
        self.by_command: dict[str, Any] = {}
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(str(path))
        self._listener.listen()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with connection, connection.makefile("rwb") as lines, contextlib.suppress(OSError):
                command = json.loads(lines.readline())["command"]
                result = self.by_command.get(command, self.result)
                for message in ({"progress": self.progress}, {"result": result}):
                    lines.write(json.dumps(message).encode() + b"\n")

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join()


@pytest.fixture
def mount(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[OldMount]:
    path = tmp_path / "control.sock"
    entry = MountEntry(MOUNTPOINT, FUSE_TYPE, "bucket", "0:1")
    monkeypatch.setattr(client, "find_sockets", lambda mountpoint: [path])
    monkeypatch.setattr(client, "all_sockets", lambda: [path])
    monkeypatch.setattr(status, "mount_table", lambda: [entry])
    for module in (asking, umount):
        monkeypatch.setattr(module, "find_mount", lambda mountpoint: entry)
    monkeypatch.setattr(umount, "is_dead", lambda mountpoint: False)
    mount = OldMount(path)
    yield mount
    mount.close()


def run(*words: str) -> Result:
    result = CliRunner().invoke(main, list(words))
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def pending(**fields: Any) -> dict[str, Any]:
    found: dict[str, Any] = example()["pending"] | fields
    return found


STRANGE: list[Any] = [
    None,
    3,
    "done",
    [],
    {},
    {"intents": 0},
    pending(intents="none"),
    pending(errors=None),
    pending(errors=[1]),
    pending(bytes=None),
    {"count": 1, "changes": [{"kind": "put"}]},
    {"count": "1", "changes": []},
]


@pytest.mark.parametrize("answer", STRANGE, ids=repr)
@pytest.mark.parametrize(
    "words",
    [
        ["flush", str(MOUNTPOINT)],
        ["umount", str(MOUNTPOINT)],
        ["umount", str(MOUNTPOINT), "--detach"],
        ["retry", str(MOUNTPOINT), "x"],
        ["cancel", str(MOUNTPOINT), "x", "--yes"],
        ["status", str(MOUNTPOINT)],
    ],
    ids=" ".join,
)
def test_an_answer_of_another_kind_is_one_line_with_the_remedy(
    mount: OldMount, words: list[str], answer: Any
) -> None:
    mount.result = mount.progress = answer
    result = run(*words)
    assert result.exit_code == 1
    (line,) = result.stderr.splitlines()
    assert f"the mount on {MOUNTPOINT} is of another version of s3mount" in line
    assert f"fusermount3 -u {MOUNTPOINT}" in line
    if words[0] == "umount":
        assert "nothing was unmounted (umount --force does so all the same)" in line


def test_progress_that_is_not_understood_is_not_shown_and_no_harm(mount: OldMount) -> None:
    mount.result, mount.progress = pending(errors=[], unfinished=0), {"intents": 3}
    result = run("flush", str(MOUNTPOINT))
    assert (result.exit_code, result.output) == (0, "")


def leaves(shape: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Where the names of a shape are."""
    if isinstance(shape, dict):
        for name, inner in shape.items():
            yield (*path, name)
            yield from leaves(inner, (*path, name))


@pytest.mark.parametrize("path", list(leaves(STATUS)), ids=".".join)
@pytest.mark.parametrize("strange", ["missing", "another type"])
def test_a_status_that_lacks_anything_is_not_shown_in_part(
    mount: OldMount, path: tuple[str, ...], strange: str
) -> None:
    answer = deepcopy(example(mountpoint=str(MOUNTPOINT), version="9.9"))
    place = answer
    for name in path[:-1]:
        place = place[name]
    if strange == "missing":
        del place[path[-1]]
    else:
        place[path[-1]] = [1.5]
    mount.result = answer
    one = run("status", str(MOUNTPOINT))
    assert one.exit_code == 1
    (line,) = one.stderr.splitlines()
    assert "another version" in line or "is served by s3mount 9.9" in line
    watched = run("status", str(MOUNTPOINT), "--watch")
    assert watched.exit_code == 1
    assert len(watched.stderr.splitlines()) == 1
    (line,) = run("status").stdout.splitlines()
    assert line.startswith(f"{MOUNTPOINT}  ")
    assert "version" in line or "s3mount 9.9" in line


def test_another_format_is_named_by_its_version(mount: OldMount) -> None:
    mount.result = example(mountpoint=str(MOUNTPOINT), version="9.9", format=FORMAT + 1)
    for words in (["status", str(MOUNTPOINT)], ["status", str(MOUNTPOINT), "--watch"]):
        result = run(*words)
        assert result.exit_code == 1
        assert "is served by s3mount 9.9, whose status this one cannot read" in result.stderr
    assert "is served by s3mount 9.9" in run("status").stdout
    assert json.loads(run("status", "--json", str(MOUNTPOINT)).stdout)["version"] == "9.9"


def test_the_shapes_are_those_of_the_documented_answer() -> None:
    assert is_readable_status(example())
    assert fits(example()["pending"], PENDING)
    assert fits({"new": 1, **example()["pending"]}, PENDING)
    assert not fits({"a": True}, Values(int))
