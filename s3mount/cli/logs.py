"""Where log lines go: standard error, the journal, syslog or a file."""

import logging
import logging.handlers
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO

SYSLOG = Path("/dev/log")
TIMED = "%(asctime)s %(levelname)s %(name)s: %(message)s"
UNTIMED = "%(levelname)s %(name)s: %(message)s"

# The journal reads a line's priority from a prefix (sd-daemon(3)).
PRIORITIES = {logging.DEBUG: 7, logging.INFO: 6, logging.WARNING: 4, logging.ERROR: 3}


class JournalFormatter(logging.Formatter):
    """'<4>message'; the journal adds the time itself. Every line of a traceback is marked."""

    def format(self, record: logging.LogRecord) -> str:
        prefix = f"<{PRIORITIES.get(record.levelno, 3)}>"
        return "\n".join(prefix + line for line in super().format(record).splitlines())


@dataclass(slots=True)
class Logs:
    """The log of this process, first on standard error, later where a daemon's belongs."""

    level: str = "info"
    file: Path | None = None
    timestamps: bool = True
    name: str = ""  # put before the lines of this mount

    def start(self, *, quiet: bool, environment: Mapping[str, str] = os.environ) -> None:
        """While the mount is in the foreground or just starting.

        `quiet`: a daemon's caller reads why it failed, in one line, not what was tried.
        """
        handler: logging.Handler
        if self.file is not None:
            handler = logging.handlers.WatchedFileHandler(self.file)
        else:
            handler = logging.StreamHandler(sys.stderr)
        journal = self.file is None and _is_journal(environment)
        self._use(handler, JournalFormatter(self._format(timed=False)) if journal else None)
        if quiet and self.file is None and self.level != "debug":
            logging.getLogger("s3mount").setLevel(logging.CRITICAL)

    def leave_terminal(self) -> None:
        """When the daemon lets go of standard error."""
        if self.file is None:
            handler: logging.Handler = logging.NullHandler()
            if SYSLOG.exists():
                handler = logging.handlers.SysLogHandler(
                    str(SYSLOG), logging.handlers.SysLogHandler.LOG_DAEMON
                )
                handler.ident = f"s3mount[{os.getpid()}]: "
            self._use(handler, logging.Formatter(self._format(timed=False)))

    def reopen(self) -> None:
        """For log rotation: the file's name may be another file now."""
        for handler in logging.getLogger().handlers:
            if isinstance(handler, logging.handlers.WatchedFileHandler):
                handler.reopenIfNeeded()

    @property
    def stream(self) -> IO[str] | None:
        """The log file, for child processes."""
        for handler in logging.getLogger().handlers:
            if isinstance(handler, logging.handlers.WatchedFileHandler):
                return handler.stream
        return None

    def _format(self, *, timed: bool) -> str:
        line = TIMED if timed else UNTIMED
        return line.replace("%(name)s", f"%(name)s [{self.name}]") if self.name else line

    def _use(self, handler: logging.Handler, formatter: logging.Formatter | None) -> None:
        handler.setFormatter(formatter or logging.Formatter(self._format(timed=self.timestamps)))
        logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)
        # Ours alone: boto3 at debug level writes signatures and whole answers.
        logging.getLogger("s3mount").setLevel(self.level.upper())


def _is_journal(environment: Mapping[str, str]) -> bool:
    """Whether standard error is the stream that systemd said goes to the journal."""
    try:
        found = os.fstat(sys.stderr.fileno())
    except (OSError, ValueError):
        return False
    return environment.get("JOURNAL_STREAM") == f"{found.st_dev}:{found.st_ino}"
