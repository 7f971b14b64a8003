"""A mount's life, by the real command line: starting, being asked, leaving, dying."""

import pytest

pytest.register_assert_rewrite("tests.mounting")
