"""What an option's text means: sizes, times, modes, yes and no."""

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from s3mount.core.errors import ConfigurationError

Parse = Callable[[str], Any]

MOST_BYTES = 2.0**64  # what statvfs can tell
MOST_SECONDS = 36_500 * 86_400.0  # a century: the system's clocks take no more than three
MOST_AT_ONCE = 1000  # threads; no service takes more from one client, no machine gives them
MOST_DIGITS = 10  # of the greatest user id; nobody counts that far in anything else
_UNITS = {"": 1, "k": 1, "m": 2, "g": 3, "t": 4, "p": 5, "e": 6}
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgtpe]?)(i?b)?", re.IGNORECASE)


def size(text: str) -> int:
    """Bytes: '8M', '8MiB' (both 8 * 2**20), '8MB' (8 * 10**6), '1.5G', '4096'."""
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise ConfigurationError(f"{text!r} is not a size; write e.g. 8M, 1.5GiB or 500000")
    number, unit, suffix = match[1], match[2].lower(), (match[3] or "").lower()
    base = 1000 if suffix == "b" else 1024
    found = float(number) * (base ** _UNITS[unit] if unit else 1)
    if found > MOST_BYTES:
        raise ConfigurationError(f"{_brief(text)} is more bytes than any disk has")
    return int(found)


def megabytes(text: str) -> int:
    """s3fs counts in MB and means MiB."""
    return whole_number(text) * 1024 * 1024


def whole_number(text: str) -> int:
    if not re.fullmatch(r"[0-9]+", text):
        raise ConfigurationError(f"{_brief(text)} is not a whole number")
    if len(text.lstrip("0")) > MOST_DIGITS:
        raise ConfigurationError(f"{_brief(text)} is too large a number")
    return int(text)


def positive_number(text: str) -> int:
    number = whole_number(text)
    if number == 0:
        raise ConfigurationError("0 would mean none at all; write 1 or more")
    return number


def at_once(text: str) -> int:
    """Of requests, each with a thread and a connection."""
    number = positive_number(text)
    if number > MOST_AT_ONCE:
        raise ConfigurationError(f"{text} at a time are too many; write at most {MOST_AT_ONCE}")
    return number


def seconds(text: str) -> float:
    """'3', '0.5', '90s', '10m', '1h'."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smhd]?)", text.strip())
    if match is None:
        raise ConfigurationError(f"{text!r} is not a time; write e.g. 3, 0.5, 90s, 10m or 1h")
    found = float(match[1]) * {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}[match[2]]
    if found > MOST_SECONDS:
        raise ConfigurationError(f"{_brief(text)} is too long; write at most 36500d")
    return found


def octal(text: str) -> int:
    """Permission bits or a umask."""
    if not re.fullmatch(r"0?o?[0-7]{1,4}", text):
        raise ConfigurationError(f"{text!r} is not an octal mode; write e.g. 0022 or 755")
    return int(text.replace("o", ""), 8)


def identifier(text: str) -> int:
    """A user or group id."""
    number = whole_number(text)
    if number >= 2**32 - 1:
        raise ConfigurationError(f"{text} is not a user or group id")
    return number


def path(text: str) -> Path:
    if not text:
        raise ConfigurationError("an empty path; name a directory or file")
    try:
        return Path(text).expanduser().absolute()
    except RuntimeError:
        raise ConfigurationError(f"nobody has the home directory {_brief(text)}") from None


def existing_file(text: str) -> Path:
    found = path(text)
    if not os.path.isfile(found):
        raise ConfigurationError(f"there is no file {_brief(str(found))}")
    return found


def _brief(text: str) -> str:
    """For a message; what is too large is often too long."""
    return repr(text) if len(text) <= 100 else f"{text[:100]!r}..."


def word(text: str) -> str:
    if not text or any(c.isspace() for c in text):
        raise ConfigurationError(f"{text!r} is not a single word")
    return text


def url(text: str) -> str:
    if not re.fullmatch(r"https?://[^/\s]+(/\S*)?", text):
        raise ConfigurationError(f"{text!r} is not a URL; write e.g. https://s3.example.org")
    return text.rstrip("/")


def one_of(*choices: str) -> Parse:
    """The value in lower case; another spelling is refused with the choices."""

    def parse(text: str) -> str:
        if text.lower() not in choices:
            raise ConfigurationError(f"{text!r} is none of {', '.join(choices)}")
        return text.lower()

    return parse


def header(text: str) -> tuple[str, str]:
    """'Name: value' of an HTTP header."""
    match = re.fullmatch(r"([A-Za-z0-9-]+):\s*([^\r\n]+)", text)
    if match is None:
        raise ConfigurationError(f"{text!r} is not a header; write 'Name: value'")
    return match[1].lower(), match[2].strip()
