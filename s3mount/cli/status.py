"""`s3mount status MOUNTPOINT [--json]`."""

import json
from typing import Any

import click

from s3mount.cli.asking import ask_mount
from s3mount.cli.texts import size_text


@click.command()
@click.argument("mountpoint")
@click.option("--json", "as_json", is_flag=True, help="Everything, for programs.")
def status(mountpoint: str, as_json: bool) -> None:
    """What a mount is doing: queue, transfers, errors, requests, caches."""
    answer = ask_mount(mountpoint, "status")
    if as_json:
        click.echo(json.dumps(answer, indent=2, sort_keys=True))
        return
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False)
    pending = answer["pending"]
    console.print(
        f"{answer['bucket']}:/{answer['prefix']} on {answer['mountpoint']},"
        f" {pending['phase']}, process {answer['pid']}",
        markup=False,
    )
    console.print(
        f"{pending['intents']} changes pending, {size_text(pending['bytes'])} of"
        f" {pending['files']} files to be sent",
        markup=False,
    )
    for error in pending["errors"]:
        console.print(f"not sent: {error}", markup=False)
    for name, value in answer.items():
        if isinstance(value, (dict, list)) and value and name != "pending":
            table = Table(title=name, title_justify="left", show_header=False)
            for row in _rows(value):
                table.add_row(*row)
            console.print(table)


def _rows(value: Any) -> list[tuple[str, str]]:
    pairs = value.items() if isinstance(value, dict) else enumerate(value, 1)
    return [
        (str(name), json.dumps(each) if isinstance(each, (dict, list)) else str(each))
        for name, each in pairs
    ]
