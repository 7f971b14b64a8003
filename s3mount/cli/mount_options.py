"""The words after -o, from a user, fstab, mount(8) or an s3fs command line."""

import difflib
import re
from collections.abc import Iterable

from s3mount.cli.options import BY_NAME as OWN
from s3mount.cli.options import find_option
from s3mount.cli.s3fs_table import BY_NAME as S3FS
from s3mount.cli.settings import Settings
from s3mount.core.errors import ConfigurationError

# Passed to the kernel as they are.
KERNEL = frozenset(
    {
        "rw",
        "suid",
        "nosuid",
        "dev",
        "nodev",
        "exec",
        "noexec",
        "atime",
        "noatime",
        "diratime",
        "nodiratime",
        "relatime",
        "norelatime",
        "strictatime",
        "nostrictatime",
        "lazytime",
        "nolazytime",
        "async",
        "allow_other",
        "allow_root",
        "fsname",
        "default_permissions",
    }
)

# Meant for mount(8), systemd or fstab's readers.
IGNORED = frozenset(
    {
        "defaults",
        "auto",
        "noauto",
        "user",
        "nouser",
        "users",
        "owner",
        "group",
        "_netdev",
        "nofail",
        "_rnetdev",
        "comment",
        "uhelper",
        "helper",
        "intr",
        "nointr",
        "hard",
        "soft",
        "big_writes",
        "silent",
        "loud",
        "remount_ro",
    }
)

REFUSED = {
    "max_read": "it breaks the start-up of the FUSE library; leave it out",
    "blkdev": "a bucket is not a block device",
    "fd": "it is for the FUSE library itself",
    "rootmode": "it is for the FUSE library itself",
    "user_id": "it is for the FUSE library itself",
    "group_id": "it is for the FUSE library itself",
    "remount": "options cannot change while mounted; unmount and mount again",
    "bind": "mount the bucket first, then bind its directory",
    "kernel_cache": "the kernel's cache is kept per version of an object already; leave it out",
    "auto_cache": "the kernel's cache is kept per version of an object already; leave it out",
    "direct_io": "every read would be a request; leave it out",
    "hard_remove": "unlinked files that are open stay readable without it; leave it out",
    "use_ino": "inode numbers are stable already; leave it out",
    "readdir_ino": "inode numbers are stable already; leave it out",
    "attr_timeout": "use metadata_ttl",
    "entry_timeout": "use metadata_ttl",
    "negative_timeout": "use metadata_ttl",
    "ac_attr_timeout": "use metadata_ttl",
    "subtype": "it is s3mount, always",
}


def split_words(text: str) -> list[tuple[str, str | None]]:
    """Names and values of 'a,b=c'; a comma in a value is written with a backslash before it."""
    words = []
    for raw in re.findall(r"(?:\\.|[^,\\])+", text):
        name, equals, value = re.sub(r"\\(.)", r"\1", raw).partition("=")
        words.append((name.strip(), value if equals else None))
    return words


def apply_words(settings: Settings, texts: Iterable[str]) -> None:
    """Each word of each -o; raises ConfigurationError for what is unknown, refused or wrong."""
    for text in texts:
        for name, value in split_words(text):
            apply_word(settings, name, value)


def apply_word(settings: Settings, name: str, value: str | None) -> None:
    if name in S3FS:
        S3FS[name].use(settings, value)
    elif name in ("ro", "sync", "dirsync"):
        section, field = ("mount", "read_only") if name == "ro" else ("writeback", "sync")
        settings.set(section, field, True)
    elif name in KERNEL:
        settings.kernel_options.append(name if value is None else f"{name}={value}")
    elif name in IGNORED or name.startswith("x-"):
        return
    elif name in REFUSED:
        raise ConfigurationError(f"-o {name} is refused: {REFUSED[name]}")
    elif (option := find_option(name)) is not None:
        option.apply(settings, value)
    else:
        hint = nearest(name)
        raise ConfigurationError(f"-o {name} is not known{hint} (all: s3mount mount --help)")


def nearest(name: str) -> str:
    """', did you mean X?' or nothing."""
    known = [*S3FS, *OWN, *KERNEL, *IGNORED, "ro", "sync"]
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    close = close or difflib.get_close_matches(name.replace("_", "-"), known, n=1, cutoff=0.6)
    return f"; did you mean {close[0]}?" if close else ""
