"""What programs do on the mount while it is killed under them.

Each workload has a directory of its own and a ledger; `step` does one thing and returns when it is
acknowledged. A step that fails because the mount is gone raises OSError or Cut.

Programs are started by `begin`, before any workload has a file open: a child that a process starts
closes its copies of the descriptors, which the mount hears as FLUSH, that is as a close.
"""

import os
import random
import shlex
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import partial
from pathlib import Path

from tests.campaign.ledger import CERTAIN, Entry, Ledger, Unfinished, digest, file_entry, read_entry

KIB = 1024
MIB = 1024 * KIB


class Cut(Exception):
    """A program on the mount failed."""


class Workload(ABC):
    name: str
    compare_content = True  # False: `check_own` decides what is right

    def __init__(self, mountpoint: Path, scratch: Path, seed: int) -> None:
        self.root = mountpoint / self.name
        self.scratch = scratch / self.name
        self.scratch.mkdir(parents=True, exist_ok=True)
        self.random = random.Random(f"{self.name} {seed}")
        self.ledger = Ledger(self.name, scratch / "trace")
        self.serial = 0
        self.bytes = 0

    def prepare(self) -> None:
        """On a mount that lives: the directory is there."""
        self.root.mkdir()

    @abstractmethod
    def step(self) -> None: ...

    def begin(self) -> None:  # noqa: B027
        """Before the first step on a new mount: starts the programs that `step` needs."""

    def interrupted(self) -> None:  # noqa: B027
        """The mount died: ends the programs."""

    def check_own(self) -> list[str]:
        """On the remounted, drained mount: what only this workload can tell is wrong."""
        return []

    def shrink(self) -> None:  # noqa: B027
        """After a check, on a mount that lives: the tree is kept small."""

    # -- the single operations

    def new_name(self, kind: str = "f") -> str:
        self.serial += 1
        return f"{kind}{self.serial:05}"

    def random_bytes(self, most: int, *, least: int = 1) -> bytes:
        """`least` 0 where somebody syncs: an empty file is there only once it is released, a
        moment after close has returned."""
        size = self.random.choice((least, 1, most // 100, self.random.randrange(1, most), most))
        return self.random.randbytes(size)

    def write(self, path: str, data: bytes, *, flush: bool = False) -> None:
        """Create or truncate, write, close."""

        def action() -> None:
            with (self.root / path).open("wb", buffering=0) as out:
                _write_all(out.fileno(), data)
                if flush or not data:
                    os.fsync(out.fileno())

        self.acknowledged(f"write {path} {len(data)}", path, data, action)
        if flush and len(data) > CERTAIN:
            self.ledger.stored.add(digest(data))

    def acknowledged(
        self, what: str, path: str, data: bytes | bytearray, action: Callable[[], None]
    ) -> None:
        """`action` ends in the close of `path`, which then holds `data`."""
        old = self.ledger.tree.get(path)
        entry = file_entry(data, old.mode if old else None)
        self.ledger.do(what, [{path: entry}], action, kept=True)
        self.bytes += len(data)
        found = (self.root / path).lstat()
        stored = Entry("file", entry.digest, len(data), found.st_mode & 0o7777, found.st_mtime_ns)
        self.ledger.amend(path, stored)

    def names(self, kind: str) -> list[str]:
        return sorted(path for path, entry in self.ledger.tree.items() if entry.kind == kind)

    def unlink(self, path: str) -> None:
        self.ledger.do(f"unlink {path}", [{path: None}], (self.root / path).unlink)


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view[:MIB]) :]


class Shell:
    """A shell of its own, which runs one command after the other."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            ["sh"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd="/"
        )

    def run(self, *command: str | Path) -> None:
        """Raises Cut with what the command said, if it failed."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        words = shlex.join(map(str, command))
        self._process.stdin.write(f"{words} 2>&1 </dev/null; echo EXIT $?\n")
        self._process.stdin.flush()
        said = ""
        while not (line := self._process.stdout.readline()).startswith("EXIT "):
            said += line
        if line != "EXIT 0\n":
            raise Cut(f"{command[0]}: {said.strip()}")

    def end(self) -> None:
        self._process.communicate()


