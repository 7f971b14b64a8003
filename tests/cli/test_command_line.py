"""How the words of the command line find their command."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

import s3mount
from s3mount.cli import mount as mount_module
from s3mount.cli.exits import DONE, FAILED, INTERRUPTED, UNFINISHED, USAGE
from s3mount.cli.main import COMMANDS, main
from s3mount.cli.settings import Settings
from s3mount.core.config import MountConfig
from s3mount.fuse import mountpoint
from s3mount.fuse.mountpoint import FUSE_TYPE, MountEntry


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
    assert "s3mount uploads list BUCKET" in result.output
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


# -- typos -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "meant"),
    [
        ("statsu", "status"),
        ("Status", "status"),
        ("unmount {absent}", "umount"),
        ("umuont {absent} --force", "umount"),
        ("fulsh {mounted}", "flush"),
        ("stat {mounted} --json", "status"),
        ("stat {inside}", "status"),
        ("mnt bucket", "mount"),
    ],
)
def test_a_mistyped_command_is_answered_with_the_nearest_word(
    line: str,
    meant: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    started: list[MountConfig],
) -> None:
    mounted = tmp_path / "mounted"
    mounted.mkdir()
    entry = MountEntry(mounted, FUSE_TYPE, "bucket", "0:99")
    monkeypatch.setattr(mountpoint, "mount_table", lambda text=None: [entry])
    words = line.format(absent=tmp_path / "absent", mounted=mounted, inside=mounted / "deep/file")
    result = CliRunner().invoke(main, words.split())
    assert result.exit_code == 2
    assert f"did you mean '{meant}'?" in result.output
    assert f"s3mount mount {words.split()[0]} DIRECTORY" in result.output
    assert not started


@pytest.mark.parametrize(
    "line",
    [
        "statsu {directory}",  # a bucket may be called so, and here it can be mounted
        "stats:/data {absent}",
        "statsu {absent} -o rw",  # from fstab
        "my-photos {absent}",
        "mount statsu {absent}",
    ],
)
def test_what_can_be_a_bucket_is_mounted_however_near_its_name_is(
    line: str, tmp_path: Path, started: list[MountConfig]
) -> None:
    words = line.format(directory=tmp_path, absent=tmp_path / "absent").split()
    CliRunner().invoke(main, words)
    assert len(started) == 1


def test_a_mount_that_does_not_start_hints_at_the_command_that_may_have_been_meant(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mount_module, "start", lambda config, settings: 2)
    result = CliRunner().invoke(main, ["statsu", str(tmp_path)])
    assert result.exit_code == 2
    assert "did you mean the command 'status'? 'statsu' was taken for a bucket" in result.output
    assert "did you mean" not in CliRunner().invoke(main, ["photos", str(tmp_path)]).output
    assert "did you mean" not in CliRunner().invoke(main, ["mount", "status", str(tmp_path)]).output


def test_a_mistyped_sub_command_or_option_is_answered_with_the_nearest_word() -> None:
    result = CliRunner().invoke(main, ["recover", "lsit"])
    assert (result.exit_code, "did you mean 'list'?" in result.output) == (2, True)
    result = CliRunner().invoke(main, ["recover", "xyzzy"])
    assert "there are drop, list, save" in result.output
    result = CliRunner().invoke(main, ["status", "--jsno"])
    assert (result.exit_code, "--json" in result.output) == (2, True)


# -- help and interrupts ---------------------------------------------------------------------------


@pytest.mark.parametrize("command", [name for name in COMMANDS if name != "demo"])
def test_the_help_of_each_command_has_examples_that_name_it(command: str) -> None:
    result = CliRunner().invoke(main, [command, "--help"])
    assert result.exit_code == 0
    _, _, examples = result.output.partition("Examples:\n")
    called = "s3mount my-bucket" if command == "mount" else f"s3mount {command} "
    assert called in examples
    assert all(len(line) <= 100 for line in result.output.splitlines())


def test_help_lists_the_exit_statuses_and_no_command_is_cut_off() -> None:
    text = CliRunner().invoke(main, ["--help"]).output
    for status in (DONE, FAILED, USAGE, UNFINISHED, INTERRUPTED, mount_module.CRASH_STATUS):
        assert re.search(rf"^    {status} +\w", text, re.MULTILINE), status
    commands = text.partition("Commands:\n")[2].partition("\n\n")[0].splitlines()
    assert len(commands) == len(COMMANDS)
    assert not [line for line in commands if line.endswith("...")]


def test_ctrl_c_prints_no_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(mount_module, "build_config", interrupted)
    result = CliRunner().invoke(main, ["mount", "bucket", "/mnt"])
    assert result.exit_code == 130
    assert result.output == "s3mount: interrupted\n"
