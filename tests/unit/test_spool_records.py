"""What the journal names of the spool: copies before changes, what is held, what comes back."""

import errno
import os
import random
import shutil
from contextlib import closing
from pathlib import Path

import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from s3mount.writeback.chunk import BLOCK, Chunk, CorruptSpool, SpoolDiskError
from s3mount.writeback.journal_records import SpoolRecord
from s3mount.writeback.spool import Spool
from s3mount.writeback.spool_restore import export
from s3mount.writeback.spooled_file import SpooledFile
from tests.sizes import examples
from tests.unit.writeback_fixtures import KIB, PART, configured, pattern, scheduled

Content = dict[int, int]


def new_spool(directory: Path, **changes: int) -> Spool:
    config = configured(directory, **{"spool_limit": 64 * PART, **changes})
    return Spool(config, scheduled(config))


def crashed(spool: Spool, directory: Path, record: SpoolRecord, **changes: int) -> Spool:
    """A new process on what is in the files now."""
    shutil.copytree(spool.config.spool_dir, directory / "spool")
    heir = new_spool(directory, **changes)
    heir.open(keep={chunk.name for chunk in record.chunks})
    return heir


def content_of(file: SpooledFile) -> Content:
    return {
        start + at: byte
        for start, end in file.present
        for at, byte in enumerate(file.read(start, end - start))
    }


def flip(directory: Path, name: str, offset: int) -> None:
    with (directory / name).open("r+b") as chunk:
        chunk.seek(offset)
        byte = chunk.read(1)[0]
        chunk.seek(offset)
        chunk.write(bytes([byte ^ 1]))


steps = st.lists(
    st.tuples(
        st.sampled_from(["write"] * 5 + ["truncate", "fill", "seal", "seal", "lost", "forget"]),
        st.integers(0, 3 * PART),
        st.sampled_from([1, 100, 4096, BLOCK - 1, BLOCK, BLOCK + 1, 150 * KIB]),
    ),
    max_size=14,
)


class _Model:
    """One file and what it must hold; `sealed`: what the journal's record must bring back."""

    def __init__(self, spool: Spool) -> None:
        self.file = spool.create_file()
        self.content: Content = {}
        self.sealed: tuple[SpoolRecord, Content] | None = None

    async def step(self, salt: int, kind: str, offset: int, length: int) -> None:
        file, data = self.file, pattern(offset, length, salt)
        where = range(offset, offset + length)
        if kind == "write":
            if not file.try_write(offset, data):
                await file.write(offset, data)
            self.content.update(zip(where, data, strict=True))
        elif kind == "fill":
            await file.fill(offset, data)
            self.content = dict(zip(where, data, strict=True)) | self.content
        elif kind == "truncate":
            file.truncate(offset)
            self.content = {at: byte for at, byte in self.content.items() if at < offset}
        elif kind == "seal":
            record = file.seal()
            self.sealed = (record, self.content.copy())
            file.recorded(record)
        elif kind == "lost":
            file.seal()  # and the journal could not be written: the record before stays
        else:
            file.forgotten()
            self.sealed = None


