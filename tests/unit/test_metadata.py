"""Attributes to headers and back; what others write; garbage."""

import base64
import errno
import json
import os
from urllib.parse import quote, unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s3mount.core.config import AttributeDefaults
from s3mount.core.errors import FilesystemError
from s3mount.core.metadata import (
    Attributes,
    content_type_for,
    content_type_renamed,
    decode,
    defaults_for,
    encode,
    is_directory_object,
    is_folder_marker,
    shown,
)

DEFAULTS = AttributeDefaults(uid=1000, gid=1001)
MODIFIED = 1_700_000_000.0


def read(metadata: dict[str, str], *, is_directory: bool = False, size: int = 0) -> Attributes:
    return decode(
        metadata,
        is_directory=is_directory,
        size=size,
        content_type=None,
        last_modified=MODIFIED,
        defaults=DEFAULTS,
    )


times = st.integers(-(2**62), 2**62)
ids = st.integers(0, 2**32 - 2)
xattrs = st.dictionaries(
    st.binary(min_size=1, max_size=20).map(lambda raw: raw.decode("utf-8", "surrogateescape")),
    st.binary(max_size=30),
    max_size=3,
)


@given(
    kind=st.sampled_from([0o100000, 0o040000, 0o120000, 0o010000, 0o140000, 0o020000, 0o060000]),
    permissions=st.integers(0, 0o7777),
    uid=ids,
    gid=ids,
    stamps=st.tuples(times, times, times),
    rdev=st.integers(0, 2**32),
    named=xattrs,
)
def test_what_is_encoded_is_decoded_the_same(
    kind: int,
    permissions: int,
    uid: int,
    gid: int,
    stamps: tuple[int, int, int],
    rdev: int,
    named: dict[str, bytes],
) -> None:
    is_device = kind in (0o020000, 0o060000)
    attributes = Attributes(
        kind | permissions, uid, gid, *stamps, rdev=rdev if is_device else 0, xattrs=named
    )
    encoded = encode(attributes)
    assert all(value.isascii() and value.isprintable() for value in encoded.values())
    size = 5 if kind == 0o120000 else 0
    assert read(encoded, is_directory=kind == 0o040000, size=size) == attributes


@given(
    st.dictionaries(
        st.sampled_from(
            [
                "mode",
                "uid",
                "gid",
                "mtime",
                "ctime",
                "atime",
                "xattr",
                "rdev",
                "permissions",
                "owner",
                "group",
                "goog-reserved-posix-mode",
            ]
        ),
        st.text(),
    )
)
def test_nothing_in_the_headers_can_raise(metadata: dict[str, str]) -> None:
    for is_directory in (False, True):
        attributes = read(metadata, is_directory=is_directory)
        assert (attributes.mode & 0o170000 == 0o040000) == is_directory
        encode(attributes)


def test_the_forms_are_those_of_s3fs() -> None:
    encoded = encode(Attributes(0o100640, 7, 8, 1_500_000_000_123_456_789, 5 * 10**9, 0))
    assert encoded == {
        "mode": "33184",
        "uid": "7",
        "gid": "8",
        "mtime": "1500000000.123456789",
        "ctime": "5.000000000",
        "atime": "0.000000000",
    }


@pytest.mark.parametrize(
    ("text", "mode"),
    [
        ("33184", 0o100640),
        ("0100755", 0o100755),
        ("493", 0o100755),
        ("abc", 0o100644),
        ("-1", 0o100644),
        ("", 0o100644),
        ("99999999", 0o100644),
        ("08", 0o100644),
        ("٣٣", 0o100644),
        ("16877", 0o100755),
    ],
)
def test_modes_of_files(text: str, mode: int) -> None:
    assert oct(read({"mode": text}, size=10_000).mode) == oct(mode)


@pytest.mark.parametrize(
    ("text", "mode"), [("493", 0o040755), ("16872", 0o040750), ("040700", 0o040700)]
)
def test_a_directory_is_one_whatever_type_bits_it_has(text: str, mode: int) -> None:
    assert oct(read({"mode": text}, is_directory=True).mode) == oct(mode)


