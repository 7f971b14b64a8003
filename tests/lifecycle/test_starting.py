"""Starting a mount: it answers when the command returns, or the command says why it does not."""

import errno
import os
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from s3mount.cli.settings import Settings, build_config
from s3mount.core.config import MountConfig
from s3mount.core.errors import ConfigurationError
from s3mount.filesystem.directories import check_directories
from s3mount.fuse.mountpoint import find_mount
from tests.io_order import recorded
from tests.mounting import Mounts, environment, names, s3mount, unmount_by, wait_until
from tests.servers import Bucket

CONTRIB = Path(__file__).parents[2] / "contrib"
needs_root = pytest.mark.skipif(os.getuid() != 0, reason="mount(8) needs root")


@pytest.fixture
def target(tmp_path: Path) -> Iterator[Path]:
    """A mount point; what is mounted there by the test is unmounted after it."""
    path = tmp_path / "target"
    path.mkdir()
    yield path
    if find_mount(path) is not None:
        subprocess.run(["fusermount3", "-u", "-z", str(path)], check=False)


def ended(path: Path, env: dict[str, str]) -> None:
    done = s3mount("umount", path, env=env)
    assert done.returncode == 0, done.stderr
    assert find_mount(path) is None


def test_the_daemon_answers_when_the_command_returns(
    moto_bucket: Bucket, target: Path, tmp_path: Path
) -> None:
    moto_bucket.put("there", b"already")
    env = environment(moto_bucket, tmp_path)
    done = s3mount(moto_bucket.name, target, env=env)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    entry = find_mount(target)
    assert entry is not None
    assert (entry.kind, entry.source) == ("fuse.s3mount", "s3mount")
    assert (target / "there").read_bytes() == b"already"
    (target / "new").write_bytes(b"written")
    assert moto_bucket.get("new") == b"written"
    ended(target, env)


def test_a_prefix_is_mounted_as_the_root(moto_bucket: Bucket, target: Path, tmp_path: Path) -> None:
    moto_bucket.put("a/b/file", b"x")
    moto_bucket.put("outside", b"x")
    env = environment(moto_bucket, tmp_path)
    assert s3mount(f"{moto_bucket.name}:/a/b", target, env=env).returncode == 0
    assert names(target) == ["file"]
    (target / "new").write_bytes(b"y")
    assert moto_bucket.get("a/b/new") == b"y"
    ended(target, env)


def refused(env: dict[str, str], *arguments: str | Path) -> str:
    """The reason; there must be one line of it, status 2, and no mount."""
    done = s3mount(*arguments, env=env)
    assert done.returncode == 2, done.stderr
    lines = done.stderr.splitlines()
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("s3mount: ")
    assert find_mount(Path(arguments[1])) is None
    return lines[0]


def test_a_bucket_that_is_not_there_is_told_with_the_command_that_makes_it(
    moto_bucket: Bucket, target: Path, tmp_path: Path
) -> None:
    reason = refused(environment(moto_bucket, tmp_path), "no-such-bucket", target)
    assert "'no-such-bucket' does not exist" in reason
    assert "aws s3 mb s3://no-such-bucket" in reason


def test_an_endpoint_that_nobody_listens_on_is_told(
    moto_bucket: Bucket, target: Path, tmp_path: Path
) -> None:
    env = environment(moto_bucket, tmp_path)
    with socket.socket() as silent:  # it has the port, so that nobody else gets it
        silent.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        reason = refused(env, moto_bucket.name, target, "--endpoint-url", url)
    assert f"{url} is not reachable" in reason
    assert "refused" in reason
    assert "--endpoint-url" in reason


def test_missing_credentials_are_told(moto_bucket: Bucket, target: Path, tmp_path: Path) -> None:
    env = environment(moto_bucket, tmp_path)
    del env["AWS_ACCESS_KEY_ID"], env["AWS_SECRET_ACCESS_KEY"]
    reason = refused(env, moto_bucket.name, target)
    assert "credentials" in reason
    assert "AWS_ACCESS_KEY_ID" in reason


def test_wrong_credentials_are_told(ceph_bucket: Bucket, target: Path, tmp_path: Path) -> None:
    env = environment(ceph_bucket, tmp_path) | {"AWS_SECRET_ACCESS_KEY": "wrong"}
    reason = refused(env, ceph_bucket.name, target)
    assert "refuses the credentials" in reason
    assert "SignatureDoesNotMatch" in reason


def test_a_bucket_of_somebody_else_is_told(
    ceph_bucket: Bucket, target: Path, tmp_path: Path
) -> None:
    env = environment(ceph_bucket, tmp_path)
    reason = refused(env, ceph_bucket.name, target, "--no-sign-request")
    assert "no permission to list the bucket" in reason


