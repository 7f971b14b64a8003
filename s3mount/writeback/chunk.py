"""One chunk: a fixed-size piece of a file's data on local disk (or in memory while tiny).

Every 64 KiB block of it carries the CRC32C of the bytes that were written, taken from the
writer's buffer, so that a damaged spool is noticed before its bytes reach the bucket.
"""

import errno
import os
from collections.abc import Sequence
from typing import Final

from awscrt import checksums

from s3mount.core.errors import FilesystemError

BLOCK: Final = 64 * 1024  # one CRC each; a 4 KiB overwrite re-reads at most this much
_SHIFT: Final = 16
_ZEROS: Final = bytes(BLOCK)
DISK_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT})

Buffer = bytes | bytearray | memoryview


def crc32c(data: Buffer, previous: int = 0) -> int:
    return int(checksums.crc32c(data, previous))


def combine_crc32c(first: int, second: int, length: int) -> int:
    """That of two runs of bytes, the second of `length`, one behind the other."""
    return int(checksums.combine_crc32c(first, second, length))


class CorruptSpool(FilesystemError):
    """Bytes on the local disk are not those that were written; answered EIO."""

    def __init__(self, where: str, block: int) -> None:
        super().__init__(errno.EIO, f"spool {where}: block {block} is damaged on the local disk")


class SpoolDiskError(FilesystemError):
    """The local disk under the spool failed: ENOSPC and EDQUOT as they are, all else EIO."""

    def __init__(self, what: str, name: str, error: OSError) -> None:
        number = error.errno if error.errno in DISK_FULL else errno.EIO
        super().__init__(number or errno.EIO, f"the spool cannot {what} {name}: {error}")
        self.full = number in DISK_FULL


