"""How users write what is in S3."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s3mount.core.errors import ConfigurationError
from s3mount.core.location import Location, looks_remote, parse_location


@pytest.mark.parametrize(
    ("text", "bucket", "key", "prefix"),
    [
        ("b", "b", "", ""),
        ("b:/", "b", "", ""),
        ("b:/a", "b", "a", "a/"),
        ("b:/a/", "b", "a/", "a/"),
        ("b://a", "b", "/a", "/a/"),
        ("s3://b", "b", "", ""),
        ("s3://b/", "b", "", ""),
        ("s3://b/a:c//d", "b", "a:c//d", "a:c//d/"),
    ],
)
def test_both_forms_name_a_bucket_and_any_key(
    text: str, bucket: str, key: str, prefix: str
) -> None:
    found = parse_location(text)
    assert (found.bucket, found.key, found.prefix) == (bucket, key, prefix)


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=20))
def test_what_is_shown_is_read_back(key: str) -> None:
    location = Location("bucket", key)
    assert parse_location(str(location)) == location
    assert parse_location(f"s3://bucket/{key}") == location


@pytest.mark.parametrize("text", ["b:relative", "http://b/k", "https://b/k", "s3fs#b:/p"])
def test_other_forms_come_with_the_right_one(text: str) -> None:
    with pytest.raises(ConfigurationError, match=r"write ('?b|BUCKET.*e.g. b:/k)"):
        parse_location(text)


def test_local_paths_are_told_from_what_is_in_s3() -> None:
    assert looks_remote("b:/k")
    assert looks_remote("s3://b/k")
    for text in ("/a/b", "a", "a:b", "./b:/k", "/x:/y", "-"):
        assert not looks_remote(text)
