"""`s3mount status --watch`: looks again and again, whatever becomes of the mount meanwhile."""

import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click

from s3mount.cli.asking import fail
from s3mount.cli.status_screen import screen
from s3mount.cli.status_text import PriceList, other_version, summary
from s3mount.cli.texts import time_text
from s3mount.control.answers import is_readable_status
from s3mount.control.client import NoMount, Refused, ask
from s3mount.core.rate import Rate

Json = Any

PATIENCE = 5.0  # seconds until a mount that does not answer is called so

pause = time.sleep


@dataclass(slots=True)
class Session:
    """What the watching itself measures. A mount in the place of the old one begins anew."""

    pid: int | None = None
    first_sent: int = 0  # when there was nothing more to be sent, or the watching began
    read: Rate | None = None

    def measure(self, status: Json, now: float) -> Json:
        pending, received = status["pending"], status["totals"]["bytes_in"]
        if status["pid"] != self.pid or self.read is None:
            self.pid, self.read = status["pid"], Rate(now, received)
            self.first_sent = pending["sent"]
        if not pending["bytes"]:
            self.first_sent = pending["sent"]
        self.read.reached(received, now)
        sent = max(0, pending["sent"] - self.first_sent)
        return {"sent": sent, "read_per_second": self.read.per_second(now)}


@dataclass(slots=True)
class Watch:
    """`status` is the last answer, `banner` why there is no newer one."""

    path: Path
    status: Json = None
    banner: str = ""
    session: Session = field(default_factory=Session)
    measured: Json = None
    _answered_at: float = field(default_factory=time.monotonic)

    def look(self) -> None:
        now = time.monotonic()
        try:
            status = ask(self.path, "status", silence=PATIENCE)
        except NoMount:
            self.banner = self._since("no mount answers", now)
        except (TimeoutError, OSError):
            self.banner = self._since("the mount does not answer", time.monotonic())
        except Refused as error:
            self.banner = self._since(f"refused: {error}", now)
        else:
            if not is_readable_status(status):
                fail(f"{self.path} {other_version(status)}")
            self.status, self.banner, self._answered_at = status, "", now
            self.measured = self.session.measure(status, now)

    def _since(self, what: str, now: float) -> str:
        last = "; what follows is from before" if self.status is not None else ""
        return f"{what} for {time_text(now - self._answered_at)}: waiting for one{last}"


def watch_on_terminal(watch: Watch, interval: float, price_list: PriceList) -> None:
    """Until Ctrl-C."""
    from rich.console import Console, Group
    from rich.live import Live
    from rich.text import Text

    console = Console(highlight=False)

    def view() -> Group:
        if watch.status is None:
            return Group(Text(f"{watch.path}: {watch.banner}"))
        size = console.size
        return screen(
            watch.status,
            price_list,
            (size.width, size.height),
            session=watch.measured,
            banner=watch.banner,
        )

    with Live(console=console, screen=True, auto_refresh=False) as live:
        while True:
            watch.look()
            live.update(view(), refresh=True)
            pause(interval)


def watch_in_lines(watch: Watch, interval: float, line: Callable[[Json], str]) -> None:
    """A line per interval, for logs and pipes; of JSON while a mount answers, else nothing."""
    while True:
        watch.look()
        if line is not summary:
            if not watch.banner:
                click.echo(line(watch.status))
        else:
            text = watch.banner or line(watch.status)
            click.echo(f"{time.strftime('%H:%M:%S')} {text}")
        sys.stdout.flush()
        pause(interval)


def watch_all(lines: Callable[[], list[str]], interval: float) -> None:
    """All mounts: on a terminal the screen, else what there is, a line each, per interval."""
    if not sys.stdout.isatty():
        while True:
            for line in lines():
                click.echo(f"{time.strftime('%H:%M:%S')} {line}")
            sys.stdout.flush()
            pause(interval)
    from rich.console import Console, Group
    from rich.live import Live
    from rich.text import Text

    with Live(console=Console(highlight=False), screen=True, auto_refresh=False) as live:
        while True:
            height = shutil.get_terminal_size().lines
            texts = [Text(line) for line in lines()]
            live.update(Group(*texts[:height]), refresh=True)
            pause(interval)
