"""Trees as other programs leave them in a bucket."""

import json
import os
import stat
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.mounting import Mounted, environment, s3mount
from tests.servers import Bucket

DIRECTORY = "application/x-directory"


def about(path: Path) -> tuple[int, int, int, float]:
    found = path.lstat()
    return found.st_mode, found.st_uid, found.st_gid, found.st_mtime


def metadata(mode: str, **others: str) -> dict[str, str]:
    return {"mode": mode, "uid": "1000", "gid": "1001", "mtime": "1300000000", **others}


def put_as_s3_apu(bucket: Bucket) -> None:
    """`mkd` makes an object without a slash, its mode in octal; `upl` files likewise."""
    bucket.put("tree", b"", ContentType=DIRECTORY, Metadata=metadata("040755"))
    bucket.put("tree/sub", b"", ContentType=DIRECTORY, Metadata=metadata("040700"))
    bucket.put("tree/none", b"", ContentType=DIRECTORY, Metadata=metadata("041777"))
    bucket.put("tree/file", b"file", Metadata=metadata("0100755"))
    bucket.put("tree/sub/deep", b"deep", Metadata=metadata("0100640", mtime="1300000001.5"))


def test_a_tree_laid_out_by_s3_apu_is_a_tree(bucket: Bucket, mounted: Mounted) -> None:
    put_as_s3_apu(bucket)
    mount = mounted(bucket)
    root = mount.path
    assert sorted(os.listdir(root)) == ["tree"]
    assert sorted(os.listdir(root / "tree")) == ["file", "none", "sub"]
    assert about(root / "tree") == (stat.S_IFDIR | 0o755, 1000, 1001, 1_300_000_000)
    assert about(root / "tree/sub") == (stat.S_IFDIR | 0o700, 1000, 1001, 1_300_000_000)
    assert about(root / "tree/none") == (stat.S_IFDIR | 0o1777, 1000, 1001, 1_300_000_000)
    assert os.listdir(root / "tree/none") == []
    assert about(root / "tree/file") == (stat.S_IFREG | 0o755, 1000, 1001, 1_300_000_000)
    assert about(root / "tree/sub/deep") == (stat.S_IFREG | 0o640, 1000, 1001, 1_300_000_001.5)
    assert (root / "tree/sub/deep").read_bytes() == b"deep"


def test_a_tree_of_s3_apu_is_changed_and_removed_without_remains(
    bucket: Bucket, mounted: Mounted
) -> None:
    put_as_s3_apu(bucket)
    mount = mounted(bucket)
    root = mount.path / "tree"
    (root / "none").chmod(0o711)
    (root / "none" / "new").write_bytes(b"new")
    (root / "sub").rename(root / "renamed")
    mount.remount()
    assert sorted(os.listdir(root)) == ["file", "none", "renamed"]
    assert stat.S_IMODE((root / "none").stat().st_mode) == 0o711
    assert about(root / "renamed")[:3] == (stat.S_IFDIR | 0o700, 1000, 1001)
    assert os.listdir(root / "renamed") == ["deep"]
    assert bucket.keys().count("tree/sub") == 0
    (root / "none" / "new").unlink()
    (root / "none").rmdir()
    (root / "renamed" / "deep").unlink()
    (root / "renamed").rmdir()
    (root / "file").unlink()
    root.rmdir()
    mount.flush()
    assert bucket.keys() == []


def heads(bucket: Bucket) -> list[dict[str, Any]]:
    """Of all objects, without what belongs to the answers."""
    found = []
    for key in sorted(bucket.keys()):
        head = bucket.client.head_object(Bucket=bucket.name, Key=key)
        head.pop("ResponseMetadata")
        found.append(head)
    return found


@pytest.mark.skipif(os.getuid() != 0, reason="files of other owners are copied")
def test_a_tree_of_s3_apu_is_listed_mounted_and_fed_again_without_a_change(
    bucket: Bucket, mounted: Mounted, tmp_path: Path
) -> None:
    put_as_s3_apu(bucket)
    env = environment(bucket, tmp_path)
    mount = mounted(bucket)
    source = tmp_path / "source"
    subprocess.run(["cp", "-a", f"{mount.path}/.", source], check=True)
    before = heads(bucket)
    shown = s3mount("ls", "-lR", bucket.name, env=env).stdout
    fed = s3mount("feed", "--json", "--delete", source, bucket.name, env=env)
    assert fed.returncode == 0, fed.stderr
    summary = json.loads(fed.stdout)
    assert (summary["unchanged"], summary["failed"]) == (5, 0)
    assert summary["requests"].keys() <= {"ListObjectsV2", "HeadObject", "BytesIn"}
    assert heads(bucket) == before
    assert s3mount("ls", "-lR", bucket.name, env=env).stdout == shown

    # What is added goes beside it, in its directories.
    (source / "tree/none/new").write_bytes(b"new")
    (source / "tree/file").chmod(0o700)
    fed = s3mount("feed", "--json", source, bucket.name, env=env)
    assert json.loads(fed.stdout)["sent"] == 1
    assert bucket.keys() == [
        *("tree", "tree/file", "tree/none", "tree/none/new", "tree/sub", "tree/sub/deep"),
    ]
    mount.remount()
    assert about(mount.path / "tree/sub") == about(source / "tree/sub")
    assert about(mount.path / "tree/file") == about(source / "tree/file")
    assert about(mount.path / "tree/none")[:3] == (stat.S_IFDIR | 0o1777, 1000, 1001)
    assert (mount.path / "tree/none/new").read_bytes() == b"new"


