"""The table program x server, printed at the end of a run."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest

SERVERS = ("moto", "ceph")


@dataclass
class Matrix:
    """Filled by the tests marked `matrix`; rows in the order in which they ran."""

    cells: dict[tuple[str, str], str] = field(default_factory=dict)
    requests: dict[tuple[str, str], int] = field(default_factory=dict)

    def note(self, parameters: Mapping[str, Any], report: pytest.TestReport) -> None:
        place = (str(parameters["program"].__doc__).split("\n")[0], str(parameters["bucket"]))
        if report.failed:
            self.cells[place] = "FAILED"
        elif self.cells.get(place) != "FAILED":
            self.cells[place] = f"ok {report.duration:5.1f} s {self.requests.get(place, 0):6} req"


MATRIX = Matrix()


def print_matrix(reporter: pytest.TerminalReporter) -> None:
    if not MATRIX.cells:
        return
    rows = list(dict.fromkeys(row for row, _ in MATRIX.cells))
    width = max(len(row) for row in rows)
    reporter.section("programs on real mounts, compared from outside and after a remount")
    reporter.write_line(" " * width + "".join(f"  {server:24}" for server in SERVERS))
    for row in rows:
        cells = (MATRIX.cells.get((row, server), "not run") for server in SERVERS)
        reporter.write_line(f"{row:{width}}" + "".join(f"  {cell:24}" for cell in cells))
