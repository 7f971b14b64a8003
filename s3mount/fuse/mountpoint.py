"""The place in the tree where the bucket is mounted: found, checked, cleared, unmounted.

Nothing here touches a mounted file system in a way that it would have to answer, so that none of
it hangs on a mount that does not.
"""

import errno
import os
import re
import shutil
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from s3mount.core.errors import ConfigurationError

FUSE_TYPE = "fuse.s3mount"
FUSE_DEVICE = Path("/dev/fuse")
MOUNT_TABLE = Path("/proc/self/mountinfo")
LINKS = 40  # symbolic links on one way; the kernel follows as many
# A mount is busy while its watchdog, or somebody's df, asks it something: for a moment, on a loaded
# machine for one or two seconds.
BUSY_ATTEMPTS = 20
BUSY_INTERVAL = 0.1


@dataclass(frozen=True, slots=True)
class MountEntry:
    """A line of the mount table. `device` is 'MAJOR:MINOR', as in /sys/class/bdi."""

    path: Path
    kind: str
    source: str
    device: str


def mount_table(text: str | None = None) -> list[MountEntry]:
    """All mounts that this process sees, in the order in which they were mounted."""
    entries = []
    for line in (MOUNT_TABLE.read_text() if text is None else text).splitlines():
        before, _, after = line.partition(" - ")
        fields, rest = before.split(" "), after.split(" ")
        path = Path(_unescaped(fields[4]))
        entries.append(MountEntry(path, rest[0], _unescaped(rest[1]), fields[2]))
    return entries


def _unescaped(field: str) -> str:
    """The mount table writes blanks, tabs, newlines and backslashes as three octal digits."""
    raw = re.sub(rb"\\([0-7]{3})", lambda m: bytes([int(m[1], 8)]), os.fsencode(field))
    return os.fsdecode(raw)


def find_mount(path: Path) -> MountEntry | None:
    """What is mounted on exactly `path` (the topmost), or None."""
    return next((entry for entry in reversed(mount_table()) if entry.path == path), None)


def mount_of(path: Path) -> tuple[Path, str] | None:
    """The mount point of ours that `path` is in, and the rest of the path ('' for itself).

    Symbolic links are followed on the way there, and nothing is asked of the mount.
    """
    mounts = {entry.path: entry for entry in mount_table()}  # the topmost of each place
    current, ahead, links = Path("/"), list(Path(os.path.abspath(path)).parts[:0:-1]), LINKS
    while ahead:
        step = current / ahead.pop()
        if step in mounts and mounts[step].kind == FUSE_TYPE:
            return step, "/".join(reversed(ahead))
        try:
            target = os.readlink(step)
        except OSError:
            current = step
            continue
        links -= 1
        if not links:
            return None
        ahead += Path(os.path.abspath(current / target)).parts[:0:-1]
        current = Path("/")
    return None


def resolve(path: Path) -> Path:
    """`path` absolute and without symbolic links; never asks a mounted bucket anything."""
    absolute = Path(os.path.abspath(path))
    if find_mount(absolute) is not None:
        return absolute
    resolved_parent = Path(os.path.realpath(absolute.parent)) / absolute.name
    if find_mount(resolved_parent) is not None:
        return resolved_parent
    return Path(os.path.realpath(absolute))


def prepare(path: Path, *, nonempty: bool) -> None:
    """Makes sure that `path` can be mounted on, clearing a dead mount of ours.

    Raises ConfigurationError with the remedy.
    """
    _require_fuse()
    existing = find_mount(path)
    if existing is not None and existing.kind == FUSE_TYPE and is_dead(path):
        unmount(path, lazy=True)
        existing = find_mount(path)
    if existing is not None:
        raise ConfigurationError(
            f"{path} is in use: {existing.source} ({existing.kind}) is mounted there;"
            f" unmount it first: s3mount umount {path}"
            if existing.kind == FUSE_TYPE
            else f"{path} is in use: {existing.source} ({existing.kind}) is mounted there;"
            f" unmount it first (umount {path}) or choose another directory"
        )
    try:
        names = os.listdir(path)
    except FileNotFoundError:
        raise ConfigurationError(
            f"the mount point {path} does not exist; create it: mkdir -p {path}"
        ) from None
    except NotADirectoryError:
        raise ConfigurationError(f"{path} is not a directory; name one") from None
    except PermissionError:
        raise ConfigurationError(
            f"no permission to read the mount point {path}; choose a directory of yours"
        ) from None
    if names and not nonempty:
        raise ConfigurationError(
            f"the mount point {path} is not empty (it has {names[0]!r}); use an empty directory,"
            " or -o nonempty to hide what is in it"
        )
    if os.getuid() != 0 and not os.access(path, os.W_OK):
        raise ConfigurationError(
            f"no permission to mount on {path}: it must be writable for you; choose a directory"
            " of yours or change its owner"
        )


def _require_fuse() -> None:
    if not FUSE_DEVICE.exists():
        raise ConfigurationError(
            "/dev/fuse is missing: load the module (modprobe fuse); in a container add"
            " --device /dev/fuse --cap-add SYS_ADMIN"
        )
    try:
        os.close(os.open(FUSE_DEVICE, os.O_RDWR | os.O_CLOEXEC))
    except PermissionError:
        raise ConfigurationError(
            "/dev/fuse cannot be opened (no permission): it must be open to everyone, chmod 666"
            " /dev/fuse; in a container add --device /dev/fuse --cap-add SYS_ADMIN"
        ) from None
    except OSError as error:
        raise ConfigurationError(
            f"/dev/fuse cannot be opened ({error.strerror}): load the module (modprobe fuse)"
        ) from None
    if os.getuid() != 0 and shutil.which("fusermount3") is None:
        raise ConfigurationError(
            "fusermount3 is missing, which mounts for users other than root; install it:"
            " apt install fuse3"
        )


def is_dead(path: Path) -> bool:
    """Whether the process behind the mount is gone (every access answers ENOTCONN)."""
    try:
        os.statvfs(path)
    except OSError as error:
        return error.errno == errno.ENOTCONN
    return False


def unmount(path: Path, *, lazy: bool = False) -> None:
    """Raises ConfigurationError with the tool's own words, e.g. that the mount is busy."""
    if shutil.which("fusermount3") is not None:
        command = ["fusermount3", "-u", *(["-z"] if lazy else []), "--", str(path)]
    else:
        command = ["umount", *(["-l"] if lazy else []), "--", str(path)]
    for attempt in range(BUSY_ATTEMPTS):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        words = done.stderr.strip() or f"{command[0]} failed"
        busy = "busy" in words.lower()
        if not busy or attempt == BUSY_ATTEMPTS - 1:
            break
        time.sleep(BUSY_INTERVAL)
    if done.returncode != 0 and find_mount(path) is not None:
        remedy = f"; see who uses it: fuser -vm {path}" if busy else ""
        raise ConfigurationError(f"{path} was not unmounted: {words}{remedy}")