def test_folder_markers_are_directories(bucket: Bucket, mounted: Mounted) -> None:
    bucket.put("empty_$folder$", b"", Metadata={"mode": "16832"})
    bucket.put("full_$folder$", b"")
    bucket.put("full/file", b"x")
    mount = mounted(bucket)
    assert sorted(os.listdir(mount.path)) == ["empty", "full"]
    assert stat.S_ISDIR((mount.path / "empty").stat().st_mode)
    assert os.listdir(mount.path / "full") == ["file"]
    assert os.listdir(mount.path / "empty") == []
    (mount.path / "empty").rmdir()
    (mount.path / "full").rename(mount.path / "renamed")
    mount.flush()
    assert sorted(bucket.keys()) in (
        ["renamed/", "renamed/file"],
        ["renamed/file"],
        ["renamed/file", "renamed_$folder$"],
    )
    mount.remount()
    assert os.listdir(mount.path) == ["renamed"]


def test_implied_directories_are_there_and_stay_when_emptied(
    bucket: Bucket, mounted: Mounted
) -> None:
    bucket.put("a/b/c/file", b"x")
    mount = mounted(bucket)
    assert (mount.path / "a" / "b" / "c" / "file").read_bytes() == b"x"
    assert stat.S_IMODE((mount.path / "a").stat().st_mode) == 0o755
    (mount.path / "a" / "b" / "c" / "file").unlink()
    mount.remount()
    assert os.listdir(mount.path / "a" / "b") == ["c"]
    assert os.listdir(mount.path / "a" / "b" / "c") == []
    os.removedirs(mount.path / "a" / "b" / "c")
    mount.flush()
    assert bucket.keys() == []


def test_directories_made_in_a_console_are_directories(bucket: Bucket, mounted: Mounted) -> None:
    bucket.put("made/", b"")
    bucket.put("made/inside/", b"", ContentType="httpd/unix-directory")
    bucket.put("made/file", b"x")
    mount = mounted(bucket)
    assert sorted(os.listdir(mount.path / "made")) == ["file", "inside"]
    assert stat.S_ISDIR((mount.path / "made" / "inside").stat().st_mode)
    os.chmod(mount.path / "made", 0o700)
    os.utime(mount.path / "made", ns=(5, 7_000_000_009))
    mount.remount()
    assert about(mount.path / "made")[0] == stat.S_IFDIR | 0o700
    assert (mount.path / "made").stat().st_mtime_ns == 7_000_000_009


def test_headers_of_other_tools_are_understood_and_kept(bucket: Bucket, mounted: Mounted) -> None:
    bucket.put("rclone", b"r", Metadata={"mtime": "1300000000.123456789"})
    bucket.put("short", b"s", Metadata={"mtime": "1300000000.5"})
    bucket.put("s3sync", b"s", Metadata={"permissions": "33216", "owner": "7", "group": "8"})
    bucket.put(
        "google",
        b"g",
        Metadata={
            "goog-reserved-posix-mode": "640",
            "goog-reserved-posix-uid": "9",
            "goog-reserved-posix-gid": "10",
            "goog-reserved-file-mtime": "1300000002",
        },
        CacheControl="max-age=5",
        ContentDisposition="attachment",
    )
    bucket.put("s3cmd", b"c", Metadata={"s3cmd-attrs": "uid:1/mode:33188"})
    mount = mounted(bucket)
    assert (mount.path / "rclone").stat().st_mtime_ns == 1_300_000_000_123_456_789
    assert (mount.path / "short").stat().st_mtime_ns == 1_300_000_000_500_000_000
    assert about(mount.path / "s3sync")[:3] == (0o100700, 7, 8)
    assert about(mount.path / "google") == (0o100640, 9, 10, 1_300_000_002)
    os.chmod(mount.path / "google", 0o600)
    os.chmod(mount.path / "s3cmd", 0o600)
    os.chmod(mount.path / "rclone", 0o600)
    (mount.path / "google").rename(mount.path / "renamed")
    mount.stop()
    head = bucket.client.head_object(Bucket=bucket.name, Key="renamed")
    assert head["Metadata"]["mode"] == str(0o100600)
    assert head["Metadata"]["goog-reserved-posix-uid"] == "9"
    assert (head["CacheControl"], head["ContentDisposition"]) == ("max-age=5", "attachment")
    head = bucket.client.head_object(Bucket=bucket.name, Key="s3cmd")
    assert head["Metadata"]["s3cmd-attrs"] == "uid:1/mode:33188"
    mount.start()
    assert (mount.path / "rclone").stat().st_mtime_ns == 1_300_000_000_123_456_789
