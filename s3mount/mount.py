"""The composition root: wires the layers into a mounted bucket, and takes them apart again.

A mount lives through these phases: checked, mounted, serving, draining (asked to leave, still
serving), unmounted (the directory is gone, unsent changes still go out), ended.
"""

import logging
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import IO

import pyfuse3
import trio

from s3mount.control.address import own_socket
from s3mount.control.commands import DRAINING, UNMOUNTED, MountState, commands
from s3mount.control.draining import Draining, notify_systemd, previous_mount
from s3mount.control.server import ControlServer
from s3mount.core.config import MountConfig
from s3mount.core.errors import ConfigurationError
from s3mount.filesystem.build import open_filesystem
from s3mount.filesystem.directories import check_directories, locked
from s3mount.filesystem.filesystem import FileSystem
from s3mount.fuse.kernel import (
    harden_process,
    ignore_vanished_requests,
    tune_memory,
    tune_mount,
    tune_process,
)
from s3mount.fuse.mountpoint import find_mount, prepare, unmount
from s3mount.fuse.operations import Operations
from s3mount.fuse.watchdog import start_watchdog
from s3mount.store.open import open_store
from s3mount.store.reachable import require_bucket
from s3mount.writeback.journal import Journal
from s3mount.writeback.journal_files import check_disk, open_journal, other_journals
from s3mount.writeback.sqlite_journal import SqliteJournal

log = logging.getLogger(__name__)

# Requests in progress at once. pyfuse3's own 99 lets 120 blocked closes hang even statfs
# (ruling 3); waiting is bounded by the layers below instead.
MAX_TASKS = 4096
MIN_TASKS = 16  # idle ones that keep their request buffer instead of mapping it anew
ANSWER_TIMEOUT = 15.0  # the mount's first statfs, which needs no network
PROBE_TIMEOUT = 5.0  # beyond it the first change waits for the rest
# How long the start waits for what an earlier mount left to be in the bucket: a program started
# with the mount then finds other hosts in step with it, and whoever waits at a prompt for `s3mount`
# to return is not kept longer than that. The rest goes on behind.
RECOVERY_WAIT = 30.0
LAST_REQUESTS = 5.0  # what is still being answered when the mount leaves


@dataclass(frozen=True, slots=True)
class Hooks:
    """What the command line hands in.

    `started` is called once the mount answers; `warn` tells the user who waits for the start,
    `say` the one who waits for the end; `reopen_log` is for SIGHUP; the watchdog reports to
    syslog or to `log_file`.
    """

    started: Callable[[], None] = lambda: None
    say: Callable[[str], None] = lambda text: None
    warn: Callable[[str], None] = lambda text: None
    reopen_log: Callable[[], None] = lambda: None
    log_to_syslog: bool = False
    log_file: IO[str] | None = None


def run_mount(config: MountConfig, hooks: Hooks) -> int:
    """Mounts, serves until unmounted or told to leave, returns the exit status.

    0: everything reached the bucket. 3: what did not is in the journal, the log names it. 1: it
    is not even there. Raises ConfigurationError, with the remedy in its text, if the mount could
    not start.
    """
    harden_process()
    tune_process()
    ignore_vanished_requests()
    check_directories(config)
    if not config.read_only:
        check_disk(config, hooks.warn)
    prepare(config.mountpoint, nonempty=config.nonempty)
    with locked(config.cache_dir, hooks.warn, lambda: previous_mount(config.mountpoint)):
        try:
            return trio.run(Mount(config, hooks).run)
        except BaseExceptionGroup as group:
            refusal, _ = group.split(ConfigurationError)
            if refusal is None:
                raise
            raise _first(refusal) from None


def _first(group: BaseExceptionGroup[ConfigurationError]) -> ConfigurationError:
    """Trio wraps what a task raises once per nursery on its way."""
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    assert isinstance(error, ConfigurationError)
    return error


