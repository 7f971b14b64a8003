"""Where a mount's control socket is: derived from the mount point, so that a client finds it."""

import hashlib
import os
import stat
from collections.abc import Mapping
from pathlib import Path

from s3mount.core.errors import ConfigurationError

ROOT_DIRECTORY = Path("/run/s3mount")


def runtime_directory(environment: Mapping[str, str] = os.environ, uid: int | None = None) -> Path:
    """The directory of this user's sockets; short, for a socket's path has at most 107 bytes."""
    uid = os.getuid() if uid is None else uid
    if uid == 0:
        return ROOT_DIRECTORY
    session = Path(environment.get("XDG_RUNTIME_DIR") or f"/run/user/{uid}")
    if session.is_dir() and os.access(session, os.W_OK):
        return session / "s3mount"
    return Path(f"/tmp/s3mount-{uid}")


def socket_name(mountpoint: Path) -> str:
    return hashlib.sha256(os.fsencode(mountpoint)).hexdigest()[:16] + ".sock"


def own_socket(mountpoint: Path) -> Path:
    """Where this process's mount listens; the directory is made, 0700.

    Raises ConfigurationError if it belongs to someone else: in /tmp anyone may have made it.
    """
    directory = runtime_directory()
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = directory.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise ConfigurationError(
            f"{directory} must be a directory of yours with mode 0700; remove it"
        )
    return directory / socket_name(mountpoint)


def find_sockets(mountpoint: Path) -> list[Path]:
    """The sockets that a mount on `mountpoint` may have, ours first; root finds everyone's."""
    name = socket_name(mountpoint)
    return [path for path in (d / name for d in _directories()) if _exists(path)]


def all_sockets() -> list[Path]:
    """Of all mounts of this user; of all users for root. Mounts that died leave theirs behind."""
    found = [path for directory in _directories() for path in sorted(directory.glob("*.sock"))]
    return [path for path in found if _exists(path)]


def _directories() -> list[Path]:
    directories = [runtime_directory(), Path(f"/tmp/s3mount-{os.getuid()}"), ROOT_DIRECTORY]
    if os.getuid() == 0:
        directories += [user / "s3mount" for user in Path("/run/user").glob("*")]
        directories += list(Path("/tmp").glob("s3mount-[0-9]*"))
    return list(dict.fromkeys(directories))


def _exists(path: Path) -> bool:
    try:
        return stat.S_ISSOCK(path.lstat().st_mode)
    except OSError:
        return False
