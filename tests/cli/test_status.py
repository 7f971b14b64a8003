"""What status says of a mount, in words and on a screen, and the watching of it."""

import io
import json
import re
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from rich.console import Console

from s3mount.cli import status as status_module
from s3mount.cli import status_watch
from s3mount.cli.main import main
from s3mount.cli.status import find_prices
from s3mount.cli.status_screen import screen
from s3mount.cli.status_text import PriceList, report, summary
from s3mount.cli.status_watch import Session, Watch, watch_in_lines
from s3mount.control.client import NoMount
from s3mount.core.errors import ConfigurationError
from s3mount.core.prices import Prices
from tests.cli.status_example import MIB, example, intent, transfer

PRICES = PriceList(Prices(), "AWS list")
NOTHING = {"sent": 0, "read_per_second": None}


def words(status: Any) -> str:
    return "\n".join(f"{row.label}: {row.text}" for row in report(status, PRICES))


def drawn(status: Any, columns: int, rows: int, **named: Any) -> list[str]:
    session = named.pop("session", {"sent": 140 * MIB, "read_per_second": 3.0 * MIB})
    console = Console(file=io.StringIO(), width=columns, height=rows, color_system=None)
    with console.capture() as capture:
        console.print(screen(status, PRICES, (columns, rows), session=session, **named))
    return capture.get().splitlines()


def test_the_report_has_every_number_that_a_user_asks_for() -> None:
    text = words(example())
    for piece in (
        "photos:/data/ on /home/me/photos",
        "serving for 2h 05m at https://s3.example.org, process 4711",
        "2 put (1 under way), 1 delete",
        "60.0 MiB of 2 files to be sent, 4.0 MiB/s, 15s left",
        "1 file still being written",
        "transfers:  40%  40.0 MiB of 100.0 MiB  2.0 MiB/s  30s left  film.mkv",
        "  0%  0 B of 200.0 MiB  waits  waits.bin",
        "put 'data/secret': PutObject: AccessDenied (3 attempts, again in 20s)",
        "failed: copy 'a' -> 'b': NotFound",
        "data/c was changed by another host; ours: data/c.conflict-me-1",
        "unclosed: draft.odt",
        "uploads: an upload of 'x'",
        "10 files, 140.0 MiB; over the network 141.0 MiB out, 1.0 GiB in",
        "requests: 3,005, 2 retries, 1 slow-down",
        "GetObject 2,000, PutObject 1,000, UploadPart 5",
        "about 0.0958 USD, 0.0900 of it for traffic (estimate: AWS list)",
        "metadata 0/48, transfer 8/8 of 16 +3",
        "60.0 MiB of 4.0 GiB used, 2 writers waiting for room",
        "93% of 100 reads, 1.0 MiB of 128.0 MiB in memory",
        "unreachable: 25 keys: 'data//x' (an empty name) and 24 more",
    ):
        assert piece in text
    # An error that the queue tells of is not told a second time.
    assert text.count("AccessDenied") == 1


def test_an_idle_mount_is_told_in_few_words() -> None:
    pending = example()["pending"] | {
        "intents": 0, "bytes": 0, "files": 0, "unfinished": 0, "errors": [],
    }  # fmt: skip
    idle = example(
        pending=pending, intents=[], transfers=[], failures=[], conflicts=[],
        queue=dict.fromkeys(example()["queue"], 0),
        recovery={"recovered": {"intents": 0, "bytes": 0}, "recoverable": [], "uploads": []},
    )  # fmt: skip
    assert "pending: no changes" in words(idle)
    assert "transfers" not in words(idle)
    assert any("everything is in the bucket" in line for line in drawn(idle, 80, 24))
    assert ", idle, " in summary(idle)


def test_a_mount_is_one_line_among_others() -> None:
    line = summary(example())
    assert "\n" not in line
    for piece in ("/home/me/photos  photos:/data/", "3 changes, 60.0 MiB pending", "15s left",
                  "10 files 140.0 MiB sent", "3,005 requests", "1 not sent: put"):  # fmt: skip
        assert piece in line
    assert "served by s3mount 0.9" in summary({"mountpoint": "/m", "version": "0.9"})


@pytest.mark.parametrize(("columns", "rows"), [(80, 24), (80, 12), (40, 10), (200, 60), (20, 3)])
def test_the_screen_is_never_overrun(columns: int, rows: int) -> None:
    many = example(
        transfers=[transfer(f"{'deep/' * 30}file-{n}", 8 * MIB, MIB) for n in range(50)],
        intents=[
            intent("put", f"data/{n}", attempts=1, error="x" * 300, again_in=1.0) for n in range(50)
        ],
    )
    lines = drawn(many, columns, rows, banner="the mount does not answer for 5s")
    assert len(lines) <= rows
    assert all(len(line) <= columns for line in lines)
    assert "does not answer" in lines[0] or columns < 40