@dataclass(slots=True)
class Mount:
    """One mount of one process (pyfuse3 allows no more)."""

    config: MountConfig
    hooks: Hooks
    leave: trio.Event = field(default_factory=trio.Event)  # the first SIGTERM or SIGINT
    hurry: trio.Event = field(default_factory=trio.Event)  # the second one, or told so
    session_ended: trio.Event = field(default_factory=trio.Event)
    serving: bool = False  # programs may be using it
    orderly: bool = False  # unmounted from outside, or left as asked
    cut_off: bool = False  # left while programs were still using it

    async def run(self) -> int:
        store = open_store(self.config.store)
        try:
            await require_bucket(store, self.config.store, self.config.prefix)
            if not self.config.read_only:
                # Once per endpoint and bucket; here it delays no program's first change.
                with trio.move_on_after(PROBE_TIMEOUT):
                    await store.capabilities()
            journal = await trio.to_thread.run_sync(open_journal, self.config)
            filesystem = await open_filesystem(self.config, store, journal=journal)
            try:
                return await self._serve(filesystem)
            finally:
                with trio.CancelScope(shield=True):
                    await filesystem.aclose()
        finally:
            with trio.CancelScope(shield=True):
                await store.aclose()

    async def _serve(self, filesystem: FileSystem) -> int:
        state = MountState(self.config, filesystem, self.hurry)
        draining, journal = Draining(state, self.hooks.say, self.hurry), filesystem.state.journal
        operations = Operations(filesystem, self.config.store.bucket, xattrs=self.config.xattrs)
        control = ControlServer(own_socket(self.config.mountpoint), commands(state), state.recent)
        async with trio.open_nursery() as background:
            await background.start(self._listen_to_signals)
            await background.start(filesystem.run)
            for problem in journal.report().get("problems", ()):
                self.hooks.warn(f"warning: {problem}")
            await self._recover(filesystem)
            background.start_soon(self._look_at_others, journal)
            tune_memory()
            mount_now(operations, self.config)
            try:
                await background.start(control.run)
                await self._serve_session(state, draining)
                self.orderly = True
            finally:
                # After a crash the mount point stays, dead: programs must not go on, unaware,
                # in the directory below.
                pyfuse3.close(unmount=self.orderly or not self.serving)
            state.phase = UNMOUNTED
            await operations.release_all(cut_off=self.cut_off)
            await draining.run()
            status = draining.farewell()
            await draining.tell_watchers()
            if status and self.hurry.is_set():
                await self._go_now(journal, status)
            background.cancel_scope.cancel()
        return status

    async def _go_now(self, journal: Journal, status: int) -> None:
        """Ends the process without waiting for answers that a hanging service may never give.

        Nothing is lost by that: all of it is as safe as after a kill, for which the journal is.
        """
        await journal.sync()
        logging.shutdown()
        sys.stderr.flush()
        os._exit(status)

    async def _recover(self, filesystem: FileSystem) -> None:
        """Takes up what an earlier mount left; returns when it is shown, and mostly sent."""
        if self.config.read_only:
            return
        async with trio.open_nursery() as nursery:

            async def stop_waiting() -> None:
                await self.leave.wait()
                nursery.cancel_scope.cancel()

            found = await filesystem.recover()
            nursery.start_soon(stop_waiting)
            await found.settle(RECOVERY_WAIT, self.hooks.warn)
            nursery.cancel_scope.cancel()

    async def _look_at_others(self, journal: Journal) -> None:
        if isinstance(journal, SqliteJournal):
            journal.others = await trio.to_thread.run_sync(other_journals, self.config)

    async def _serve_session(self, state: MountState, draining: Draining) -> None:
        """Returns when the directory is unmounted or everything asked to be sent has been."""
        async with trio.open_nursery() as session:
            session.start_soon(self._answer_requests)
            await self._wait_until_it_answers()
            entry = find_mount(self.config.mountpoint)
            if entry is not None:
                await trio.to_thread.run_sync(tune_mount, entry)
            self.serving = True
            log.info("%s is mounted on %s", self.config.store.bucket, self.config.mountpoint)
            # First, for the watchdog inherits standard error, which is now the daemon's own.
            self.hooks.started()
            notify_systemd("READY=1")
            with self._watchdog():
                session.start_soon(self._end_when_told, state, draining)
                await self.session_ended.wait()
            session.cancel_scope.cancel()

    async def _answer_requests(self) -> None:
        try:
            await pyfuse3.main(min_tasks=MIN_TASKS, max_tasks=MAX_TASKS)
        finally:
            self.session_ended.set()

    async def _wait_until_it_answers(self) -> None:
        path = self.config.mountpoint
        with trio.move_on_after(ANSWER_TIMEOUT):
            # abandoned on timeout: the thread ends when the mount does
            await trio.to_thread.run_sync(os.statvfs, path, abandon_on_cancel=True)
            return
        raise ConfigurationError(
            f"{path} was mounted but does not answer; run with -f --log-level debug to see why"
        )

    async def _end_when_told(self, state: MountState, draining: Draining) -> None:
        """Drains while programs go on, then unmounts: as umount(8) does if nobody uses it any
        more, else those who do are cut off."""
        await self.leave.wait()
        notify_systemd("STOPPING=1")
        state.phase = DRAINING
        await draining.run()
        with trio.move_on_after(LAST_REQUESTS):
            try:
                await trio.to_thread.run_sync(
                    unmount, self.config.mountpoint, abandon_on_cancel=True
                )
                await self.session_ended.wait()
            except ConfigurationError as error:
                log.warning("programs that still use it are cut off: %s", error)
        if self.session_ended.is_set():
            return
        self.cut_off = True
        pyfuse3.terminate()
        with trio.move_on_after(LAST_REQUESTS):
            await trio.sleep_forever()
        self.session_ended.set()

    async def _listen_to_signals(self, task_status: trio.TaskStatus[None]) -> None:
        watched = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
        with trio.open_signal_receiver(*watched) as signals:
            task_status.started()
            async for number in signals:
                if number == signal.SIGHUP:
                    self.hooks.reopen_log()
                elif number == signal.SIGUSR2:
                    root = logging.getLogger("s3mount")
                    root.setLevel(logging.INFO if root.level == logging.DEBUG else logging.DEBUG)
                elif number == signal.SIGUSR1:
                    continue  # s3fs checks its cache then; ours is checked at every read
                elif self.leave.is_set():
                    self.hurry.set()
                else:
                    self.hooks.say("leaving: what is pending is sent first; once more: at once")
                    self.leave.set()

    @contextmanager
    def _watchdog(self) -> Iterator[None]:
        child: subprocess.Popen[bytes] = start_watchdog(
            self.config.mountpoint,
            to_syslog=self.hooks.log_to_syslog,
            log_file=self.hooks.log_file,
        )
        try:
            yield
        finally:
            if child.stdin is not None:
                child.stdin.close()
            child.kill()
            child.wait()


def mount_now(operations: Operations, config: MountConfig) -> None:
    """Raises ConfigurationError; libfuse itself has told the reason on standard error."""
    options = {"default_permissions", *config.fuse_options}
    if config.read_only:
        options.add("ro")
    sys.stderr.flush()
    try:
        pyfuse3.init(operations, str(config.mountpoint), options)
    except RuntimeError as error:
        raise ConfigurationError(
            f"mounting on {config.mountpoint} failed ({error}), see the line above; in a"
            " container add --device /dev/fuse --cap-add SYS_ADMIN"
        ) from None
