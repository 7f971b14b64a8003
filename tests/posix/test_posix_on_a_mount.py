"""What a suite of POSIX assertions asks: each call on each kind of name, users, times, handles."""

import errno
import fcntl
import mmap
import os
import random
import shutil
import socket
import stat
import struct
import subprocess
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from tests.mounting import Mount
from tests.posix.sides import Sides, renameat2, tick, user

OWNER, MEMBER, OTHER = (1001, 1001), (1002, 1002), (1003, 1003)
NOREPLACE = 1

# Every kind of name that a call may meet.
NAMES = (
    *("file", "empty", "full", "fifo", "link", "link to full", "dangling", "loop", "missing"),
    *("file/below", "missing/below", "loop/below", "link to full/child", "full/child"),
    *("n" * 255, "n" * 256, "full/" + "n" * 256, "file/", "empty/", "link/", "missing/"),
    *("full/.", "full/..", "empty/.", "dangling/", "link to full/", "a" + "/a" * 2048),
)
RENAMED = (*NAMES[:15], "file/", "empty/", "full/.", "full/child/deeper")


def make_tree(root: Path) -> None:
    root.mkdir(exist_ok=True)
    os.mknod(root / "file", 0o644 | stat.S_IFREG)
    (root / "empty").mkdir(0o755)
    (root / "full").mkdir(0o755)
    (root / "full" / "child").mkdir(0o700)
    os.mkfifo(root / "fifo", 0o640)
    (root / "link").symlink_to("file")
    (root / "link to full").symlink_to("full")
    (root / "dangling").symlink_to("nowhere")
    (root / "loop").symlink_to("loop")


class Trees:
    """A tree for one call after the other; a new one after each call that changed something."""

    def __init__(self, sides: Sides) -> None:
        self.sides = sides
        self.outcomes: set[object] = set()
        self._make()

    def _make(self) -> None:
        self.sides.both(lambda root: make_tree(root / "tree"))
        tick()

    def same(self, what: str, call: Callable[[str], object]) -> None:
        """`call(directory with a slash)`; the tree below it is compared."""
        found = self.sides.same(lambda root: call(f"{root}/tree/"), what)
        self.outcomes.add(found)
        if self.sides.changed:
            self.sides.both(lambda root: shutil.rmtree(root / "tree"))
            self._make()


def opened(path: str, flags: int) -> object:
    handle = os.open(path, flags | os.O_NONBLOCK, 0o640)
    os.close(handle)
    return "opened"


FLAGS = {
    "read": os.O_RDONLY,
    "write": os.O_WRONLY,
    "create": os.O_WRONLY | os.O_CREAT,
    "create to read": os.O_RDONLY | os.O_CREAT,
    "exclusive": os.O_RDWR | os.O_CREAT | os.O_EXCL,
    "truncate": os.O_WRONLY | os.O_TRUNC,
    "truncate to read": os.O_RDONLY | os.O_TRUNC,
    "create or truncate": os.O_WRONLY | os.O_CREAT | os.O_TRUNC,
    "no link": os.O_RDONLY | os.O_NOFOLLOW,
    "directory": os.O_RDONLY | os.O_DIRECTORY,
    "directory to write": os.O_WRONLY | os.O_DIRECTORY,
    "append": os.O_WRONLY | os.O_APPEND | os.O_CREAT,
}