def test_a_type_the_object_cannot_be_is_a_regular_file() -> None:
    assert read({"mode": "41471"}, size=5000).mode == 0o100777
    assert read({"mode": "41471"}, size=7).mode == 0o120777
    assert read({"mode": "4516"}, size=3).mode == 0o100644


@pytest.mark.parametrize(
    ("text", "nanoseconds"),
    [
        ("12", 12_000_000_000),
        ("12.5", 12_500_000_000),
        ("12.000000005", 12_000_000_005),
        ("12.0000000059", 12_000_000_005),
        ("-2.500000000", -1_500_000_000),
        ("1e400", int(MODIFIED) * 10**9),
        ("99999999999999999", int(MODIFIED) * 10**9),
        ("nan", int(MODIFIED) * 10**9),
        ("12.", int(MODIFIED) * 10**9),
        ("", int(MODIFIED) * 10**9),
    ],
)
def test_times(text: str, nanoseconds: int) -> None:
    assert read({"mtime": text}).mtime_ns == nanoseconds


def test_owners_that_cannot_be_fall_back_each_for_itself() -> None:
    attributes = read({"uid": "-1", "gid": "5", "mode": "33184"})
    assert (attributes.uid, attributes.gid, attributes.mode) == (1000, 5, 0o100640)
    assert read({"uid": str(2**32 - 1)}).uid == 1000


def test_other_tools_headers_are_read_where_ours_are_absent() -> None:
    s3sync = read({"permissions": "33188", "owner": "5", "group": "6"})
    assert (s3sync.mode, s3sync.uid, s3sync.gid) == (0o100644, 5, 6)
    google = read(
        {
            "goog-reserved-posix-mode": "755",
            "goog-reserved-posix-uid": "7",
            "goog-reserved-posix-gid": "8",
            "goog-reserved-file-mtime": "99",
        }
    )
    assert (google.mode, google.uid, google.gid) == (0o100755, 7, 8)
    assert google.mtime_ns == 99 * 10**9
    assert read({"uid": "1", "owner": "2"}).uid == 1
    assert read({"uid": "x", "owner": "2"}).uid == 2
    assert read({"Mode": "33184"}).mode == 0o100640


def test_without_metadata_the_defaults_hold() -> None:
    stamp = int(MODIFIED) * 10**9
    assert read({}) == Attributes(0o100644, 1000, 1001, stamp, stamp, stamp)
    assert read({}, is_directory=True).mode == 0o040755
    assert defaults_for(False, MODIFIED, DEFAULTS) == read({})


def test_xattrs_are_url_encoded_json_of_base64() -> None:
    encoded = encode(Attributes(0o100644, 0, 0, 0, 0, 0, xattrs={"user.ä": b"\0v"}))["xattr"]
    assert json.loads(unquote(encoded)) == {"user.ä": base64.b64encode(b"\0v").decode()}
    assert read({"xattr": quote('{"user.x": "dg=="}')}).xattrs == {"user.x": b"v"}
    for garbage in ("{", "[]", quote('{"a": 1}'), quote('{"a": "%%"}'), "%ff%fe", "[" * 100_000):
        assert read({"xattr": garbage}).xattrs == {}


def test_foreign_metadata_is_kept_and_our_own_replaced() -> None:
    kept = {"s3cmd-attrs": "x", "mode": "1", "Mtime": "2", "rdev": "3", "xattr": "4"}
    encoded = encode(Attributes(0o100644, 0, 0, 0, 0, 0), kept)
    assert encoded["s3cmd-attrs"] == "x"
    assert encoded["mode"] == "33188"
    assert {"Mtime", "rdev", "xattr"}.isdisjoint(encoded)


def test_more_metadata_than_s3_takes_is_enospc_not_a_cut_value() -> None:
    fits = Attributes(0o100644, 0, 0, 0, 0, 0, xattrs={"user.a": b"x" * 1000})
    encode(fits)
    for attributes, kept in (
        (Attributes(0o100644, 0, 0, 0, 0, 0, xattrs={"user.a": b"x" * 1600}), {}),
        (fits, {"other": "y" * 800}),
    ):
        with pytest.raises(FilesystemError) as caught:
            encode(attributes, kept)
        assert caught.value.errno == errno.ENOSPC


