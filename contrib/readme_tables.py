#!/usr/bin/env python3
"""Writes the tables of options into README.md and contrib/s3mount.1 from the tables in the code.

Run it after a change of an option: .venv/bin/python contrib/readme_tables.py
A test fails while the files are not as this would write them.
"""

import re
import sys
from pathlib import Path

from s3mount.cli.options import OPTIONS, default_text
from s3mount.cli.s3fs_table import S3FS_OPTIONS

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
MAN = ROOT / "contrib" / "s3mount.1"


def own_table() -> str:
    lines = ["| option | meaning | default |", "|---|---|---|"]
    for option in OPTIONS:
        value = f"={option.metavar}".replace("|", "\\|") if option.metavar else ""
        lines.append(f"| `--{option.name}{value}` | {option.help} | {default_text(option)} |")
    return "\n".join(lines)


def s3fs_table() -> str:
    lines = ["| s3fs's option | here | |", "|---|---|---|"]
    for option in S3FS_OPTIONS:
        instead = f"; use {option.nearest}" if option.nearest else ""
        lines.append(f"| `{option.name}` | {option.verdict.value} | {option.meaning}{instead} |")
    return "\n".join(lines)


def man_options() -> str:
    lines = []
    for option in OPTIONS:
        default = default_text(option)
        metavar = f" \\fI{option.metavar}\\fR" if option.metavar else ""
        name = option.name.replace("-", "\\-")
        text = option.help + (f" Default: {default}." if default else "")
        lines += [".TP", f"\\fB\\-\\-{name}\\fR{metavar}", text.replace("'listing'", "listing")]
    return "\n".join(lines)


def filled(text: str, marker: str, content: str) -> str:
    """`text` with what is between the lines 'begin MARKER' and 'end MARKER' replaced."""
    pattern = re.compile(
        rf"^([^\n]*begin {marker}[^\n]*\n).*?^([^\n]*end {marker}[^\n]*)$", re.M | re.S
    )
    assert pattern.search(text), f"no {marker!r}"
    return pattern.sub(lambda match: f"{match[1]}{content}\n{match[2]}", text)


def contents() -> dict[Path, str]:
    """Each file as it should be."""
    readme = filled(README.read_text(), "own options", own_table())
    readme = filled(readme, "s3fs options", s3fs_table())
    return {README: readme, MAN: filled(MAN.read_text(), "own options", man_options())}


if __name__ == "__main__":
    for path, text in contents().items():
        if path.read_text() != text:
            path.write_text(text)
            print(f"{path} was updated", file=sys.stderr)