class ShellWorkload(Workload):
    _shell: Shell | None = None

    def begin(self) -> None:
        self._shell = Shell()

    def interrupted(self) -> None:
        if self._shell is not None:
            self._shell.end()
            self._shell = None

    @property
    def shell(self) -> Shell:
        assert self._shell is not None, "begin comes first"
        return self._shell


class Copies(ShellWorkload):
    """cp -p of single files, cp -r of small trees."""

    name = "copies"

    def step(self) -> None:
        if self.random.random() < 0.3:
            self._tree()
        else:
            self._file()

    def _file(self) -> None:
        name = self.new_name()
        source = self.scratch / name
        source.write_bytes(self.random_bytes(200 * KIB))
        source.chmod(self.random.choice((0o600, 0o644, 0o755)))
        entry = read_entry(source)
        # cp -p sets mode and times after the close of which we know nothing if it is cut off.
        loose = Entry("file", entry.digest, entry.size)
        old = [{name: loose}]
        self.ledger.do(f"cp {name} {entry.size}", old, lambda: self._cp("-p", name), kept=True)
        self.ledger.amend(name, entry)
        self.bytes += entry.size
        source.unlink()

    def _tree(self) -> None:
        top = self.new_name("tree")
        groups: list[dict[str, Entry | None]] = [{top: Entry("directory")}]
        (self.scratch / top / "sub").mkdir(parents=True)
        groups.append({f"{top}/sub": Entry("directory")})
        for number in range(self.random.randrange(2, 12)):
            path = f"{top}/{self.random.choice(('', 'sub/'))}n{number}"
            data = self.random_bytes(64 * KIB)
            (self.scratch / path).write_bytes(data)
            groups.append({path: file_entry(data)})
            self.bytes += len(data)
        self.ledger.do(f"cp -r {top}", groups, lambda: self._cp("-r", top), kept=True)

    def _cp(self, option: str, name: str) -> None:
        self.shell.run("cp", option, self.scratch / name, self.root / name)

    def shrink(self) -> None:
        for path in self.names("file")[40:]:
            self.unlink(path)


class LargeFile(Workload):
    """Files of several parts: written in order, edited in place, appended to."""

    name = "large"
    most = 24 * MIB

    def __init__(self, mountpoint: Path, scratch: Path, seed: int) -> None:
        super().__init__(mountpoint, scratch, seed)
        self.contents: dict[str, bytearray] = {}

    def step(self) -> None:
        known = [path for path in self.names("file") if path in self.contents]
        choice = self.random.random()
        if not known or choice < 0.4:
            self._whole()
        elif choice < 0.7:
            self._edit(self.random.choice(known))
        else:
            self._append(self.random.choice(known))

    def _whole(self) -> None:
        name = f"large{self.random.randrange(3)}"
        data = self.random.randbytes(self.random.randrange(6 * MIB, self.most))
        self.contents.pop(name, None)
        self.write(name, data)
        self.contents[name] = bytearray(data)

    def _edit(self, name: str) -> None:
        data = self.contents.pop(name)
        at = self.random.randrange(len(data))
        piece = self.random.randbytes(self.random.randrange(1, 300 * KIB))
        changed = data[:at] + piece + data[at + len(piece) :]

        def action() -> None:
            with (self.root / name).open("r+b", buffering=0) as out:
                out.seek(at)
                _write_all(out.fileno(), piece)

        self.acknowledged(f"edit {name} {at} {len(piece)}", name, changed, action)
        self.contents[name] = changed

    def _append(self, name: str) -> None:
        data = self.contents.pop(name)
        piece = self.random.randbytes(self.random.randrange(1, MIB))

        def action() -> None:
            with (self.root / name).open("ab", buffering=0) as out:
                _write_all(out.fileno(), piece)

        self.acknowledged(f"append {name} {len(piece)}", name, data + piece, action)
        self.contents[name] = data + piece


