"""s3fs's password files: KEY:SECRET, BUCKET:KEY:SECRET or the format of ~/.aws/credentials."""

import configparser
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from s3mount.core.errors import ConfigurationError

SYSTEM_FILE = Path("/etc/passwd-s3fs")

# Where one of these is set boto3's own chain finds credentials, and the default files are not
# looked at.
CHAIN_VARIABLES = (
    "AWS_ACCESS_KEY_ID",
    "AWS_PROFILE",
    "AWS_DEFAULT_PROFILE",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
)


@dataclass(frozen=True, slots=True)
class Credentials:
    access_key: str
    secret_key: str = field(repr=False)
    session_token: str | None = field(default=None, repr=False)


def find_credentials(
    bucket: str, named: Path | None, environment: Mapping[str, str]
) -> Credentials | None:
    """Of the file `named`, else of s3fs's default files where boto3's chain has nothing.

    None: boto3's chain decides. Raises ConfigurationError for a file that is open to others, that
    cannot be read or has nothing for this bucket.
    """
    if named is not None:
        return read_passwd_file(named, bucket)
    if any(environment.get(name) for name in CHAIN_VARIABLES):
        return None
    home = Path(environment.get("HOME") or "/")
    shared = environment.get("AWS_SHARED_CREDENTIALS_FILE") or home / ".aws" / "credentials"
    # os.path's own answer no where Path raises: in the home directory of somebody else.
    if os.path.exists(shared):
        return None
    for path in (home / ".passwd-s3fs", SYSTEM_FILE):
        if os.access(path, os.R_OK):
            return read_passwd_file(path, bucket)
    return None


def read_passwd_file(path: Path, bucket: str) -> Credentials:
    """The entry for `bucket`, else the one for every bucket."""
    try:
        found = path.stat()
        # Asked first: a pipe may never end, nor a device.
        text = path.read_text() if stat.S_ISREG(found.st_mode) else ""
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not text"
        raise ConfigurationError(f"the passwd_file {path} cannot be read: {reason}") from None
    _check_permissions(path, found)
    if any(line.strip().startswith("[") for line in text.splitlines()):
        return _aws_style(path, text)
    return _s3fs_style(path, text, bucket)


def _check_permissions(path: Path, found: os.stat_result) -> None:
    if not stat.S_ISREG(found.st_mode):
        raise ConfigurationError(f"the passwd_file {path} is not a file")
    # The system-wide file may be shared with a group, but not written by it.
    allowed = 0o740 if path == SYSTEM_FILE else 0o700
    if found.st_mode & 0o777 & ~allowed:
        wanted = "640" if path == SYSTEM_FILE else "600"
        raise ConfigurationError(
            f"the passwd_file {path} is open to others (mode {found.st_mode & 0o777:04o}):"
            f" chmod {wanted} {path}"
        )


def _s3fs_style(path: Path, text: str, bucket: str) -> Credentials:
    general: Credentials | None = None
    for number, raw in enumerate(text.splitlines(), 1):
        line = raw.strip()
        if not line or line.startswith("#"):
            continue
        fields = line.split(":")
        if len(fields) not in (2, 3) or not all(fields):
            raise ConfigurationError(
                f"line {number} of the passwd_file {path} is neither ACCESS_KEY:SECRET_KEY nor"
                " BUCKET:ACCESS_KEY:SECRET_KEY"
            )
        credentials = Credentials(*fields[-2:])
        if len(fields) == 3:
            if fields[0] == bucket:
                return credentials
        elif general is None:
            general = credentials
        else:
            raise ConfigurationError(
                f"line {number} of the passwd_file {path} is a second entry without a bucket;"
                " keep one"
            )
    if general is None:
        raise ConfigurationError(f"the passwd_file {path} has no entry for the bucket {bucket!r}")
    return general


def _aws_style(path: Path, text: str) -> Credentials:
    parser = configparser.ConfigParser(interpolation=None)
    try:
        parser.read_string(text)
        first = next(iter(parser.sections()), "default")
        section = parser["default" if parser.has_section("default") else first]
        return Credentials(
            section["aws_access_key_id"],
            section["aws_secret_access_key"],
            section.get("aws_session_token"),
        )
    except (configparser.Error, KeyError) as error:
        raise ConfigurationError(
            f"the passwd_file {path} is not in the format of ~/.aws/credentials:"
            f" {type(error).__name__} {error}".partition("\n")[0]
        ) from None
