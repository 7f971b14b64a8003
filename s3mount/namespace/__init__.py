"""Names, inodes and attributes: what the bucket holds, as far as it is known here."""

from s3mount.namespace.cursor import DirectoryCursor
from s3mount.namespace.inode import ABSENT, Absent, Directory, DirectoryEntry, Inode, Version
from s3mount.namespace.inode_table import InodeTable
from s3mount.namespace.namespace import Namespace, Pin
from s3mount.namespace.stat_cache import StatCache

__all__ = [
    "ABSENT",
    "Absent",
    "Directory",
    "DirectoryCursor",
    "DirectoryEntry",
    "Inode",
    "InodeTable",
    "Namespace",
    "Pin",
    "StatCache",
    "Version",
]