@settings(max_examples=examples(40), deadline=None)
@given(steps=steps)
@pytest.mark.bounded(300)
def test_after_a_crash_at_any_time_the_last_recorded_seal_is_restored_byte_for_byte(
    steps: list[tuple[str, int, int]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    async def run() -> None:
        async with new_spool(tmp_path_factory.mktemp("live")) as spool:
            model = _Model(spool)
            for salt, step in enumerate(steps):
                await model.step(salt, *step)
                assert spool.pool.charged <= spool.config.spool_limit
            assert content_of(model.file) == model.content
            model.file.verify(0, 10 * PART)
            if model.sealed is not None:
                record, content = model.sealed
                with_crash = crashed(spool, tmp_path_factory.mktemp("heir"), record)
                restored = with_crash.restore(record)
                assert content_of(restored) == content
                assert tuple(restored.dirty) == record.dirty
                restored.verify(0, 10 * PART)
                restored.forgotten()
                restored.close()
                assert with_crash.usage()["chunks"] == with_crash.usage()["memory"] == 0
                with_crash.close()
            model.file.close()
            model.file.forgotten()
            assert spool.usage()["chunks"] == spool.usage()["memory"] == 0

    trio.run(run)


@settings(max_examples=examples(40), deadline=None)
@given(before=steps, after=steps, seed=st.integers(0, 2**32))
@pytest.mark.bounded(300)
def test_of_an_unsealed_record_torn_blocks_are_left_out_and_never_exported_wrong(
    before: list[tuple[str, int, int]],
    after: list[tuple[str, int, int]],
    seed: int,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """Of the pages written after the record a power cut keeps any."""
    kinds = {"write", "fill", "truncate"}

    async def run() -> None:
        directory = tmp_path_factory.mktemp("torn")
        async with new_spool(directory / "live") as spool:
            model = _Model(spool)
            for salt, step in enumerate(before):
                if step[0] in kinds:
                    await model.step(salt, *step)
            record, content = model.file.unsealed_record(), model.content.copy()
            old = directory / "old"
            shutil.copytree(spool.config.spool_dir, old)
            for salt, step in enumerate(after, 1000):
                if step[0] in kinds:
                    await model.step(salt, *step)
            unchanged = _mix(old, spool.config.spool_dir, random.Random(seed))
            exported = export(record, old, directory / "data")
            data = (directory / "data").read_bytes()
            for start, end in exported:
                assert data[start:end] == bytes(content[at] for at in range(start, end))
            if unchanged:
                assert exported == record.present

    trio.run(run)


def _mix(old: Path, new: Path, dice: random.Random) -> bool:
    """Gives the files in `old` some pages of those in `new`; whether that changed none."""
    unchanged = True
    for path in old.glob("chunk-*"):
        before = path.read_bytes()
        after = (new / path.name).read_bytes().ljust(len(before), b"\0")
        mixed = b"".join(
            (after if dice.random() < 0.5 else before)[at : at + 4096]
            for at in range(0, len(before), 4096)
        )
        path.write_bytes(mixed)
        unchanged &= mixed == before
    return unchanged


# -- what is held, and for how long


async def test_a_sealed_chunk_is_copied_before_it_changes_and_given_back_with_the_next_record(
    tmp_path: Path,
) -> None:
    async with new_spool(tmp_path) as spool:
        file = spool.create_file()
        await file.write(0, b"a" * PART)
        first = file.seal()
        file.recorded(first)
        assert not file.try_write(5, b"B"), "256 KiB are not copied in the loop"
        await file.write(5, b"B")
        assert spool.usage()["used"] == 2 * PART, "both are charged"
        (named,) = first.chunks
        assert (spool.config.spool_dir / named.name).read_bytes() == b"a" * PART
        second = file.seal()
        assert spool.usage()["chunks"] == 2, "the journal still has the first record"
        file.recorded(second)
        assert spool.usage()["chunks"] == 1
        assert file.read(0, PART) == b"aaaaaB".ljust(PART, b"a")
        assert file.try_write(PART, b"behind"), "another chunk needs no copy"


async def test_a_small_sealed_chunk_is_copied_at_once(tmp_path: Path) -> None:
    async with new_spool(tmp_path) as spool:
        file = spool.create_file()
        assert file.try_write(PART + 5, b"sparse")
        record = file.seal()
        assert file.try_write(PART + 5, b"SPARSE")
        assert (spool.config.spool_dir / record.chunks[0].name).read_bytes()[5:] == b"sparse"
        assert file.read(PART + 5, 6) == b"SPARSE"


async def test_the_body_of_a_tiny_file_is_in_its_record_and_stays_as_it_was(
    tmp_path: Path,
) -> None:
    async with new_spool(tmp_path) as spool:
        file = spool.create_file()
        assert file.try_write(0, b"tiny")
        record = file.seal()
        assert file.try_write(0, b"TINY" + pattern(4, PART - 4)), "in place: the record is a copy"
        assert (record.body, record.chunks) == (b"tiny", ())
        with_crash = crashed(spool, tmp_path / "heir", record)
        assert with_crash.restore(record).read(0, 4) == b"tiny"
        with_crash.close()


async def test_a_file_that_is_unsealed_is_written_in_place_again(tmp_path: Path) -> None:
    async with new_spool(tmp_path) as spool:
        file = spool.create_file()
        await file.write(0, b"a" * PART)
        file.recorded(file.seal())
        file.forgotten()
        assert file.try_write(5, b"B")
        assert spool.usage()["chunks"] == 1


async def test_a_record_made_before_the_last_one_is_known_to_be_gone_keeps_its_chunks(
    tmp_path: Path,
) -> None:
    """That is known when the journal is synced: the file may have been closed again by then."""
    async with new_spool(tmp_path) as spool:
        file = spool.create_file()
        await file.write(0, b"a" * PART)
        first = file.seal()
        file.recorded(first)
        await file.write(5, b"B")
        second = file.seal()
        file.forgotten(first)
        file.recorded(second)
        await file.write(5, b"C")
        heir = crashed(spool, tmp_path / "heir", second)
        assert heir.restore(second).read(4, 3) == b"aBa"
        heir.close()
        assert file.read(4, 3) == b"aCa"


async def test_a_closed_file_keeps_what_the_journal_names_until_it_is_forgotten(
    tmp_path: Path,
) -> None:
    spool = new_spool(tmp_path)
    spool.open()
    file, other = spool.create_file(), spool.create_file()
    await file.write(0, b"a" * PART)
    await other.write(0, b"o" * PART)
    record = file.seal()
    file.recorded(record)
    file.close()
    other.close()
    reused = spool.create_file()
    await reused.write(0, b"r" * 2 * PART)
    assert (spool.config.spool_dir / record.chunks[0].name).read_bytes() == b"a" * PART
    spool.close()
    left = list(spool.config.spool_dir.glob("chunk-*"))
    assert [path.name for path in left] == [record.chunks[0].name], "it outlives the process"
    heir = new_spool(tmp_path)
    heir.open(keep={record.chunks[0].name})
    restored = heir.restore(record)
    assert restored.read(0, PART) == b"a" * PART
    restored.close()
    assert heir.usage()["chunks"] == 1
    restored.forgotten()
    assert heir.usage()["chunks"] == 0
    heir.close()
    assert list(spool.config.spool_dir.glob("chunk-*")) == []


async def test_a_copy_waits_for_room_as_any_write_does(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    async with new_spool(tmp_path, spool_limit=4 * PART) as spool:
        file = spool.create_file()
        await file.write(0, pattern(0, 4 * PART))
        file.recorded(file.seal())
        async with trio.open_nursery() as nursery:
            nursery.start_soon(file.write, PART, b"changed")
            await trio.sleep(50)
            assert spool.usage()["waiting"] == 1
            assert spool.usage()["used"] == 4 * PART
            file.forgotten()
        assert file.read(PART, 7) == b"changed"
        assert spool.usage()["used"] == 4 * PART


async def test_a_sealed_chunk_dropped_for_room_is_given_back_once_the_record_is_amended(
    tmp_path: Path,
) -> None:
    async with new_spool(tmp_path) as spool:
        file = spool.create_file()
        await file.write(0, pattern(0, 3 * PART))
        file.recorded(file.seal())
        written: list[SpoolRecord] = []

        def write(record: SpoolRecord) -> bool:
            assert spool.usage()["chunks"] == 3, "not before the journal has it"
            written.append(record)
            file.recorded(record)
            return True

        file.on_amended = write
        file.drop(PART, 2 * PART)
        assert spool.usage()["chunks"] == 2
        (record,) = written
        assert record.dropped == ((PART, 2 * PART),)
        assert record.present == record.dirty == ((0, PART), (2 * PART, 3 * PART))
        assert [chunk.index for chunk in record.chunks] == [0, 2]


async def test_what_is_dropped_when_the_record_has_left_the_journal_needs_no_other(
    tmp_path: Path,
) -> None:
    async with new_spool(tmp_path) as spool:
        file = spool.create_file()
        await file.write(0, pattern(0, 3 * PART))
        file.recorded(file.seal())
        file.on_amended = lambda amended: False
        file.drop(PART, 2 * PART)
        assert spool.usage()["chunks"] == 3
        file.forgotten()
        assert not file.sealed
        assert spool.usage()["chunks"] == 2


async def test_while_a_record_is_on_its_way_a_dropped_chunk_stays(tmp_path: Path) -> None:
    async with new_spool(tmp_path) as spool:
        file = spool.create_file()
        await file.write(0, pattern(0, 3 * PART))
        record = file.seal()
        file.on_amended = lambda amended: pytest.fail("it would be overtaken by the other record")
        file.drop(PART, 2 * PART)
        file.recorded(record)
        assert spool.usage()["chunks"] == 3
        file.recorded(file.seal())
        assert spool.usage()["chunks"] == 2


# -- restoring


async def _sealed(directory: Path, size: int) -> tuple[Path, SpoolRecord]:
    spool = new_spool(directory)
    spool.open()
    file = spool.create_file()
    await file.write(0, pattern(0, size))
    record = file.seal()
    spool.close()
    return spool.config.spool_dir, record


def _heir(directory: Path, record: SpoolRecord, **changes: int) -> Spool:
    heir = new_spool(directory, **changes)
    heir.open(keep={chunk.name for chunk in record.chunks})
    return heir


async def test_the_first_read_of_a_restored_block_is_checked(tmp_path: Path) -> None:
    directory, record = await _sealed(tmp_path, 2 * PART)
    flip(directory, record.chunks[1].name, BLOCK + 7)
    with closing(_heir(tmp_path, record)) as heir:
        file = heir.restore(record)
        assert file.read(PART, 10) == pattern(PART, 10)
        with pytest.raises(CorruptSpool, match=f"{record.chunks[1].name}: block 1 is damaged"):
            file.read(PART + BLOCK, 3)
        with pytest.raises(CorruptSpool):
            file.read(PART + BLOCK + 100, 3)


async def test_a_chunk_file_that_is_gone_reads_as_damaged_and_the_others_are_fine(
    tmp_path: Path,
) -> None:
    directory, record = await _sealed(tmp_path, 2 * PART)
    (directory / record.chunks[0].name).unlink()
    with closing(_heir(tmp_path, record)) as heir:
        file = heir.restore(record)
        assert file.read(PART, PART) == pattern(PART, PART)
        with pytest.raises(CorruptSpool, match=record.chunks[0].name):
            file.read(0, 1)


async def test_a_chunk_file_that_is_gone_and_made_again_is_in_no_new_files_way(
    tmp_path: Path,
) -> None:
    """A power cut may take the newest ones: the next name to be given is that of one of them."""
    directory, record = await _sealed(tmp_path, 3 * PART)
    for chunk in record.chunks[1:]:
        (directory / chunk.name).unlink()
    with closing(_heir(tmp_path, record)) as heir:
        old, new = heir.restore(record), heir.create_file()
        await new.write(0, pattern(0, 3 * PART, 1))
        assert new.read(0, 3 * PART) == pattern(0, 3 * PART, 1)
        assert old.read(0, PART) == pattern(0, PART)
        with pytest.raises(CorruptSpool):
            old.read(PART, 1)


async def test_a_spool_larger_than_the_limit_is_restored_and_nothing_new_is_taken(
    tmp_path: Path,
) -> None:
    _, record = await _sealed(tmp_path, 6 * PART)
    with closing(_heir(tmp_path, record, spool_limit=4 * PART)) as heir:
        file = heir.restore(record)
        assert heir.usage()["used"] == 6 * PART
        other = heir.create_file()
        assert not other.try_write(0, pattern(0, PART))
        assert file.read(0, 6 * PART) == pattern(0, 6 * PART)
        file.forgotten()
        file.close()
        assert other.try_write(0, pattern(0, PART))
        assert heir.usage()["used"] <= 4 * PART


# Chunks of half the size and of twice the size, and one that cuts blocks in two.
OTHER_SIZES = [PART // 2, 2 * PART, PART + 1000]


def _heir_of_size(directory: Path, record: SpoolRecord, size: int) -> Spool:
    return _heir(directory, record, part_size=size, single_put_limit=size)


@pytest.mark.parametrize("other", OTHER_SIZES)
@pytest.mark.parametrize("size", [1000, 2 * PART + 1000])
async def test_a_record_made_with_another_part_size_is_copied(
    tmp_path: Path, size: int, other: int
) -> None:
    _, record = await _sealed(tmp_path, size)
    with closing(_heir_of_size(tmp_path, record, other)) as heir:
        file = heir.restore(record)
        assert file.read(0, size) == pattern(0, size)
        assert tuple(file.dirty) == record.dirty
        assert not file.sealed
        file.verify(0, size)
        again = file.seal()
        heir.pool.release_kept()
        assert again.chunk_size == heir.pool.chunk_size
        assert heir.usage()["used"] <= 2 * PART + other
        assert file.read(0, size) == pattern(0, size)
        file.close()
        file.forgotten()
        assert heir.usage()["chunks"] == heir.usage()["memory"] == 0


@pytest.mark.parametrize("other", [PART // 2, 2 * PART])
@pytest.mark.parametrize("how", ["flipped", "gone"])
async def test_of_a_record_of_another_part_size_only_what_is_damaged_reads_so(
    tmp_path: Path, other: int, how: str
) -> None:
    directory, record = await _sealed(tmp_path, 2 * PART + 1000)
    if how == "flipped":
        flip(directory, record.chunks[1].name, BLOCK + 5)
        damaged = (PART + BLOCK, PART + 2 * BLOCK)
    else:
        (directory / record.chunks[1].name).unlink()
        damaged = (PART, 2 * PART)
    with closing(_heir_of_size(tmp_path, record, other)) as heir:
        file = heir.restore(record)
        again = file.seal()
        heir.pool.release_kept()
        await file.sync()
        for start in range(0, 2 * PART + 1000, BLOCK):
            end = min(start + BLOCK, 2 * PART + 1000)
            if damaged[0] <= start < damaged[1]:
                with pytest.raises(CorruptSpool):
                    file.read(start, end - start)
            else:
                assert file.read(start, end - start) == pattern(start, end - start)
        ranges = export(again, directory, tmp_path / "data")
        assert ranges == ((0, damaged[0]), (damaged[1], 2 * PART + 1000))


async def test_where_blocks_do_not_fit_the_other_part_size_damage_is_told_at_once(
    tmp_path: Path,
) -> None:
    directory, record = await _sealed(tmp_path, 2 * PART + 1000)
    flip(directory, record.chunks[1].name, 5)
    heir = _heir_of_size(tmp_path, record, PART + 1000)
    with closing(heir), pytest.raises(CorruptSpool, match="block 0"):
        heir.restore(record)


async def test_a_disk_without_room_for_the_copy_is_told_and_leaks_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory, record = await _sealed(tmp_path, 2 * PART)
    with closing(_heir_of_size(tmp_path, record, 2 * PART)) as heir:
        kept = heir.usage()["used"]

        def full(chunk: Chunk, start: int, view: memoryview) -> None:
            raise OSError(errno.ENOSPC, "disk full")

        with monkeypatch.context() as patched:
            patched.setattr(Chunk, "write_raw", full)
            with pytest.raises(SpoolDiskError) as caught:
                heir.restore(record)
        assert caught.value.errno == errno.ENOSPC
        assert (heir.usage()["chunks"], heir.usage()["used"]) == (0, kept)
        assert heir.restore(record).read(0, 2 * PART) == pattern(0, 2 * PART)
    assert all((directory / chunk.name).exists() for chunk in record.chunks)


async def test_kept_files_that_nobody_restored_are_charged_and_then_removed(
    tmp_path: Path,
) -> None:
    directory, record = await _sealed(tmp_path, 2 * PART)
    (directory / "chunk-000077").write_bytes(b"named by nobody")
    with closing(_heir(tmp_path, record)) as heir:
        assert sorted(path.name for path in directory.glob("chunk-*")) == [
            chunk.name for chunk in record.chunks
        ]
        assert heir.usage()["used"] == 2 * PART
        heir.pool.release_kept()
        assert heir.usage()["used"] == 0
        assert list(directory.glob("chunk-*")) == []


async def test_a_new_chunk_never_gets_the_name_of_a_kept_one(tmp_path: Path) -> None:
    _, record = await _sealed(tmp_path, 2 * PART)
    with closing(_heir(tmp_path, record)) as heir:
        await heir.create_file().write(0, pattern(0, 3 * PART, 1))
        assert heir.restore(record).read(0, 2 * PART) == pattern(0, 2 * PART)


async def test_names_in_a_journal_never_lead_out_of_the_spool(tmp_path: Path) -> None:
    """Nor do links that somebody put there."""
    directory, record = await _sealed(tmp_path, PART)
    (chunk,) = record.chunks
    outside = tmp_path / "outside"
    outside.write_bytes(pattern(0, PART))
    (directory / chunk.name).unlink()
    (directory / chunk.name).symlink_to(outside)
    with closing(_heir(tmp_path, record)) as heir, pytest.raises(Exception, match="cannot open"):
        heir.restore(record)
    assert export(record, directory, tmp_path / "data") == ()


# -- export


async def test_export_writes_what_is_right_and_tells_it(tmp_path: Path) -> None:
    directory, record = await _sealed(tmp_path, 2 * PART + 100)
    flip(directory, record.chunks[0].name, 2 * BLOCK + 1)
    target = tmp_path / "data"
    ranges = await trio.to_thread.run_sync(export, record, directory, target)
    assert ranges == ((0, 2 * BLOCK), (3 * BLOCK, 2 * PART + 100))
    data = target.read_bytes()
    for start, end in ranges:
        assert data[start:end] == pattern(start, end - start)
    assert data[2 * BLOCK : 3 * BLOCK] == bytes(BLOCK), "a hole"
    assert os.stat(target).st_mode & 0o777 == 0o600


async def test_export_of_a_tiny_file_needs_no_chunk_file(tmp_path: Path) -> None:
    directory, record = await _sealed(tmp_path, 1000)
    assert export(record, directory, tmp_path / "data") == ((0, 1000),)
    assert (tmp_path / "data").read_bytes() == pattern(0, 1000)
