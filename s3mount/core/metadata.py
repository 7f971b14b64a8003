"""The codec between a file's attributes and the metadata headers of its object.

The forms are those of s3fs (see on-bucket-format in ARCHITECTURE.md); other tools' headers are
read where ours are absent. Metadata names are those after `x-amz-meta-`, in lower case.
"""

import base64
import binascii
import errno
import functools
import json
import logging
import mimetypes
import os.path
import re
import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import TypeVar
from urllib.parse import quote_from_bytes, unquote_to_bytes

from s3mount.core.config import AttributeDefaults
from s3mount.core.errors import FilesystemError
from s3mount.core.keys import FOLDER_SUFFIX

log = logging.getLogger(__name__)
T = TypeVar("T")

DIRECTORY_TYPE = "application/x-directory"
DEFAULT_TYPE = "application/octet-stream"
MAX_METADATA = 2048  # bytes of all names and values together, AWS's limit
MAX_TARGET = 4095  # bytes of a symlink's target
NANOSECONDS = 1_000_000_000

_DIRECTORY_TYPES = frozenset({DIRECTORY_TYPE, "httpd/unix-directory"})
OWN_NAMES = frozenset({"mode", "uid", "gid", "mtime", "ctime", "atime", "rdev", "xattr"})
_MAX_ID = 2**32 - 2  # (uid_t) -1 means "no such owner"
_MAX_SECONDS = (2**63 - 1) // NANOSECONDS - 1  # times are signed 64-bit nanoseconds
_TIME = re.compile(r"(-?[0-9]{1,11})(?:\.([0-9]{1,9})[0-9]*)?", re.ASCII)
_NUMBER = re.compile(r"[0-9]{1,12}", re.ASCII)
_EMPTY_TYPES = frozenset({stat.S_IFIFO, stat.S_IFSOCK, stat.S_IFCHR, stat.S_IFBLK})
NO_XATTRS: Mapping[str, bytes] = MappingProxyType({})
USER_XATTRS = "user."  # what the names of the user's own begin with: the others are the system's


@dataclass(frozen=True, slots=True)
class Attributes:
    """What stat shows but for size and number; `mode` has the type bits."""

    mode: int
    uid: int
    gid: int
    mtime_ns: int
    ctime_ns: int
    atime_ns: int
    rdev: int = 0  # as os.makedev makes it
    xattrs: Mapping[str, bytes] = field(default_factory=lambda: NO_XATTRS)


def is_directory_object(
    key: str, size: int, content_type: str | None, metadata: Mapping[str, str]
) -> bool:
    """True for an object that stands for a directory by itself, in any form but `_$folder$`."""
    if key.endswith("/"):
        return True
    if size != 0:
        return False
    if content_type is not None and content_type.split(";")[0].strip() in _DIRECTORY_TYPES:
        return True
    mode = _mode(metadata.get("mode"))
    return mode is not None and stat.S_ISDIR(mode)


def is_folder_marker(key: str, size: int, metadata: Mapping[str, str]) -> bool:
    """True for a legacy `dir_$folder$` marker, False for a file somebody gave such a name.

    Tools that write this form write no mode; a file written here has one with its type.
    """
    if size != 0 or not key.endswith(FOLDER_SUFFIX):
        return False
    mode = _mode(metadata.get("mode"))
    return mode is None or stat.S_IFMT(mode) in (0, stat.S_IFDIR)


def decode(
    metadata: Mapping[str, str],
    *,
    is_directory: bool,
    size: int,
    content_type: str | None,
    last_modified: float,
    defaults: AttributeDefaults,
) -> Attributes:
    """The attributes these headers mean; what is absent or garbage falls back field by field.

    Never raises. A symlink or a special file keeps its type only where the object can be one
    (`size`: a symlink's target is 1 to 4095 bytes); everything else is a regular file.
    """
    fallback = defaults_for(is_directory, last_modified, defaults)
    if not metadata:
        return fallback
    found = {name.lower(): value for name, value in metadata.items()}
    mode = _first(found, _mode, "mode", "permissions")
    if mode is None:
        mode = _first(found, _octal, "goog-reserved-posix-mode")
    uid = _first(found, _id, "uid", "owner", "goog-reserved-posix-uid")
    gid = _first(found, _id, "gid", "group", "goog-reserved-posix-gid")
    mtime = _first(found, _time_ns, "mtime", "goog-reserved-file-mtime")
    ctime = _first(found, _time_ns, "ctime")
    atime = _first(found, _time_ns, "atime", "goog-reserved-file-atime")
    mode = fallback.mode if mode is None else _typed(mode, is_directory, size)
    is_device = stat.S_ISCHR(mode) or stat.S_ISBLK(mode)
    return Attributes(
        mode=mode,
        uid=fallback.uid if uid is None else uid,
        gid=fallback.gid if gid is None else gid,
        mtime_ns=fallback.mtime_ns if mtime is None else mtime,
        ctime_ns=fallback.ctime_ns if ctime is None else ctime,
        atime_ns=fallback.atime_ns if atime is None else atime,
        rdev=(_first(found, _number, "rdev") or 0) if is_device else 0,
        xattrs=_first(found, _xattrs, "xattr") or NO_XATTRS,
    )


