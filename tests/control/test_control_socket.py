"""The control socket: who is served, what is answered, and that no client can hold it up."""

import json
import os
import resource
import socket
import stat
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio

from s3mount.control import client as control_client
from s3mount.control import server as control_server
from s3mount.control.address import find_sockets, runtime_directory, socket_name
from s3mount.control.client import NoMount, Refused, ask
from s3mount.control.server import CommandFailed, ControlServer

MOUNTPOINT = Path("/mnt/tested")
PATIENCE = 100.0  # seconds


async def echo(request: Mapping[str, Any]) -> Any:
    return {"heard": request.get("text")}


async def refuse(request: Mapping[str, Any]) -> Any:
    raise CommandFailed("no such file in the queue")


async def crash(request: Mapping[str, Any]) -> Any:
    raise KeyError("bug")


async def big(request: Mapping[str, Any]) -> Any:
    return "x" * 1_000_000  # more than the socket's buffers take


async def forever(request: Mapping[str, Any]) -> Any:
    await trio.sleep_forever()


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "control.sock"
    monkeypatch.setattr(control_client, "find_sockets", lambda mountpoint: [path])
    monkeypatch.setattr(control_server, "PROGRESS_INTERVAL", 0.02)
    # Nobody is dropped because the machine is busy.
    monkeypatch.setattr(control_server, "CLIENT_TIMEOUT", PATIENCE)
    return path


@pytest.fixture
def impatient(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control_server, "CLIENT_TIMEOUT", 0.3)


@pytest.fixture
def server(path: Path) -> ControlServer:
    reported = trio.Event()
    reports = 0

    def progress() -> Any:
        nonlocal reports
        reports += 1
        if reports == 2:  # so the first one was sent
            reported.set()
        return {"intents": 3}

    async def wait(request: Mapping[str, Any]) -> Any:
        await reported.wait()
        return "done"

    commands = {
        "echo": echo,
        "refuse": refuse,
        "crash": crash,
        "wait": wait,
        "big": big,
        "forever": forever,
    }
    return ControlServer(path, commands, progress)


async def asked(command: str, **arguments: Any) -> Any:
    return await trio.to_thread.run_sync(lambda: ask(MOUNTPOINT, command, **arguments))


async def test_a_command_is_answered_with_its_result(server: ControlServer) -> None:
    async with trio.open_nursery() as nursery:
        await nursery.start(server.run)
        assert await asked("echo", text="hello") == {"heard": "hello"}
        nursery.cancel_scope.cancel()


async def test_errors_are_answered_and_the_next_client_is_served(server: ControlServer) -> None:
    async with trio.open_nursery() as nursery:
        await nursery.start(server.run)
        with pytest.raises(Refused, match="no such file in the queue"):
            await asked("refuse")
        with pytest.raises(Refused, match="bug"):
            await asked("crash")
        with pytest.raises(Refused, match="the commands are: big, crash, echo, forever"):
            await asked("format-my-disk")
        assert await asked("echo") == {"heard": None}
        nursery.cancel_scope.cancel()


async def test_a_long_command_reports_its_progress(server: ControlServer) -> None:
    seen: list[Any] = []
    async with trio.open_nursery() as nursery:
        await nursery.start(server.run)
        assert await asked("wait", progress=seen.append) == "done"
        nursery.cancel_scope.cancel()
    assert {"intents": 3} in seen


@pytest.mark.parametrize(
    "line", [b"\n", b"status\n", b"[]\n", b'{"command": 7}\n', b"\xff\n", b"x" * 70_000 + b"\n"]
)
async def test_nonsense_is_answered_with_an_error(server: ControlServer, line: bytes) -> None:
    async with trio.open_nursery() as nursery:
        await nursery.start(server.run)
        stream = await trio.open_unix_socket(str(server.path))
        async with stream:
            # Refused before it was read to its end, a long line may break the connection.
            try:
                await stream.send_all(line)
                answer = await stream.receive_some()
            except trio.BrokenResourceError:
                answer = b'{"error": ""}'
        assert "error" in json.loads(answer)
        assert await asked("echo") == {"heard": None}
        nursery.cancel_scope.cancel()


