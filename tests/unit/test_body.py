"""Bodies of requests while the file changes under them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from s3mount.writeback import body as bodies
from s3mount.writeback.body import CommitSuperseded, FileBody
from s3mount.writeback.chunk import CorruptSpool
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

    def late(pieces: Sequence[Any], start: int, end: int) -> bytes | memoryview:
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
