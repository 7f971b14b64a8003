"""Tests through real mounts."""

import pytest

for _name in ("mounting", "programs", "trees"):
    pytest.register_assert_rewrite(f"tests.mounts.{_name}")
