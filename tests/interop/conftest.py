"""Fixtures of the tests with other programs' layouts."""

from tests.mounts.mounting import mounted

__all__ = ["mounted"]
