"""Keys and names: what a path component may be, which keys a path can name, marker forms.

A *name* is one path component as `str`; a *key* is absolute within the bucket. Python compares
`str` by code point, which is the order of their UTF-8 bytes, the order S3 lists keys in.
"""

import errno
import re

from s3mount.core.errors import FilesystemError

MAX_NAME = 255  # bytes of a path component (NAME_MAX)
MAX_KEY = 1024  # bytes of a key, S3's limit
FOLDER_SUFFIX = "_$folder$"  # marker form of Hadoop and old s3fs
ROOT_MARKER = "/"  # s3fs keeps the bucket root's own attributes at this key
# Sorts after every key that begins with the same name and a character below "/".
LAST_BEFORE_SLASH = "." + chr(0x10FFFF)

# Bytes of 0x80 and above that are not UTF-8 are written %XX. A "%" that would be read as such
# an escape is written %25, and so is one before an already doubled escape.
_ESCAPE = re.compile(r"%([89A-F][0-9A-F])|%25(?=(?:25)*[89A-F][0-9A-F])")
_LOOKS_ESCAPED = re.compile(r"%(?=(?:25)*[89A-F][0-9A-F])")


def name_from_bytes(raw: bytes, escape: bool) -> str:
    """The name a program's bytes stand for.

    Raises FilesystemError: EINVAL (empty, '.', '..', '/' or NUL inside), ENAMETOOLONG (more than
    255 bytes), EILSEQ (not UTF-8 and `escape` is off).
    """
    if len(raw) > MAX_NAME:
        raise FilesystemError(errno.ENAMETOOLONG)
    if raw in (b"", b".", b"..") or b"/" in raw or b"\0" in raw:
        raise FilesystemError(errno.EINVAL)
    if escape:
        return _escape(raw)
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        raise FilesystemError(errno.EILSEQ, f"not UTF-8: {raw!r} (see escape_names)") from None


def name_to_bytes(name: str, escape: bool) -> bytes:
    """What a program sees; inverse of name_from_bytes for every name that is reachable."""
    return _unescape(name) if escape else name.encode("utf-8", "surrogateescape")


def _escape(raw: bytes) -> str:
    text = raw.decode("utf-8", "surrogateescape")
    text = _LOOKS_ESCAPED.sub("%25", text)
    return "".join(
        f"%{ord(character) - 0xDC00:02X}" if "\udc80" <= character <= "\udcff" else character
        for character in text
    )


def _unescape(name: str) -> bytes:
    def plain(match: re.Match[str]) -> str:
        return chr(0xDC00 + int(match[1], 16)) if match[1] else "%"

    return _ESCAPE.sub(plain, name).encode("utf-8", "surrogateescape")


def check_key(key: str) -> None:
    """Raises FilesystemError ENAMETOOLONG where S3 would refuse the key for its length."""
    if len(key) * 4 > MAX_KEY and len(key.encode("utf-8", "surrogatepass")) > MAX_KEY:
        raise FilesystemError(errno.ENAMETOOLONG, f"key over {MAX_KEY} bytes: {key[:80]!r}...")


def name_problem(name: str, escape: bool = False) -> str | None:
    """Why no path can have this component; None: it can."""
    if name in ("", ".", ".."):
        return "empty component" if not name else f"component {name!r}"
    if "\0" in name:
        return "NUL in a component"
    if name.isascii() and not (escape and "%" in name):
        return f"component over {MAX_NAME} bytes" if len(name) > MAX_NAME else None
    try:
        raw = name_to_bytes(name, escape) if escape else name.encode("utf-8")
    except UnicodeEncodeError:
        return "not UTF-8"
    if len(raw) > MAX_NAME:
        return f"component over {MAX_NAME} bytes"
    if escape and _escape(raw) != name:
        return "looks like an escaped name but is none"
    return None


def unreachable(relative_key: str, escape: bool = False) -> str | None:
    """Why no path below the mount can name this key; None: one can. A final '/' is a marker's."""
    if relative_key in ("", "/"):
        return None  # the mount's own marker
    for name in relative_key.removesuffix("/").split("/"):
        problem = name_problem(name, escape)
        if problem is not None:
            return problem
    return None


def split_key(key: str) -> tuple[str, str]:
    """('a/b/', 'c') for 'a/b/c', ('a/', 'b/') for the marker 'a/b/'."""
    cut = key.rfind("/", 0, len(key) - 1) + 1
    return key[:cut], key[cut:]
