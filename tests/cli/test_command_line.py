"""How the words of the command line find their command."""

import subprocess
import sys

import pytest
from click.testing import CliRunner

import s3mount
from s3mount.cli import mount as mount_module
from s3mount.cli.main import COMMANDS, main
from s3mount.cli.settings import Settings
from s3mount.core.config import MountConfig


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[MountConfig]:
    """The configurations of the mounts that would have been started."""
    configs: list[MountConfig] = []

    def start(config: MountConfig, settings: Settings) -> int:
        configs.append(config)
        return 0

    monkeypatch.setattr(mount_module, "start", start)
    return configs


@pytest.mark.parametrize(
    ("line", "bucket"),
    [
        ("mount bucket /mnt", "bucket"),
        ("bucket /mnt", "bucket"),
        ("bucket:/a /mnt", "bucket"),
        ("-f bucket /mnt", "bucket"),
        ("--part-size 16M bucket /mnt", "bucket"),
        ("bucket /mnt -f -o rw,dev,suid", "bucket"),
        ("/mnt -o bucket=other", "other"),
        ("mount status /mnt", "status"),
        ("demo /mnt -o rw", "demo"),
    ],
)
def test_a_bucket_is_mounted(line: str, bucket: str, started: list[MountConfig]) -> None:
    result = CliRunner().invoke(main, line.split())
    assert result.exit_code == 0, result.output
    (config,) = started
    assert config.store.bucket == bucket
    assert str(config.mountpoint) == "/mnt"


def test_long_options_win_over_words(started: list[MountConfig]) -> None:
    line = "bucket /mnt -o part_size=16M,retries=1 --part-size 32M --allow-other -d"
    assert CliRunner().invoke(main, line.split()).exit_code == 0
    (config,) = started
    assert config.writeback.part_size == 32 * 1024 * 1024
    assert config.store.retries == 1
    assert config.log_level == "debug"
    assert config.foreground
    assert "allow_other" in config.fuse_options


@pytest.mark.parametrize("line", ["-u bucket", "bucket --incomplete-mpu-abort"])
def test_s3fs_utility_modes_name_the_tool_that_does_it(
    line: str, started: list[MountConfig]
) -> None:
    result = CliRunner().invoke(main, line.split())
    assert result.exit_code == 2
    assert "aws s3api list-multipart-uploads" in result.output
    assert started == []


def test_a_missing_mount_point_or_bucket_is_told(started: list[MountConfig]) -> None:
    result = CliRunner().invoke(main, ["mount", "bucket"])
    assert result.exit_code == 2
    assert "s3mount BUCKET MOUNTPOINT" in result.output
    assert started == []


def test_an_unknown_long_option_comes_with_the_nearest() -> None:
    result = CliRunner().invoke(main, ["bucket", "/mnt", "--part-sise=8M"])
    assert result.exit_code == 2
    assert "--part-size" in result.output


def test_help_and_version_are_there() -> None:
    assert s3mount.__version__ in CliRunner().invoke(main, ["--version"]).output
    text = CliRunner().invoke(main, ["-h"]).output
    for command in COMMANDS:
        assert f"\n  {command} " in text


@pytest.mark.parametrize("command", ["status", "umount", "flush", "retry", "cancel"])
def test_what_only_asks_a_mount_loads_nothing_that_only_a_mount_needs(command: str) -> None:
    """They are called by scripts, often: loading all costs three times as much."""
    call = f"main(['{command}', '--help'], standalone_mode=False)"
    code = f"import sys; from s3mount.cli.main import main; {call}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert f"s3mount.cli.{command}" in loaded
    assert not loaded & {"boto3", "botocore", "trio", "awscrt", "pyfuse3", "lxml", "urllib3"}
