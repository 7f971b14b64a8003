"""`s3mount uploads` beside mounts: what their journals need is left alone, and what dead ones left
is finished without a mount."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from s3mount.core.config import MIB
from tests.cli.tools import Halfway, Tools
from tests.counting_proxy import CountingProxy
from tests.lifecycle import test_journals
from tests.lifecycle.test_journals import cache_of, dead_with_unsent
from tests.mounting import Mount, Mounts, names, wait_until
from tests.servers import Bucket

DATA = bytes(range(256)) * 100
PARTS = os.urandom(12 * MIB)


@pytest.fixture
def proxy(request: pytest.FixtureRequest) -> Iterator[CountingProxy]:
    """Before the service of the test's bucket."""
    name = "bucket" if "bucket" in request.fixturenames else "moto_bucket"
    bucket: Bucket = request.getfixturevalue(name)
    with CountingProxy(bucket.server.url) as proxy:
        yield proxy


def listed(mount: Mount, *options: str) -> list[dict[str, Any]]:
    """In this process: a child would close what is open here, and thereby have it sent."""
    tools = Tools(mount.bucket, mount.log.parent)
    return [
        json.loads(line)
        for line in tools.lines("uploads", "list", mount.bucket.name, "--json", *options)
    ]


def test_an_upload_that_a_mount_needs_is_marked_and_not_aborted_unless_forced(
    ceph_bucket: Bucket, mounts: Mounts, tmp_path: Path
) -> None:
    """(moto answers 500 for an upload that was aborted, which looks as if it would pass.)"""
    elsewhere = tmp_path / "elsewhere"
    mount = mounts.start(ceph_bucket, "--part-size=5M", "--cache-dir", elsewhere)
    with (mount.path / "file").open("wb") as file:
        file.write(PARTS)
        file.flush()
        wait_until(lambda: [each["parts"] for each in listed(mount)] == [2])
        (found,) = listed(mount)
        assert (found["needed_by"], found["alive"]) == (f"the mount on {mount.path}", True)
        tools = Tools(ceph_bucket, mounts.directory)
        spared = tools.run("uploads", "abort", ceph_bucket.name, "--yes", status=1)
        assert "left alone: file" in spared.stderr
        assert f"the mount on {mount.path}, alive" in spared.stderr
        assert [each["upload_id"] for each in listed(mount)] == [found["upload_id"]]
        resumed = tools.run("uploads", "resume", ceph_bucket.name)
        assert "is alive" in resumed.stderr
        forced = tools.run("uploads", "abort", ceph_bucket.name, "--yes", "--force")
        assert "1 upload" in forced.stderr
    assert ceph_bucket.get("file") == PARTS  # sent anew
    mount.unmount()


def test_what_a_dead_mount_left_is_finished_without_a_mount(
    bucket: Bucket, mounts: Mounts, proxy: CountingProxy
) -> None:
    mount = mounts.start(
        bucket, "--durability=journal", "--part-size=5M", "--metadata-ttl=60", url=proxy.url
    )
    os.mkdir(mount.path / "dir")
    mount.flush()
    assert names(mount.path) == ["dir"]
    with (mount.path / "file").open("wb") as file:
        file.write(PARTS)
        wait_until(lambda: [each["parts"] for each in listed(mount)] == [2])
        proxy.down = True
        proxy.cut()
    os.rename(mount.path / "dir", mount.path / "renamed")
    os.chmod(mount.path / "renamed", 0o700)
    mount.kill()
    proxy.down = False
    assert bucket.keys() == ["dir/"]
    proxy.reset()
    (found,) = listed(mount)
    assert (found["key"], found["alive"]) == ("file", False)
    spared = mount.run("uploads", "abort", bucket.name, "--yes")
    assert (spared.returncode, "dead, needs it" in spared.stderr) == (1, True)

    done = mount.run("uploads", "resume", bucket.name)
    assert done.returncode == 0, done.stderr
    assert f"the mount on {mount.path}: " in done.stderr
    assert " finished" in done.stderr
    assert bucket.keys() == ["file", "renamed/"]
    assert bucket.get("file") == PARTS
    head = bucket.client.head_object(Bucket=bucket.name, Key="renamed/")
    assert int(head["Metadata"]["mode"]) == 0o040700
    sent = [seen.target for seen in proxy.requests if seen.operation == "UploadPart"]
    assert len(sent) == 1, sent  # of three: the two that were there are kept
    assert listed(mount) == []
    assert not list(cache_of(mount).glob("journal.*"))
    again = mount.run("uploads", "resume", bucket.name)
    assert "has left anything unfinished" in again.stderr
    mount.start()
    assert (mount.path / "file").read_bytes() == PARTS
    mount.unmount()


