"""A mount that dies at every step of short scripts: what was acknowledged is there afterwards."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import trio

from tests.model.dying import Mortal, Step
from tests.model.mounted import EPOCH, KIB, memory_store, tiny_config

ONE, TWO, THREE = b"1" * 3000, b"2" * 2000, b"3" * 1000
PART = 4 * KIB
LARGE, OTHER = b"".join(bytes([65 + n]) * PART for n in range(7)), b"o" * (6 * PART) + b"end"
SMALL_SPOOL = 4 * PART


@pytest.fixture(autouse=True)
def _one_clock() -> Iterator[None]:
    """This machine's clock is the service's."""
    with patch("time.time", lambda: EPOCH + trio.current_time()):
        yield


SCRIPTS: dict[str, list[Step]] = {
    "written anew": [("write", "a", ONE), ("write", "a", TWO)],
    "written anew later": [("write", "a", ONE), ("wait", 2), ("write", "a", TWO), ("wait", 2)],
    "appended to": [("write", "a", ONE), ("write", "a", TWO, os.O_APPEND), ("edit", "a", 9, TWO)],
    "appended to what was there": [
        ("foreign", "a", ONE),
        ("write", "a", TWO, os.O_APPEND),
        ("wait", 2),
        ("edit", "a", 9, THREE),
    ],
    "large, appended to what was there": [
        ("foreign", "a", LARGE),
        ("write", "a", OTHER, os.O_APPEND),
        ("wait", 2),
        ("edit", "a", 9, THREE),
    ],
    "renamed over": [("write", "a", ONE), ("write", "b", TWO), ("rename", "b", "a")],
    "renamed over a stored one": [
        ("write", "a", ONE),
        ("wait", 2),
        ("write", "b", TWO),
        ("rename", "b", "a"),
    ],
    "both stored, renamed over": [
        ("write", "a", ONE),
        ("write", "b", TWO),
        ("wait", 2),
        ("rename", "b", "a"),
    ],
    "removed": [("write", "a", ONE), ("unlink", "a"), ("write", "a", TWO)],
    "removed when stored": [("write", "a", ONE), ("wait", 2), ("unlink", "a"), ("write", "a", TWO)],
    "moved away and made anew": [
        ("write", "a", ONE),
        ("rename", "a", "b"),
        ("write", "a", TWO),
        ("unlink", "b"),
    ],
    "stored, moved away and made anew": [
        ("write", "a", ONE),
        ("wait", 2),
        ("rename", "a", "b"),
        ("write", "a", TWO),
        ("write", "b", THREE, os.O_APPEND),
    ],
    "cut": [("write", "a", ONE), ("truncate", "a", 100), ("write", "a", TWO, os.O_APPEND)],
    "cut to nothing": [("write", "a", ONE), ("wait", 2), ("truncate", "a", 0)],
    "half of it written anew": [
        ("write", "a", ONE),
        ("open", "h", "a", os.O_TRUNC),
        ("pwrite", "h", 0, b"half"),
        ("wait", 2),
        ("pwrite", "h", 4, TWO),
        ("close", "h"),
    ],
    "mode, and a rename": [
        ("write", "a", ONE),
        ("chmod", "a", 0o600),
        ("rename", "a", "b"),
        ("chmod", "b", 0o640),
    ],
    "closed twice": [
        ("open", "h", "a"),
        ("pwrite", "h", 0, ONE),
        ("flush", "h"),
        ("wait", 1),
        ("pwrite", "h", 10, TWO),
        ("fsync", "h"),
        ("pwrite", "h", 20, THREE),
        ("close", "h"),
    ],
    "large, written anew": [("write", "a", LARGE), ("write", "a", OTHER)],
    "large, renamed": [("write", "a", LARGE), ("rename", "a", "b"), ("write", "a", OTHER)],
    "large, changed": [("write", "a", LARGE), ("edit", "a", PART, b"x" * PART), ("wait", 2)],
    "large, a mode": [("write", "a", LARGE), ("chmod", "a", 0o600), ("rename", "a", "b")],
    "large, removed": [("write", "a", LARGE), ("unlink", "a"), ("write", "b", LARGE)],
    "large, changed while closed": [
        ("open", "h", "a"),
        *[("pwrite", "h", n * PART, LARGE[n * PART : (n + 1) * PART]) for n in range(7)],
        ("flush", "h"),
        *[("pwrite", "h", n * PART, OTHER[n * PART : (n + 1) * PART]) for n in range(3)],
        ("wait", 2),
        ("close", "h"),
    ],
    "large, read while it is written": [
        ("open", "h", "a"),
        *[("pwrite", "h", n * PART, LARGE[n * PART : (n + 1) * PART]) for n in range(7)],
        ("flush", "h"),
        ("read", "h"),
        ("pwrite", "h", 7 * PART, ONE),
        ("close", "h"),
    ],
    "large, renamed and given a mode": [
        ("write", "a", LARGE),
        ("rename", "a", "b"),
        ("chmod", "b", 0o600),
        ("wait", 2),
    ],
    "large, half of it written anew": [
        ("write", "a", LARGE),
        ("open", "h", "a", os.O_TRUNC),
        ("pwrite", "h", 0, b"half"),
        ("wait", 2),
        ("pwrite", "h", 4, TWO),
        ("close", "h"),
    ],
}


COMPLETE = "CompleteMultipartUpload"
# In these a close needs the bucket but with write-back.
WRITE_BACK: dict[str, list[Step]] = {
    "appended to while the metadata of what was there is asked for": [
        ("foreign", "a", ONE),
        ("delay", "HeadObject", 1.0),
        ("open", "h", "a"),
        ("pwrite", "h", len(ONE), TWO),
        ("flush", "h"),
        ("wait", 1.0),
        ("pwrite", "h", len(ONE + TWO), THREE),
        ("wait", 2),
        ("close", "h"),
    ],
    "large, thrown away while nothing completes": [
        ("refuse", COMPLETE),
        ("write", "a", LARGE),
        ("open", "h", "a", os.O_TRUNC),
        ("pwrite", "h", 0, b"half"),
        ("wait", 2),
        ("refuse",),
        ("wait", 2),
        ("pwrite", "h", 4, TWO),
        ("close", "h"),
    ],
    "large, replaced by a larger one while nothing completes": [
        ("refuse", COMPLETE),
        ("write", "a", LARGE),
        ("open", "h", "a", os.O_TRUNC),
        *[("pwrite", "h", n * PART, OTHER[n * PART : (n + 1) * PART]) for n in range(6)],
        ("wait", 2),
        ("flush", "h"),
        ("wait", 2),
        ("refuse",),
        ("close", "h"),
    ],
}


def cases() -> Iterator[tuple[str, str, str]]:
    for name in SCRIPTS | WRITE_BACK:
        for durability in ("close", "journal") if name in SCRIPTS else ("journal",):
            yield name, durability, "small" if name.startswith("large") else "ample"
    for name in ("large, renamed", "large, changed while closed"):
        yield name, "journal", "ample"


@pytest.mark.parametrize(("name", "durability", "spool"), list(cases()))
async def test_what_was_acknowledged_is_there(
    tmp_path: Path, name: str, durability: str, spool: str, autojump_clock: object
) -> None:
    script = (SCRIPTS | WRITE_BACK)[name]
    await every_death(tmp_path, script, durability, SMALL_SPOOL if spool == "small" else 0)


async def every_death(directory: Path, script: list[Step], durability: str, spool: int) -> None:
    options: dict[str, Any] = {"durability": durability}
    if spool:
        options["spool_limit"] = spool
    steps = await one_life(directory / "whole", script, options, None)
    for at in range(steps):
        try:
            await one_life(directory / f"until-{at}", script, options, at)
        except BaseException as error:
            error.add_note(f"it died at step {at}")
            raise


async def one_life(
    directory: Path, script: list[Step], options: dict[str, Any], at: int | None
) -> int:
    await trio.Path(directory).mkdir()
    return await Mortal(memory_store(), tiny_config(directory, **options), at).live(script)
