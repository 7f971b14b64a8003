"""Whether what is fsynced in a directory outlives the machine: on what file system it is."""

import ctypes
import os
from pathlib import Path

# f_type of statfs(2), from linux/magic.h and the file systems' own headers.
_UNFIT = {
    0x01021994: "tmpfs",
    0x858458F6: "ramfs",
    0x6969: "NFS",
    0xFF534D42: "CIFS",
    0xFE534D42: "SMB",
    0x517B: "SMB",
}
_STATFS_SIZE = 512  # more than struct statfs has anywhere; f_type is its first word


def unfit_for_journal(directory: Path) -> str | None:
    """The kind of file system, if a power cut or a network takes away what was fsynced there; of
    the nearest directory above that exists. None: a local disk, as far as can be told."""
    while not directory.exists() and directory != directory.parent:
        directory = directory.parent
    answer = ctypes.create_string_buffer(_STATFS_SIZE)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.statfs(os.fsencode(directory), answer) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), str(directory))
    return _UNFIT.get(ctypes.c_ulong.from_buffer(answer).value & 0xFFFFFFFF)
