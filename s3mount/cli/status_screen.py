"""`s3mount status --watch` on a terminal: the most of it that the screen holds, with bars."""

from typing import TYPE_CHECKING, Any

from s3mount.cli.status_text import (
    BAD,
    DIM,
    GOOD,
    HEAD,
    PriceList,
    Row,
    by_motion,
    cost_text,
    faults_text,
    head,
    hidden,
    left_behind,
    machine,
    motion_text,
    problems,
    queue,
    requests_text,
    share,
)
from s3mount.cli.texts import count_text, printable, rate_text, size_text, time_text

if TYPE_CHECKING:
    from rich.console import Group
    from rich.text import Text

Json = Any

LABEL = 10  # columns
BAR = 20
TRANSFERS_AT_LEAST = 3  # rows kept for them when there are many problems
FOOT = "Ctrl-C ends this view, not the mount"


def screen(
    status: Json,
    price_list: PriceList,
    size: tuple[int, int],
    *,
    session: Json,
    banner: str = "",
) -> "Group":
    """`size`: columns, rows. `session`: what the watching itself has measured: `sent` bytes and
    `read_per_second`. `banner`: that the mount does not answer, and since when."""
    from rich.console import Group

    columns, rows = size
    top = [_line(row, columns) for row in head(status)]
    if banner:
        top.insert(0, _line(Row("", banner, BAD), columns))
    top.append(_overall(status, session, columns))
    top += [_line(row, columns) for row in queue(status)[:1]]
    bottom = [_line(row, columns) for row in _facts(status, price_list, session)]
    bottom.append(_line(Row("", FOOT, DIM), columns))
    room = max(0, rows - len(top) - len(bottom))
    troubles = [*problems(status, room), *left_behind(status), *hidden(status)]
    moving = by_motion(status)
    for_troubles = min(len(troubles), max(room - len(moving), room - TRANSFERS_AT_LEAST))
    shown = moving[: max(0, room - for_troubles)]
    middle = [_transfer(one, columns, first=not number) for number, one in enumerate(shown)]
    middle += [_line(row, columns) for row in troubles[:for_troubles]]
    return Group(*(top + middle + bottom)[:rows])


def _line(row: Row, columns: int) -> "Text":
    from rich.text import Text

    line = Text(f"{row.label:{LABEL}} ", DIM, no_wrap=True, overflow="ellipsis")
    line.append(row.text, row.style or "none")
    line.truncate(columns, overflow="ellipsis")
    return line


def bar(line: "Text", part: float, width: int = BAR) -> None:
    """Appends a bar that is filled by `part` of 1."""
    full = round(min(1.0, max(0.0, part)) * width)
    line.append("━" * full, GOOD)
    line.append("─" * (width - full), DIM)  # other than the full part without colours, too


def _overall(status: Json, session: Json, columns: int) -> "Text":
    from rich.text import Text

    pending = status["pending"]
    line = Text(f"{'sending':{LABEL}} ", DIM, no_wrap=True)
    total = session["sent"] + pending["bytes"]
    if pending["bytes"]:
        part = session["sent"] / total
        bar(line, part)
        words = [
            f"{int(part * 100)}%",
            f"{size_text(pending['bytes'])} of {count_text(pending['files'], 'file')} left",
            rate_text(pending["per_second"]),
            time_text(pending["eta"]),
        ]
        line.append(" " + "  ".join(word for word in words if word), HEAD)
    elif pending["intents"]:
        line.append("all bytes are sent", GOOD)
    else:
        line.append("everything is in the bucket", GOOD)
    line.truncate(columns, overflow="ellipsis")
    return line


def _transfer(one: Json, columns: int, *, first: bool) -> "Text":
    """A bar, the share, as much of the path's end as there is room for, how it moves."""
    from rich.text import Text

    line = Text(f"{'transfers' if first else '':{LABEL}} ", DIM, no_wrap=True)
    bar(line, share(one), BAR // 2)
    how = f"{size_text(one['sent'])}/{size_text(one['size'])}  {motion_text(one)}"
    line.append(f" {int(share(one) * 100):3}% ")
    path = printable(one["path"])
    if one["error"]:
        # The reason is longer than the line: the path comes before it.
        line.append(f"{path}  ")
        line.append(printable(how), "yellow")
    else:
        room = columns - len(line) - len(how) - 2
        if room < len(path):
            path = "…" + path[len(path) - max(0, room - 1) :]
        line.append(f"{path:{max(0, room)}}  {how}")
    line.truncate(columns, overflow="ellipsis")
    return line


def _facts(status: Json, price_list: PriceList, session: Json) -> list[Row]:
    total = status["totals"]
    reading = rate_text(session["read_per_second"])
    now = f" ({reading} now)" if reading and session["read_per_second"] >= 1 else ""
    return [
        Row(
            "since",
            f"{count_text(total['files'], 'file')} {size_text(total['bytes'])} sent,"
            f" {size_text(total['bytes_in'])} read{now}",
        ),
        Row("requests", f"{total['requests']:,}, {faults_text(total)}: {requests_text(status)}"),
        Row("cost", cost_text(status, price_list)),
        *machine(status),
    ]
