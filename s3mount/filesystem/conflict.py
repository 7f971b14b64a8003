"""What becomes of bytes whose commit lost against another host: nothing of them is lost."""

import logging
import socket
import time
from typing import TYPE_CHECKING

from s3mount.core.errors import FilesystemError
from s3mount.store.base import ALWAYS, StoreError, WriteHeaders

if TYPE_CHECKING:
    from s3mount.filesystem.open_file import OpenFile

log = logging.getLogger(__name__)


def conflict_name(key: str) -> str:
    """`NAME.conflict-HOST-TIME`, the time in UTC to the second."""
    host = socket.gethostname().split(".")[0] or "unknown"
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    return f"{key}.conflict-{host}-{stamp}"


async def keep_conflicting_bytes(file: "OpenFile", key: str, headers: WriteHeaders) -> None:
    """Puts this host's version beside the other's.

    The whole file if its unchanged parts can still be read; else one object for each range that
    was written here, its offset in the name, for a made-up byte must never stand for a missing
    one. Raises StoreError if not even that can be stored: then the bytes stay in the spool.
    """
    target = conflict_name(key)
    content = await _whole(file)
    if content is not None:
        await file.state.store.put(target, content, headers, condition=ALWAYS)
        log.warning(
            "%r was changed by another host; this host's version is kept as %r", key, target
        )
        return
    if file.spooled is None:
        return
    for start, end in list(file.spooled.present):
        name = f"{target}.at-{start}"
        data = file.spooled.read(start, end - start)
        await file.state.store.put(name, data, headers, condition=ALWAYS)
        log.warning("%r was changed by another host; bytes written here are kept as %r", key, name)


async def _whole(file: "OpenFile") -> bytes | None:
    """The file as this host sees it; None if the version it was based on cannot be read."""
    answer = bytearray(file.size)
    if file.spooled is not None and file.spooled.dropped:
        log.error("%r: parts of it left the full spool and are lost", file.inode.name)
        return None
    present = file.spooled.present if file.spooled is not None else None
    end = min(file.visible, file.size)
    gaps = [(0, end)] if present is None else list(present.gaps(0, end))
    try:
        for start, stop in gaps:
            if start < stop:
                answer[start:stop] = await file.read_base(start, stop - start)
    except (StoreError, FilesystemError):
        return None
    if file.spooled is not None:
        for start, stop in list(file.spooled.present):
            answer[start:stop] = file.spooled.read(start, stop - start)
    return bytes(answer)
