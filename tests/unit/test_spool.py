"""The spool: its bound, its files, its checksums, its waiting."""

import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from s3mount.core.errors import ConfigurationError, FilesystemError
from s3mount.writeback.chunk import BLOCK
from s3mount.writeback.spool import Spool
from tests.sizes import examples
from tests.unit.writeback_fixtures import KIB, PART, configured, disk_bytes, pattern, scheduled


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[Spool]:
    config = configured(tmp_path)
    spool = Spool(config, scheduled(config))
    spool.open()
    yield spool
    spool.close()


def _chunk_files(spool: Spool) -> list[Path]:
    return sorted(spool.config.spool_dir.glob("chunk-*"))


def test_what_was_written_is_read_back_across_chunks(spool: Spool) -> None:
    file = spool.create_file()
    data = pattern(0, 3 * PART)
    assert file.try_write(5, data)
    assert file.read(5, len(data)) == data
    assert file.read(PART - 3, 10) == data[PART - 8 : PART + 2]
    assert list(file.present) == list(file.dirty) == [(5, 5 + 3 * PART)]


def test_chunk_files_are_private(spool: Spool) -> None:
    spool.create_file().try_write(0, pattern(0, PART))
    assert stat.S_IMODE(spool.config.spool_dir.stat().st_mode) == 0o700
    assert [stat.S_IMODE(path.stat().st_mode) for path in _chunk_files(spool)] == [0o600]


def test_a_small_file_takes_no_chunk_file_and_counts_its_own_bytes(spool: Spool) -> None:
    file = spool.create_file()
    assert file.try_write(0, b"x" * 4096)
    assert _chunk_files(spool) == []
    assert spool.usage()["used"] == spool.usage()["memory"] == 4096
    file.close()
    assert spool.usage()["used"] == 0


def test_a_file_that_grows_moves_from_memory_to_disk(spool: Spool) -> None:
    file = spool.create_file()
    data = pattern(0, PART)
    for start in range(0, PART, 10_000):
        assert file.try_write(start, data[start : start + 10_000])
    assert spool.usage()["memory"] == 0
    assert file.read(0, PART) == data
    file.verify(0, PART)


def test_small_files_beyond_the_memory_for_them_count_blocks_not_chunks(spool: Spool) -> None:
    """Memory takes a quarter of the limit (512 KiB here), the next ones 64 KiB each on disk."""
    files = [spool.create_file() for _ in range(15)]
    for number, file in enumerate(files):
        assert file.try_write(0, bytes([number]) * 40 * KIB)
    usage = spool.usage()
    assert usage["memory"] == 480 * KIB
    assert usage["used"] == 480 * KIB + 3 * BLOCK
    assert disk_bytes(spool.config) <= 3 * BLOCK
    for number, file in enumerate(files):
        assert file.read(0, 40 * KIB) == bytes([number]) * 40 * KIB