def defaults_for(
    is_directory: bool, last_modified: float, defaults: AttributeDefaults
) -> Attributes:
    """What an object without metadata, or an implied directory, looks like."""
    if is_directory:
        mode = stat.S_IFDIR | stat.S_IMODE(defaults.directory_mode)
    else:
        mode = stat.S_IFREG | stat.S_IMODE(defaults.file_mode)
    moment = int(last_modified * 1_000_000) * 1000
    return Attributes(mode, defaults.uid, defaults.gid, moment, moment, moment)


def encode(attributes: Attributes, kept: Mapping[str, str] | None = None) -> dict[str, str]:
    """The metadata to store: our own names, and all others of `kept` as they are.

    Raises FilesystemError ENOSPC where names and values together exceed 2048 bytes.
    """
    kept = {} if kept is None else kept
    result = {name: value for name, value in kept.items() if name.lower() not in OWN_NAMES}
    result["mode"] = str(attributes.mode)
    result["uid"] = str(attributes.uid)
    result["gid"] = str(attributes.gid)
    result["mtime"] = _time_text(attributes.mtime_ns)
    result["ctime"] = _time_text(attributes.ctime_ns)
    result["atime"] = _time_text(attributes.atime_ns)
    if stat.S_ISCHR(attributes.mode) or stat.S_ISBLK(attributes.mode):
        result["rdev"] = str(attributes.rdev)
    if attributes.xattrs:
        result["xattr"] = _xattr_text(attributes.xattrs)
    total = _size(result)
    if total > MAX_METADATA:
        raise FilesystemError(errno.ENOSPC, f"{total} bytes of metadata; S3 takes {MAX_METADATA}")
    return result


def storable_time(nanoseconds: int) -> int:
    """The nearest time that metadata can hold: the years 1678 to 2262.

    Local file systems do the same at bounds of their own (ext4: 1901 and 2446).
    """
    bound = _MAX_SECONDS * NANOSECONDS
    return max(-bound, min(nanoseconds, bound))


def with_mtime(metadata: Mapping[str, str], last_modified: float) -> Mapping[str, str]:
    """`metadata`, with an mtime that says what Last-Modified said if it has none."""
    found = {name.lower(): value for name, value in metadata.items()}
    if _first(found, _time_ns, "mtime", "goog-reserved-file-mtime") is not None:
        return metadata
    result = {name: value for name, value in metadata.items() if name.lower() != "mtime"}
    result["mtime"] = _time_text(int(last_modified) * NANOSECONDS)
    return metadata if _size(result) > MAX_METADATA else result


def _size(metadata: Mapping[str, str]) -> int:
    return sum(len(name.encode()) + len(value.encode()) for name, value in metadata.items())


def content_type_for(name: str, attributes: Attributes) -> str:
    """Content-Type of a new object: by extension (system MIME table)."""
    if stat.S_ISDIR(attributes.mode):
        return DIRECTORY_TYPE
    if not stat.S_ISREG(attributes.mode):
        return DEFAULT_TYPE
    return _type_of_name(name)


def content_type_renamed(content_type: str, metadata: Mapping[str, str], old: str, new: str) -> str:
    """Content-Type of a file's object whose key `old` becomes `new`.

    What only followed from the old extension follows the new one: programs write under another
    name and rename. Every other type was chosen by somebody and stays.
    """
    mode = _mode({name.lower(): value for name, value in metadata.items()}.get("mode"))
    if mode is not None and stat.S_IFMT(mode) not in (0, stat.S_IFREG):
        return content_type
    if content_type != _type_of_name(old):
        return content_type
    return _type_of_name(new)


