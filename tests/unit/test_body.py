"""Bodies of requests while the file changes under them."""

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from s3mount.writeback import body as bodies
from s3mount.writeback.body import CommitSuperseded, FileBody
from s3mount.writeback.chunk import BLOCK, CorruptSpool, crc32c
from tests.unit.test_spool_records import flip, new_spool
from tests.unit.writeback_fixtures import PART, Rig, Writer, pattern, rig

CUT_TO = PART + 1000  # in the second chunk: its later blocks are forgotten


def body_of(here: Rig, writer: Writer) -> FileBody:
    return FileBody(
        writer.file,
        here.spool,
        0,
        2 * PART,
        base=None,
        since=writer.file.write_count,
        limiter=here.uploader.readers,
    )


def before_reading(monkeypatch: pytest.MonkeyPatch, happens: Any) -> None:
    """`happens()` once, just before the body is read the first time."""
    join = bodies._join
    pending = [happens]

    def late(pieces: Sequence[Any], start: int, end: int) -> tuple[bytes | memoryview, int]:
        if pending:
            pending.pop()()
        return join(pieces, start, end)

    monkeypatch.setattr(bodies, "_join", late)


async def test_a_file_cut_while_its_part_is_read_is_not_called_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with rig(tmp_path) as here:
        writer = here.writer()
        assert writer.file.try_write(0, pattern(0, 2 * PART))  # no part goes up behind
        before_reading(monkeypatch, lambda: writer.truncate(CUT_TO))
        with pytest.raises(CommitSuperseded):
            async with body_of(here, writer):
                pass


async def test_nor_while_it_is_read_in_slices(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with rig(tmp_path) as here:
        writer = here.writer()
        assert writer.file.try_write(0, pattern(0, 2 * PART))  # no part goes up behind
        async with body_of(here, writer) as body:
            before_reading(monkeypatch, lambda: writer.truncate(CUT_TO))
            with pytest.raises(CommitSuperseded):
                body._read_slice(0, 2 * PART)


async def test_a_file_that_was_not_cut_and_reads_wrong_is_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with rig(tmp_path) as here:
        writer = here.writer()
        assert writer.file.try_write(0, pattern(0, 2 * PART))  # no part goes up behind
        chunk = writer.file.pieces(0, 1)[0][0]
        before_reading(monkeypatch, lambda: chunk.write_raw(100, memoryview(b"damage")))
        with pytest.raises(CorruptSpool):
            async with body_of(here, writer):
                pass


@pytest.mark.parametrize("seed", range(20))
async def test_the_crc_of_any_range_is_made_of_those_of_the_blocks_around_it(
    tmp_path: Path, seed: int
) -> None:
    dice = random.Random(seed)
    async with new_spool(tmp_path) as spool:
        file = spool.create_file()
        await file.write(dice.randrange(3 * BLOCK), pattern(0, PART // 2))
        chunk, low, high = file.pieces(*next(iter(file.present)))[0]
        start = dice.choice([low, low + dice.randrange(high - low - 1)])
        end = dice.choice([high, start + 1 + dice.randrange(high - start)])
        found, crc = chunk.read_with_crc(start, end)
        assert (found, crc) == (chunk.read_raw(start, end - start), crc32c(found))
        damaged = dice.choice([start, end - 1, start // BLOCK * BLOCK, (end - 1) | (BLOCK - 1)])
        if damaged < chunk.end:
            flip(spool.config.spool_dir, chunk.name, damaged)
            with pytest.raises(CorruptSpool, match=f"block {damaged // BLOCK} "):
                chunk.read_with_crc(start, end)
