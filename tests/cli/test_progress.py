"""The progress bar that commands share, and amounts in words."""

import io
import time

import pytest
from rich.console import Console

from s3mount.cli.progress import Bar, _View, progress_bar, shortened
from s3mount.cli.texts import count_text, rate_text, size_text, time_text

MIB = 1024 * 1024


def drawn(bar: Bar, width: int, monkeypatch: pytest.MonkeyPatch) -> str:
    """What the bar looks like ten seconds after it began, all of `done_bytes` done since."""
    monkeypatch.setattr(time, "monotonic", lambda: 0.0)
    done, bar.done_bytes = bar.done_bytes, 0
    view = _View(bar)
    bar.done_bytes = done
    monkeypatch.setattr(time, "monotonic", lambda: 10.0)
    console = Console(file=io.StringIO(), width=width, force_terminal=True, no_color=True)
    with console.capture() as capture:
        console.print(view.render(console))
    return "".join(part.partition("m")[2] for part in ("m" + capture.get()).split("\x1b["))


def test_nothing_but_what_is_said_is_printed_where_there_is_no_terminal(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with progress_bar("sending") as bar:
        bar.total_bytes, bar.done_bytes = 10, 5
        bar.say("skipped: a")
    captured = capsys.readouterr()
    assert captured.err == "skipped: a\n"
    assert captured.out == ""


def test_quiet_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with progress_bar("sending", quiet=True) as bar:
        bar.say("skipped: a")
    captured = capsys.readouterr()
    assert captured.err == captured.out == ""


@pytest.mark.parametrize("width", [80, 120, 200])
def test_the_bar_is_one_line_with_all_numbers(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    bar = Bar("sending", total_bytes=100 * MIB, done_bytes=25 * MIB, total_files=1200, done_files=3)
    bar.note = "x" * 300 + "/name"
    line = drawn(bar, width, monkeypatch)
    assert line.count("\n") == 1
    for piece in ("sending", "25%", "3/1,200 files", "25.0 MiB/100.0 MiB", "MiB/s", "left"):
        assert piece in line
    assert ("/name" in line) == (width > 80)
    assert len(line.rstrip("\n")) <= width


def test_without_a_total_it_tells_what_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    line = drawn(Bar("sending", done_bytes=5 * MIB, done_files=1), 80, monkeypatch)
    assert "1 file  5.0 MiB" in line
    assert "%" not in line
    assert "left" not in line


def test_a_rate_that_is_known_better_elsewhere_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    bar = Bar("sending", total_bytes=100 * MIB, done_bytes=1, per_second=2.0 * MIB, eta=50.0)
    line = drawn(bar, 80, monkeypatch)
    assert "2.0 MiB/s  50s left" in line


def test_names_cannot_write_to_the_terminal() -> None:
    assert shortened("a\x1b[2Jb\nc", 20) == "a?[2Jb?c"
    assert shortened("photos/2024/a.jpg", 8) == "…4/a.jpg"


def test_amounts_in_words() -> None:
    assert [size_text(size) for size in (0, 1023, 1536, 5 * MIB, 3 * MIB * MIB)] == [
        "0 B",
        "1023 B",
        "1.5 KiB",
        "5.0 MiB",
        "3.0 TiB",
    ]
    assert [time_text(time) for time in (0.4, 59.4, 200, 7500, 3 * 86400 + 4 * 3600, None)] == [
        "0s",
        "59s",
        "3m 20s",
        "2h 05m",
        "3d 04h",
        "",
    ]
    assert (rate_text(None), rate_text(2048)) == ("", "2.0 KiB/s")
    assert count_text(1, "file") == "1 file"
    assert count_text(1200, "file") == "1,200 files"
    assert count_text(2, "copy", "copies") == "2 copies"
