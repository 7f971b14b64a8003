"""Names and keys."""

import errno

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s3mount.core.errors import FilesystemError
from s3mount.core.keys import (
    check_key,
    name_from_bytes,
    name_problem,
    name_to_bytes,
    split_key,
    unreachable,
)

raw_names = st.one_of(
    st.binary(min_size=1, max_size=40),
    st.lists(
        st.sampled_from([b"%", b"%25", b"25", b"E9", b"\xe9", b"a", "é".encode()]), min_size=1
    ).map(b"".join),
).filter(lambda raw: raw not in (b".", b"..") and b"/" not in raw and b"\0" not in raw)


def errno_of(raw: bytes, escape: bool = False) -> int:
    with pytest.raises(FilesystemError) as caught:
        name_from_bytes(raw, escape)
    return caught.value.errno


@pytest.mark.parametrize(
    "name", ["ä", " ", "%", "a%41", "+", "new\nline", "x_$folder$", "日本", "a" * 255, "ä" * 127]
)
def test_a_utf8_name_is_itself_both_ways(name: str) -> None:
    for escape in (False, True):
        assert name_from_bytes(name.encode(), escape) == name
        assert name_to_bytes(name, escape) == name.encode()
        assert name_problem(name, escape) is None


def test_what_is_not_utf8_is_refused_unless_it_is_escaped() -> None:
    assert errno_of(b"caf\xe9") == errno.EILSEQ
    assert name_from_bytes(b"caf\xe9", True) == "caf%E9"
    assert name_to_bytes("caf%E9", True) == b"caf\xe9"
    assert name_from_bytes(b"caf%E9", True) == "caf%25E9"


@given(raw_names)
def test_escaping_is_undone_exactly_and_never_ambiguous(raw: bytes) -> None:
    name = name_from_bytes(raw, True)
    assert name_to_bytes(name, True) == raw
    assert name_problem(name, True) is None
    name.encode("utf-8")


def test_a_key_that_only_looks_escaped_is_reported_not_confused() -> None:
    assert name_problem("%C3%A9", True) is not None
    assert name_problem("%C3%A9", False) is None


def test_bad_names_have_their_errno() -> None:
    assert errno_of(b"a" * 256) == errno.ENAMETOOLONG
    assert errno_of("ä".encode() * 128) == errno.ENAMETOOLONG
    for raw in (b"", b".", b"..", b"a/b", b"a\0b"):
        assert errno_of(raw) == errno.EINVAL


def test_a_key_may_have_1024_bytes() -> None:
    check_key("k" * 1024)
    check_key("ä" * 512)
    for key in ("k" * 1025, "ä" * 512 + "k"):
        with pytest.raises(FilesystemError) as caught:
            check_key(key)
        assert caught.value.errno == errno.ENAMETOOLONG


@pytest.mark.parametrize(
    "key", ["a//b", "/a", "//", "a/./b", "../a", "a/..", "./", "n" * 256, "d/" + "ä" * 128, "a\0"]
)
def test_a_key_no_path_can_name_has_a_reason(key: str) -> None:
    assert unreachable(key)


@pytest.mark.parametrize("key", ["", "/", "a", "a/", "a/b/", "...", ".a/b.", "a\nb", "n" * 255])
def test_other_keys_have_none(key: str) -> None:
    assert unreachable(key) is None


def test_a_key_is_split_behind_its_directory() -> None:
    assert split_key("a/b/c") == ("a/b/", "c")
    assert split_key("a/b/") == ("a/", "b/")
    assert split_key("a") == ("", "a")
    assert split_key("a/") == ("", "a/")
