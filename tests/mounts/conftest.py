"""Fixtures of the tests through real mounts, and the table program x server."""

from collections.abc import Generator

import pytest

from tests.mounting import mounted
from tests.mounts.matrix import MATRIX, place

__all__ = ["mounted"]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Fixtures see whether their test failed."""
    report = yield
    if report.failed:
        item.failed = True  # type: ignore[attr-defined]
    return report


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("matrix") is not None:
        place(item)


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    MATRIX.note(report)


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "matrix: a cell of the table program x server")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    MATRIX.print(terminalreporter)
