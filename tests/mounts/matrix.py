"""The table program x server, printed at the end of a run, also where several processes ran it."""

from dataclasses import dataclass, field
from typing import Any

import pytest

from tests.mounts.programs import PROGRAMS, Program

SERVERS = ("moto", "ceph")
_CELL = "cell"  # what a report says of its place; from a worker, only properties reach the printer
REQUESTS = "requests"  # the property with the number of requests that a program took


def title(program: Program) -> str:
    return str(program.__doc__).split("\n")[0]


def place(item: pytest.Item) -> None:
    """Each report of the test names its cell."""
    parameters = item.callspec.params  # type: ignore[attr-defined]
    item.user_properties.append(
        (_CELL, f"{parameters['bucket']}: {title(parameters['program'])}"),
    )


@dataclass
class Matrix:
    """Filled by the tests marked `matrix`."""

    cells: dict[str, str] = field(default_factory=dict)

    def note(self, report: pytest.TestReport) -> None:
        properties: dict[str, Any] = dict(report.user_properties)
        cell = properties.get(_CELL)
        if cell is None:
            return
        if report.failed:  # a failing set-up or teardown is a failure, too
            self.cells[cell] = "FAILED"
        elif report.when == "call":
            self.cells[cell] = f"ok {report.duration:5.1f} s {properties[REQUESTS]:6} req"

    def print(self, reporter: pytest.TerminalReporter) -> None:
        if not self.cells:
            return
        rows = [title(program) for program in PROGRAMS]
        width = max(map(len, rows))
        reporter.section("programs on real mounts, compared from outside and after a remount")
        reporter.write_line(" " * width + "".join(f"  {server:24}" for server in SERVERS))
        for row in rows:
            cells = [self.cells.get(f"{server}: {row}", "not run") for server in SERVERS]
            reporter.write_line(f"{row:{width}}" + "".join(f"  {cell:24}" for cell in cells))


MATRIX = Matrix()