class Rsync(ShellWorkload):
    """rsync -a --delete of a tree that changes; what is cut off is finished by the next run."""

    name = "rsync"

    def __init__(self, mountpoint: Path, scratch: Path, seed: int) -> None:
        super().__init__(mountpoint, scratch, seed)
        self.source = self.scratch / "source"
        (self.source / "sub").mkdir(parents=True, exist_ok=True)
        self.ledger.extra = lambda path: path.rpartition("/")[2].startswith(".")

    def step(self) -> None:
        self._change_source()
        wanted = {path: _without_time(path, self.source) for path in _names_below(self.source)}
        groups: list[dict[str, Entry | None]] = []
        for path in sorted({*wanted, *self.ledger.tree}):
            if wanted.get(path) != self.ledger.tree.get(path):
                groups.append({path: wanted.get(path)})
        # rsync would make a directory that is missing, beside the bucket once that is unmounted.
        command = ("env", "-C", self.root, "rsync", "-a", "--delete", f"{self.source}/", "./")
        run = partial(self.shell.run, *command)
        self.ledger.do("rsync", groups, run, kept=True, renamed=True)

    def _change_source(self) -> None:
        for _ in range(self.random.randrange(1, 8)):
            name = f"{self.random.choice(('', 'sub/'))}r{self.random.randrange(20)}"
            data = self.random_bytes(100 * KIB)
            (self.source / name).write_bytes(data)
            (self.source / name).chmod(self.random.choice((0o600, 0o644)))
            # rsync takes a file of the same size and the same second for unchanged.
            self.serial += 1
            moment = (1_700_000_000 + self.serial) * 10**9 + self.random.randrange(10**9)
            os.utime(self.source / name, ns=(moment, moment))
            self.bytes += len(data)
        gone = self.source / f"r{self.random.randrange(20)}"
        if gone.exists():
            gone.unlink()


def _names_below(root: Path) -> list[str]:
    return [str(path.relative_to(root)) for path in sorted(root.rglob("*"))]


def _without_time(path: str, root: Path) -> Entry:
    """rsync sets a directory's mode last, so that a cut leaves it as it was made."""
    entry = read_entry(root / path)
    return Entry("directory") if entry.kind == "directory" else entry


