"""The bucket seen from outside, and what may be left behind in the file system when it is idle."""

import stat
from collections.abc import Mapping

from s3mount.core.config import AttributeDefaults
from s3mount.core.metadata import Attributes, decode
from s3mount.filesystem.filesystem import FileSystem
from s3mount.store.memory import MemoryStore, StoredObject
from tests.model.mounted import GID, UID

DEFAULTS = AttributeDefaults(uid=UID, gid=GID)


def contents(store: MemoryStore) -> dict[str, bytes]:
    """Every key with its bytes."""
    return {key: stored.data for key, stored in sorted(store.objects.items())}


def files(store: MemoryStore) -> dict[str, bytes]:
    """Every key that is no directory marker, with its bytes."""
    return {key: data for key, data in contents(store).items() if not key.endswith("/")}


def attributes_of(stored: StoredObject) -> Attributes:
    return decode(
        stored.metadata,
        is_directory=stored.key.endswith("/"),
        size=len(stored.data),
        content_type=stored.headers.get("content-type"),
        last_modified=stored.last_modified,
        defaults=DEFAULTS,
    )


def permissions(store: MemoryStore, key: str) -> int:
    return stat.S_IMODE(attributes_of(store.objects[key]).mode)


def leftovers(fs: FileSystem, store: MemoryStore) -> list[str]:
    """What an idle file system without open handles must not hold."""
    state = fs.state
    found = [f"upload of {upload.key!r}" for upload in store.uploads.values()]
    found += [f"intent {intent.describe()}" for intent in state.queue.unfinished()]
    found += [f"open file {file.inode!r}" for file in state.open_files.values()]
    found += [f"orphans of {key!r}" for key in state.orphans]
    kept = state.journal.load()
    found += [f"in the journal: {record!r}" for record in kept.intents]
    found += [f"in the journal: {record!r}" for record in kept.files.values()]
    # One whose creation was cut off may be there or not: the next mount looks.
    begun = [record for record in kept.uploads.values() if record.upload_id is not None]
    found += [f"in the journal: {record!r}" for record in begun]
    found += [f"sealed: {name}" for name in state.spool.pool.sealed]
    usage = state.spool.usage()
    found += [f"spool {name}: {usage[name]}" for name in ("chunks", "memory") if usage[name]]
    found += [f"spooled file {file!r}" for file in state.spool.files]
    for inode in state.namespace.inodes:
        if inode.directory is not None and inode.directory.pins:
            found.append(f"pins in {inode!r}: {inode.directory.pins}")
        if inode.local_size is not None and not inode.detached:
            found.append(f"local size of {inode!r}")
    return found


def requests(before: Mapping[str, int], after: Mapping[str, int]) -> dict[str, int]:
    """Requests by operation between two looks at MemoryStore.counts()."""
    return {
        name: count - before.get(name, 0)
        for name, count in sorted(after.items())
        if count != before.get(name, 0) and not name.startswith("Bytes")
    }
