"""The mount table, and what can be wrong with a mount point before anything is mounted."""

import errno
import os
from pathlib import Path

import pytest

from s3mount.core.errors import ConfigurationError
from s3mount.fuse import mountpoint
from s3mount.fuse.mountpoint import is_dead, mount_table, prepare, resolve, unmount

TABLE = r"""22 27 0:21 / /proc rw,nosuid - proc proc rw
90 27 0:52 / /mnt/a\040b rw,nosuid,nodev shared:5 - fuse.s3mount s3mount rw,user_id=0
91 27 0:53 / /mnt/x\134y rw - ext4 /dev/sd\011a rw
"""


def test_the_mount_table_is_read_with_its_escapes() -> None:
    entries = mount_table(TABLE)
    assert [str(entry.path) for entry in entries] == ["/proc", "/mnt/a b", "/mnt/x\\y"]
    assert (entries[1].kind, entries[1].source, entries[1].device) == (
        "fuse.s3mount",
        "s3mount",
        "0:52",
    )
    assert entries[2].source == "/dev/sd\ta"


def test_a_mounted_path_is_resolved_without_asking_the_mount(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = tmp_path / "mountinfo"
    table.write_text(TABLE)
    monkeypatch.setattr(mountpoint, "MOUNT_TABLE", table)
    assert resolve(Path("/mnt/a b/")) == Path("/mnt/a b")


def test_symbolic_links_to_a_directory_are_followed(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    assert resolve(tmp_path / "link") == (tmp_path / "real").resolve()


@pytest.fixture
def fuse_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    device = tmp_path / "fuse"
    device.touch()
    monkeypatch.setattr(mountpoint, "FUSE_DEVICE", device)


@pytest.mark.usefixtures("fuse_is_there")
def test_a_missing_mount_point_comes_with_the_command_that_makes_it(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"does not exist; create it: mkdir -p .*none"):
        prepare(tmp_path / "none", nonempty=False)


@pytest.mark.usefixtures("fuse_is_there")
def test_a_file_is_no_mount_point(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigurationError, match="is not a directory"):
        prepare(tmp_path / "file", nonempty=False)


@pytest.mark.usefixtures("fuse_is_there")
def test_a_directory_with_files_is_refused_unless_asked_for(tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "precious").touch()
    with pytest.raises(ConfigurationError, match=r"not empty \(it has 'precious'\).*-o nonempty"):
        prepare(tmp_path / "full", nonempty=False)
    prepare(tmp_path / "full", nonempty=True)


@pytest.mark.usefixtures("fuse_is_there")
def test_a_directory_in_use_names_what_is_mounted_there() -> None:
    with pytest.raises(ConfigurationError, match=r"/proc is in use: .*proc"):
        prepare(Path("/proc"), nonempty=False)


def test_a_missing_fuse_device_is_told_with_its_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mountpoint, "FUSE_DEVICE", tmp_path / "fuse")
    with pytest.raises(ConfigurationError, match="modprobe fuse"):
        prepare(tmp_path, nonempty=False)


@pytest.mark.usefixtures("fuse_is_there")
def test_users_without_fusermount3_are_told_the_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "getuid", lambda: 1000)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigurationError, match="apt install fuse3"):
        prepare(tmp_path, nonempty=True)


def test_only_enotconn_means_that_a_mount_is_dead(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not is_dead(tmp_path)

    def statvfs(path: Path) -> os.statvfs_result:
        raise OSError(errno.ENOTCONN, "Transport endpoint is not connected")

    monkeypatch.setattr(os, "statvfs", statvfs)
    assert is_dead(tmp_path)


def test_unmounting_what_is_not_mounted_does_nothing(tmp_path: Path) -> None:
    unmount(tmp_path)
    assert tmp_path.is_dir()


BUSY = """#!/bin/sh
echo asked >> {calls}
[ $(wc -l < {calls}) -gt {times} ] && exit 0
echo "fusermount3: failed to unmount $3: Device or resource busy" >&2
exit 1
"""


@pytest.mark.parametrize("times", [15, 1000])
def test_a_mount_whose_watchdog_waits_for_it_is_unmounted_when_that_has_its_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, times: int
) -> None:
    """1000: somebody does use it, which is told after two seconds."""
    calls, program = tmp_path / "calls", tmp_path / "fusermount3"
    program.write_text(BUSY.format(calls=calls, times=times))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    entry = mountpoint.MountEntry(tmp_path, mountpoint.FUSE_TYPE, "bucket", "0:2")
    monkeypatch.setattr(mountpoint, "find_mount", lambda path: entry)
    slept: list[float] = []
    monkeypatch.setattr("time.sleep", slept.append)
    if times == 15:
        unmount(tmp_path)
        assert len(calls.read_text().splitlines()) == times + 1
    else:
        with pytest.raises(
            ConfigurationError, match=f"busy; see who uses it: fuser -vm {tmp_path}"
        ):
            unmount(tmp_path)
        assert sum(slept) == pytest.approx(2, abs=0.2)


def test_the_mount_that_a_path_is_in_is_found_without_asking_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = tmp_path.resolve()
    mount, other = real / "mnt", real / "other"
    table = [
        mountpoint.MountEntry(Path("/"), "ext4", "/dev/x", "0:1"),
        mountpoint.MountEntry(mount, mountpoint.FUSE_TYPE, "bucket", "0:2"),
        mountpoint.MountEntry(other, "tmpfs", "tmpfs", "0:3"),
    ]
    monkeypatch.setattr(mountpoint, "mount_table", lambda text=None: table)
    looked_at: list[str] = []
    readlink = os.readlink

    def noted(path: Path) -> str:
        looked_at.append(str(path))
        return readlink(path)

    monkeypatch.setattr(os, "readlink", noted)
    (real / "link").symlink_to("mnt/deep")
    (real / "loop").symlink_to("loop")
    for path, found in {
        mount: (mount, ""),
        mount / "a/b.txt": (mount, "a/b.txt"),
        mount / "a/../b": (mount, "b"),
        real / "link/c": (mount, "deep/c"),
        real: None,
        other / "x": None,
        real / "loop/x": None,
        real / "absent/x": None,
    }.items():
        assert mountpoint.mount_of(path) == found, path
    assert not [path for path in looked_at if path.startswith(str(mount))]
    monkeypatch.chdir(real)
    assert mountpoint.mount_of(Path("mnt/x")) == (mount, "x")
