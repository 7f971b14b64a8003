"""One progress bar for all commands: bytes and files done of how many, rate, time left.

    with progress_bar("sending", quiet=quiet) as bar:
        bar.total_bytes = 4096          # None: not known yet; may grow while it goes on
        bar.done_bytes += 1024          # plain numbers: the display reads them four times a second
        bar.done_files += 1
        bar.note = "photos/a.jpg"       # what is being done now
        bar.say("skipped: b.jpg")       # a line of its own, also where there is no bar

It is drawn on standard error, and only on a terminal, so that pipes and logs stay clean.
"""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import click

from s3mount.cli.texts import count_text, printable, rate_text, size_text, time_text
from s3mount.core.rate import Rate, seconds_left

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

REFRESHES = 4  # a second: moves smoothly, and costs a transfer nothing
BAR_WIDTH = 30
NARROWEST = 8  # columns that still tell something

quiet_option = click.option(
    "-q", "--quiet", is_flag=True, help="No progress and no summary: errors alone."
)


@dataclass(slots=True)
class Bar:
    """What is to be shown. Its owner may change it from any thread, without a lock."""

    title: str
    noun: str = "file"  # what is counted beside bytes
    total_bytes: int | None = None
    done_bytes: int = 0
    total_files: int | None = None
    done_files: int = 0
    note: str = ""
    # Known better elsewhere (a mount knows its own); else they are taken from done_bytes.
    per_second: float | None = None
    eta: float | None = None
    say: Callable[[str], None] = field(default=lambda text: click.echo(text, err=True))


@contextmanager
def progress_bar(title: str, *, quiet: bool = False, noun: str = "file") -> Iterator[Bar]:
    """The bar is gone from the screen when this ends, however it ends."""
    bar = Bar(title, noun)
    if quiet:
        bar.say = lambda text: None
    if quiet or not sys.stderr.isatty():
        yield bar
        return
    from rich.console import Console
    from rich.live import Live

    console = Console(stderr=True, highlight=False)
    view = _View(bar)
    bar.say = lambda text: console.print(text, markup=False, soft_wrap=True)
    with Live(
        get_renderable=lambda: view.render(console),
        console=console,
        refresh_per_second=REFRESHES,
        transient=True,
        redirect_stdout=False,
    ):
        yield bar


class _View:
    """Draws the bar, and measures its rate between two drawings."""

    def __init__(self, bar: Bar) -> None:
        self.bar = bar
        self.rate = Rate(time.monotonic(), bar.done_bytes)

    def render(self, console: "Console") -> "RenderableType":
        from rich.cells import cell_len
        from rich.progress_bar import ProgressBar
        from rich.spinner import Spinner
        from rich.table import Table
        from rich.text import Text

        bar, now = self.bar, time.monotonic()
        self.rate.reached(bar.done_bytes, now)
        numbers, share = self._numbers(now), self._share()
        # The terminal's '^C' has room at the end: else it would push the line up, to stay there.
        left = console.width - len("^C") - 1 - cell_len(bar.title) - cell_len(numbers) - 2
        cells: list[RenderableType] = [Text(bar.title)]
        if share is None:
            cells.append(Spinner("dots"))
            left -= 2
        else:
            percent = f"{int(share * 100)}%"
            width = max(NARROWEST, min(BAR_WIDTH, left - len(percent) - 2))
            cells += [ProgressBar(1.0, share, width=width), Text(percent)]
            left -= width + len(percent) + 2
        cells.append(Text(numbers))
        if bar.note and left > NARROWEST:
            cells.append(Text(shortened(bar.note, left), style="dim"))
        line = Table.grid(padding=(0, 1))
        for _ in cells:
            line.add_column(no_wrap=True, overflow="crop")
        line.add_row(*cells)
        return line

    def _share(self) -> float | None:
        """Of the bytes, or, where there are none, of the files."""
        bar = self.bar
        if bar.total_bytes:
            return min(1.0, bar.done_bytes / bar.total_bytes)
        if bar.total_files:
            return min(1.0, bar.done_files / bar.total_files)
        return None

    def _numbers(self, now: float) -> str:
        bar = self.bar
        rate = self.rate.per_second(now) if bar.per_second is None else bar.per_second
        parts = []
        if bar.total_files is not None:
            parts.append(f"{bar.done_files:,}/{count_text(bar.total_files, bar.noun)}")
        elif bar.done_files:
            parts.append(count_text(bar.done_files, bar.noun))
        if bar.total_bytes:
            parts.append(f"{size_text(bar.done_bytes)}/{size_text(bar.total_bytes)}")
        elif bar.done_bytes:
            parts.append(size_text(bar.done_bytes))
        if rate is not None and (bar.done_bytes or bar.total_bytes):
            parts.append(rate_text(rate))
        eta = bar.eta
        if eta is None and bar.total_bytes:
            eta = seconds_left(bar.total_bytes - bar.done_bytes, rate)
        if eta is not None:
            parts.append(f"{time_text(eta)} left")
        return "  ".join(parts)


def shortened(text: str, width: int) -> str:
    """Its end, which tells one path from another; control characters do not reach the screen."""
    shown = printable(text)
    return shown if len(shown) <= width else "…" + shown[-(width - 1) :]
