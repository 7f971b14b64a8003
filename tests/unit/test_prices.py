"""The estimate of what requests and traffic cost."""

import pytest

from s3mount.core.config import GIB
from s3mount.core.errors import ConfigurationError
from s3mount.core.prices import Prices, cost, read_prices


def test_each_operation_is_priced_by_its_class() -> None:
    prices = Prices(put=1, copy=2, list=3, get=4, delete=5, per_gb_out=6)
    for operation, price in {
        "PutObject": 1,
        "UploadPart": 1,
        "CompleteMultipartUpload": 1,
        "UploadPartCopy": 2,
        "CopyObject": 2,
        "ListObjectsV2": 3,
        "ListParts": 3,
        "GetObject": 4,
        "HeadObject": 4,
        "SomethingNew": 4,
        "DeleteObjects": 5,
        "AbortMultipartUpload": 5,
    }.items():
        assert cost(prices, {operation: 2000}, 0).requests == pytest.approx(2 * price), operation
    found = cost(prices, {"PutObject": 1000, "GetObject": 1000}, GIB // 2)
    assert (found.requests, found.traffic, found.total) == (5.0, 3.0, 8.0)


def test_without_a_list_the_prices_are_those_of_aws() -> None:
    found = cost(Prices(), {"PutObject": 1_000_000, "HeadObject": 1_000_000}, 100 * GIB)
    assert found.requests == pytest.approx(5.40)
    assert found.traffic == pytest.approx(9.0)


def test_what_a_list_leaves_out_is_the_default() -> None:
    prices = read_prices({"put": 0.1, "currency": "EUR"}, "prices.toml")
    assert prices == Prices(put=0.1, currency="EUR")


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"putt": 1}, "prices.toml: 'putt' is no price; did you mean 'put'?"),
        ({"xyzzy": 1}, "there are put, copy, list, get, delete, per_gb_out, currency"),
        ({"put": "1"}, "put = '1' is no price"),
        ({"put": True}, "put = True is no price"),
        ({"put": -1}, "put = -1 is no price"),
        ({"put": float("nan")}, "put = nan is no price"),
        ({"currency": 1}, "currency = 1 is no price"),
    ],
)
def test_a_list_that_makes_no_sense_is_refused(values: dict[str, object], text: str) -> None:
    with pytest.raises(ConfigurationError, match=r"prices\.toml") as caught:
        read_prices(values, "prices.toml")
    assert text in str(caught.value)
