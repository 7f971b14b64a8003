"""A mount that nobody uses costs nothing, neither the service nor the battery."""

import trio

from s3mount.core.config import MountConfig
from s3mount.store.memory import MemoryStore
from tests.model.mounted import mounted


class Steps(trio.abc.Instrument):
    def __init__(self) -> None:
        self.count = 0

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self.count += 1


async def test_an_idle_mount_neither_asks_nor_wakes_up(
    store: MemoryStore, config: MountConfig, autojump_clock: object
) -> None:
    async with mounted(store, config) as client:
        await client.mkdir("d")
        await client.write("d/f", b"x" * 50_000)
        assert await client.ls("d") == ["f"]
        await client.fs.drain(60)
        await trio.sleep(120)  # what was begun ends
        steps, asked = Steps(), dict(store.counts())
        trio.lowlevel.add_instrument(steps)
        await trio.sleep(3600)
        trio.lowlevel.remove_instrument(steps)
        assert steps.count <= 2, "this task's own"
        assert dict(store.counts()) == asked
