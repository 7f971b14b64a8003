"""Sizes of a broken server: an error of the request, not of whoever counts with them."""

import pytest

from s3mount.store.answers import object_info
from s3mount.store.errors import CorruptAnswer


@pytest.mark.parametrize("length", ["", "five", "-5", "9223372036854775808", "1e3"])
def test_an_object_without_a_size_that_a_file_can_have_is_a_corrupt_answer(length: str) -> None:
    headers = {"ETag": '"abc"', "Content-Length": length}
    with pytest.raises(CorruptAnswer, match="no size"):
        object_info("k", headers, 0.0)
    assert object_info("k", headers | {"Content-Length": "5"}, 0.0).size == 5
    assert object_info("k", headers, 0.0, size=7).size == 7