def test_a_screen_of_80_by_24_shows_transfers_and_troubles_both() -> None:
    many = example(
        transfers=[transfer(f"file-{n}", 8 * MIB, n * MIB // 10) for n in range(50)],
        failures=[f"put 'gone-{n}': NotFound" for n in range(50)],
    )
    lines = drawn(many, 80, 24)
    text = "\n".join(lines)
    assert "sending    ━━━━━━━━━━━━━━────── 70%  60.0 MiB of 2 files left  4.0 MiB/s  15s" in text
    assert sum("8.0 MiB" in line for line in lines) >= 3
    assert "put 'gone-49': NotFound" in text
    assert "since      10 files 140.0 MiB sent, 1.0 GiB read (3.0 MiB/s now)" in text
    assert "workers    metadata 0/48, transfer 8/8 of 16 +3" in text


def test_done_and_left_parts_of_a_bar_differ_without_colours() -> None:
    (line,) = [line for line in drawn(example(), 80, 24) if "film.mkv" in line]
    assert "━━━━──────  40% film.mkv" in line
    assert line.rstrip().endswith("40.0 MiB/100.0 MiB  2.0 MiB/s  30s left")


def test_names_cannot_draw_on_the_screen() -> None:
    evil = example(transfers=[transfer("a\x1b[2Jb", MIB, 0)], failures=["put 'x\x1b]0;y\x07'"])
    assert "\x1b" not in "\n".join(drawn(evil, 80, 24))
    assert "\x1b" not in words(evil)


# -- watching --------------------------------------------------------------------------------------


class Answers:
    """Stands for `ask`: one answer after the other, then Ctrl-C."""

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)

    def __call__(self, path: Path, command: str, **named: Any) -> Any:
        if not self.answers:
            raise KeyboardInterrupt
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(status_watch, "pause", lambda seconds: None)


def test_watching_goes_on_when_the_mount_ends_and_another_one_takes_its_place(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    other = example(pid=4712, mountpoint="/home/me/photos")
    answers = Answers(
        example(), NoMount("gone"), TimeoutError("hangs"), ConnectionResetError(), other
    )
    monkeypatch.setattr(status_watch, "ask", answers)
    watch = Watch(Path("/home/me/photos"))
    with pytest.raises(KeyboardInterrupt):
        watch_in_lines(watch, 1.0, summary)
    lines = [re.sub(r"^\d\d:\d\d:\d\d ", "", line) for line in capsys.readouterr().out.splitlines()]
    assert lines[0] == lines[4] == summary(example())
    assert lines[1].startswith("no mount answers for ")
    assert lines[2].startswith("the mount does not answer for ")
    assert lines[3].startswith("the mount does not answer for ")
    assert len(lines) == 5
    assert watch.banner == ""


def test_watching_in_json_prints_a_document_a_line_and_nothing_in_between(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(status_watch, "ask", Answers(example(), NoMount("gone"), example()))
    with pytest.raises(KeyboardInterrupt):
        watch_in_lines(Watch(Path("/m")), 1.0, json.dumps)
    documents = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert documents == [example(), example()]


def test_ctrl_c_ends_the_watching_with_status_0(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(status_watch, "ask", Answers(example()))
    monkeypatch.setattr(status_module, "ask_mount", lambda path, command: example())
    result = CliRunner().invoke(main, ["status", "/home/me/photos", "--watch"])
    assert result.exit_code == 0
    assert "photos:/data/" in result.output


def test_progress_is_that_since_the_watching_began_or_all_was_sent() -> None:
    def pending(left: int, sent: int) -> Any:
        return example(pending=example()["pending"] | {"bytes": left, "sent": sent})

    session = Session()
    assert session.measure(pending(100, 1000), 0.0)["sent"] == 0
    assert session.measure(pending(60, 1040), 1.0)["sent"] == 40
    assert session.measure(pending(0, 1100), 2.0)["sent"] == 0
    assert session.measure(pending(50, 1150), 3.0)["sent"] == 50
    replaced = pending(50, 10) | {"pid": 1}
    assert session.measure(replaced, 4.0)["sent"] == 0


# -- prices ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("mine.toml", 'currency = "EUR"\nput = 1.0\nper_gb_out = 0\n'),
        ("mine.json", '{"currency": "EUR", "put": 1.0, "per_gb_out": 0}'),
    ],
)
def test_a_price_list_is_toml_or_json(
    name: str, text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / name).write_text(text)
    monkeypatch.setattr(status_module, "ask_mount", lambda path, command: example())
    line = ["status", "/m", "--json", "--prices", str(tmp_path / name)]
    cost = json.loads(CliRunner().invoke(main, line).output)["cost"]
    assert cost["currency"] == "EUR"
    assert cost["requests"] == pytest.approx(1.005 + 2 * 0.0004)
    assert cost["traffic"] == 0
    assert cost["source"] == str(tmp_path / name)


def test_the_users_own_price_list_is_found(tmp_path: Path) -> None:
    environment = {"XDG_CONFIG_HOME": str(tmp_path)}
    assert find_prices(None, environment).prices == Prices()
    (tmp_path / "s3mount").mkdir()
    (tmp_path / "s3mount" / "prices.toml").write_text("get = 7")
    assert find_prices(None, environment).prices == Prices(get=7)


@pytest.mark.parametrize("text", ["putt = 1", "put = [", "\x00", "put = 'much'"])
def test_a_broken_price_list_is_named(text: str, tmp_path: Path) -> None:
    path = tmp_path / "prices.toml"
    path.write_text(text)
    with pytest.raises(ConfigurationError, match=str(path)):
        find_prices(path, {})
    result = CliRunner().invoke(main, ["status", "--prices", str(path)])
    assert result.exit_code == 2