def _type_of_name(name: str) -> str:
    # The last extension alone: x.tar.gz is gzip, not a tar file.
    extension = os.path.splitext(name)[1].lower()
    return _type_of_extension(extension) if extension else DEFAULT_TYPE


@functools.lru_cache(maxsize=1024)
def _type_of_extension(extension: str) -> str:
    if not mimetypes.inited:
        mimetypes.init()
    return mimetypes.types_map.get(extension, DEFAULT_TYPE)


def shown(
    attributes: Attributes, defaults: AttributeDefaults, *, is_root: bool = False
) -> Attributes:
    """`attributes` as a program sees them: the options' overrides applied."""
    mode, uid, gid = attributes.mode, attributes.uid, attributes.gid
    if is_root and defaults.root_mode is not None:
        mode = stat.S_IFDIR | stat.S_IMODE(defaults.root_mode)
    elif defaults.umask is not None:
        mode &= ~(defaults.umask & 0o777)
    if defaults.force_uid is not None:
        uid = defaults.force_uid
    if defaults.force_gid is not None:
        gid = defaults.force_gid
    if (mode, uid, gid) == (attributes.mode, attributes.uid, attributes.gid):
        return attributes
    return replace(attributes, mode=mode, uid=uid, gid=gid)


def _typed(mode: int, is_directory: bool, size: int) -> int:
    """`mode` with the type that this object can have."""
    kind = stat.S_IFMT(mode)
    permissions = stat.S_IMODE(mode)
    if is_directory:
        return stat.S_IFDIR | permissions
    if kind == stat.S_IFLNK and 0 < size <= MAX_TARGET:
        return kind | permissions
    if kind in _EMPTY_TYPES and size == 0:
        return kind | permissions
    return stat.S_IFREG | permissions


def _first(
    found: Mapping[str, str], parse: Callable[[str | None], T | None], *names: str
) -> T | None:
    """The first of `names` whose value makes sense."""
    for name in names:
        text = found.get(name)
        if text is not None:
            value = parse(text)
            if value is not None:
                return value
            _log_garbage(name, text[:100])
    return None


@functools.lru_cache(maxsize=256)  # one line for each value, not one for each listing of it
def _log_garbage(name: str, text: str) -> None:
    log.warning("metadata %s=%r makes no sense; the default is used", name, text)


def _mode(text: str | None) -> int | None:
    """Decimal, or octal with a leading 0 (S3 APU)."""
    if text is None or not _NUMBER.fullmatch(text):
        return None
    if text.startswith("0"):
        return _octal(text)
    value = int(text)
    return value if value <= 0o177777 else None


def _octal(text: str | None) -> int | None:
    try:
        value = int(text or "", 8) if text and _NUMBER.fullmatch(text) else -1
    except ValueError:
        return None
    return value if 0 <= value <= 0o177777 else None


def _number(text: str | None) -> int | None:
    return int(text) if text is not None and _NUMBER.fullmatch(text) else None


def _id(text: str | None) -> int | None:
    value = _number(text)
    return value if value is not None and value <= _MAX_ID else None


def _time_ns(text: str | None) -> int | None:
    """`sec` or `sec.fraction`; the fraction counts upward from the second, as in a timespec."""
    match = _TIME.fullmatch(text) if text is not None else None
    if match is None:
        return None
    seconds = int(match[1])
    if abs(seconds) > _MAX_SECONDS:
        return None
    return seconds * NANOSECONDS + int((match[2] or "0").ljust(9, "0"))


def _time_text(nanoseconds: int) -> str:
    seconds, rest = divmod(nanoseconds, NANOSECONDS)
    return f"{seconds}.{rest:09d}"


def _xattrs(text: str | None) -> Mapping[str, bytes] | None:
    try:
        table = json.loads(unquote_to_bytes(text or "").decode("utf-8", "surrogateescape"))
        if not isinstance(table, dict):
            return None
        for name in table:
            name.encode("utf-8", "surrogateescape")  # raises for a name no program can ask for
        return {name: base64.b64decode(value, validate=True) for name, value in table.items()}
    except (ValueError, TypeError, AttributeError, binascii.Error, RecursionError):
        return None


def _xattr_text(xattrs: Mapping[str, bytes]) -> str:
    table = {name: base64.b64encode(value).decode() for name, value in xattrs.items()}
    text = json.dumps(table, ensure_ascii=False, separators=(",", ":"))
    return quote_from_bytes(text.encode("utf-8", "surrogateescape"), safe="")