class Names(Workload):
    """Writes beside and renames over, renames directories, unlinks, chmods: no content is lost."""

    name = "names"

    def step(self) -> None:
        actions = (
            (6, self._replace),
            (3, self._rename),
            (2, self._make_directory),
            (2, self._rename_directory),
            (2, self._unlink),
            (2, self._chmod),
            (2, self._utime),
            (1, self._remove_directory),
            (1, self._symlink),
        )
        weights = [weight for weight, _ in actions]
        (action,) = self.random.choices([each for _, each in actions], weights)
        action()

    def _place(self) -> str:
        inside = [f"{path}/" for path in self.names("directory")]
        return self.random.choice(["", *inside])

    def _replace(self) -> None:
        place = self._place()
        temporary = f"{place}{self.new_name('tmp')}"
        target = f"{place}t{self.random.randrange(6)}"
        self.write(
            temporary, self.random_bytes(32 * KIB, least=0), flush=self.random.random() < 0.2
        )
        self._move(temporary, target)

    def _move(self, old: str, new: str) -> None:
        entry = self.ledger.tree[old]
        group = {old: None, new: entry}
        self.ledger.do(f"rename {old} {new}", [group], lambda: self._os_rename(old, new))

    def _os_rename(self, old: str, new: str) -> None:
        (self.root / old).rename(self.root / new)

    def _rename(self) -> None:
        files = self.names("file")
        if files:
            self._move(self.random.choice(files), f"{self._place()}{self.new_name()}")

    def _make_directory(self) -> None:
        path = f"{self._place()}{self.new_name('d')}"
        if path.count("/") < 3:
            entry = Entry("directory", mode=0o755)
            self.ledger.do(f"mkdir {path}", [{path: entry}], (self.root / path).mkdir)

    def _rename_directory(self) -> None:
        directories = self.names("directory")
        if not directories:
            return
        old = self.random.choice(directories)
        new = self.new_name("d")
        group: dict[str, Entry | None] = {}
        for path, entry in self.ledger.tree.items():
            if path == old or path.startswith(f"{old}/"):
                group[path] = None
                group[new + path[len(old) :]] = entry
        self.ledger.do(f"rename {old}/ {new}/", [group], lambda: self._os_rename(old, new))

    def _unlink(self) -> None:
        files = self.names("file") + self.names("link")
        if files:
            self.unlink(self.random.choice(files))

    def _chmod(self) -> None:
        paths = self.names("file") + self.names("directory")
        if not paths:
            return
        path, mode = self.random.choice(paths), self.random.choice((0o700, 0o750, 0o755))
        old = self.ledger.tree[path]
        changed = Entry(old.kind, old.digest, old.size, mode, old.mtime_ns)
        self.ledger.do(
            f"chmod {path} {mode:o}", [{path: changed}], lambda: (self.root / path).chmod(mode)
        )

    def _utime(self) -> None:
        files = self.names("file")
        if not files:
            return
        path = self.random.choice(files)
        time = self.random.randrange(10**18, 17 * 10**17)
        old = self.ledger.tree[path]
        changed = Entry(old.kind, old.digest, old.size, old.mode, time)
        self.ledger.do(
            f"utime {path} {time}",
            [{path: changed}],
            lambda: os.utime(self.root / path, ns=(time, time)),
        )

    def _remove_directory(self) -> None:
        tree = self.ledger.tree
        empty = [
            path
            for path in self.names("directory")
            if not any(other.startswith(f"{path}/") for other in tree)
        ]
        if empty:
            path = self.random.choice(empty)
            self.ledger.do(f"rmdir {path}", [{path: None}], (self.root / path).rmdir)

    def _symlink(self) -> None:
        path, target = f"{self._place()}{self.new_name('l')}", self.new_name("to")
        entry = Entry("link", target)
        self.ledger.do(
            f"symlink {path}", [{path: entry}], lambda: (self.root / path).symlink_to(target)
        )

    def shrink(self) -> None:
        for path in self.names("file")[30:]:
            self.unlink(path)


HOLD = r"""
import os, random, sys
for line in sys.stdin:
    path, size, seed = line.strip().rsplit(" ", 2)
    data = random.Random(int(seed)).randbytes(int(size))
    descriptor = os.open(path, os.O_CREAT | os.O_WRONLY)
    while data:
        data = data[os.write(descriptor, data):]
    print("written", flush=True)
"""


class Logs(Workload):
    """Lines appended, each by an open and a close; one file that stays open and unsynced."""

    name = "logs"

    def __init__(self, mountpoint: Path, scratch: Path, seed: int) -> None:
        super().__init__(mountpoint, scratch, seed)
        self.contents: dict[str, bytes] = {}
        self._holder: subprocess.Popen[str] | None = None

    def begin(self) -> None:
        self._holder = subprocess.Popen(
            [sys.executable, "-c", HOLD],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            cwd="/",
        )

    def interrupted(self) -> None:
        if self._holder is not None:
            self._holder.communicate()
            self._holder = None

    def step(self) -> None:
        if self.serial % 8 == 0:
            self._leave_open()
        name = f"log{self.random.randrange(3)}"
        held = self.contents.get(name, b"") if name in self.ledger.tree else b""
        line = f"{self.serial} {'x' * self.random.randrange(200)}\n".encode()
        self.serial += 1

        def action() -> None:
            with (self.root / name).open("ab", buffering=0) as out:
                out.write(line)

        self.contents.pop(name, None)
        self.acknowledged(f"append {name}", name, held + line, action)
        self.contents[name] = held + line

    def _leave_open(self) -> None:
        assert self._holder is not None, "begin comes first"
        assert self._holder.stdin is not None
        assert self._holder.stdout is not None
        name = self.new_name("open")
        size, seed = self.random.randrange(1, 300 * KIB), self.random.randrange(1 << 30)
        self.ledger.note(f"leaves open {name}")
        try:
            self._holder.stdin.write(f"{self.root / name} {size} {seed}\n")
            self._holder.stdin.flush()
        except OSError:
            raise Cut("the holder of open files") from None
        if self._holder.stdout.readline() != "written\n":
            raise Cut("the holder of open files")
        self.ledger.note(f"left open {name}")
        data = random.Random(seed).randbytes(size)
        self.ledger.unfinished[name] = Unfinished(data, time.monotonic())

    def shrink(self) -> None:
        """A log whose last line was cut off begins anew: which lines it has is not known here."""
        for path in self.names("file"):
            known = self.contents.get(path)
            if known is None or digest(known) != self.ledger.tree[path].digest:
                self.contents.pop(path, None)
                self.unlink(path)