@pytest.mark.usefixtures("impatient")
async def test_clients_that_say_or_read_nothing_are_dropped(server: ControlServer) -> None:
    async with trio.open_nursery() as nursery:
        await nursery.start(server.run)
        silent, deaf = [await connected(server) for _ in range(2)]
        await deaf.send_all(b'{"command": "big"}\n')
        with trio.fail_after(PATIENCE):
            assert await silent.receive_some() == b""
            while server._clients:  # noqa: ASYNC110 - no event tells of it
                await trio.sleep(0.01)
        for stream in (silent, deaf):
            await trio.aclose_forcefully(stream)
        nursery.cancel_scope.cancel()


async def test_the_socket_is_for_its_owner_alone_and_goes_with_the_mount(
    server: ControlServer,
) -> None:
    async with trio.open_nursery() as nursery:
        await nursery.start(server.run)
        assert stat.S_IMODE(os.lstat(server.path).st_mode) == 0o600
        nursery.cancel_scope.cancel()
    assert not server.path.exists()


async def test_another_users_process_is_not_served(
    server: ControlServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(control_server, "peer_uid", lambda client: os.getuid() + 1)
    async with trio.open_nursery() as nursery:
        await nursery.start(server.run)
        with pytest.raises(NoMount):
            await asked("echo")
        nursery.cancel_scope.cancel()


async def test_the_kernel_vouches_for_the_peer() -> None:
    left, right = trio.socket.socketpair()
    with left, right:
        assert control_server.peer_uid(left) == os.getuid()


async def test_a_socket_left_behind_by_a_killed_mount_is_replaced(server: ControlServer) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(server.path))
    with pytest.raises(NoMount):
        await asked("echo")
    async with trio.open_nursery() as nursery:
        await nursery.start(server.run)
        assert await asked("echo") == {"heard": None}
        nursery.cancel_scope.cancel()


def test_a_mount_point_without_a_mount_is_told_from_one_that_hangs(path: Path) -> None:
    with pytest.raises(NoMount):
        ask(MOUNTPOINT, "status")
    with socket.socket(socket.AF_UNIX) as deaf:
        deaf.bind(str(path))
        deaf.listen()
        with pytest.raises(TimeoutError, match="has not answered"):
            ask(MOUNTPOINT, "status", silence=0.05)


def test_each_user_has_a_directory_of_sockets(tmp_path: Path) -> None:
    assert runtime_directory({}, uid=0) == Path("/run/s3mount")
    assert runtime_directory({"XDG_RUNTIME_DIR": str(tmp_path)}, 1000) == tmp_path / "s3mount"
    assert runtime_directory({"XDG_RUNTIME_DIR": "/nowhere"}, 4711) == Path("/tmp/s3mount-4711")
    assert socket_name(Path("/mnt/a")) != socket_name(Path("/mnt/b"))
    assert find_sockets(Path("/mnt/nobody/ever/mounted/this")) == []


# -- hostile clients -------------------------------------------------------------------------------


async def connected(server: ControlServer) -> trio.SocketStream:
    return await trio.open_unix_socket(str(server.path))


async def test_a_hundred_clients_that_never_say_or_read_anything_do_not_delay_the_next(
    server: ControlServer,
) -> None:
    async with trio.open_nursery() as nursery:
        await nursery.start(server.run)
        hostile = []
        for number in range(100):
            hostile.append(await connected(server))
            if number % 3 == 1:
                await hostile[-1].send_all(b'{"command": "big"')  # half a line
            elif number % 3 == 2:
                await hostile[-1].send_all(b'{"command": "big"}\n')  # and never reads
        with trio.fail_after(PATIENCE / 2):  # none of them has had its time
            for _ in range(3):
                assert await asked("echo", text="x") == {"heard": "x"}
        for stream in hostile:
            await trio.aclose_forcefully(stream)
        nursery.cancel_scope.cancel()


