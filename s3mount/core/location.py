"""How users write what is in S3: BUCKET, BUCKET:/KEY, s3://BUCKET/KEY."""

import re
from dataclasses import dataclass

from s3mount.core.errors import ConfigurationError

# A mount's prefix: keys have at most 1024 bytes, and names below it must still fit.
MAX_PREFIX = 1000


@dataclass(frozen=True, slots=True)
class Location:
    """`key` as written, without the slash that begins it: '' is the whole bucket; a slash at its
    end says that a directory is meant."""

    bucket: str
    key: str = ""

    def __str__(self) -> str:
        return f"{self.bucket}:/{self.key}" if self.key else self.bucket

    @property
    def prefix(self) -> str:
        """What the keys below it begin with: '' or with a slash at the end."""
        return f"{self.key.rstrip('/')}/" if self.key.strip("/") else ""

    def checked(self, *, amazon: bool) -> "Location":
        """Raises ConfigurationError for a bucket's name that cannot be."""
        check_bucket_name(self.bucket, amazon=amazon)
        return self


def looks_remote(text: str) -> bool:
    """Whether a word that may also be a local path names something in S3."""
    if text.lower().startswith("s3://"):
        return True
    bucket, colon, path = text.partition(":")
    return bool(colon) and path.startswith("/") and "/" not in bucket


def parse_location(text: str) -> Location:
    """Any key that S3 can have. Raises ConfigurationError with the right form."""
    if text.startswith("s3fs#"):
        raise ConfigurationError(
            f"write {text.removeprefix('s3fs#')!r} instead of {text!r} and the type"
            " fuse.s3mount instead of fuse in fstab"
        )
    scheme, separator, rest = text.partition("://")
    if separator and scheme.lower() in {"s3", "http", "https"}:
        bucket, _, key = rest.partition("/")
        if scheme.lower() != "s3":
            wanted = Location(bucket, key)
            raise ConfigurationError(f"write BUCKET or BUCKET:/KEY, e.g. {wanted}, not {text}")
        return Location(bucket, key)
    bucket, colon, path = text.partition(":")
    if colon and not path.startswith("/"):
        raise ConfigurationError(f"write {bucket}:/{path} to name a part of a bucket, not {text}")
    return Location(bucket, path[1:])


def parse_mount_source(text: str) -> tuple[str, str]:
    """('bucket', 'prefix/') of what is mounted or fed to: a prefix that paths can name."""
    found = parse_location(text)
    prefix = found.key.strip("/")
    if any(part in ("", ".", "..") for part in prefix.split("/") if prefix):
        raise ConfigurationError(
            f"no path can name {'/' + found.key!r}: empty components, '.' and '..' are not possible"
        )
    if len(prefix.encode(errors="surrogateescape")) > MAX_PREFIX:
        raise ConfigurationError("the prefix is too long: keys have at most 1024 bytes")
    return found.bucket, f"{prefix}/" if prefix else ""


def check_bucket_name(bucket: str, *, amazon: bool) -> None:
    """Amazon's rules where it is Amazon; other services let more through."""
    if amazon:
        good = re.fullmatch(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]", bucket) and ".." not in bucket
        rule = "3 to 63 lower-case letters, digits, '-' and '.', a letter or digit at both ends"
    else:
        good = re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{1,254}", bucket) and ".." not in bucket
        rule = "3 to 255 letters, digits, '-', '_' and '.'"
    if not good:
        raise ConfigurationError(
            f"no bucket can be called {bucket!r}: a name has {rule}; check the spelling"
        )