def test_the_limit_is_never_exceeded_and_a_full_spool_says_so(spool: Spool) -> None:
    file = spool.create_file()
    stored = 0
    while file.try_write(stored, pattern(stored, PART // 2)):
        stored += PART // 2
    assert stored == spool.config.spool_limit
    assert spool.usage()["used"] == disk_bytes(spool.config) == spool.config.spool_limit
    file.close()
    other = spool.create_file()
    assert other.try_write(0, pattern(0, 8 * PART))
    assert other.read(0, 8 * PART) == pattern(0, 8 * PART)


def test_chunk_files_are_recycled(spool: Spool) -> None:
    for _ in range(5):
        file = spool.create_file()
        assert file.try_write(0, pattern(0, 2 * PART))
        file.close()
    assert len(_chunk_files(spool)) == 2


def test_free_chunk_files_give_way_to_small_ones(spool: Spool) -> None:
    large = spool.create_file()
    assert large.try_write(0, pattern(0, 8 * PART))
    large.close()
    small = spool.create_file()
    assert small.try_write(100, b"abc")
    assert small.read(100, 3) == b"abc"
    assert spool.usage()["used"] <= spool.config.spool_limit


def test_scattered_edits_count_the_blocks_they_touch(spool: Spool) -> None:
    file = spool.create_file()
    for number in range(20):
        assert file.try_write(number * 10 * PART + 70 * KIB, b"edit")
    assert spool.usage()["used"] == 20 * BLOCK
    assert file.read(50 * PART + 70 * KIB, 4) == b"edit"


def test_a_recycled_chunk_shows_nothing_of_its_former_file(spool: Spool) -> None:
    secret = spool.create_file()
    assert secret.try_write(0, b"S" * PART)
    secret.close()
    file = spool.create_file()
    assert file.try_write(0, b"a" * PART)
    file.truncate(10)
    assert file.try_write(100, b"b")
    assert list(file.present) == [(0, 10), (100, 101)]
    with pytest.raises(ValueError, match="not all in the spool"):
        file.read(0, 101)


def test_the_disks_reserve_is_left_free(tmp_path: Path) -> None:
    state = os.statvfs(tmp_path)
    free = state.f_bavail * state.f_frsize
    config = configured(tmp_path, disk_reserve=free + 1024**3)
    spool = Spool(config, scheduled(config))
    spool.open()
    assert not spool.create_file().try_write(0, pattern(0, PART))
    assert spool.create_file().try_write(0, b"tiny ones live in memory")


def test_a_spool_that_cannot_hold_four_parts_is_refused(tmp_path: Path) -> None:
    config = configured(tmp_path, spool_limit=3 * PART)
    with pytest.raises(ConfigurationError, match="at least four parts"):
        Spool(config, scheduled(config))


def test_two_mounts_cannot_share_a_spool_but_a_dead_ones_files_are_removed(
    tmp_path: Path, spool: Spool
) -> None:
    config = spool.config
    with pytest.raises(ConfigurationError, match="in use by another mount"):
        Spool(config, scheduled(config)).open()
    spool.close()
    (config.spool_dir / "chunk-000099").write_bytes(b"left over")
    heir = Spool(config, scheduled(config))
    heir.open()
    assert _chunk_files(heir) == []


def _damage(spool: Spool, offset: int) -> None:
    (path,) = _chunk_files(spool)
    with path.open("r+b") as chunk:
        chunk.seek(offset)
        byte = chunk.read(1)[0]
        chunk.seek(offset)
        chunk.write(bytes([byte ^ 1]))


def test_a_flipped_bit_on_disk_is_found_before_a_partial_overwrite(spool: Spool) -> None:
    file = spool.create_file()
    assert file.try_write(0, pattern(0, PART))
    _damage(spool, BLOCK + 17)
    assert file.try_write(100, b"another block is fine")
    with pytest.raises(FilesystemError) as caught:
        file.try_write(BLOCK + 100, b"x")
    assert caught.value.errno == errno.EIO
    assert "block 1" in str(caught.value)
    assert file.try_write(BLOCK, pattern(0, BLOCK)), "a whole new block needs nothing of the old"
    file.verify(0, PART)


def test_verify_names_the_damaged_block(spool: Spool) -> None:
    file = spool.create_file()
    assert file.try_write(0, pattern(0, PART))
    file.verify(0, PART)
    _damage(spool, 3 * BLOCK)
    file.verify(0, 3 * BLOCK)
    with pytest.raises(FilesystemError, match="block 3"):
        file.verify(3 * BLOCK + 5, 3 * BLOCK + 6)


writes = st.lists(
    st.tuples(
        st.sampled_from(["write", "write", "write", "truncate", "fill"]),
        st.integers(0, 3 * PART),
        st.sampled_from([1, 100, 4096, BLOCK - 1, BLOCK, BLOCK + 1, 150 * KIB]),
    ),
    max_size=12,
)


@settings(max_examples=examples(50), deadline=None)
@given(steps=writes)
def test_any_order_of_writes_fills_and_truncates_reads_back_with_right_checksums(
    steps: list[tuple[str, int, int]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    config = configured(tmp_path_factory.mktemp("any"))

    async def run() -> None:
        async with Spool(config, scheduled(config)) as spool:
            file = spool.create_file()
            content: dict[int, int] = {}
            for salt, (kind, offset, length) in enumerate(steps):
                data = pattern(offset, length, salt)
                where = range(offset, offset + length)
                if kind == "write":
                    assert file.try_write(offset, data)
                    content.update(zip(where, data, strict=True))
                elif kind == "fill":
                    await file.fill(offset, data)
                    content = dict(zip(where, data, strict=True)) | content
                else:
                    file.truncate(offset)
                    content = {at: byte for at, byte in content.items() if at < offset}
            assert file.present.total == len(content)
            for start, end in file.present:
                expected = bytes(content[at] for at in range(start, end))
                assert file.read(start, end - start) == expected
            file.verify(0, 10 * PART)
            assert disk_bytes(config) <= config.spool_limit

    trio.run(run)


async def test_filled_bytes_are_clean_and_never_replace_written_ones(spool: Spool) -> None:
    file = spool.create_file()
    assert file.try_write(10, b"new")
    await file.fill(0, b"o" * 20)
    assert file.read(0, 20) == b"o" * 10 + b"new" + b"o" * 7
    assert list(file.dirty) == [(10, 13)]
    assert list(file.present) == [(0, 20)]


async def test_a_commit_makes_clean_what_was_not_written_again_meanwhile(spool: Spool) -> None:
    file = spool.create_file()
    assert file.try_write(0, b"a" * 100)
    file.begin_commit()
    assert file.try_write(50, b"b" * 10)
    assert list(file.dirty) == [(0, 100)]
    file.commit_succeeded()
    assert list(file.dirty) == [(50, 60)]


async def test_a_failed_commit_leaves_all_dirty(spool: Spool) -> None:
    file = spool.create_file()
    assert file.try_write(0, b"a" * 100)
    file.begin_commit()
    assert file.try_write(150, b"b")
    file.commit_failed()
    assert list(file.dirty) == [(0, 100), (150, 151)]


async def test_release_clean_gives_back_only_chunks_without_dirty_bytes(spool: Spool) -> None:
    file = spool.create_file()
    assert file.try_write(0, pattern(0, 3 * PART))
    file.begin_commit()
    file.commit_succeeded()
    assert file.try_write(PART, b"again")
    file.release_clean()
    assert list(file.present) == [(PART, 2 * PART)]
    assert spool.usage()["chunks"] == 1


async def _full(spool: Spool) -> None:
    assert spool.create_file().try_write(0, pattern(0, 8 * PART))


async def test_a_writer_waits_until_something_is_given_back(
    spool: Spool, autojump_clock: trio.testing.MockClock
) -> None:
    await _full(spool)
    (full,) = spool.files
    file = spool.create_file()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(file.write, 0, pattern(0, PART))
        await trio.sleep(50)
        assert spool.usage()["waiting"] == 1
        full.close()
    assert file.read(0, PART) == pattern(0, PART)
    assert spool.usage()["waiting"] == 0


async def test_when_nothing_drains_the_writer_gets_enospc_after_the_timeout(
    spool: Spool, autojump_clock: trio.testing.MockClock
) -> None:
    await _full(spool)
    started = trio.current_time()
    with pytest.raises(FilesystemError) as caught:
        await spool.create_file().write(0, pattern(0, PART))
    assert caught.value.errno == errno.ENOSPC
    assert trio.current_time() - started == pytest.approx(spool.config.no_progress_timeout)


async def test_progress_lets_a_writer_wait_longer(
    spool: Spool, autojump_clock: trio.testing.MockClock
) -> None:
    await _full(spool)
    started = trio.current_time()

    async def acknowledge() -> None:
        for _ in range(5):
            await trio.sleep(100)
            spool.progress_at = trio.current_time()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(acknowledge)
        with pytest.raises(FilesystemError):
            await spool.create_file().write(0, pattern(0, PART))
    assert trio.current_time() - started == pytest.approx(500 + 120)


async def test_a_cancelled_writer_leaves_nothing_behind(
    spool: Spool, autojump_clock: trio.testing.MockClock
) -> None:
    assert spool.create_file().try_write(0, pattern(0, 7 * PART))
    file = spool.create_file()
    with trio.move_on_after(1):
        await file.write(PART // 2, pattern(0, PART))
    assert not file.present
    assert spool.usage()["waiting"] == 0
    assert spool.create_file().try_write(0, pattern(0, PART)), "the last chunk is free again"


async def test_surplus_chunk_files_are_deleted_in_the_background(tmp_path: Path) -> None:
    config = configured(tmp_path, spool_limit=64 * PART)
    async with Spool(config, scheduled(config)) as spool:
        file = spool.create_file()
        assert file.try_write(0, pattern(0, 40 * PART))
        file.close()
        assert disk_bytes(config) == 40 * PART
        await spool.trim()
        assert disk_bytes(config) == spool.usage()["used"] == 32 * PART
