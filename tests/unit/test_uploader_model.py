"""Random histories of two files in a small spool over a store that fails now and then: after a
commit the object is the file, and every object that anybody ever saw is a state it was in."""

import random
from pathlib import Path

import pytest
import trio
import trio.testing
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from s3mount.store.errors import ServerError
from s3mount.store.memory import ALL_CAPABILITIES, CEPH_CAPABILITIES, MemoryStore
from s3mount.writeback.body import CommitSuperseded
from s3mount.writeback.file_upload import FileUpload
from tests.sizes import examples
from tests.unit.writeback_fixtures import KIB, MINIMUM, PART, Rig, Writer, disk_bytes, pattern, rig


class _History:
    """One random run; everything is decided by `seed`."""

    def __init__(self, seed: int, ceph: bool) -> None:
        self.dice = random.Random(seed)
        self.salt = 0
        self.failing = self.dice.random() < 0.5
        self.store = MemoryStore(
            minimum_part_size=MINIMUM,
            capabilities=CEPH_CAPABILITIES if ceph else ALL_CAPABILITIES,
            before=self._before,
            after=self._after,
        )

    async def _before(self, operation: str, key: str) -> None:
        await trio.sleep(self.dice.random())
        self._perhaps_fail(operation, key)

    def _after(self, operation: str, key: str) -> None:
        if operation in {"UploadPart", "CreateMultipartUpload"}:
            self._perhaps_fail(operation, key)

    def _perhaps_fail(self, operation: str, key: str) -> None:
        if self.failing and self.dice.random() < 0.1:
            raise ServerError("by chance", operation=operation, key=key, status=500)

    async def step(self, writer: Writer) -> None:
        kind = self.dice.choice(
            ["write", "write", "run", "run", "run", "again", "truncate", "commit", "together"]
        )
        size = len(writer.expected)
        if kind == "write":
            await self.write(writer, self.dice.randrange(size + PART), self.dice.randrange(1, PART))
        elif kind == "run":
            for _ in range(self.dice.randrange(1, 24)):
                await self.write(writer, len(writer.expected), 64 * KIB)
        elif kind == "again" and size:
            await self.write(writer, self.dice.randrange(size), self.dice.choice([3, PART]))
        elif kind == "truncate":
            if writer.upload.needs_early_publish(0, size):
                await self.commit(writer)
            writer.truncate(self.dice.randrange(size + PART))
        elif kind == "commit":
            await self.commit(writer)
            assert writer.stored == bytes(writer.expected)
            assert writer.read() == bytes(writer.expected)
            assert not writer.file.unsaved
        elif kind == "together":
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self.commit, writer)
                for _ in range(self.dice.randrange(1, 6)):
                    await trio.sleep(self.dice.random())
                    await self.write(
                        writer, self.dice.randrange(len(writer.expected) + 1), 50 * KIB
                    )

    async def write(self, writer: Writer, offset: int, length: int) -> None:
        self.salt += 1
        await writer.write(offset, pattern(offset, length, self.salt))

    async def commit(self, writer: Writer) -> None:
        """As the filesystem does: again and again while the failure may pass."""
        for _ in range(200):
            try:
                with trio.move_on_after(self.dice.choice([1.0, 3.0, 1000.0, 1000.0])):
                    await writer.commit()
                    return
            except (CommitSuperseded, ServerError):
                pass
        raise AssertionError("200 commits failed")


async def _run(history: _History, directory: Path, steps: int) -> None:
    async with rig(directory, history.store) as r:
        writers = [
            r.writer("a"),
            r.writer("b").on_object(pattern(0, history.dice.randrange(6 * PART), 7)),
        ]
        lock = trio.Lock()

        async def publish(name: str) -> None:
            async with lock:
                for writer in writers:
                    if writer.key == name:
                        await history.commit(writer)

        async with trio.open_nursery() as nursery:

            def ask(upload: FileUpload) -> bool:
                nursery.start_soon(publish, upload.name)
                return True

            r.uploader.on_early_publish = ask
            for _ in range(steps):
                await history.step(history.dice.choice(writers))
                assert disk_bytes(r.config) <= r.config.spool_limit
        for writer in writers:
            await history.commit(writer)
            assert writer.stored == bytes(writer.expected)
            writer.file.close()
        await _all_given_back(r)


async def _all_given_back(r: Rig) -> None:
    await trio.testing.wait_all_tasks_blocked()
    usage = r.spool.usage()
    assert (usage["chunks"], usage["memory"], usage["waiting"]) == (0, 0, 0)
    assert r.uploader.memory.used == 0


@settings(max_examples=examples(25), deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(seed=st.integers(0, 2**32), ceph=st.booleans())
@pytest.mark.bounded(300)
def test_after_any_history_the_object_is_the_file(
    seed: int, ceph: bool, tmp_path_factory: pytest.TempPathFactory
) -> None:
    history = _History(seed, ceph)
    directory = tmp_path_factory.mktemp("model")
    clock = trio.testing.MockClock(autojump_threshold=0)
    trio.run(_run, history, directory, 25, clock=clock)
