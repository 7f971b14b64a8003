"""Fixtures of the tests through real mounts, and the table program x server."""

from collections.abc import Generator

import pytest

from tests.mounting import mounted
from tests.mounts.matrix import MATRIX, print_matrix

__all__ = ["mounted"]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Fixtures see whether their test failed; cells of the matrix are filled."""
    report = yield
    if report.failed:
        item.failed = True  # type: ignore[attr-defined]
    cell = getattr(item, "callspec", None)
    counts = report.failed or report.when == "call"  # a failing teardown is a failure, too
    if cell is not None and counts and item.get_closest_marker("matrix") is not None:
        MATRIX.note(cell.params, report)
    return report


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "matrix: a cell of the table program x server")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    print_matrix(terminalreporter)