class Chunk:
    """Bytes at offsets [0, size) of one chunk. Not thread-safe but for `read_raw`.

    `filled[b]` bytes at the start of block b were written and have the CRC `crcs[b]`; where the
    writer left a hole inside them it holds zeros. Who may read what is the caller's affair
    (SpooledFile.present). `data` is the buffer of a tiny chunk in memory, else None.
    `charged`: bytes of the spool's limit that this chunk holds; `dense`: all of `size` is
    charged. While `pins` is not 0 a worker thread reads it, and the pool does not recycle it.
    `sealed`: a record of the journal names this file: its bytes never change in place.
    `unsynced`: written since its last fdatasync. `suspect`: that fdatasync failed, and what the
    disk has is not known. `unchecked`: blocks that an earlier process wrote and this one has not
    compared with their CRC yet.
    """

    __slots__ = (
        "charged",
        "crcs",
        "data",
        "dense",
        "doomed",
        "fd",
        "filled",
        "name",
        "pins",
        "sealed",
        "size",
        "suspect",
        "unchecked",
        "unsynced",
    )

    def __init__(self, size: int, fd: int, name: str) -> None:
        self.size = size
        self.fd = fd
        self.name = name
        self.data: bytearray | None = None
        self.crcs: list[int] = []
        self.filled: list[int] = []
        self.charged = 0
        self.dense = False
        self.pins = 0
        self.doomed = False
        self.sealed = False
        self.unsynced = False
        self.suspect = False
        self.unchecked: set[int] = set()

    @property
    def end(self) -> int:
        """Behind the last byte that was written."""
        filled = self.filled
        last = len(filled) - 1
        while last >= 0 and not filled[last]:
            last -= 1
        return (last << _SHIFT) + filled[last] if last >= 0 else 0

    def untouched(self, start: int, end: int) -> int:
        """How many blocks of [start, end) hold nothing yet: what a sparse chunk will grow by."""
        blocks = range(start >> _SHIFT, ((end - 1) >> _SHIFT) + 1)
        filled = self.filled
        return sum(1 for block in blocks if block >= len(filled) or not filled[block])

    def write(self, start: int, data: Buffer) -> None:
        """Stores `data` at `start` (inside the chunk) and its CRCs.

        A block overwritten in part is read and checked first: CorruptSpool. OSError when the disk
        is full or broken: then the range holds old or new bytes, and either is consistent.
        """
        end = start + len(data)
        first, last = start >> _SHIFT, (end - 1) >> _SHIFT
        crcs, filled = self.crcs, self.filled
        if len(filled) <= last:
            filled.extend([0] * (last + 1 - len(filled)))
            crcs.extend([0] * (last + 1 - len(crcs)))
        view = memoryview(data)
        news: list[int] = []
        patched: dict[int, bytes] = {}  # what was in blocks overwritten in the middle
        for block in range(first, last + 1):
            base = block << _SHIFT
            low = start - base if block == first else 0
            high = end - base if block == last else BLOCK
            piece = view[base + low - start : base + high - start]
            have = filled[block]
            if low == have:
                news.append(checksums.crc32c(piece, crcs[block] if low else 0))
            elif low == 0 and high >= have:
                news.append(checksums.crc32c(piece, 0))
            elif low > have:
                news.append(self._fill_hole(block, low, piece))
            else:
                old = patched[block] = self.read_block(block)
                crc = crc32c(piece, crc32c(memoryview(old)[:low]))
                news.append(crc32c(memoryview(old)[high:], crc) if high < len(old) else crc)
        try:
            self.write_raw(start, view)
        except OSError:
            self._take_crcs_anew(start, end, first, news, patched)
            raise
        if self.unchecked:
            self.unchecked.difference_update(range(first, last + 1))
        crcs[first : last + 1] = news
        for block in range(first, last):
            filled[block] = BLOCK
        filled[last] = max(filled[last], end - (last << _SHIFT))

    def _fill_hole(self, block: int, low: int, piece: memoryview) -> int:
        """Zeros between what block holds and `low`; the CRC once `piece` follows them."""
        have = self.filled[block]
        zeros = _ZEROS[: low - have]
        self.write_raw((block << _SHIFT) + have, memoryview(zeros))
        crc = crc32c(zeros, self.crcs[block] if have else 0)
        return crc32c(piece, crc)

    def _take_crcs_anew(
        self, start: int, end: int, first: int, news: list[int], patched: dict[int, bytes]
    ) -> None:
        """After a failed write of [start, end): what of it reached the file is found by comparing.

        A block that holds all of its old or all of its new bytes gets the CRC of these. In one
        that holds some of both the range written is undefined, as POSIX has it, but not corrupt;
        what lies around it must be as it was. Else the failing disk did more damage than that,
        and the block stays one that reads as damaged; so does one that was to be overwritten as
        a whole, for of its old bytes nothing is known to compare with.
        """
        for block, new in enumerate(news, first):
            base = block << _SHIFT
            have = self.filled[block]
            filled = max(have, min(BLOCK, end - base))
            try:
                found = self.read_raw(base, filled)
            except SpoolDiskError:
                continue
            if crc32c(memoryview(found)[:have]) == self.crcs[block]:
                continue
            if len(found) == filled and crc32c(found) == new:
                self.filled[block], self.crcs[block] = filled, new
                continue
            old = patched.get(block)
            low, high = max(start - base, 0), end - base
            if old is None:
                continue  # all of it was to be overwritten, and what is there may be anything
            if found[:low] != old[:low] or found[high:have] != old[high:]:
                continue
            kept = memoryview(found)[:have]
            self.filled[block], self.crcs[block] = len(kept), crc32c(kept)

    def truncate(self, size: int) -> None:
        """Forgets the blocks at and after `size`; the block cut by it is checked (CorruptSpool)."""
        keep = (size + BLOCK - 1) >> _SHIFT
        if keep > len(self.filled):
            return
        inside = size & (BLOCK - 1)
        if inside and self.filled[keep - 1] > inside:
            old = self.read_block(keep - 1)
            self.filled[keep - 1] = inside
            self.crcs[keep - 1] = crc32c(memoryview(old)[:inside])
        del self.filled[keep:], self.crcs[keep:]
        if self.unchecked:
            self.unchecked = {block for block in self.unchecked if block < keep}

    def read_block(self, block: int) -> bytes:
        """What was written of a block, checked; raises CorruptSpool."""
        data = self.read_raw(block << _SHIFT, self.filled[block])
        if len(data) != self.filled[block] or crc32c(data) != self.crcs[block]:
            raise CorruptSpool(self.name, block)
        return data

    def crc_of(self, start: int, end: int) -> int | None:
        """The CRC32C of [start, end) as it was written, without a look at the bytes; None unless
        these are whole blocks, as far as they are filled."""
        first, last = start >> _SHIFT, (end - 1) >> _SHIFT
        if start & (BLOCK - 1) or last >= len(self.filled):
            return None
        total = 0
        for block in range(first, last + 1):
            have = self.filled[block]
            if have != min(BLOCK, end - (block << _SHIFT)):
                return None
            total = combine_crc32c(total, self.crcs[block], have)
        return total

    def read_checked(self, start: int, end: int) -> bytes | memoryview:
        """Bytes [start, end), every block of them checked against its CRC; raises CorruptSpool.

        May run in a worker thread while the loop writes: then it may raise for a block that is
        only half written, and the caller looks again.
        """
        data, base, blocks = self._read_blocks(start, end)
        view = memoryview(data)
        low = 0
        for have, crc in blocks:
            if checksums.crc32c(view[low : low + have], 0) != crc:
                raise CorruptSpool(self.name, (base + low) >> _SHIFT)
            low += BLOCK
        return self._found(data, start, end)

    def read_with_crc(self, start: int, end: int) -> tuple[bytes | memoryview, int]:
        """The same, and the CRC32C of these bytes, made of those of the writers' buffers. Of a
        block that is used in part the CRCs of its pieces must combine to its own: so what is
        answered was not looked at after the check."""
        data, base, blocks = self._read_blocks(start, end)
        view = memoryview(data)
        total = low = 0
        for have, crc in blocks:
            block = view[low : low + have]
            head = max(0, start - base - low)
            tail = max(head, min(have, end - base - low))
            inner = whole = checksums.crc32c(block[head:tail], 0)
            if tail - head < have:
                whole = combine_crc32c(crc32c(block[:head]), inner, tail - head)
                whole = crc32c(block[tail:], whole)
            if whole != crc:
                raise CorruptSpool(self.name, (base + low) >> _SHIFT)
            total = combine_crc32c(total, inner, tail - head)
            low += BLOCK
        return self._found(data, start, end), total

    def _read_blocks(self, start: int, end: int) -> tuple[bytes, int, Sequence[tuple[int, int]]]:
        """All bytes of the blocks that [start, end) is in, not checked, where the first one
        begins, and (filled, CRC) of each as of now."""
        first, last = start >> _SHIFT, (end - 1) >> _SHIFT
        base = first << _SHIFT
        filled, crcs = self.filled[first : last + 1], self.crcs[first : last + 1]
        if len(filled) <= last - first:
            raise CorruptSpool(self.name, last)
        data = self.read_raw(base, (last << _SHIFT) + filled[-1] - base)
        return data, base, list(zip(filled, crcs, strict=True))

    def _found(self, data: bytes, start: int, end: int) -> bytes | memoryview:
        """[start, end) of the blocks `data`, which fit their CRCs."""
        first, last = start >> _SHIFT, (end - 1) >> _SHIFT
        base = first << _SHIFT
        if len(data) < end - base:
            raise CorruptSpool(self.name, last)
        if self.unchecked:
            self.unchecked.difference_update(range(first, last + 1))
        whole = start == base and len(data) == end - base
        return data if whole else memoryview(data)[start - base : end - base]

    def read_raw(self, start: int, length: int) -> bytes:
        """Unchecked; shorter where the file ends. Safe in any thread. Raises SpoolDiskError."""
        memory = self.data
        if memory is not None:
            return bytes(memory[start : start + length])
        try:
            found = os.pread(self.fd, length, start)
            while len(found) < length:
                more = os.pread(self.fd, length - len(found), start + len(found))
                if not more:
                    break
                found += more
        except OSError as error:
            raise SpoolDiskError("read", self.name, error) from error
        return found

    def write_raw(self, start: int, view: memoryview) -> None:
        """Bytes without their CRCs. OSError."""
        if self.data is not None:
            if len(self.data) < start:  # a hole: only inside one block, filled right after
                self.data.extend(bytes(start - len(self.data)))
            self.data[start : start + len(view)] = view
            return
        self.unsynced = True
        done = os.pwrite(self.fd, view, start)
        while done < len(view):
            done += os.pwrite(self.fd, view[done:], start + done)

    # -- copies and durability

    def alias(self) -> "Chunk":
        """The same sealed chunk file, while this one is pinned and not truncated."""
        alias = Chunk(self.size, self.fd, self.name)
        alias.crcs, alias.filled, alias.unchecked = self.crcs, self.filled, self.unchecked
        alias.charged, alias.dense, alias.sealed = self.charged, self.dense, True
        return alias

    def copy_to(self, twin: "Chunk") -> None:
        """Gives `twin`, an empty chunk file, the same bytes and CRCs; for a worker thread, while
        this one is pinned and does not change. The bytes are not looked at: what is damaged here
        is found there. Raises SpoolDiskError."""
        for block, have in enumerate(self.filled):
            if have:
                data = self.read_raw(block << _SHIFT, have)
                try:
                    twin.write_raw(block << _SHIFT, memoryview(data))
                except OSError as error:
                    raise SpoolDiskError("write", twin.name, error) from error
        twin.filled, twin.crcs = self.filled.copy(), self.crcs.copy()
        twin.unchecked = self.unchecked.copy()

    def take_over(self, number: int, other: "Chunk", block: int) -> None:
        """Block `number` of this chunk file, which has nothing yet, becomes that `block` of
        another one: what can be read of it, damaged or not, and its CRC, not checked. Raises
        SpoolDiskError where this disk refuses it."""
        more = max(0, number + 1 - len(self.filled))
        self.filled.extend([0] * more)
        self.crcs.extend([0] * more)
        try:
            data = other.read_raw(block << _SHIFT, other.filled[block])
        except SpoolDiskError:
            data = b""
        try:
            self.write_raw(number << _SHIFT, memoryview(data))
        except OSError as error:
            raise SpoolDiskError("write", self.name, error) from error
        self.filled[number], self.crcs[number] = other.filled[block], other.crcs[block]
        self.unchecked.add(number)

    def fdatasync(self) -> None:
        """What was written before the call is on the disk; for a worker thread. OSError."""
        os.fdatasync(self.fd)

    def rewrite(self) -> None:
        """Writes every block again with the bytes it has: after a failed fdatasync the kernel
        takes pages for written that are not. In the loop, as nothing may be written meanwhile.
        Raises CorruptSpool and SpoolDiskError."""
        for block, have in enumerate(self.filled):
            if have:
                data = self.read_block(block)
                try:
                    self.write_raw(block << _SHIFT, memoryview(data))
                except OSError as error:
                    raise SpoolDiskError("write", self.name, error) from error
        self.suspect = False
