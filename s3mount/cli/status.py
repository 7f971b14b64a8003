"""`s3mount status [MOUNTPOINT]`."""

import json
import os
import sys
import tomllib
from collections.abc import Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import click

from s3mount.cli import values
from s3mount.cli.asking import ask_mount, fail
from s3mount.cli.exits import DONE, USAGE
from s3mount.cli.mount import complain
from s3mount.cli.status_text import PriceList, Row, other_version, report, summary
from s3mount.cli.texts import printable
from s3mount.control.answers import is_readable_status
from s3mount.control.client import ask_all
from s3mount.core.errors import ConfigurationError
from s3mount.core.prices import Prices, cost, read_prices
from s3mount.fuse.mountpoint import FUSE_TYPE, mount_of, mount_table

Json = Any

LABEL = 12  # columns
SHORTEST_INTERVAL = 0.1
AWS_LIST = "AWS list, us-east-1"

EXAMPLES = """\b
Examples:
  s3mount status                       your mounts, a line each
  s3mount status ~/bucket              all about one
  s3mount status ~/bucket --watch      live; Ctrl-C ends it
  s3mount status ~/bucket --json       for programs; the man page names the fields
  s3mount status --watch --interval 1m >> mounts.log

\b
The price list is a file like this, in TOML or JSON; what is left out is AWS's list price:
  currency = "EUR"
  put = 0.0054          # per 1000 requests, as are copy, list, get and delete
  per_gb_out = 0.08     # per GB from the service

\b
Exit status: 0 told (also when Ctrl-C ends --watch), 1 no mount answers there, 2 wrong usage.
"""


@click.command(epilog=EXAMPLES, short_help="What your mounts are doing, once or live.")
@click.argument("mountpoint", required=False, metavar="[MOUNTPOINT]")
@click.option("--watch", is_flag=True, help="Look again and again.")
@click.option("--interval", metavar="TIME", default="1s", show_default=True,
              help="Between two looks of --watch.")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Everything, for programs.")
@click.option("--prices", "price_file", metavar="FILE", type=click.Path(path_type=Path),
              help="Price list for the estimate of costs; default: ~/.config/s3mount/prices.toml,"
                   " and without that AWS's list prices.")  # fmt: skip
def status(
    mountpoint: str | None, watch: bool, interval: str, as_json: bool, price_file: Path | None
) -> None:
    """What your mounts are doing: pending changes, transfers, errors, requests, costs, caches.

    MOUNTPOINT may be any path in the mount.
    """
    try:
        pause = max(SHORTEST_INTERVAL, values.seconds(interval))
        price_list = find_prices(price_file, os.environ)
    except ConfigurationError as error:
        complain(str(error))
        sys.exit(USAGE)
    try:
        if mountpoint is None:
            _all(watch, pause, as_json, price_list)
        else:
            _one(_where(mountpoint), watch, pause, as_json, price_list)
    except KeyboardInterrupt:
        sys.exit(DONE if watch else 130)
    except BrokenPipeError:  # who reads has enough, as `| head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _where(mountpoint: str) -> Path:
    found = mount_of(Path(mountpoint))
    return Path(mountpoint) if found is None else found[0]


def _one(path: Path, watch: bool, pause: float, as_json: bool, price_list: PriceList) -> None:
    if watch:
        from s3mount.cli.status_watch import Watch, watch_in_lines, watch_on_terminal
        from s3mount.fuse.mountpoint import resolve

        ask_mount(path, "status")  # a mistyped place is told at once
        watching = Watch(resolve(path))
        if as_json or not sys.stdout.isatty():
            watch_in_lines(watching, pause, partial(_line, price_list) if as_json else summary)
        else:
            watch_on_terminal(watching, pause, price_list)
        return
    answer = ask_mount(path, "status")
    if as_json:
        click.echo(json.dumps(_with_cost(answer, price_list), indent=2, sort_keys=True))
    elif not is_readable_status(answer):
        fail(f"{path} {other_version(answer)}")
    else:
        _print(report(answer, price_list))


def _line(price_list: PriceList, answer: Json) -> str:
    return json.dumps(_with_cost(answer, price_list), sort_keys=True)


def _all(watch: bool, pause: float, as_json: bool, price_list: PriceList) -> None:
    if as_json:
        if watch:
            raise click.UsageError("--watch --json needs a MOUNTPOINT")
        told = [_with_cost(answer, price_list) for answer in ask_all("status")]
        click.echo(json.dumps(told, indent=2, sort_keys=True))
    elif watch:
        from s3mount.cli.status_watch import watch_all

        watch_all(_lines, pause)
    else:
        for line in _lines():
            click.echo(line)


def _lines() -> list[str]:
    """A line for each mount of this user, and for those that nobody answers for."""
    answers = ask_all("status")
    lines = [summary(answer) for answer in answers]
    answered = {answer["mountpoint"] for answer in answers}
    for path in {str(entry.path) for entry in mount_table() if entry.kind == FUSE_TYPE}:
        if path not in answered:
            lines.append(f"{printable(path)}  does not answer: dead, of another user or version")
    return sorted(lines) or ["no mounts"]


def _print(rows: list[Row]) -> None:
    from rich.console import Console
    from rich.text import Text

    console = Console(highlight=False, soft_wrap=True)
    for row in rows:
        line = Text(f"{row.label:{LABEL}}", "dim")
        line.append(row.text, row.style or "none")
        console.print(line)


def _with_cost(answer: Json, price_list: PriceList) -> Json:
    if not is_readable_status(answer):
        return answer
    found = cost(price_list.prices, answer["requests"], answer["totals"]["bytes_in"])
    return {
        **answer,
        "cost": {
            "requests": round(found.requests, 6),
            "traffic": round(found.traffic, 6),
            "currency": price_list.prices.currency,
            "prices": asdict(price_list.prices),
            "source": price_list.source,
        },
    }


def find_prices(path: Path | None, environment: Mapping[str, str]) -> PriceList:
    """Those of `path`, else of the user's file, else AWS's. Raises ConfigurationError."""
    if path is None:
        home = Path(environment.get("XDG_CONFIG_HOME") or Path("~/.config").expanduser())
        path = home / "s3mount" / "prices.toml"
        if not path.exists():
            return PriceList(Prices(), AWS_LIST)
    try:
        text = path.read_text()
        found = json.loads(text) if path.suffix == ".json" else tomllib.loads(text)
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"the price list {path} cannot be read: {error}") from None
    if not isinstance(found, dict):
        raise ConfigurationError(f"{path}: a price list has names and prices")
    return PriceList(read_prices(found, str(path)), str(path))