CALLS: dict[str, Callable[[str], object]] = {
    **{f"open to {name}": partial(opened, flags=flags) for name, flags in FLAGS.items()},
    "mkdir": lambda path: os.mkdir(path, 0o1750),
    "rmdir": os.rmdir,
    "unlink": os.unlink,
    "mkfifo": lambda path: os.mkfifo(path, 0o600),
    "mknod": lambda path: os.mknod(path, stat.S_IFREG | 0o604),
    "device": lambda path: os.mknod(path, stat.S_IFCHR | 0o600, os.makedev(1, 3)),
    "symlink": lambda path: os.symlink("target", path),
    "empty symlink": lambda path: os.symlink("", path),
    "long symlink": lambda path: os.symlink("t" * 4095, path),
    "too long symlink": lambda path: os.symlink("t" * 4096, path),
    "readlink": os.readlink,
    "chmod": lambda path: os.chmod(path, 0o4711),
    "chown": lambda path: os.chown(path, 7, 8),
    "chown of nothing": lambda path: os.chown(path, -1, -1),
    "lchown": lambda path: os.chown(path, 7, -1, follow_symlinks=False),
    "truncate": lambda path: os.truncate(path, 100),
    "truncate to its size": lambda path: os.truncate(path, 0),
    "utime": lambda path: os.utime(path, ns=(10**18 + 1, 10**18 + 2)),
    "utime of a link": lambda path: os.utime(path, ns=(1, 2), follow_symlinks=False),
    "utime now": os.utime,
    "listdir": lambda path: tuple(sorted(os.listdir(path))),
    "stat": lambda path: stat.filemode(os.stat(path).st_mode),
    "lstat": lambda path: stat.filemode(os.lstat(path).st_mode),
    "access": lambda path: os.access(path, os.R_OK | os.X_OK),
    "statvfs": lambda path: os.statvfs(path).f_namemax,
    "setxattr": lambda path: os.setxattr(path, "user.x", b"1"),
    "setxattr of a namespace": lambda path: os.setxattr(path, "user.", b"1"),
    "getxattr": lambda path: os.getxattr(path, "user.none"),
}


def on_name(tree: str, *, call: Callable[[str], object], name: str) -> object:
    return call(tree + name)


def test_each_call_on_each_kind_of_name(sides: Sides) -> None:
    trees = Trees(sides)
    for what, call in CALLS.items():
        for name in NAMES:
            trees.same(f"{what} {name[:40]!r}", partial(on_name, call=call, name=name))
    assert sides.calls == len(CALLS) * len(NAMES) > 900
    expected = {"ENOENT", "ENOTDIR", "EISDIR", "EEXIST", "ENOTEMPTY", "ELOOP", "ENAMETOOLONG"}
    assert trees.outcomes >= expected | {"EINVAL", None}


def test_each_kind_of_name_renamed_over_each_other(sides: Sides) -> None:
    trees = Trees(sides)
    for flags in (0, NOREPLACE):
        for old in RENAMED:
            for new in RENAMED:
                what = f"rename {old[:40]!r} to {new[:40]!r}, flags {flags}"

                def call(tree: str, o: str = old, n: str = new, f: int = flags) -> None:
                    renameat2(tree + o, tree + n, f)

                trees.same(what, call)
    assert sides.calls == 2 * len(RENAMED) ** 2 > 500
    assert trees.outcomes >= {"ENOENT", "ENOTDIR", "EISDIR", "EEXIST", "ENOTEMPTY", "EINVAL", None}


def test_renames_that_are_refused_change_nothing(sides: Sides) -> None:
    """EXCHANGE, and hard links, have no counterpart in S3."""
    sides.both(make_tree)
    root = sides.mounted
    before = sorted(os.listdir(root))
    with pytest.raises(OSError, match="Invalid argument") as refused:
        renameat2(root / "file", root / "fifo", 2)
    assert refused.value.errno == errno.EINVAL
    with pytest.raises(OSError, match="not supported") as refused:
        os.link(root / "file", root / "hard")
    assert refused.value.errno == errno.EOPNOTSUPP
    assert sorted(os.listdir(root)) == before


# -- users -----------------------------------------------------------------------------------------

MODES = (0o000, 0o100, 0o200, 0o400, 0o020, 0o070, 0o002, 0o007, 0o666, 0o755, 0o777, 0o1777)


def by_user(
    who: tuple[int, int], groups: tuple[int, ...], call: Callable[[Path], object]
) -> Callable[[Path], object]:
    def as_user(root: Path) -> object:
        with user(*who, groups):
            return call(root)

    return as_user


