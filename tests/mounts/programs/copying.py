"""Programs that copy: cp, rsync, tar."""

import os

from tests.mounts.programs.job import Job, mutations, program, run
from tests.mounts.trees import MIB, assert_same, data, describe, digest, make_source


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
def sparse_copies(job: Job) -> None:
    """cp --sparse=always"""
    content = data(1, 5000) + bytes(9 * MIB) + data(2, 5000) + bytes(2 * MIB)
    (job.scratch / "sparse").write_bytes(content)
    run("cp", "--sparse=always", job.scratch / "sparse", job.place / "one")
    run("cp", "--sparse=always", job.place / "one", job.place / "two")
    run("cp", "--sparse=always", job.place / "two", job.scratch / "back")
    for path in (job.place / "one", job.place / "two", job.scratch / "back"):
        assert digest(path.read_bytes()) == digest(content), path
