"""Programs that people work with."""

import os
import sqlite3
import stat
import time
from pathlib import Path

from tests.mounts.programs.job import Job, program, run
from tests.mounts.trees import data


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
    run("git", "init", "-q", "-b", "main", origin, env=identity)
    for number in range(30):
        (origin / f"file{number}").write_bytes(data(number, 3000))
        if number % 10 == 9:
            run("git", "-C", origin, "add", "-A", env=identity)
            run("git", "-C", origin, "commit", "-qm", f"commit {number}", env=identity)
    run("git", "clone", "-q", f"file://{origin}", clone, env=identity)
    assert run("git", "-C", clone, "rev-parse", "HEAD", env=identity) == (
        run("git", "-C", origin, "rev-parse", "HEAD", env=identity)
    )
    (clone / "file3").write_text("changed\n")
    (clone / "new").write_text("new\n")
    run("git", "-C", clone, "rm", "-q", "file4", env=identity)
    run("git", "-C", clone, "add", "-A", env=identity)
    run("git", "-C", clone, "commit", "-qm", "change", env=identity)
    run("git", "-C", clone, "gc", "-q", "--prune=now", env=identity)
    run("git", "-C", clone, "fsck", "--full", "--strict", env=identity)
    assert run("git", "-C", clone, "status", "--porcelain", env=identity) == ""
    run("git", "-C", clone, "checkout", "-q", "HEAD~1", env=identity)
    for number in range(30):
        assert (clone / f"file{number}").read_bytes() == data(number, 3000)
    run("git", "-C", clone, "checkout", "-q", "main", env=identity)
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
        "sqlite3",
        path,
        "PRAGMA integrity_check; SELECT count(*), max(number) FROM t;"
        "SELECT value FROM t WHERE number=7;",
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
        run("vim", "-u", "NONE", "-N", "-es", *commands, path, env={"HOME": str(job.scratch)})
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
        env={"PYTHONDONTWRITEBYTECODE": ""},
    )
    assert out.startswith("7 ")
    assert Path(out.split()[1]).exists(), out