@pytest.mark.parametrize(
    ("who", "groups"),
    [(OWNER, ()), (MEMBER, (OWNER[1],)), (OTHER, ())],
    ids=["owner", "member", "other"],
)
def test_permissions_of_owner_group_and_others(
    sides: Sides, who: tuple[int, int], groups: tuple[int, ...]
) -> None:
    def prepare(root: Path, mode: int) -> None:
        directory = root / f"{mode:o}"
        directory.mkdir()
        for name in ("file", "gone", "moved"):
            os.mknod(directory / name, stat.S_IFREG | 0o666)
        os.mknod(root / f"file {mode:o}", stat.S_IFREG)
        for path in (directory, root / f"file {mode:o}"):
            os.chown(path, *OWNER)
            path.chmod(mode)
        root.chmod(0o777)

    outcomes = set()
    for mode in MODES:
        sides.both(partial(prepare, mode=mode))
        tick()
        in_directory: list[Callable[[Path], object]] = [
            os.listdir,
            lambda path: os.mkdir(path / "new"),
            lambda path: os.unlink(path / "gone"),
            lambda path: os.rename(path / "moved", path.parent / f"moved {path.name}"),
            lambda path: opened(str(path / "file"), os.O_RDWR),
            lambda path: os.stat(path / "file").st_size,
            lambda path: os.chmod(path, 0o701),
        ]
        on_file: list[Callable[[Path], object]] = [
            lambda path: opened(str(path), os.O_RDONLY),
            lambda path: opened(str(path), os.O_WRONLY | os.O_TRUNC),
            lambda path: os.access(path, os.X_OK, effective_ids=True),
            lambda path: os.truncate(path, 5),
            os.utime,
            lambda path: os.utime(path, (1, 2)),
            lambda path: os.chown(path, -1, OWNER[1]),
            lambda path: os.chown(path, OTHER[0], -1),
            lambda path: os.chmod(path, 0o600),
        ]
        for name, calls in ((f"{mode:o}", in_directory), (f"file {mode:o}", on_file)):
            for number, call in enumerate(calls):

                def there(root: Path, n: str = name, c: Callable[[Path], object] = call) -> object:
                    found = c(root / n)
                    return sorted(found) if isinstance(found, list) else found

                what = f"{name} call {number} by {who}"
                outcomes.add(str(sides.same(by_user(who, groups, there), what)))
    assert outcomes >= {"EACCES", "EPERM", "None"}


def test_sticky_directories_and_inherited_groups(sides: Sides) -> None:
    def prepare(root: Path) -> None:
        for name, mode in (("sticky", 0o1777), ("team", 0o2777)):
            (root / name).mkdir()
            os.chown(root / name, 0, 55)
            (root / name).chmod(mode)
        for name in ("a", "b"):
            os.mknod(root / "sticky" / name, stat.S_IFREG | 0o666)
            os.chown(root / "sticky" / name, *OWNER)

    sides.both(prepare)
    tick()
    steps: list[tuple[tuple[int, int], Callable[[Path], object], object]] = [
        (OTHER, lambda root: os.unlink(root / "sticky" / "a"), "EPERM"),
        (OTHER, lambda root: os.rename(root / "sticky" / "a", root / "mine"), "EPERM"),
        (OTHER, lambda root: opened(str(root / "sticky" / "c"), os.O_CREAT), "opened"),
        (OTHER, lambda root: os.rename(root / "sticky" / "c", root / "sticky" / "b"), "EPERM"),
        (OWNER, lambda root: os.unlink(root / "sticky" / "a"), None),
        (OTHER, lambda root: os.mkdir(root / "team" / "sub"), None),
        (OTHER, lambda root: opened(str(root / "team" / "sub" / "file"), os.O_CREAT), "opened"),
        (OTHER, lambda root: os.symlink("x", root / "team" / "link"), None),
        (OTHER, lambda root: os.mkfifo(root / "team" / "fifo"), None),
    ]
    for number, (who, call, expected) in enumerate(steps):
        assert sides.same(by_user(who, (), call), f"step {number}") == expected
    assert sides.mounted.joinpath("team/sub/file").stat().st_gid == 55


@pytest.mark.parametrize("mode", [0o4755, 0o2755, 0o6777, 0o1666])
def test_set_user_id_goes_when_others_write_or_the_owner_changes(sides: Sides, mode: int) -> None:
    def prepare(root: Path) -> None:
        for name in ("written", "owned", "cut", "emptied"):
            os.mknod(root / name, stat.S_IFREG)
            (root / name).write_bytes(b"program")
            os.chown(root / name, *OWNER)
            (root / name).chmod(mode | 0o066)

    def write(root: Path) -> object:
        with (root / "written").open("r+b", 0) as file:
            return file.write(b"x")

    sides.both(prepare)
    tick()
    sides.same(by_user(OTHER, (), write), "write")
    sides.same(by_user(OTHER, (), lambda root: os.truncate(root / "cut", 3)), "truncate")
    sides.same(by_user(OTHER, (), lambda root: opened(f"{root}/emptied", 0o1001)), "O_TRUNC")
    sides.same(lambda root: os.chown(root / "owned", *OTHER), "chown")
    sides.same(by_user(OWNER, (), lambda root: os.chmod(root / "written", mode)), "chmod")


