"""Fixtures of the tests of tools that meet real mounts."""

from tests.mounting import mounts

__all__ = ["mounts"]
