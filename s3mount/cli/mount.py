"""`s3mount mount BUCKET[:/PREFIX] MOUNTPOINT`."""

import logging
import sys
from collections.abc import Callable
from typing import Any

import click

from s3mount.cli.daemon import Launch, daemonize
from s3mount.cli.logs import SYSLOG, Logs
from s3mount.cli.mount_options import apply_words
from s3mount.cli.options import OPTIONS, default_text
from s3mount.cli.s3fs_table import ARGUMENTS
from s3mount.cli.settings import Settings, build_config
from s3mount.cli.suggestions import nearest
from s3mount.core.config import MountConfig
from s3mount.core.errors import ConfigurationError

log = logging.getLogger(__name__)

CONFIGURATION_STATUS = 2
CRASH_STATUS = 70


def own_options(command: Callable[..., None]) -> Callable[..., None]:
    """The table of options.py as click's options."""
    for option in reversed(OPTIONS):
        default = default_text(option)
        text = option.help + (f" [default: {default}]" if default else "")
        kind: dict[str, Any] = {"is_flag": True} if option.is_flag else {"metavar": option.metavar}
        command = click.option(
            f"--{option.name}", option.name.replace("-", "_"), help=text, default=None, **kind
        )(command)
    return command


EXAMPLES = """\b
Examples:
  s3mount my-bucket ~/bucket
  s3mount my-bucket:/photos ~/photos --read-only --profile home
  s3mount data /mnt/data --endpoint-url https://s3.example.org -o allow_other
  s3mount my-bucket ~/bucket --durability journal     close returns once it is on the local disk

\b
Exit status: 0 mounted (with -f: left, and all is in the bucket), 2 not mounted, the message says
why; with -f also 1 something was lost, 3 the rest is in the journal, 70 it crashed.
"""


@click.command(epilog=EXAMPLES, short_help="Mount a bucket on a directory.")
@click.argument("bucket")
@click.argument("mountpoint", required=False)
@click.option("-f", "--foreground", is_flag=True, help="Stay in the foreground, log to stderr.")
@click.option("-d", "--debug", is_flag=True, help="As -f, with --log-level debug.")
@click.option("-s", "single", is_flag=True, hidden=True)
@click.option("-u", "--incomplete-mpu-list", "list_uploads", is_flag=True, hidden=True)
@click.option("--incomplete-mpu-abort", "abort_uploads", is_flag=True, hidden=True)
@click.option("-o", "words", metavar="OPTIONS", multiple=True,
              help="Comma-separated: the options below (part_size=16M), s3fs's (README) and"
                   " mount's (ro, allow_other, noatime, ...).")  # fmt: skip
@click.option("--allow-other", is_flag=True, help="Other users may use the mount, too.")
@own_options
def mount(
    bucket: str,
    mountpoint: str | None,
    foreground: bool,
    debug: bool,
    single: bool,
    list_uploads: bool,
    abort_uploads: bool,
    words: tuple[str, ...],
    allow_other: bool,
    **options: str | bool | None,
) -> None:
    """Mount BUCKET, or what is below PREFIX in it (BUCKET:/PREFIX), on the directory MOUNTPOINT.

    Returns when the mount answers; says why not, and returns 2, when it cannot.
    """
    if list_uploads or abort_uploads:
        complain(ARGUMENTS["-u"])
        sys.exit(CONFIGURATION_STATUS)
    settings = Settings()
    try:
        _take_options(settings, words, options)
        if single:
            settings.warnings.append(f"-s: {ARGUMENTS['-s']}")
        if allow_other:
            settings.kernel_options.append("allow_other")
        if debug:
            settings.set("mount", "log_level", "debug")
        settings.set("mount", "foreground", foreground or debug)
        if mountpoint is None:
            bucket, mountpoint = settings.get("front", "bucket", ""), bucket
        settings.set("front", "bucket", bucket)
        settings.set("front", "mountpoint", mountpoint)
        config = build_config(settings)
    except ConfigurationError as error:
        complain(str(error))
        sys.exit(CONFIGURATION_STATUS)
    for warning in settings.warnings:
        complain(f"warning: {warning}")
    code = start(config, settings)
    if code == CONFIGURATION_STATUS:
        _hint_at_command(config.store.bucket)
    sys.exit(code)


def _hint_at_command(bucket: str) -> None:
    """'s3mount statsu DIR' is the mount of a bucket, but perhaps it was not meant so."""
    root = click.get_current_context().find_root()
    names = root.command.list_commands(root) if isinstance(root.command, click.Group) else []
    near = nearest(bucket, names)
    if near is not None and bucket not in names:
        complain(f"did you mean the command {near!r}? {bucket!r} was taken for a bucket")


def _take_options(
    settings: Settings, words: tuple[str, ...], options: dict[str, str | bool | None]
) -> None:
    """Long options win over the words of -o, which may come from fstab."""
    apply_words(settings, words)
    for option in OPTIONS:
        value = options[option.name.replace("-", "_")]
        if value:
            option.apply(settings, None if value is True else str(value))


def start(config: MountConfig, settings: Settings) -> int:
    """Runs the mount, in the background unless told otherwise; returns its exit status."""
    logs = Logs(
        config.log_level,
        settings.get("front", "log_file"),
        settings.get("front", "log_timestamps", True),
        settings.get("front", "instance_name", ""),
    )
    launch = None if config.foreground else daemonize()
    try:
        logs.start(quiet=launch is not None)
    except OSError as error:
        complain(f"the log file cannot be written: {error.strerror}: {logs.file}")
        return CONFIGURATION_STATUS
    # Imported here, and after the fork: boto3 takes a third of a second that --help and bad
    # options need not wait for.
    from s3mount.mount import Hooks, run_mount

    hooks = Hooks(
        started=_StartSignal(launch, logs),
        say=complain if launch is None else log.info,
        warn=complain,
        reopen_log=logs.reopen,
        log_to_syslog=launch is not None and logs.file is None and SYSLOG.exists(),
        log_file=logs.stream,
    )
    try:
        return run_mount(config, hooks)
    except ConfigurationError as error:
        complain(str(error))
        return CONFIGURATION_STATUS
    except Exception:
        log.exception("the mount ended unexpectedly; the mount point stays dead until s3mount"
                      " mounts it again")  # fmt: skip
        return CRASH_STATUS


class _StartSignal:
    """Called once the mount answers."""

    def __init__(self, launch: Launch | None, logs: Logs) -> None:
        self._launch = launch
        self._logs = logs

    def __call__(self) -> None:
        if self._launch is not None:
            self._logs.leave_terminal()
            self._launch.started()


def complain(text: str) -> None:
    print(f"s3mount: {text}", file=sys.stderr, flush=True)
