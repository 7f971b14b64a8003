"""kill -9 of a real mount, and the next one: what programs were told is there."""

import contextlib
import os
import stat
from pathlib import Path

import pytest

from tests.lifecycle.test_journals import cache_of
from tests.mounting import Mount, Mounts, names, wait_until
from tests.servers import Bucket

# From its start on nothing that this mount would change reaches the bucket.
STALLED = """
import trio
from s3mount.store.s3 import S3Store
async def never(self, *arguments, **named):
    await trio.sleep_forever()
for name in ("put", "copy", "delete", "delete_many", "create_upload", "upload_part"):
    setattr(S3Store, name, never)
"""
LARGE = os.urandom(20 * 1024 * 1024)  # three parts
MOMENT = 1_600_000_000_123_456_789


@pytest.mark.parametrize("durability", ["close", "journal"])
def test_what_was_acknowledged_before_a_kill_is_there_after_it(
    moto_bucket: Bucket, mounts: Mounts, durability: str
) -> None:
    for key in ("old", "gone", "dir/one", "dir/two", "edited"):
        moto_bucket.put(key, f"bytes of {key}".encode())
    how = f"--durability={durability}"
    mount = mounts.start(moto_bucket, how, sabotage=STALLED)
    path = mount.path
    os.rename(path / "old", path / "new")
    os.unlink(path / "gone")
    os.mkdir(path / "made", 0o750)
    os.symlink("new", path / "link")
    os.rename(path / "dir", path / "made" / "moved")
    os.chmod(path / "made" / "moved" / "one", 0o600)
    os.utime(path / "made" / "moved" / "two", ns=(MOMENT, MOMENT))
    written = {}
    if durability == "journal":
        written = {"made/large": LARGE, "made/small": b"small", "edited": b"BYTES of edited"}
        (path / "made" / "large").write_bytes(LARGE)
        (path / "made" / "small").write_bytes(b"small")
        with (path / "edited").open("r+b") as file:
            file.write(b"BYTES")
    unclosed = os.open(path / "unclosed", os.O_CREAT | os.O_WRONLY)
    os.write(unclosed, b"not finished")
    wait_until(lambda: _is_recorded(mount, b"not finished"))
    mount.kill()
    with contextlib.suppress(OSError):
        os.close(unclosed)
    assert sorted(moto_bucket.keys()) == ["dir/one", "dir/two", "edited", "gone", "old"]

    again = mounts.start(moto_bucket, how, path=path)
    more = ["large", "small"] if written else []
    assert names(path) == ["edited", "link", "made", "new"]
    assert names(path / "made") == [*more[:1], "moved", *more[1:]]
    _check(path, written)
    assert "an earlier mount ended before all was sent" in again.text()
    assert "s3mount recover list" in again.text()
    again.unmount()
    wanted = ["link", "made/", "made/moved/one", "made/moved/two", "new", *written, "edited"]
    assert sorted(moto_bucket.keys()) == sorted(set(wanted))
    last = mounts.start(moto_bucket, how, path=path)  # nothing known but the bucket
    _check(path, written)
    last.unmount()
    _check_unclosed(again.run("recover", "list").stdout, mounts.directory, again)


def _is_recorded(mount: Mount, data: bytes) -> bool:
    """So few bytes are in the journal itself."""
    return any(data in log.read_bytes() for log in cache_of(mount).glob("journal.log-*"))


def _check(path: Path, written: dict[str, bytes]) -> None:
    assert (path / "new").read_bytes() == b"bytes of old"
    assert os.readlink(path / "link") == "new"
    assert stat.S_IMODE((path / "made").stat().st_mode) == 0o750
    moved = path / "made" / "moved"
    assert names(moved) == ["one", "two"]
    assert (moved / "one").read_bytes() == b"bytes of dir/one"
    assert stat.S_IMODE((moved / "one").stat().st_mode) == 0o600
    assert (moved / "two").stat().st_mtime_ns == MOMENT
    for name, data in written.items():
        assert (path / name).read_bytes() == data


def _check_unclosed(listed: str, directory: Path, mount: Mount) -> None:
    (line,) = listed.splitlines()
    assert line.endswith("unclosed")
    target = directory / "saved"
    done = mount.run("recover", "save", line.split()[0], str(target))
    assert done.returncode == 0, done.stderr
    assert target.read_bytes() == b"not finished"


def test_a_kill_in_the_middle_of_recovery_is_one_more_recovery(
    moto_bucket: Bucket, mounts: Mounts
) -> None:
    mount = mounts.start(moto_bucket, "--durability=journal", sabotage=STALLED)
    path = mount.path
    for number in range(20):
        (path / f"file{number}").write_bytes(b"bytes of %d" % number)
    mount.kill()
    # It shows everything as soon as it serves, though nothing of it can be sent.
    hurried = STALLED + "\nimport s3mount.mount\ns3mount.mount.RECOVERY_WAIT = 0.5\n"
    for _ in range(2):
        mount = mounts.start(moto_bucket, "--durability=journal", path=path, sabotage=hurried)
        assert len(names(path)) == 20
        assert (path / "file7").read_bytes() == b"bytes of 7"
        mount.kill()
    assert list(moto_bucket.keys()) == []
    mount = mounts.start(moto_bucket, "--durability=journal", path=path)
    mount.unmount()
    assert len(moto_bucket.keys()) == 20
    assert moto_bucket.get("file19") == b"bytes of 19"
