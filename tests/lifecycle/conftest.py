"""Mounts that are gone after the test."""

from tests.mounting import mounts

__all__ = ["mounts"]