def test_mount_points_that_cannot_be_are_told(
    moto_bucket: Bucket, target: Path, tmp_path: Path
) -> None:
    env = environment(moto_bucket, tmp_path)
    assert "mkdir -p" in refused(env, moto_bucket.name, tmp_path / "none")
    (target / "file").touch()
    assert "is not a directory" in refused(env, moto_bucket.name, target / "file")
    assert "is not empty" in refused(env, moto_bucket.name, target)


def test_a_busy_mount_point_is_told_and_left_alone(moto_bucket: Bucket, mounts: Mounts) -> None:
    mounted = mounts.start(moto_bucket)
    done = s3mount(moto_bucket.name, mounted.path, env=mounted.environment)
    assert done.returncode == 2
    assert "is in use" in done.stderr
    assert f"s3mount umount {mounted.path}" in done.stderr
    (mounted.path / "still").write_bytes(b"works")
    mounted.unmount()


def test_a_cache_inside_the_mount_point_is_refused(
    moto_bucket: Bucket, target: Path, tmp_path: Path
) -> None:
    env = environment(moto_bucket, tmp_path)
    for option in ("--cache-dir", "--read-cache"):
        reason = refused(env, moto_bucket.name, target, option, target / "cache")
        assert "is inside the mount point" in reason


def configured(tmp_path: Path) -> MountConfig:
    settings = Settings()
    settings.set("front", "bucket", "bucket")
    settings.set("front", "mountpoint", str(tmp_path / "mnt"))
    settings.set("front", "spool_parent", tmp_path / "shared")
    return build_config(settings, {"XDG_CACHE_HOME": str(tmp_path / "cache")})


def test_directories_of_the_mount_are_its_owners_alone(tmp_path: Path) -> None:
    config = configured(tmp_path)
    config.writeback.spool_dir.mkdir(parents=True, mode=0o755)
    check_directories(config)
    assert config.shared_dir is not None
    parents = (config.shared_dir, config.cache_dir.parent)
    for directory in (*parents, config.cache_dir, config.writeback.spool_dir):
        assert stat.S_IMODE(directory.stat().st_mode) == 0o700


def test_directories_that_are_made_survive_a_power_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = configured(tmp_path)
    with recorded(tmp_path, monkeypatch) as order:
        check_directories(config)
    synced = {name for what, name in order.events if what == "sync"}
    made = [config.cache_dir, *config.cache_dir.parents]
    inside = made[1 : made.index(tmp_path) + 1]
    assert len(inside) == 5  # mounts, bucket, s3mount, cache, and what that is in
    assert {each.name for each in inside} <= synced


def test_a_directory_that_somebody_else_made_first_is_refused(tmp_path: Path) -> None:
    config = configured(tmp_path)
    config.writeback.spool_dir.parent.mkdir()
    (tmp_path / "theirs").mkdir()
    config.writeback.spool_dir.symlink_to(tmp_path / "theirs")
    with pytest.raises(ConfigurationError, match="belongs to somebody else; choose another"):
        check_directories(config)


def test_a_mount_over_files_hides_them_when_asked_to(
    moto_bucket: Bucket, target: Path, tmp_path: Path
) -> None:
    (target / "below").write_text("hidden")
    env = environment(moto_bucket, tmp_path)
    done = s3mount(moto_bucket.name, target, "-o", "nonempty", env=env)
    assert done.returncode == 0, done.stderr
    assert names(target) == []
    ended(target, env)
    assert (target / "below").read_text() == "hidden"


def test_nonsense_options_are_refused_before_anything_happens(
    moto_bucket: Bucket, target: Path, tmp_path: Path
) -> None:
    env = environment(moto_bucket, tmp_path)
    assert "did you mean use_cache" in refused(env, moto_bucket.name, target, "-o", "use_cahce=x")
    assert "no bucket can be called" in refused(env, "a b", target)
    assert "is not a size" in refused(env, moto_bucket.name, target, "--part-size", "huge")


