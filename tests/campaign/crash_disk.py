"""A disk whose power can be cut: `VolatileDisk` mounted by a process of its own.

    with CrashDisk(directory) as disk:
        ... a program writes below disk.path; it is killed ...
        disk.cut(random.Random(1))     # None: all that was not fsynced is lost
        ... disk.path shows what survived ...

`python -m tests.campaign.crash_disk MOUNTPOINT IMAGE` is the process. SQLite's shared memory works
on it: the kernel maps its pages. Locks are the kernel's own.
"""

import contextlib
import errno
import os
import random
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import TracebackType

import pyfuse3
import trio

from tests.campaign.volatile import Image, Node, VolatileDisk, load, save

START_SECONDS = 120.0
CACHED = 300.0  # nobody else changes anything
FREE = 64 << 30
FAILING = "chunk-"  # writeback/chunk_files.py
JOURNAL_LOG = "journal.log-"  # writeback/journal_log.py; not imported, for this process is small


class CrashOperations(pyfuse3.Operations):
    enable_acl = False

    def __init__(self, disk: VolatileDisk) -> None:
        super().__init__()
        self.disk = disk
        self.safe_until = 0.0  # see CrashDisk.cut
        self.failing: frozenset[str] = frozenset()  # see CrashDisk.fail

    def _perhaps_fail(self, what: str, number: int) -> None:
        if what in self.failing:
            name = self.disk.name_of(number)
            if name is not None and name.startswith(FAILING):
                raise pyfuse3.FUSEError(errno.EIO)

    # -- attributes

    def _attributes(self, node: Node) -> pyfuse3.EntryAttributes:
        entry = pyfuse3.EntryAttributes()
        entry.st_ino = pyfuse3.InodeT(node.number)
        entry.st_mode = pyfuse3.ModeT(node.mode)
        entry.st_nlink = 1
        entry.st_uid, entry.st_gid = os.getuid(), os.getgid()
        entry.st_size = len(node.data)
        entry.st_blksize = 4096
        entry.st_blocks = -(-len(node.data) // 512)
        entry.st_atime_ns = entry.st_mtime_ns = entry.st_ctime_ns = node.changed
        entry.entry_timeout = entry.attr_timeout = CACHED
        return entry

    def _node(self, number: int) -> Node:
        node = self.disk.nodes.get(number)
        if node is None:
            raise pyfuse3.FUSEError(errno.ESTALE)
        return node

    def _child(self, parent: int, name: bytes) -> Node:
        number = self._node(parent).names.get(os.fsdecode(name))
        if number is None:
            raise pyfuse3.FUSEError(errno.ENOENT)
        return self._node(number)

    async def getattr(
        self, inode: pyfuse3.InodeT, ctx: pyfuse3.RequestContext
    ) -> pyfuse3.EntryAttributes:
        return self._attributes(self._node(inode))

    async def lookup(
        self, parent_inode: pyfuse3.InodeT, name: bytes, ctx: pyfuse3.RequestContext
    ) -> pyfuse3.EntryAttributes:
        return self._attributes(self._child(parent_inode, name))

    async def setattr(
        self,
        inode: pyfuse3.InodeT,
        attr: pyfuse3.EntryAttributes,
        fields: pyfuse3.SetattrFields,
        fh: pyfuse3.FileHandleT | None,
        ctx: pyfuse3.RequestContext,
    ) -> pyfuse3.EntryAttributes:
        node = self._node(inode)
        if fields.update_size:
            self.disk.truncate(inode, attr.st_size)
        if fields.update_mode:
            node.mode = stat.S_IFMT(node.mode) | stat.S_IMODE(attr.st_mode)
        return self._attributes(node)

    async def statfs(self, ctx: pyfuse3.RequestContext) -> pyfuse3.StatvfsData:
        found = pyfuse3.StatvfsData()
        found.f_bsize = found.f_frsize = 4096
        found.f_blocks = found.f_bfree = found.f_bavail = FREE // 4096
        found.f_files = found.f_ffree = found.f_favail = 1 << 20
        found.f_namemax = 255
        return found

    # -- names

    async def mkdir(
        self,
        parent_inode: pyfuse3.InodeT,
        name: bytes,
        mode: pyfuse3.ModeT,
        ctx: pyfuse3.RequestContext,
    ) -> pyfuse3.EntryAttributes:
        return self._attributes(self._make(parent_inode, name, stat.S_IFDIR | mode))

    async def mknod(
        self,
        parent_inode: pyfuse3.InodeT,
        name: bytes,
        mode: pyfuse3.ModeT,
        rdev: int,
        ctx: pyfuse3.RequestContext,
    ) -> pyfuse3.EntryAttributes:
        return self._attributes(self._make(parent_inode, name, mode))

    def _make(self, parent: int, name: bytes, mode: int) -> Node:
        try:
            return self.disk.make(parent, os.fsdecode(name), mode)
        except FileExistsError:
            raise pyfuse3.FUSEError(errno.EEXIST) from None

    async def create(
        self,
        parent_inode: pyfuse3.InodeT,
        name: bytes,
        mode: pyfuse3.ModeT,
        flags: pyfuse3.FlagT,
        ctx: pyfuse3.RequestContext,
    ) -> tuple[pyfuse3.FileInfo, pyfuse3.EntryAttributes]:
        node = self._make(parent_inode, name, stat.S_IFREG | stat.S_IMODE(mode))
        node.opens += 1
        return pyfuse3.FileInfo(fh=pyfuse3.FileHandleT(node.number)), self._attributes(node)

    async def unlink(
        self, parent_inode: pyfuse3.InodeT, name: bytes, ctx: pyfuse3.RequestContext
    ) -> None:
        self._child(parent_inode, name)
        self.disk.remove(parent_inode, os.fsdecode(name))

    async def rmdir(
        self, parent_inode: pyfuse3.InodeT, name: bytes, ctx: pyfuse3.RequestContext
    ) -> None:
        if self._child(parent_inode, name).names:
            raise pyfuse3.FUSEError(errno.ENOTEMPTY)
        self.disk.remove(parent_inode, os.fsdecode(name))

    async def rename(
        self,
        parent_inode_old: pyfuse3.InodeT,
        name_old: bytes,
        parent_inode_new: pyfuse3.InodeT,
        name_new: bytes,
        flags: pyfuse3.FlagT,
        ctx: pyfuse3.RequestContext,
    ) -> None:
        if flags:
            raise pyfuse3.FUSEError(errno.EINVAL)
        self._child(parent_inode_old, name_old)
        self.disk.rename(
            (parent_inode_old, os.fsdecode(name_old)), (parent_inode_new, os.fsdecode(name_new))
        )

    async def opendir(
        self, inode: pyfuse3.InodeT, ctx: pyfuse3.RequestContext
    ) -> pyfuse3.FileHandleT:
        return pyfuse3.FileHandleT(inode)

    async def readdir(
        self, fh: pyfuse3.FileHandleT, start_id: int, token: pyfuse3.ReaddirToken
    ) -> None:
        for name, number in sorted(self._node(fh).names.items(), key=lambda item: item[1]):
            # As long as nothing is renamed over, numbers only grow: a place to go on from.
            if number > start_id:
                entry = self._attributes(self._node(number))
                if not pyfuse3.readdir_reply(token, os.fsencode(name), entry, number):
                    return

    async def releasedir(self, fh: pyfuse3.FileHandleT) -> None:
        pass

    async def fsyncdir(self, fh: pyfuse3.FileHandleT, datasync: bool) -> None:
        self.disk.sync_directory(fh)

    # -- bytes

    async def open(
        self, inode: pyfuse3.InodeT, flags: pyfuse3.FlagT, ctx: pyfuse3.RequestContext
    ) -> pyfuse3.FileInfo:
        node = self._node(inode)
        node.opens += 1
        if flags & os.O_TRUNC:
            self.disk.truncate(inode, 0)
        return pyfuse3.FileInfo(fh=pyfuse3.FileHandleT(inode), keep_cache=True)

    async def read(self, fh: pyfuse3.FileHandleT, off: int, size: int) -> bytes:
        self._perhaps_fail("read", fh)
        return bytes(self._node(fh).data[off : off + size])

    async def write(self, fh: pyfuse3.FileHandleT, off: int, buf: bytes) -> int:
        self._perhaps_fail("write", fh)
        self.disk.write(fh, off, buf)
        return len(buf)

    async def flush(self, fh: pyfuse3.FileHandleT) -> None:
        pass

    async def release(self, fh: pyfuse3.FileHandleT) -> None:
        self._node(fh).opens -= 1

    async def fsync(self, fh: pyfuse3.FileHandleT, datasync: bool) -> None:
        self._perhaps_fail("fsync", fh)
        self.disk.sync_file(fh)
        if self.disk.is_safe(JOURNAL_LOG):
            self.safe_until = time.monotonic()


def serve(mountpoint: Path, image: Path) -> None:
    """Until a line on standard input: 'cut SEED', 'drop' or 'stop'; what is left is the image.

    The answer is `safe_until`, see CrashDisk.cut. 'fail OPERATIONS': see CrashDisk.fail.
    """
    disk = VolatileDisk(load(image) if image.exists() else None)
    options = {*pyfuse3.default_options, "fsname=crash-disk", "subtype=crashdisk"}
    options -= {"default_permissions"}
    operations = CrashOperations(disk)
    pyfuse3.init(operations, str(mountpoint), options)

    async def command() -> None:
        line = await trio.to_thread.run_sync(sys.stdin.readline, abandon_on_cancel=True)
        while line.startswith("fail"):
            operations.failing = frozenset(line.split()[1:])
            print(0.0, flush=True)
            line = await trio.to_thread.run_sync(sys.stdin.readline, abandon_on_cancel=True)
        # From here on nothing is answered: the moment of the cut.
        what, _, seed = line.strip().partition(" ")
        left: Image
        if what == "cut":
            left = disk.cut(random.Random(int(seed)))
        else:
            left = disk.cut(None) if what == "drop" else disk.whole()
        save(left, image)
        print(operations.safe_until, flush=True)
        os._exit(0)

    async def run() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(command)
            nursery.start_soon(pyfuse3.main)
            print("ready", flush=True)

    trio.run(run)


class CrashDisk:
    """A context manager; `path` is where it is mounted, now and after each cut."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / "disk"
        self._image = directory / "image"
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> "CrashDisk":
        self.path.mkdir(parents=True, exist_ok=True)
        self._start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._process is not None:
            self._process.kill()
        self._end()

    def _start(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.campaign.crash_disk", str(self.path), str(self._image)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parents[2],
        )
        assert self._process.stdout is not None
        timer = threading.Timer(START_SECONDS, self._process.kill)
        timer.start()
        assert self._process.stdout.readline() == "ready\n", "the crash disk does not start"
        os.statvfs(self.path)
        timer.cancel()

    def _end(self) -> None:
        if self._process is not None:
            self._process.communicate()
            self._process = None
        deadline = time.monotonic() + START_SECONDS
        while os.fsencode(self.path) + b" " in Path("/proc/self/mountinfo").read_bytes():
            assert time.monotonic() < deadline, f"{self.path} cannot be unmounted"
            subprocess.run(["fusermount3", "-uz", str(self.path)], check=False, capture_output=True)

    def cut(self, chance: random.Random | None = None) -> float:
        """The power goes, and comes back. Whoever uses the disk must be dead already.

        Returns the time.monotonic() up to which, by its fsyncs, all that a mount's journal had
        been given is there."""
        safe_until = self._ask("drop" if chance is None else f"cut {chance.randrange(1 << 30)}")
        self._start()
        return safe_until

    def fail(self, *operations: str) -> None:
        """From now on 'read', 'write' and 'fsync', those of them that are given, answer EIO for
        the spool's chunk files. The kernel forgets what it has of them, so that reads ask."""
        self._tell(f"fail {' '.join(operations)}")
        for path in self.path.rglob(f"{FAILING}*"):
            descriptor = os.open(path, os.O_RDONLY)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(descriptor)

    def remount(self) -> None:
        """An orderly stop and start: nothing is lost."""
        self._ask("stop")
        self._start()

    def _ask(self, line: str) -> float:
        answer = self._tell(line)
        self._end()
        return answer

    def _tell(self, line: str) -> float:
        process = self._process
        assert process is not None
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(f"{line}\n")
        with contextlib.suppress(BrokenPipeError):
            process.stdin.flush()
        answer = process.stdout.readline()
        assert answer, "the crash disk died"
        return float(answer)


if __name__ == "__main__":
    serve(Path(sys.argv[1]), Path(sys.argv[2]))
