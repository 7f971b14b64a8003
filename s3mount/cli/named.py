"""What a word of a command line names: something in S3, or, by a path in a mount of ours, what is
stored for it."""

import os
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path

from s3mount.cli.service import Service
from s3mount.control.client import NoMount, OtherVersion, Refused, ask
from s3mount.core.errors import ConfigurationError
from s3mount.core.location import Location, looks_remote
from s3mount.fuse.mountpoint import FUSE_TYPE, mount_table


@dataclass(frozen=True, slots=True)
class Named:
    """`service` reaches it: through a mount its endpoint is known."""

    text: str
    location: Location
    service: Service
    mountpoint: Path | None = None


def named(text: str, service: Service) -> Named:
    """Changes that a mount has not sent yet are in the bucket when this returns.

    Raises ConfigurationError, also for a local file, which no copy within the service can reach.
    """
    if looks_remote(text):
        return Named(text, service.locate(text), service)
    mountpoint = _mount_of(Path(text))
    if mountpoint is not None:
        return _in_mount(text, mountpoint, service)
    if os.path.lexists(text) or text.startswith((".", "/", "~")):
        raise ConfigurationError(
            f"{text} is a local path, in no mount of s3mount: this command works within S3, where"
            " a key is written BUCKET:/KEY. s3mount feed sends local files to a bucket; cp(1)"
            " copies either way where the bucket is mounted"
        )
    return Named(text, service.locate(text), service)


def _resolved(path: Path) -> Path:
    """Links above the last component are followed."""
    absolute = Path(os.path.abspath(path))
    return Path(os.path.realpath(absolute.parent)) / absolute.name


def _mount_of(path: Path) -> Path | None:
    """The mount point of ours that `path` is in, if that is the nearest mount above it."""
    resolved = _resolved(path)
    above = [entry for entry in mount_table() if resolved.is_relative_to(entry.path)]
    if not above:
        return None
    nearest = max(reversed(above), key=lambda entry: len(entry.path.parts))
    return nearest.path if nearest.kind == FUSE_TYPE else None


def _in_mount(text: str, mountpoint: Path, service: Service) -> Named:
    try:
        ask(mountpoint, "flush")
        status = ask(mountpoint, "status")
    except OtherVersion as error:
        raise ConfigurationError(f"{text}: {error}, or name the object as BUCKET:/KEY") from None
    except NoMount as error:
        raise ConfigurationError(f"{text}: {error}; name the object as BUCKET:/KEY") from None
    except (Refused, TimeoutError) as error:
        raise ConfigurationError(
            f"the mount on {mountpoint} has changes that are not in the bucket yet ({error}); see"
            f" s3mount status {mountpoint}"
        ) from None
    relative = _resolved(Path(text)).relative_to(mountpoint)
    key = status["prefix"] + ("" if relative == Path() else relative.as_posix())
    try:
        key.encode()
    except UnicodeEncodeError:
        raise ConfigurationError(f"{text!r} is not UTF-8; name the object as BUCKET:/KEY") from None
    if text.endswith("/") and key and not key.endswith("/"):
        key += "/"
    own = Service(deepcopy(service.settings))
    if status.get("endpoint"):
        own.settings.set("store", "endpoint_url", status["endpoint"])
    return Named(text, Location(status["bucket"], key), own, mountpoint)