# -- handles ---------------------------------------------------------------------------------------


def test_a_file_without_a_name_lives_on(sides: Sides) -> None:
    handles = {
        root: [os.open(root / name, os.O_RDWR | os.O_CREAT, 0o644) for name in ("gone", "over")]
        for root in (sides.mounted, sides.local)
    }
    sides.both(lambda root: (root / "new").write_bytes(b"new"))
    tick()
    sides.same(lambda root: os.unlink(root / "gone"), "unlink")
    sides.same(lambda root: os.rename(root / "new", root / "over"), "rename over")
    calls: list[Callable[[int], object]] = [
        lambda handle: os.write(handle, b"content" * 1000),
        lambda handle: os.ftruncate(handle, 5000),
        lambda handle: os.pread(handle, 6000, 10),
        lambda handle: os.fchmod(handle, 0o600),
        lambda handle: os.utime(handle, (3, 4)),
        os.fsync,
        lambda handle: os.lseek(handle, -7, os.SEEK_END),
        lambda handle: [
            getattr(os.fstat(handle), field)
            for field in ("st_nlink", "st_size", "st_mode", "st_mtime")
        ],
    ]

    def on_handle(root: Path, *, call: Callable[[int], object], number: int) -> object:
        return call(handles[root][number])

    for number in (0, 1):
        for call in calls:
            sides.same(partial(on_handle, call=call, number=number), f"handle {number}")
    for both in handles.values():
        for handle in both:
            os.close(handle)
    assert (sides.mounted / "over").read_bytes() == b"new"


def test_a_directory_without_a_name_is_empty(sides: Sides) -> None:
    def ask(root: Path) -> object:
        (root / "d").mkdir()
        handle = os.open(root / "d", os.O_RDONLY)
        os.rmdir(root / "d")
        try:
            answers: list[object] = [os.listdir(handle), stat.filemode(os.fstat(handle).st_mode)]
            for call in (os.mkdir, os.stat, os.unlink):
                with pytest.raises(FileNotFoundError):
                    call("x", dir_fd=handle)
            return answers
        finally:
            os.close(handle)

    assert sides.same(ask) == [[], "drwxrwxrwx"]


def test_each_name_is_listed_once_while_names_come_and_go(sides: Sides) -> None:
    root = sides.mounted / "many"
    root.mkdir()
    names = {f"name {number:04}" for number in range(600)}
    for name in names:
        os.mknod(root / name)
    seen = []
    with os.scandir(root) as entries:
        for entry in entries:
            seen.append(entry.name)
            if len(seen) % 7 == 0:
                os.unlink(root / entry.name)
                os.mknod(root / f"late {len(seen)}")
    assert len(seen) == len(set(seen))
    assert names <= set(seen)
    shutil.rmtree(root)
    assert not root.exists()


def test_a_directory_lists_itself_and_the_one_above(sides: Sides) -> None:
    """As `ls -ai` shows: os.listdir() leaves both out."""

    def listed(root: Path) -> object:
        lines = subprocess.run(
            ["ls", "-1aiU", root], check=True, capture_output=True, text=True
        ).stdout.splitlines()
        numbers = {name: int(number) for number, name in map(str.split, lines)}
        assert numbers["."] == root.stat().st_ino
        assert numbers[".."] == root.parent.stat().st_ino
        return sorted(numbers)

    sides.both(lambda root: os.mkdir(root / "d"))
    sides.both(lambda root: os.mkdir(root / "d" / "e"))
    assert sides.same(lambda root: listed(root / "d")) == [".", "..", "e"]