def test_a_device_keeps_major_and_minor() -> None:
    device = Attributes(0o020600, 0, 0, 0, 0, 0, rdev=os.makedev(5, 300))
    assert os.major(read(encode(device)).rdev) == 5
    assert os.minor(read(encode(device)).rdev) == 300
    assert "rdev" not in encode(Attributes(0o100600, 0, 0, 0, 0, 0, rdev=7))


def test_directory_objects_are_known_by_slash_type_or_mode() -> None:
    assert is_directory_object("a/", 0, None, {})
    assert is_directory_object("a/", 5, None, {})
    assert is_directory_object("a", 0, "application/x-directory", {})
    assert is_directory_object("a", 0, "httpd/unix-directory; charset=utf-8", {})
    assert is_directory_object("a", 0, "binary/octet-stream", {"mode": "040755"})
    assert not is_directory_object("a", 1, "application/x-directory", {})
    assert not is_directory_object("a", 0, "text/plain", {"mode": "33188"})
    assert is_folder_marker("a_$folder$", 0, {})
    assert is_folder_marker("a_$folder$", 0, {"mode": "493"})
    assert not is_folder_marker("a_$folder$", 0, {"mode": "33188"})
    assert not is_folder_marker("a_$folder$", 1, {})
    assert not is_folder_marker("a", 0, {})


def test_content_types_go_by_the_last_extension() -> None:
    plain = Attributes(0o100644, 0, 0, 0, 0, 0)
    assert content_type_for("a.TXT", plain) == "text/plain"
    assert content_type_for("a.html", plain) == "text/html"
    assert content_type_for("README", plain) == "application/octet-stream"
    assert content_type_for(".txt", plain) == "application/octet-stream"
    assert content_type_for("a.tar.gz", plain) != "application/x-tar"
    assert content_type_for("d.txt", Attributes(0o040755, 0, 0, 0, 0, 0)) == (
        "application/x-directory"
    )
    assert content_type_for("l.txt", Attributes(0o120777, 0, 0, 0, 0, 0)) == (
        "application/octet-stream"
    )


@pytest.mark.parametrize(
    ("old", "new", "before", "after"),
    [
        ("d/.x.html.Ab12", "d/x.html", "application/octet-stream", "text/html"),
        ("d.css/sedQ1", "d.css/x.txt", "application/octet-stream", "text/plain"),
        ("x.txt", "x.txt-copy", "text/plain", "application/octet-stream"),
        ("x.txt", "x.html", "text/x-odd", "text/x-odd"),
        ("x.html", "x.txt", "text/html; charset=utf-8", "text/html; charset=utf-8"),
        ("x", "y", "application/octet-stream", "application/octet-stream"),
    ],
)
def test_a_type_that_followed_from_the_old_name_follows_the_new_one(
    old: str, new: str, before: str, after: str
) -> None:
    assert content_type_renamed(before, {}, old, new) == after
    assert content_type_renamed(before, {"Mode": "33188"}, old, new) == after


def test_only_files_have_a_type_by_their_name() -> None:
    for mode in ("41471", "4516"):  # a symlink, a FIFO
        renamed = content_type_renamed("application/octet-stream", {"mode": mode}, "l", "l.txt")
        assert renamed == "application/octet-stream"


def test_the_options_overrides_are_shown() -> None:
    attributes = Attributes(0o100666, 1, 2, 0, 0, 0)
    assert shown(attributes, DEFAULTS) is attributes
    forced = AttributeDefaults(uid=0, gid=0, force_uid=7, force_gid=8, umask=0o027, root_mode=0o700)
    assert shown(attributes, forced) == Attributes(0o100640, 7, 8, 0, 0, 0)
    root = shown(Attributes(0o040777, 1, 2, 0, 0, 0), forced, is_root=True)
    assert root.mode == 0o040700
