"""A file's PUT: under which headers and condition, and what is sent; see open_file.py.

What is awaited here is awaited under the file's lock, while a snapshot of it is being sent.
"""

import errno
from dataclasses import replace
from typing import TYPE_CHECKING

import trio

from s3mount.core.errors import FilesystemError
from s3mount.core.metadata import content_type_for, content_type_renamed, encode
from s3mount.readpath import RemoteObject
from s3mount.store.base import (
    ALWAYS,
    KEPT_HEADERS,
    Condition,
    ObjectInfo,
    PutResult,
    WriteHeaders,
)
from s3mount.store.errors import NotFound, PreconditionFailed
from s3mount.writeback.intents import ABSENT, Intent, NotYetError
from s3mount.writeback.looking import may_be_ours
from s3mount.writeback.uploader import BaseObject

if TYPE_CHECKING:
    from s3mount.filesystem.open_file import OpenFile

# What could not be sent for so many seconds after its close looks at what is there first.
LATE = 10.0


def headers_of(file: "OpenFile") -> WriteHeaders:
    """Our metadata, and what the object carries that is not ours."""
    attributes = file.inode.attributes if file.snapshot is None else file.snapshot.attributes
    if attributes is None:
        raise FilesystemError(errno.EIO, "attributes unknown")
    kept = file.kept
    headers = {"content-type": content_type_for(file.inode.name, attributes)}
    if kept is not None:
        headers.update({name: kept.headers[name] for name in KEPT_HEADERS if name in kept.headers})
        headers["content-type"] = content_type_renamed(
            headers["content-type"], kept.metadata, kept.key, file.inode.name
        )
    return WriteHeaders(encode(attributes, kept.metadata if kept is not None else {}), headers)


def condition_of(file: "OpenFile", intent: Intent) -> Condition:
    """A whole rewrite replaces whatever is there, as on NFS, but only soon after its close:
    much later others may have put newer work there (ruling 10)."""
    if file.exclusive:
        return Condition(absent=True)
    if not file.whole and file.remote is not None:
        return Condition(etag=file.remote.etag)
    late = trio.current_time() - file.records.sealed_at > LATE
    if not late or intent.expects is None:
        return ALWAYS
    if intent.expects is ABSENT:
        return Condition(absent=True)
    return Condition(etag=intent.expects)


async def send_file(
    file: "OpenFile", key: str, headers: WriteHeaders, condition: Condition
) -> PutResult:
    """Raises EEXIST or ESTALE when others were faster; the bytes are kept beside theirs then."""
    file.prepare_upload()
    if file.snapshot is None or file.upload is None or file.spooled is None:
        raise FilesystemError(errno.EIO, "a PUT that was not begun")
    if file.rewriting:
        raise NotYetError
    if file.recovering is not None:
        looked = await file.recovering.look(key, headers)
        if isinstance(looked, PutResult):
            if file.changes == file.snapshot.changes:
                file.upload.found_done(file.size)
                return looked
            # Written again while it was looked at: an edit of that.
            base = BaseObject(key, looked.etag, file.snapshot.size, looked.version_id)
            file.upload.was_published(base, file.spooled.write_count)
            looked = Condition(etag=looked.etag)
        condition = looked
    try:
        if file.remote is not None and not _is_own(file, file.remote):
            await _learn_foreign_metadata(file)
            headers = headers_of(file)
            _note_headers(file, headers)
        try:
            return await _commit(file, key, headers, condition)
        except PreconditionFailed:
            found = await _stored_before(file, key)
            if found is None:
                raise
            file.exclusive = False
            return await _commit(file, key, headers_of(file), Condition(etag=found.etag))
    except (PreconditionFailed, NotFound, FilesystemError) as error:
        if isinstance(error, NotFound) and condition.etag is None:
            raise
        if isinstance(error, FilesystemError) and error.errno != errno.ESTALE:
            raise  # ESTALE: the base could not be read any more
        await file.keep(key, headers)
        raise FilesystemError(
            errno.EEXIST if file.exclusive else errno.ESTALE,
            f"another host changed {key!r} meanwhile; this one's bytes are kept beside it",
        ) from error


async def _commit(
    file: "OpenFile", key: str, headers: WriteHeaders, condition: Condition
) -> PutResult:
    """What a close left, or else what is here now: it may have grown since the PUT began, and has
    the time of that then."""
    assert file.snapshot is not None
    assert file.upload is not None
    assert file.spooled is not None
    records = file.records
    changes, size, visible = file.changes, file.size, file.visible
    frozen = records.freeze()
    if frozen is not None and records.closed is not None:
        changes, size, visible = records.changes, records.closed.size, records.closed.visible
    records.sending = (file.spooled if frozen is None else frozen).write_count
    snapshot = file.snapshot
    file.snapshot = replace(snapshot, changes=changes, size=size, stamp=records.sending)
    if frozen is None and changes != snapshot.changes and file.inode.attributes is not None:
        file.snapshot = replace(file.snapshot, attributes=file.inode.attributes)
        headers = headers_of(file)
        _note_headers(file, headers)
    try:
        return await file.upload.commit(
            key,
            headers,
            size=size,
            base=_base_object(file.remote if visible else None),
            visible=visible,
            condition=condition,
            read_base=file.read_base,
            frozen=frozen,
        )
    finally:
        records.sending = None
        if frozen is not None:
            frozen.close()


async def _stored_before(file: "OpenFile", key: str) -> ObjectInfo | None:
    """What is in the way, if a request without an answer wrote it whose bytes were thrown away
    since: it was the file's, too. (Of those that are still here LostAnswers knows.)"""
    if not file.whole or file.put is None:
        return None
    try:
        found = await file.state.store.head(key)
    except NotFound:
        return None
    unanswered = [*file.put.unanswered, *file.state.uploader.doubts.unanswered(key)]
    return found if may_be_ours(found, unanswered) else None


def _note_headers(file: "OpenFile", headers: WriteHeaders) -> None:
    """A replay recognises by them what was stored, though nobody heard the answer."""
    if file.put is not None:
        file.put.headers = headers
        with file.state.books.aftermath():
            file.state.books.update(file.put)


def _base_object(remote: RemoteObject | None) -> BaseObject | None:
    if remote is None:
        return None
    return BaseObject(remote.key, remote.etag, remote.size, remote.version_id)


def _is_own(file: "OpenFile", remote: RemoteObject) -> bool:
    """The object has no foreign metadata, for this mount wrote it."""
    version = file.inode.version
    return (
        version is not None
        and version.etag == remote.etag
        and file.state.is_own(remote.key, remote.etag, version.last_modified)
    )


async def _learn_foreign_metadata(file: "OpenFile") -> None:
    """Raises NotFound and PreconditionFailed where the version that is edited is no more."""
    if file.kept is not None or file.remote is None:
        return
    try:
        found = await file.state.store.head(file.remote.key)
    except NotFound:
        if not file.whole:
            raise
        return
    ours = file.state.uploader.doubts.is_ours(found)
    if found.etag != file.remote.etag and not file.whole and not ours:
        raise PreconditionFailed(
            f"is another version now ({found.etag})",
            operation="HeadObject",
            key=file.remote.key,
        )
    file.kept = found
