"""The programs of the matrix: each works below `job.place` on a mount and checks what it did."""

import errno
import mmap
import os
import sqlite3
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.mounts.mounting import Mount
from tests.mounts.trees import MIB, assert_same, data, describe, digest, make_source

# Requests that change the bucket.
MUTATIONS = (
    "PutObject",
    "UploadPart",
    "UploadPartCopy",
    "CreateMultipartUpload",
    "CopyObject",
    "DeleteObject",
    "DeleteObjects",
)
NOBODY = 65534


@dataclass(frozen=True)
class Job:
    """`place` is an empty directory on the mount, `scratch` one on a local disk."""

    mount: Mount
    place: Path
    scratch: Path


Program = Callable[[Job], None]
PROGRAMS: list[Program] = []
# Those that set the times of all directories at their end.
SETS_DIRECTORY_TIMES: set[Program] = set()


def program(function: Program) -> Program:
    PROGRAMS.append(function)
    return function


def run(*command: str | Path, cwd: Path | None = None, **environment: str) -> str:
    """Its standard output; asserts that it succeeds and complains of nothing."""
    done = subprocess.run(
        command,
        cwd=cwd,
        env={**os.environ, "LC_ALL": "C.UTF-8", **environment},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, f"{command}: {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def shell(script: str, cwd: Path) -> str:
    return run("bash", "-euc", script, cwd=cwd)


def mutations(job: Job) -> int:
    """Requests so far that changed the bucket."""
    counts = job.mount.requests()
    return sum(counts[name] for name in MUTATIONS)


@program
def copy_tree(job: Job) -> None:
    """cp -a"""
    source = make_source(job.scratch / "source")
    run("cp", "-a", job.scratch / "source", job.place)
    assert_same(describe(job.place / "source"), source)


@program
def rsync_twice(job: Job) -> None:
    """rsync -a, twice"""
    source = make_source(job.scratch / "source")
    command = ("rsync", "-a", "--stats", f"{job.scratch}/source", job.place)
    run(*command)
    assert_same(describe(job.place / "source"), source)
    job.mount.flush()
    before = mutations(job)
    stats = run(*command)
    assert "Number of regular files transferred: 0\n" in stats
    assert "Number of created files: 0\n" in stats
    assert "Literal data: 0 bytes\n" in stats
    job.mount.flush()
    assert mutations(job) == before


@program
def rsync_in_place(job: Job) -> None:
    """rsync --inplace"""
    content = bytearray(data("rsync", 12 * MIB))
    local, remote = job.scratch / "file", job.place / "file"
    local.write_bytes(content)
    run("rsync", "-a", "--inplace", local, remote)
    number = remote.stat().st_ino
    content[5 * MIB : 5 * MIB + 4096] = data("change", 4096)
    local.write_bytes(content)
    os.utime(local, (2_000_000_000, 2_000_000_000))  # rsync takes the same second for no change
    stats = run("rsync", "-a", "--inplace", "--no-whole-file", "--stats", local, remote)
    assert "Number of regular files transferred: 1\n" in stats
    assert digest(remote.read_bytes()) == digest(content)
    assert remote.stat().st_ino == number


@program
def rsync_append(job: Job) -> None:
    """rsync --append"""
    content = data("rsync", 11 * MIB)
    local, remote = job.scratch / "file", job.place / "file"
    local.write_bytes(content[: 9 * MIB])
    run("rsync", "-a", "--append", local, remote)
    local.write_bytes(content)
    stats = run("rsync", "-a", "--append", "--stats", local, remote)
    assert f"Literal data: {2 * MIB:,} bytes" in stats
    assert digest(remote.read_bytes()) == digest(content)


@program
def tar_in_and_out(job: Job) -> None:
    """tar in and out"""
    source = make_source(job.scratch / "source")
    run("tar", "--format=posix", "-C", job.scratch, "-cf", job.place / "a.tar", "source")
    run("tar", "-C", job.place, "-xpf", job.place / "a.tar")
    assert_same(describe(job.place / "source"), source)
    run("tar", "--format=posix", "-C", job.place, "-cf", job.scratch / "b.tar", "source")
    (job.scratch / "again").mkdir()
    run("tar", "-C", job.scratch / "again", "-xpf", job.scratch / "b.tar")
    assert_same(describe(job.scratch / "again" / "source"), source)


@program
def git(job: Job) -> None:
    """git clone, commit, gc, fsck"""
    identity = {
        f"GIT_{who}_{what}": value
        for who in ("AUTHOR", "COMMITTER")
        for what, value in (
            ("NAME", "A U Thor"),
            ("EMAIL", "a@example.org"),
            ("DATE", "2024-05-06T07:08:09Z"),
        )
    }
    identity |= {"GIT_CONFIG_GLOBAL": "/dev/null", "HOME": str(job.scratch)}
    origin, clone = job.scratch / "origin", job.place / "clone"
    run("git", "init", "-q", "-b", "main", origin, **identity)
    for number in range(30):
        (origin / f"file{number}").write_bytes(data(number, 3000))
        if number % 10 == 9:
            run("git", "-C", origin, "add", "-A", **identity)
            run("git", "-C", origin, "commit", "-qm", f"commit {number}", **identity)
    run("git", "clone", "-q", f"file://{origin}", clone, **identity)
    assert run("git", "-C", clone, "rev-parse", "HEAD", **identity) == (
        run("git", "-C", origin, "rev-parse", "HEAD", **identity)
    )
    (clone / "file3").write_text("changed\n")
    (clone / "new").write_text("new\n")
    run("git", "-C", clone, "rm", "-q", "file4", **identity)
    run("git", "-C", clone, "add", "-A", **identity)
    run("git", "-C", clone, "commit", "-qm", "change", **identity)
    run("git", "-C", clone, "gc", "-q", "--prune=now", **identity)
    run("git", "-C", clone, "fsck", "--full", "--strict", **identity)
    assert run("git", "-C", clone, "status", "--porcelain", **identity) == ""
    run("git", "-C", clone, "checkout", "-q", "HEAD~1", **identity)
    for number in range(30):
        assert (clone / f"file{number}").read_bytes() == data(number, 3000)
    run("git", "-C", clone, "checkout", "-q", "main", **identity)
    assert (clone / "file3").read_text() == "changed\n"
    assert not (clone / "file4").exists()


def _sqlite(job: Job, journal: str) -> None:
    path = job.place / "base.db"
    with sqlite3.connect(path) as writer:
        assert writer.execute(f"PRAGMA journal_mode={journal}").fetchone() == (journal,)
        writer.execute("CREATE TABLE t (number INTEGER PRIMARY KEY, value BLOB)")
    for begin in range(0, 200, 50):
        with writer:
            writer.executemany(
                "INSERT INTO t VALUES (?, ?)", [(n, data(n, 500)) for n in range(begin, begin + 50)]
            )
    with sqlite3.connect(path) as reader:
        assert reader.execute("SELECT count(*) FROM t").fetchone() == (200,)
        writer.execute("BEGIN")
        writer.execute("DELETE FROM t")
        assert reader.execute("SELECT count(*) FROM t").fetchone() == (200,)
        writer.rollback()
        writer.execute("UPDATE t SET value = 'changed' WHERE number = 7")
        writer.commit()
    reader.close()
    writer.close()
    out = run(
        "sqlite3", path, "PRAGMA integrity_check; SELECT count(*), max(number) FROM t;"
        "SELECT value FROM t WHERE number=7;"
    )
    assert out == "ok\n200|199\nchanged\n"
    assert os.listdir(job.place) == ["base.db"]


@program
def sqlite_delete(job: Job) -> None:
    """sqlite, delete journal"""
    _sqlite(job, "delete")


@program
def sqlite_wal(job: Job) -> None:
    """sqlite, WAL"""
    _sqlite(job, "wal")


@program
def sed_in_place(job: Job) -> None:
    """sed -i"""
    path = job.place / "text"
    path.write_text("".join(f"line {number}\n" for number in range(5000)))
    path.chmod(0o640)
    os.chown(path, 1000, 1001)
    run("sed", "-i", "s/line 7$/LINE seven/", path)
    lines = path.read_text().splitlines()
    assert (lines[7], lines[8], len(lines)) == ("LINE seven", "line 8", 5000)
    about = path.stat()
    assert (stat.S_IMODE(about.st_mode), about.st_uid, about.st_gid) == (0o640, 1000, 1001)
    assert os.listdir(job.place) == ["text"]


@program
def vim_saves(job: Job) -> None:
    """vim"""
    path = job.place / "text"
    path.write_text("one\ntwo\nthree\n")
    path.chmod(0o600)
    for patterns in ("", "set backupcopy=no", "set backupcopy=yes", "set backup backupskip="):
        before = path.read_text()
        old, new = ("two", "TWO") if "two" in before else ("TWO", "two")
        commands = [word for text in (patterns, f"%s/{old}/{new}/", "wq") for word in ("-c", text)]
        run("vim", "-u", "NONE", "-N", "-es", *commands, path, HOME=str(job.scratch))
        assert path.read_text() == before.replace(old, new)
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert sorted(os.listdir(job.place)) == ["text", "text~"]
    assert (job.place / "text~").read_text() == before


@program
def make_and_compile(job: Job) -> None:
    """make + gcc"""
    (job.place / "main.c").write_text(
        '#include <stdio.h>\n#include "part.h"\nint main(void)'
        '{ printf("%d\\n", part()); return 0; }\n'
    )
    (job.place / "part.h").write_text("int part(void);\n")
    (job.place / "part.c").write_text('#include "part.h"\nint part(void) { return 41; }\n')
    (job.place / "Makefile").write_text(
        "main: main.o libpart.a\n\t$(CC) -g -o $@ main.o -L. -lpart\n"
        "libpart.a: part.o\n\t$(AR) rc $@ part.o\n%.o: %.c part.h\n\t$(CC) -g -c -o $@ $<\n"
    )
    run("make", "-j2", cwd=job.place)
    assert run(job.place / "main") == "41\n"
    assert "up to date" in run("make", cwd=job.place)
    time.sleep(0.01)  # make compares times
    (job.place / "part.c").write_text('#include "part.h"\nint part(void) { return 42; }\n')
    out = run("make", cwd=job.place)
    assert "part.c" in out
    assert "main.c" not in out
    assert run(job.place / "main") == "42\n"


@program
def virtual_environment(job: Job) -> None:
    """python -m venv"""
    run("/usr/bin/python3", "-m", "venv", "--without-pip", job.place / "venv")
    script = job.place / "script.py"
    script.write_text("import sys, json; print(sys.prefix)\n")
    assert run(job.place / "venv/bin/python", script) == f"{job.place}/venv\n"
    library = next((job.place / "venv/lib").iterdir()) / "site-packages"
    (library / "own.py").write_text("VALUE = 7\n")
    out = run(
        job.place / "venv/bin/python",
        "-c",
        "import own; print(own.VALUE, own.__cached__)",
        PYTHONDONTWRITEBYTECODE="",
    )
    assert out.startswith("7 ")
    assert Path(out.split()[1]).exists(), out


def wait_until(condition: Callable[[], Any], seconds: float = 20) -> bool:
    """Whether it came true in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def _parts(client: Any, bucket: str) -> list[Any]:
    """Parts on the server of uploads that are not completed."""
    uploads = client.list_multipart_uploads(Bucket=bucket).get("Uploads", [])
    return [
        part
        for upload in uploads
        for part in client.list_parts(
            Bucket=bucket, Key=upload["Key"], UploadId=upload["UploadId"]
        ).get("Parts", [])
    ]


@program
def header_rewritten(job: Job) -> None:
    """header rewritten after 64 MB"""
    content = data("stream", 64 * MIB)
    header = data("header", 100)
    client, name = job.mount.bucket.client, job.mount.bucket.name
    with (job.place / "video").open("wb", buffering=0) as file:
        for offset in range(0, len(content), MIB):
            file.write(content[offset : offset + MIB])
        assert wait_until(lambda: _parts(client, name)), "no part came before the last write"
        assert job.mount.bucket.keys().count("work/video") == 0
        file.seek(0)
        file.write(header)
    expected = digest(header + content[100:])
    assert digest(job.mount.bucket.get("work/video")) == expected
    assert digest((job.place / "video").read_bytes()) == expected


@program
def memory_maps(job: Job) -> None:
    """mmap"""
    path = job.place / "map"
    content = bytearray(data("map", MIB))
    path.write_bytes(content)
    with path.open("rb") as file:
        private = mmap.mmap(file.fileno(), 0, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ)
        assert private[:] == content
        private.close()
    with path.open("r+b") as file:
        private = mmap.mmap(file.fileno(), 0, flags=mmap.MAP_PRIVATE)
        private[0:4] = b"mine"
        shared = mmap.mmap(file.fileno(), 0)
        shared[4096:4100] = b"sync"
        shared.flush()
    shared[500_000:500_005] = b"later"  # after close
    content[4096:4100] = b"sync"
    content[500_000:500_005] = b"later"
    assert path.read_bytes() == content
    shared.close()
    private.close()
    assert wait_until(lambda: job.mount.bucket.get("work/map") == content)


APPENDER = """
import os, sys
out = os.open(sys.argv[1], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
for number in range(500):
    os.write(out, f"{sys.argv[2]} {number:04} {'x' * 90}\\n".encode())
os.close(out)
"""


@program
def two_appenders(job: Job) -> None:
    """O_APPEND, two processes"""
    path = job.place / "log"
    both = [
        subprocess.Popen([sys.executable, "-c", APPENDER, path, name]) for name in ("one", "two")
    ]
    assert [process.wait(timeout=60) for process in both] == [0, 0]
    lines = path.read_text().splitlines()
    assert len(lines) == 1000
    for name in ("one", "two"):
        mine = [line for line in lines if line.startswith(name)]
        assert mine == [f"{name} {number:04} {'x' * 90}" for number in range(500)]


@program
def log_loop(job: Job) -> None:
    """1,000 lines by >>"""
    shell('for i in $(seq 1000); do echo "line $i" >> log; done', job.place)
    assert (job.place / "log").read_text().splitlines() == [f"line {n}" for n in range(1, 1001)]
    # Each close is durable, so each line is a PUT, and nothing else is asked.
    counts = job.mount.requests()
    assert counts["PutObject"] <= 1010
    assert counts["HeadObject"] + counts["GetObject"] <= 20


@program
def dd_synchronous(job: Job) -> None:
    """dd conv=fsync"""
    content = data("dd", 20 * MIB + 5)
    (job.scratch / "source").write_bytes(content)
    run("dd", f"if={job.scratch}/source", f"of={job.place}/file", "bs=1M", "conv=fsync")
    assert digest(job.mount.bucket.get("work/file")) == digest(content)
    run(
        *("dd", f"if={job.scratch}/source", f"of={job.place}/file", "bs=1000", "count=5"),
        *("skip=1", "seek=7000", "conv=fsync,notrunc"),
    )
    expected = content[:7_000_000] + content[1000:6000] + content[7_005_000:]
    assert digest(job.mount.bucket.get("work/file")) == digest(expected)
    assert digest((job.place / "file").read_bytes()) == digest(expected)


@program
def truncate(job: Job) -> None:
    """truncate"""
    path = job.place / "file"
    content = data("truncate", 10 * MIB)
    path.write_bytes(content)
    run("truncate", "-s", "6000001", path)
    assert digest(path.read_bytes()) == digest(content[:6_000_001])
    run("truncate", "-s", "12M", path)
    assert digest(path.read_bytes()) == digest(content[:6_000_001] + bytes(12 * MIB - 6_000_001))
    run("truncate", "-s", "3", path)
    run("truncate", "-s", "+5", path)
    assert path.read_bytes() == content[:3] + bytes(5)
    run("truncate", "-s", "100", job.place / "new")
    assert (job.place / "new").read_bytes() == bytes(100)
    with path.open("r+b") as file:
        file.truncate(2)
        file.seek(6)
        file.write(b"end")
    assert path.read_bytes() == content[:2] + bytes(4) + b"end"


@program
def sparse_copies(job: Job) -> None:
    """cp --sparse=always"""
    content = data(1, 5000) + bytes(9 * MIB) + data(2, 5000) + bytes(2 * MIB)
    (job.scratch / "sparse").write_bytes(content)
    run("cp", "--sparse=always", job.scratch / "sparse", job.place / "one")
    run("cp", "--sparse=always", job.place / "one", job.place / "two")
    run("cp", "--sparse=always", job.place / "two", job.scratch / "back")
    for path in (job.place / "one", job.place / "two", job.scratch / "back"):
        assert digest(path.read_bytes()) == digest(content), path


@program
def many_entries(job: Job) -> None:
    """10,000 entries"""
    names = [f"entry-{number:05}" for number in range(10_000)]
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda name: os.mknod(job.place / name, 0o600), names))
    assert sorted(os.listdir(job.place)) == names
    job.mount.flush()
    assert run("find", job.place, "-type", "f", "-perm", "600", "-printf", ".") == "." * 10_000
    (job.place / names[77]).write_text("77")
    with os.scandir(job.place) as found:
        # Removed while it is read: what stays is seen once.
        seen = []
        for number, entry in enumerate(found):
            seen.append(entry.name)
            if number == 5000:
                for name in names[9000:]:
                    (job.place / name).unlink()
    assert len(seen) == len(set(seen))
    assert set(names[:9000]) <= set(seen)
    run("find", job.place, "-name", "entry-0[1-9]*", "-delete")
    run("find", job.place, "-name", "entry-00[1-9]*", "-delete")
    assert sorted(os.listdir(job.place)) == names[:100]
    assert (job.place / names[77]).read_text() == "77"


ODD_NAMES = [
    "with blank",
    " leading and trailing ",
    "100%",
    "a%41b%2Fc",
    "a%zz",
    "plus+plus",
    "new\nline",
    "back\\slash",
    "-rf",
    "--help",
    "quote'quote\"",
    "?query&a=b;c",
    "#hash",
    "a:b@c,d!e$f(g)*",
    "old_$folder$",
    "~",
    ".hidden",
    "...",
    "tab\ttab",
    "carriage\rreturn",
    "ünïcode",
    "u\u0308 decomposed",
    "日本語",
    "🦆",
    "<xml>&amp;",
    "n" * 255,
    "ü" * 127 + "x",
]


@program
def odd_names(job: Job) -> None:
    """unicode and odd names"""
    is_moto = job.mount.bucket.server.name == "moto"
    # moto answers 404 to a path with a newline.
    names = [name for name in ODD_NAMES if not (is_moto and "\n" in name)]
    for number, name in enumerate(names):
        (job.place / name).write_bytes(data(name, 50 + number))
    assert sorted(os.listdir(job.place)) == sorted(names)
    for number, name in enumerate(names):
        assert (job.place / name).read_bytes() == data(name, 50 + number)
    directory = job.place / "a b%20+ü" / "in side"
    directory.mkdir(parents=True)
    for number, name in enumerate(names):
        (job.place / name).rename(directory / name)
        assert (directory / name).read_bytes() == data(name, 50 + number)
    assert os.listdir(job.place) == ["a b%20+ü"]
    for name in names[::3]:
        os.chmod(directory / name, 0o600)
        (directory / name).unlink()
    # A large one: parts, and a copy of it.
    large = directory / "a%41 large"
    large.write_bytes(data("large", 9 * MIB))
    large.rename(directory / "a%zz large")
    job.mount.flush()
    with (directory / "a%zz large").open("r+b") as file:
        file.write(b"changed")
    with pytest.raises(OSError) as raised:
        (job.place / ("n" * 256)).touch()
    assert raised.value.errno == errno.ENAMETOOLONG
    for raw in (b"latin\xe9", b"\xff"):
        with pytest.raises(OSError) as raised:
            os.close(os.open(os.path.join(os.fsencode(job.place), raw), os.O_CREAT | os.O_WRONLY))
        assert raised.value.errno == errno.EILSEQ


@program
def other_user(job: Job) -> None:
    """permissions, as another user"""
    place = job.place
    (place / "secret").write_text("secret")
    (place / "secret").chmod(0o600)
    (place / "public").write_text("public")
    (place / "closed").mkdir(mode=0o700)
    (place / "closed" / "file").write_text("x")
    (place / "open").mkdir()
    os.chmod(place / "open", 0o1777)
    (place / "open" / "of root").write_text("root's")
    (place / "shared").mkdir()
    os.chown(place / "shared", 0, NOBODY)
    os.chmod(place / "shared", 0o2775)
    script = r"""
    refused() { if "$@" 2>/tmp/refused.$$; then echo "allowed: $*"; exit 1; fi
                grep -q -e 'ermission denied' -e 'not permitted' /tmp/refused.$$
                rm /tmp/refused.$$; }
    [ "$(cat public)" = public ]
    refused cat secret
    refused touch new
    refused ls closed
    refused cat closed/file
    refused rm -f "open/of root"
    refused mv "open/of root" open/mine
    refused chmod 777 public
    refused truncate -s 0 public
    echo mine > open/mine
    mkdir open/directory
    echo x > open/directory/file
    chmod 640 open/mine
    refused chown root open/mine
    echo group > shared/file
    test -O open/mine
    """
    user = ("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups")
    run(*user, "bash", "-euc", script, cwd=place)
    about = (place / "open" / "mine").stat()
    assert (about.st_uid, about.st_gid, stat.S_IMODE(about.st_mode)) == (NOBODY, NOBODY, 0o640)
    assert (place / "open" / "directory").stat().st_uid == NOBODY
    assert (place / "shared" / "file").stat().st_gid == NOBODY
    assert (place / "open" / "mine").read_text() == "mine\n"


SETS_DIRECTORY_TIMES |= {copy_tree, rsync_twice, tar_in_and_out}