def test_an_s3fs_command_line_mounts_what_it_says(
    moto_bucket: Bucket, target: Path, tmp_path: Path
) -> None:
    """The options that every s3fs user has, with a password file instead of the environment."""
    env = environment(None, tmp_path)
    passwd = tmp_path / "passwd"
    passwd.write_text(f"{moto_bucket.name}:{moto_bucket.server.access_key}:secret\n")
    passwd.chmod(0o600)
    words = (
        f"passwd_file={passwd},url={moto_bucket.server.url},use_path_request_style,"
        "uid=12,gid=34,umask=0027,mp_umask=0022,storage_class=standard_ia,default_acl=public-read,"
        "use_sse,use_xattr,listobjectsv2,endpoint=us-east-1"
    )
    done = s3mount(moto_bucket.name, target, "-o", words, env=env)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("warning: ") == 1
    assert "-o listobjectsv2: this is always so" in done.stderr
    (target / "file").write_bytes(b"x")
    os.setxattr(target / "file", "user.colour", b"green")
    found = (target / "file").stat()
    assert (found.st_uid, found.st_gid) == (12, 34)
    assert stat.S_IMODE(found.st_mode) & 0o027 == 0
    assert stat.S_IMODE(target.stat().st_mode) == 0o755
    assert os.getxattr(target / "file", "user.colour") == b"green"
    ended(target, env)
    head = moto_bucket.client.head_object(Bucket=moto_bucket.name, Key="file")
    assert head["StorageClass"] == "STANDARD_IA"
    assert head["ServerSideEncryption"] == "AES256"
    grants = moto_bucket.client.get_object_acl(Bucket=moto_bucket.name, Key="file")["Grants"]
    assert any("AllUsers" in grant["Grantee"].get("URI", "") for grant in grants)


def test_xattrs_are_not_supported_unless_asked_for(moto_bucket: Bucket, mounts: Mounts) -> None:
    mounted = mounts.start(moto_bucket)
    (mounted.path / "file").write_bytes(b"x")
    with pytest.raises(OSError, match="not supported") as raised:
        os.getxattr(mounted.path / "file", "user.x")
    assert raised.value.errno == errno.EOPNOTSUPP
    mounted.unmount()


def test_a_read_only_mount_writes_nothing(moto_bucket: Bucket, mounts: Mounts) -> None:
    moto_bucket.put("file", b"x")
    mounted = mounts.start(moto_bucket, "--read-only")
    assert (mounted.path / "file").read_bytes() == b"x"
    with pytest.raises(OSError, match="Read-only") as raised:
        (mounted.path / "new").write_bytes(b"x")
    assert raised.value.errno == errno.EROFS
    mounted.unmount()


@needs_root
@pytest.mark.parametrize("kind", ["mount.fuse3", "mount.s3mount"])
def test_mount_8_and_fstab_lines_work(
    kind: str, moto_bucket: Bucket, target: Path, tmp_path: Path
) -> None:
    """With the options that fstab has and mount adds."""
    env = environment(moto_bucket, tmp_path)
    words = f"noauto,_netdev,nofail,x-systemd.automount,noatime,url={moto_bucket.server.url}"
    if kind == "mount.s3mount":
        command = [str(CONTRIB / kind), moto_bucket.name, str(target), "-n", "-o", f"rw,{words}"]
        command += ["-t", "s3mount"]
    else:
        # mount(8) looks for programs in the system's directories alone: the path is the type.
        program = Path(sys.executable).with_name("s3mount")
        command = ["mount", "-t", "fuse", f"{program}#{moto_bucket.name}", str(target), "-o", words]
    done = subprocess.run(
        command, env=env, capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
    entry = find_mount(target)
    assert entry is not None
    assert entry.kind == "fuse.s3mount"
    (target / "file").write_bytes(b"x")
    unmount_by("umount", target)
    wait_until(lambda: moto_bucket.keys() == ["file"])


def test_root_can_raise_the_read_ahead_of_the_mount(moto_bucket: Bucket, mounts: Mounts) -> None:
    mounted = mounts.start(moto_bucket)
    entry = find_mount(mounted.path)
    assert entry is not None
    if os.getuid() == 0 and os.access("/sys/class/bdi", os.W_OK):
        assert int(Path(f"/sys/class/bdi/{entry.device}/read_ahead_kb").read_text()) >= 1024
    mounted.unmount()


def test_the_log_goes_to_a_file_and_survives_rotation(
    moto_bucket: Bucket, target: Path, tmp_path: Path
) -> None:
    env = environment(moto_bucket, tmp_path)
    log = tmp_path / "log"
    done = s3mount(moto_bucket.name, target, "--log-file", log, "-o", "dbglevel=dbg", env=env)
    assert done.returncode == 0, done.stderr
    assert f"{moto_bucket.name} is mounted on {target}" in log.read_text()
    log.rename(tmp_path / "log.1")
    with pytest.raises(FileNotFoundError):
        (target / "missing").read_bytes()
    wait_until(log.exists)
    ended(target, env)
    assert "is unmounted, everything is sent" in log.read_text()


def test_no_secret_shows_in_arguments_or_logs(moto_bucket: Bucket, mounts: Mounts) -> None:
    server = replace(moto_bucket.server, secret_key="very-secret-key")
    mounted = mounts.start(replace(moto_bucket, server=server), "--log-level", "debug")
    (mounted.path / "file").write_bytes(b"x")
    arguments = Path(f"/proc/{mounted.process.pid}/cmdline").read_text()
    mounted.unmount()
    assert "very-secret-key" not in arguments + mounted.text()