def test_locks_keep_others_out(sides: Sides) -> None:
    path = sides.mounted / "locked"
    with path.open("wb") as one, path.open("wb") as other:
        fcntl.flock(one, fcntl.LOCK_EX | fcntl.LOCK_NB)
        with pytest.raises(BlockingIOError):
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
        fcntl.lockf(one, fcntl.LOCK_EX | fcntl.LOCK_NB)
        child = os.fork()
        if child == 0:
            try:
                fcntl.lockf(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os._exit(0)
            os._exit(1)
        assert os.waitpid(child, 0)[1] == 0


def test_a_socket_and_a_fifo_connect_programs(sides: Sides) -> None:
    here = os.getcwd()
    os.chdir(sides.mounted)  # a socket's path has at most 107 bytes
    try:
        with socket.socket(socket.AF_UNIX) as server, socket.socket(socket.AF_UNIX) as client:
            server.bind("socket")
            server.listen()
            client.connect("socket")
            accepted, _ = server.accept()
            client.send(b"through the socket")
            assert accepted.recv(100) == b"through the socket"
            accepted.close()
        os.mkfifo("fifo")
        handle = os.open("fifo", os.O_RDWR)
        os.write(handle, b"through the fifo")
        assert os.read(handle, 100) == b"through the fifo"
        os.close(handle)
    finally:
        os.chdir(here)


# -- bytes -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(4))
def test_random_calls_on_one_file(sides: Sides, seed: int) -> None:
    """Reads, writes, truncations, mappings, appends, renames: against the same on the disk."""
    rng = random.Random(seed)
    limit = 300_000 if seed else 12_000_000  # the first one goes up in parts
    names = {root: root / "file" for root in (sides.mounted, sides.local)}
    handles = {root: os.open(path, os.O_RDWR | os.O_CREAT) for root, path in names.items()}

    def mapped(handle: int, offset: int, data: bytes) -> object:
        size = os.fstat(handle).st_size
        offset = min(offset, max(0, size - 1)) // mmap.PAGESIZE * mmap.PAGESIZE
        if not size:
            return None
        length = min(len(data), size - offset)
        with mmap.mmap(handle, length, offset=offset) as view:
            view[: length // 2] = data[: length // 2]
            return bytes(view)

    def reopened(root: Path) -> None:
        os.close(handles[root])
        handles[root] = os.open(names[root], os.O_RDWR)

    def appended(root: Path, data: bytes) -> int:
        with names[root].open("ab", 0) as file:
            return file.write(data)

    def renamed(root: Path, name: str) -> None:
        os.rename(names[root], root / name)
        names[root] = root / name

    calls: list[Callable[[Path, int, bytes], object]] = [
        lambda root, offset, data: os.pread(handles[root], len(data), offset),
        lambda root, offset, data: os.pwrite(handles[root], data, offset),
        lambda root, _, data: os.pwrite(handles[root], data, os.fstat(handles[root]).st_size // 2),
        lambda root, offset, _: os.ftruncate(handles[root], offset // 2),
        lambda root, offset, _: os.truncate(names[root], offset),
        lambda root, offset, data: mapped(handles[root], offset, data),
        lambda root, _, data: appended(root, data),
        lambda root, *_: reopened(root),
        lambda root, *_: os.fsync(handles[root]),
        lambda root, offset, _: renamed(root, f"file {offset}"),
    ]
    for step in range(150):
        offset, length = rng.randrange(limit), rng.randrange(1, 1 + rng.choice((200, 70_000)))
        data = rng.randbytes(length)
        number = rng.choices(range(len(calls)), (8, 6, 6, 1, 1, 4, 4, 3, 1, 1))[0]
        got, wanted = (calls[number](root, offset, data) for root in handles)
        assert got == wanted, f"step {step}, call {number}, offset {offset}, length {length}"
    for handle in handles.values():
        os.close(handle)
    assert names[sides.mounted].read_bytes() == names[sides.local].read_bytes()


def test_touch_after_writing_does_not_make_a_file_older(sides: Sides) -> None:
    path = sides.mounted / "touched"
    for _ in range(20):
        path.write_bytes(b"x")
        written = path.stat().st_mtime_ns
        path.touch()
        assert path.stat().st_mtime_ns >= written


def access_acl(*entries: tuple[int, int, int]) -> bytes:
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)


def test_an_access_acl_and_the_mode_say_the_same(sides: Sides) -> None:
    """cp -a, install and tar set modes by ACLs alone, where these are taken."""
    name, nobody = "system.posix_acl_access", 2**32 - 1
    minimal = access_acl((1, 7, nobody), (4, 5, nobody), (32, 1, nobody))
    extended = access_acl(
        (1, 6, nobody), (2, 7, 1001), (4, 4, nobody), (16, 5, nobody), (32, 0, nobody)
    )

    def acl(path: Path) -> bytes | str:
        try:
            return os.getxattr(path, name)
        except OSError as error:
            return errno.errorcode[error.errno or 0]

    sides.both(lambda root: (root / "f").touch(0o600))
    sides.both(lambda root: (root / "d").mkdir(0o700))
    for path in ("d", "f"):
        for value in (minimal, extended):

            def set_it(root: Path, path: str = path, value: bytes = value) -> None:
                os.setxattr(root / path, name, value)

            def change_mode(root: Path, path: str = path) -> None:
                (root / path).chmod(0o721)

            def read_it(root: Path, path: str = path) -> bytes | str:
                return acl(root / path)

            for call in (set_it, read_it, change_mode, read_it):
                sides.same(call, path)
    assert isinstance(sides.same(lambda root: os.setxattr(root / "f", name, b"no ACL")), str)


def test_cp_a_keeps_modes(sides: Sides) -> None:
    source = sides.local / "source"
    (source / "d").mkdir(parents=True)
    (source / "f").touch()
    for path, mode in {source / "f": 0o754, source / "d": 0o2751, source: 0o711}.items():
        path.chmod(mode)

    def copied(root: Path) -> list[str]:
        subprocess.run(["cp", "-a", source, root / "copy"], check=True)
        paths = (root / "copy", root / "copy" / "d", root / "copy" / "f")
        return [stat.filemode(path.stat().st_mode) for path in paths]

    assert copied(sides.mounted) == ["drwx--x--x", "drwxr-s--x", "-rwxr-xr--"]


def test_times_that_cannot_be_stored_become_the_nearest_that_can(
    posix_mount: Mount, sides: Sides
) -> None:
    """As on a local disk, whose own bounds are others; and they stay so."""
    bound = 9_223_372_035 * 10**9  # ns: of 64 bits, less a second
    moments = {"year 1": -62_135_596_800, "1700": -8_520_336_000, "year 9999": 253_402_300_799}
    for name, seconds in moments.items():
        path = sides.mounted / name
        path.touch()
        os.utime(path, ns=(seconds * 10**9 + 7, seconds * 10**9 + 7))
    wanted = {"year 1": -bound, "1700": -8_520_336_000 * 10**9 + 7, "year 9999": bound}
    for _ in range(2):
        assert {name: (sides.mounted / name).stat().st_mtime_ns for name in moments} == wanted
        posix_mount.remount()


def test_what_was_done_is_there_after_a_remount(posix_mount: Mount, sides: Sides) -> None:
    """Modes, owners, times, targets, devices: from the bucket, with an empty cache."""
    sides.both(make_tree)

    def change(root: Path) -> None:
        (root / "file").write_bytes(b"content")
        os.chown(root / "file", 11, 12)
        (root / "file").chmod(0o4750)
        os.utime(root / "file", ns=(10**18 + 123_456_789, 10**18 + 987_654_321))
        os.mknod(root / "device", stat.S_IFBLK | 0o600, os.makedev(300, 70_000))
        os.chown(root / "full", 21, 22)
        (root / "full").chmod(0o3711)
        os.rename(root / "full", root / "moved")
        os.setxattr(root / "file", "user.note", b"\0\xff")

    sides.both(change)
    posix_mount.remount()

    def shown(root: Path) -> dict[str, object]:
        answers: dict[str, object] = {}
        for name in ("file", "device", "moved", "moved/child", "fifo", "link", "dangling", "empty"):
            found = os.lstat(root / name)
            directory = stat.S_ISDIR(found.st_mode)
            answers[name] = (
                stat.filemode(found.st_mode),
                (found.st_uid, found.st_gid),
                0 if directory else found.st_size,
                found.st_rdev,
                found.st_mtime_ns if name == "file" else 0,
                os.readlink(root / name) if stat.S_ISLNK(found.st_mode) else None,
            )
        answers["bytes"] = (root / "file").read_bytes()
        answers["note"] = os.getxattr(root / "file", "user.note")
        return answers

    assert sides.same(shown)["file"][0] == "-rwsr-x---"
