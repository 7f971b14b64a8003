"""The named points at which campaigns kill: they are where the code is."""

import importlib
import inspect

import pytest

from tests.campaign.points import METHODS, MODULES


@pytest.mark.parametrize(("module", "kind", "methods"), [named[1:] for named in METHODS])
def test_every_method_that_is_a_point_exists(module: str, kind: str, methods: str) -> None:
    owner = getattr(importlib.import_module(module), kind)
    missing = [name for name in methods.split() if not callable(getattr(owner, name, None))]
    assert not missing


@pytest.mark.parametrize("module", [name for _, name in MODULES])
def test_every_module_of_points_has_functions(module: str) -> None:
    found = importlib.import_module(module)
    own = [value for value in vars(found).values() if getattr(value, "__module__", "") == module]
    assert any(inspect.isfunction(value) or inspect.isclass(value) for value in own)
