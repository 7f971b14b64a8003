"""One bucket, s3fs and s3mount in turn: each sees what the other wrote."""

import os
import stat
from dataclasses import replace
from pathlib import Path

import pytest

from tests.interop.s3fs import s3fs_mount
from tests.mounting import Mounted, wait_until
from tests.mounts.trees import MIB, Tree, assert_same, data, describe
from tests.servers import Bucket

SECOND = 10**9


def write_tree(root: Path) -> None:
    """Modes, owners, times, links and directories of all kinds."""
    (root / "dir" / "sub dir").mkdir(parents=True)
    (root / "empty").mkdir()
    files = {
        "plain": (b"plain\n", 0o644, 0, 0),
        "dir/owned": (data("owned", 5000), 0o640, 1000, 1001),
        "dir/sub dir/ünï %41+": (b"odd", 0o755, 0, 50),
        "dir/large": (data("large", 12 * MIB), 0o600, 1, 2),
        "nothing": (b"", 0o444, 0, 0),
        "setgid": (b"s", 0o2755, 0, 0),
    }
    for name, (content, mode, uid, gid) in files.items():
        (root / name).write_bytes(content)
        os.chown(root / name, uid, gid)
        (root / name).chmod(mode)
    (root / "link").symlink_to("dir/owned")
    (root / "dangling").symlink_to("/nowhere/ü x")
    os.mkfifo(root / "pipe", 0o620)
    os.chmod(root / "empty", 0o1770)
    os.chown(root / "empty", 1000, 1001)
    os.chmod(root / "dir", 0o750)
    for number, name in enumerate(
        ["plain", "dir/owned", "dir/sub dir/ünï %41+", "nothing", "setgid"]
    ):
        moment = (1_300_000_000 + number) * SECOND
        os.utime(root / name, ns=(moment, moment))


def tree_of(root: Path, *, whole_seconds: bool) -> Tree:
    """s3fs keeps times of files to the second in places, and no link's owner."""
    tree = describe(root, directory_times=False)
    for name, entry in tree.items():
        moment = entry.mtime_ns // SECOND * SECOND if whole_seconds else entry.mtime_ns
        if stat.S_ISLNK(entry.mode) or stat.S_ISFIFO(entry.mode) or name == "dir/large":
            moment = 0  # not set by write_tree
        tree[name] = replace(entry, mtime_ns=moment)
    return tree


def test_s3fs_sees_what_s3mount_wrote(bucket: Bucket, mounted: Mounted, tmp_path: Path) -> None:
    mount = mounted(bucket, "-o", "allow_other")
    write_tree(mount.path)
    os.utime(mount.path / "plain", ns=(SECOND, 1_234_567_890_123_456_789))
    written = tree_of(mount.path, whole_seconds=True)
    mount.stop()
    with s3fs_mount(bucket, tmp_path) as other:
        assert_same(tree_of(other, whole_seconds=True), written, what="s3mount's tree in s3fs")


def test_s3mount_sees_what_s3fs_wrote(bucket: Bucket, mounted: Mounted, tmp_path: Path) -> None:
    with s3fs_mount(bucket, tmp_path) as other:
        write_tree(other)
        written = tree_of(other, whole_seconds=False)
    mount = mounted(bucket, "-o", "allow_other")
    assert_same(tree_of(mount.path, whole_seconds=False), written, what="s3fs's tree in s3mount")


def test_each_edits_what_the_other_wrote(bucket: Bucket, mounted: Mounted, tmp_path: Path) -> None:
    with s3fs_mount(bucket, tmp_path) as other:
        write_tree(other)
    mount = mounted(bucket, "-o", "allow_other")
    with (mount.path / "plain").open("a") as file:
        file.write("appended by s3mount\n")
    (mount.path / "dir" / "owned").chmod(0o600)
    (mount.path / "empty").rename(mount.path / "renamed")
    (mount.path / "dir" / "sub dir").rename(mount.path / "moved")
    (mount.path / "nothing").unlink()
    mount.stop()
    with s3fs_mount(bucket, tmp_path / "again") as other:
        assert (other / "plain").read_text() == "plain\nappended by s3mount\n"
        owned = (other / "dir" / "owned").stat()
        assert (stat.S_IMODE(owned.st_mode), owned.st_uid, owned.st_gid) == (0o600, 1000, 1001)
        assert owned.st_mtime == 1_300_000_001
        renamed = (other / "renamed").stat()
        assert (renamed.st_mode, renamed.st_uid) == (stat.S_IFDIR | 0o1770, 1000)
        assert os.listdir(other / "moved") == ["ünï %41+"]
        assert not (other / "nothing").exists()
        assert (other / "dir" / "large").read_bytes() == data("large", 12 * MIB)
        (other / "from s3fs").write_text("new")
        (other / "plain").chmod(0o604)
        os.rename(other / "moved", other / "moved again")
        (other / "renamed").rmdir()
    mount.start()
    assert sorted(os.listdir(mount.path)) == sorted(
        ["dangling", "dir", "from s3fs", "link", "moved again", "pipe", "plain", "setgid"]
    )
    assert (mount.path / "from s3fs").read_text() == "new"
    assert stat.S_IMODE((mount.path / "plain").stat().st_mode) == 0o604
    assert (mount.path / "plain").read_text() == "plain\nappended by s3mount\n"
    assert (mount.path / "moved again" / "ünï %41+").read_bytes() == b"odd"


def test_extended_attributes_pass_both_ways(
    moto_bucket: Bucket, mounted: Mounted, tmp_path: Path
) -> None:
    with s3fs_mount(moto_bucket, tmp_path) as other:
        (other / "file").write_text("x")
        os.setxattr(other / "file", "user.from-s3fs", b"one \x00\xff")
    mount = mounted(moto_bucket, "-o", "use_xattr")
    assert os.getxattr(mount.path / "file", "user.from-s3fs") == b"one \x00\xff"
    os.setxattr(mount.path / "file", "user.from-s3mount", b"two")
    os.setxattr(mount.path / "file", "without-namespace", b"three")  # s3fs takes any name
    mount.stop()
    with s3fs_mount(moto_bucket, tmp_path / "again") as other:
        assert os.getxattr(other / "file", "user.from-s3mount") == b"two"
        assert os.getxattr(other / "file", "without-namespace") == b"three"
        assert os.getxattr(other / "file", "user.from-s3fs") == b"one \x00\xff"


@pytest.mark.parametrize("size", [0, 100, 6 * MIB])
def test_a_file_removed_by_one_is_gone_for_the_other(
    moto_bucket: Bucket, mounted: Mounted, tmp_path: Path, size: int
) -> None:
    mount = mounted(moto_bucket, "--metadata-ttl", "0.1")
    (mount.path / "file").write_bytes(data("file", size))
    # One that was never written is there after its RELEASE, which comes when close has returned.
    wait_until(lambda: moto_bucket.keys() == ["file"])
    with s3fs_mount(moto_bucket, tmp_path) as other:
        assert (other / "file").read_bytes() == data("file", size)
        (other / "file").unlink()
    assert os.listdir(mount.path) == []
