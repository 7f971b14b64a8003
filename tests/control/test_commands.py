"""What a mount answers to commands, whatever it costs to find out."""

import time
from typing import Any, cast

import pytest

from s3mount.control.commands import MountState, commands
from s3mount.control.server import CommandFailed
from s3mount.core.config import MountConfig
from s3mount.filesystem.filesystem import FileSystem
from s3mount.filesystem.stat import Pending


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Busy:
    """A file system of which looking at what is pending takes `cost` seconds."""

    durable = True

    def __init__(self, clock: Clock, cost: float) -> None:
        self.clock, self.cost, self.looks = clock, cost, 0

    def pending(self) -> Pending:
        self.looks += 1
        self.clock.now += self.cost
        return Pending(intents=self.looks, bytes=0, files=0)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(time, "monotonic", clock)
    return clock


def state_of(filesystem: Any) -> MountState:
    return MountState(cast(MountConfig, None), cast(FileSystem, filesystem))


def test_of_a_long_queue_clients_take_a_twentieth_of_the_time_however_often_they_ask(
    clock: Clock,
) -> None:
    busy = Busy(clock, cost=0.5)
    state, began = state_of(busy), clock.now
    while clock.now < began + 60:
        state.recent()
        clock.now += 0.01
    assert busy.looks * busy.cost <= 0.06 * (clock.now - began)
    assert busy.looks >= 5


def test_of_a_short_queue_every_answer_is_fresh(clock: Clock) -> None:
    state = state_of(Busy(clock, cost=0.001))
    assert [state.recent()["intents"] for _ in range(3)] == [1, 2, 3]


def test_what_decides_about_leaving_is_never_an_old_answer(clock: Clock) -> None:
    state = state_of(Busy(clock, cost=5.0))
    assert state.recent()["intents"] == state.recent()["intents"] == 1
    assert state.pending()["intents"] == 2


@pytest.mark.parametrize(
    ("command", "arguments"),
    [
        ("drain", {"timeout": "soon"}),
        ("drain", {"timeout": -1}),
        ("drain", {"timeout": float("nan")}),
        ("drain", {"timeout": True}),
        ("drain", {"timeout": [1]}),
        ("cancel", {"path": 7}),
        ("cancel", {"path": None}),
        ("cancel", {"path": "/"}),
        ("cancel", {}),
        ("retry", {"path": {"a": 1}}),
    ],
)
async def test_arguments_of_a_wrong_type_are_refused_before_anything_is_done(
    command: str, arguments: dict[str, Any]
) -> None:
    class Config:
        leave_timeout = 1.0

    state = MountState(cast(MountConfig, Config()), cast(FileSystem, None))
    with pytest.raises(CommandFailed):
        await commands(state)[command](arguments)
