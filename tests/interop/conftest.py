"""Fixtures of the tests with other programs' layouts."""

from tests.mounting import mounted

__all__ = ["mounted"]