async def test_where_all_places_are_taken_by_commands_the_next_client_is_told(
    server: ControlServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(control_server, "MAX_CLIENTS", 2)
    async with trio.open_nursery() as nursery:
        await nursery.start(server.run)
        working = [await connected(server) for _ in range(2)]
        for stream in working:
            await stream.send_all(b'{"command": "forever"}\n')
            await stream.receive_some()  # the first report of its progress
        with pytest.raises(Refused, match="too many commands at once"):
            await asked("echo")
        await working[0].aclose()
        with trio.fail_after(PATIENCE):
            while True:
                try:
                    assert await asked("echo", text="x") == {"heard": "x"}
                    break
                except Refused:
                    await trio.sleep(0.01)
        await working[1].aclose()
        nursery.cancel_scope.cancel()


def test_what_a_full_mount_says_is_heard_though_it_hung_up_before_it_was_asked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    here, there = socket.socketpair(socket.AF_UNIX)
    there.sendall(b'{"error": "too many commands at once"}\n')
    there.close()
    monkeypatch.setattr(control_client, "_connect", lambda mountpoint: here)
    with pytest.raises(Refused, match="too many commands at once"):
        ask(MOUNTPOINT, "echo")


@pytest.mark.parametrize(
    "line",
    [
        b"[" * 60_000,
        b'{"a":' * 10_000,
        b'{"command": ["echo"]}',
        b'{"command": {"echo": 1}}',
        b'{"command": null}',
        b'"echo"',
        b"12",
        b"null",
        b'{"command": "echo"',
        b'\xff\xfe{"command": "echo"}',
        b"\x00" * 1000,
        b'{"command": "' + b"e" * 60_000 + b'"}',
    ],
)
async def test_lines_made_to_break_the_parser_are_answered_and_not_logged(
    server: ControlServer, line: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    async with trio.open_nursery() as nursery:
        await nursery.start(server.run)
        async with await connected(server) as stream:
            await stream.send_all(line + b"\n")
            answer = json.loads(await stream.receive_some())
        assert "not a request" in answer["error"]
        assert await asked("echo") == {"heard": None}
        nursery.cancel_scope.cancel()
    assert not caplog.records


@pytest.mark.usefixtures("impatient")
async def test_a_client_that_drips_its_request_is_dropped(server: ControlServer) -> None:
    async with trio.open_nursery() as nursery:
        await nursery.start(server.run)
        async with await connected(server) as stream:
            with trio.fail_after(PATIENCE), pytest.raises(trio.BrokenResourceError):
                while True:
                    await stream.send_all(b" ")
                    await trio.sleep(0.05)
        nursery.cancel_scope.cancel()


async def test_running_out_of_file_descriptors_does_not_end_the_server(
    server: ControlServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(control_server, "ACCEPT_PAUSE", 0.01)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    async with trio.open_nursery() as nursery:
        await nursery.start(server.run)
        client = socket.socket(socket.AF_UNIX)
        spent = os.dup(0)
        try:
            # Every number below the limit is in use then.
            resource.setrlimit(resource.RLIMIT_NOFILE, (spent, hard))
            client.connect(str(server.path))
            with trio.fail_after(PATIENCE):
                while not caplog.records:  # noqa: ASYNC110 - no event tells of a log line
                    await trio.sleep(0.01)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            os.close(spent)
        with client:
            assert "Too many open files" in caplog.text
            assert await asked("echo", text="x") == {"heard": "x"}
        nursery.cancel_scope.cancel()


async def test_a_socket_of_another_user_is_not_believed(
    server: ControlServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with trio.open_nursery() as nursery:
        await nursery.start(server.run)
        monkeypatch.setattr(os, "getuid", lambda: 4711)
        with pytest.raises(NoMount):
            await asked("echo")
        nursery.cancel_scope.cancel()


async def test_all_mounts_are_asked_and_those_that_hang_or_are_dead_left_out(
    server: ControlServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deaf, dead = tmp_path / "deaf.sock", tmp_path / "dead.sock"
    sockets = [deaf, server.path, dead]
    monkeypatch.setattr(control_client, "all_sockets", lambda: sockets)
    with socket.socket(socket.AF_UNIX) as one, socket.socket(socket.AF_UNIX) as other:
        one.bind(str(deaf))
        one.listen()
        other.bind(str(dead))
        async with trio.open_nursery() as nursery:
            await nursery.start(server.run)
            for silence in (0.3, 30.0):  # the longer one for a busy machine
                ask_all = partial(control_client.ask_all, "echo", silence=silence, text="hello")
                answers = await trio.to_thread.run_sync(ask_all)
                if answers:
                    break
            assert answers == [{"heard": "hello"}]
            nursery.cancel_scope.cancel()
