"""The filesystem's Stat as the structures that pyfuse3 replies with."""

import pyfuse3

from s3mount.core.metadata import storable_time
from s3mount.filesystem.stat import Stat, StatFs

BLOCK_SIZE = 4096  # st_blksize: what programs read and write at a time when they ask


def entry_attributes(stat: Stat) -> pyfuse3.EntryAttributes:
    """For lookup, getattr and readdir alike; st_ino is also the kernel's node id."""
    entry = pyfuse3.EntryAttributes()
    attributes = stat.attributes
    entry.st_ino = pyfuse3.InodeT(stat.number)
    entry.generation = 0
    entry.entry_timeout = stat.entry_timeout
    entry.attr_timeout = stat.attr_timeout
    entry.st_mode = pyfuse3.ModeT(attributes.mode)
    entry.st_nlink = stat.nlink
    entry.st_uid = attributes.uid
    entry.st_gid = attributes.gid
    entry.st_rdev = attributes.rdev
    entry.st_size = stat.size
    entry.st_blksize = BLOCK_SIZE
    entry.st_blocks = stat.blocks
    entry.st_atime_ns = attributes.atime_ns
    entry.st_mtime_ns = attributes.mtime_ns
    entry.st_ctime_ns = attributes.ctime_ns
    return entry


def statvfs_data(stat: StatFs) -> pyfuse3.StatvfsData:
    data = pyfuse3.StatvfsData()
    data.f_bsize = stat.block_size
    data.f_frsize = stat.block_size
    data.f_blocks = stat.blocks
    data.f_bfree = stat.free
    data.f_bavail = stat.free
    data.f_files = stat.files
    data.f_ffree = stat.free_files
    data.f_favail = stat.free_files
    data.f_namemax = stat.name_max
    return data


def wanted_changes(
    fields: pyfuse3.SetattrFields, attributes: pyfuse3.EntryAttributes
) -> dict[str, int]:
    """The keyword arguments of FileSystem.setattr: only what the kernel asked to change.

    Times that cannot be stored become the nearest that can.
    """
    changes: dict[str, int] = {}
    if fields.update_mode:
        changes["mode"] = attributes.st_mode
    if fields.update_uid:
        changes["uid"] = attributes.st_uid
    if fields.update_gid:
        changes["gid"] = attributes.st_gid
    if fields.update_size:
        changes["size"] = attributes.st_size
    if fields.update_atime:
        changes["atime_ns"] = storable_time(attributes.st_atime_ns)
    if fields.update_mtime:
        changes["mtime_ns"] = storable_time(attributes.st_mtime_ns)
    if fields.update_ctime:
        changes["ctime_ns"] = storable_time(attributes.st_ctime_ns)
    return changes