def test_what_others_changed_since_is_not_overwritten_and_said(
    moto_bucket: Bucket, mounts: Mounts, proxy: CountingProxy
) -> None:
    dead = dead_with_unsent(mounts, moto_bucket, proxy)
    moto_bucket.put("file", b"of another host")
    done = dead.run("uploads", "resume", moto_bucket.name, "--json")
    assert done.returncode == 0, done.stderr
    assert moto_bucket.get("file") == b"of another host"
    (kept,) = [key for key in moto_bucket.keys() if "conflict" in key]  # noqa: SIM118
    assert moto_bucket.get(kept) == DATA
    assert kept in done.stderr
    assert json.loads(done.stdout)["mountpoint"] == str(dead.path)


def test_what_cannot_be_sent_stays_in_the_journal(
    moto_bucket: Bucket, mounts: Mounts, proxy: CountingProxy
) -> None:
    dead = dead_with_unsent(mounts, moto_bucket, proxy)
    proxy.down = True
    done = dead.run("uploads", "resume", moto_bucket.name, "--timeout", "1s")
    assert done.returncode == 3, done.stderr
    assert "not sent: " in done.stderr
    assert moto_bucket.keys() == []
    proxy.down = False
    assert dead.run("uploads", "resume", moto_bucket.name).returncode == 0
    assert moto_bucket.get("file") == DATA


def test_ctrl_c_leaves_the_rest_in_the_journal_and_the_same_command_goes_on(
    moto_bucket: Bucket, mounts: Mounts, proxy: CountingProxy
) -> None:
    dead = dead_with_unsent(mounts, moto_bucket, proxy)
    words = ["uploads", "resume", moto_bucket.name]
    # The mount's journal knows it by the address that the mount had; the fault is there.
    halfway = Halfway(0)
    proxy.inject("PutObject", halfway.fault, times=1000)
    process = subprocess.Popen(
        [sys.executable, "-m", "s3mount", *words],
        env=dead.environment,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert halfway.reached.wait(60)
    process.send_signal(signal.SIGINT)
    proxy.down = True  # what is on its way is not stored
    proxy.cut()
    halfway.go.set()
    _, told = process.communicate(timeout=60)
    assert process.returncode == 130, told
    assert "interrupted; nothing is lost: the journals have what is left" in told
    assert "Traceback" not in told
    proxy.down = False
    proxy.clear()
    assert cache_of(dead).joinpath("journal.sqlite").exists()
    assert dead.run(*words).returncode == 0
    assert moto_bucket.get("file") == DATA
    assert listed(dead) == []


def test_a_spool_that_is_elsewhere_is_not_taken_for_lost(
    moto_bucket: Bucket,
    mounts: Mounts,
    proxy: CountingProxy,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(test_journals, "DATA", PARTS)  # more than the journal itself would hold
    dead = dead_with_unsent(mounts, moto_bucket, proxy)
    spool = cache_of(dead) / "spool"
    spool.rename(spool.with_name("moved"))
    done = dead.run("uploads", "resume", moto_bucket.name)
    assert done.returncode == 3
    assert "had its spool elsewhere" in done.stderr
    spool.with_name("moved").rename(spool)
    assert dead.run("uploads", "resume", moto_bucket.name).returncode == 0
    assert moto_bucket.get("file") == PARTS


def test_a_journal_that_cannot_be_read_keeps_every_upload_from_being_aborted(
    moto_bucket: Bucket, mounts: Mounts, proxy: CountingProxy
) -> None:
    dead = dead_with_unsent(mounts, moto_bucket, proxy)
    client = moto_bucket.client
    client.create_multipart_upload(Bucket=moto_bucket.name, Key="theirs")
    (segment, *_) = sorted(cache_of(dead).glob("journal.log-*"))
    segment.unlink()
    spared = dead.run("uploads", "abort", moto_bucket.name, "--yes")
    assert (spared.returncode, "--force" in spared.stderr) == (1, True)
    assert len(listed(dead)) == 1
    assert dead.run("uploads", "abort", moto_bucket.name, "--yes", "--force").returncode == 0
    assert listed(dead) == []