SQLITE = r"""
import os, sqlite3, sys
path, begin = sys.argv[1], int(sys.argv[2])
base = None
for number in range(begin, begin + 100000):
    if not sys.stdin.readline():
        break
    if base is None:
        base = sqlite3.connect(path, timeout=20, isolation_level=None)
        # A commit is the unlink of the journal; EXTRA fsyncs the directory after it.
        base.execute("PRAGMA synchronous=EXTRA")
        base.execute("CREATE TABLE IF NOT EXISTS rows (id INTEGER PRIMARY KEY, filler TEXT)")
    base.execute("BEGIN IMMEDIATE")
    base.execute("INSERT INTO rows VALUES (?, ?)", (number, "y" * (number * 37 % 3000)))
    base.execute("COMMIT")
    # SQLite does without that fsync where the directory cannot be opened: the mount has died.
    directory = os.open(os.path.dirname(path), os.O_RDONLY)
    os.fsync(directory)
    os.close(directory)
    print(number, flush=True)
"""

SQLITE_CHECK = r"""
import sqlite3, sys
base = sqlite3.connect(sys.argv[1], timeout=20)
print(base.execute("PRAGMA integrity_check").fetchone()[0])
for (number,) in base.execute("SELECT id FROM rows"):
    print(number)
"""


class Sqlite(Workload):
    """INSERTs, each committed; afterwards the database is whole and has every committed row."""

    name = "sqlite"
    compare_content = False

    def __init__(self, mountpoint: Path, scratch: Path, seed: int) -> None:
        super().__init__(mountpoint, scratch, seed)
        self.committed: set[int] = set()
        self._child: subprocess.Popen[str] | None = None

    def begin(self) -> None:
        first = self.serial = self.serial + 1
        self._child = subprocess.Popen(
            [sys.executable, "-c", SQLITE, str(self.root / "base"), str(first)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd="/",
        )

    def step(self) -> None:
        assert self._child is not None, "begin comes first"
        assert self._child.stdin is not None
        assert self._child.stdout is not None
        try:
            self._child.stdin.write("go\n")
            self._child.stdin.flush()
        except OSError:
            raise Cut("sqlite") from None
        self.serial += 1
        line = self._child.stdout.readline()
        if not line:
            raise Cut("sqlite")
        self.committed.add(int(line))
        self.ledger.note(f"committed {line.strip()}")

    def interrupted(self) -> None:
        if self._child is not None:
            _, reason = self._child.communicate()
            self.ledger.note(f"sqlite ended: {reason[-300:]}")
            self._child = None

    def check_own(self) -> list[str]:
        if not self.committed:
            return []
        path = str(self.root / "base")
        done = subprocess.run(
            [sys.executable, "-c", SQLITE_CHECK, path],
            capture_output=True,
            text=True,
            check=False,
            cwd="/",
        )
        lines = done.stdout.split()
        if done.returncode != 0 or lines[0] != "ok":
            return [f"sqlite: {lines[:3]} {done.stderr[-300:]}"]
        lost = sorted(self.committed - {int(line) for line in lines[1:]})
        return [f"sqlite: committed rows are gone: {lost}"] if lost else []


ALL: tuple[type[Workload], ...] = (Copies, LargeFile, Rsync, Names, Logs, Sqlite)
