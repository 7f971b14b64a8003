"""Types and attributes of listed names: from the stat cache of the bucket's mounts by version,
else by HEADs in parallel, whose answers go there."""

import os
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from s3mount.core.config import AttributeDefaults
from s3mount.core.metadata import (
    MAX_TARGET,
    Attributes,
    defaults_for,
    is_directory_object,
    is_folder_marker,
)
from s3mount.namespace.assembly import InTree
from s3mount.namespace.remote import Remote
from s3mount.namespace.stat_cache import Row
from s3mount.store.base import ListedObject, ObjectInfo
from s3mount.store.errors import StoreError
from s3mount.transfer.versions import PARALLEL_HEADS, Versions, tells
from s3mount.writeback.parallel import all_of


@dataclass(frozen=True, slots=True)
class Entry:
    """`path`: relative to what is listed, without a slash at its end. `attributes`: None where
    they were not asked for. `implied`: a directory without a marker, whose times nobody keeps.
    `target`: of a symbolic link."""

    path: str
    key: str
    is_directory: bool
    size: int = 0
    listed: ListedObject | None = None
    attributes: Attributes | None = None
    implied: bool = False
    target: str | None = None


class Describer:
    """`failures`: objects that could be listed but not asked for, with the first error."""

    def __init__(
        self, remote: Remote, prefix: str, defaults: AttributeDefaults, *, attributes: bool
    ) -> None:
        """Without `attributes` only what may be a marker is asked for."""
        self.failures = 0
        self.first_failure: StoreError | None = None
        self.shadowed = 0
        self._remote = remote
        self._versions = Versions(remote, defaults)
        self._prefix = prefix
        self._defaults = defaults
        self._attributes = attributes

    async def describe(self, names: Sequence[InTree]) -> list[Entry]:
        """In the same order; what has vanished since it was listed is left out."""
        rows = await self._rows(names)
        entries: list[Entry | None] = [None] * len(names)
        waiting: list[int] = []
        for index, name in enumerate(names):
            entries[index] = self._known(name, rows)
            if entries[index] is None:
                waiting.append(index)

        async def ask(index: int) -> None:
            try:
                entries[index] = await self._ask(names[index])
            except StoreError as error:
                self.failures += 1
                self.first_failure = self.first_failure or error
                entries[index] = self._plain(names[index])

        await all_of([partial(ask, index) for index in waiting], PARALLEL_HEADS)
        await self._remote.flush()
        if self._attributes:
            await self._follow(entries)
        return [entry for entry in entries if entry is not None]

    # -- without a request

    def _path(self, name: InTree) -> str:
        return name.directory + name.found.name

    def _plain(self, name: InTree) -> Entry:
        """As the listing shows it, with default attributes where they are asked for."""
        found, path = name.found, self._path(name)
        if found.is_directory:
            attributes = defaults_for(True, 0, self._defaults) if self._attributes else None
            return Entry(path, f"{self._prefix}{path}/", True, 0, None, attributes, implied=True)
        listed = found.listed
        assert listed is not None
        attributes = defaults_for(False, listed.last_modified, self._defaults)
        shown = attributes if self._attributes else None
        return Entry(path, listed.key, False, listed.size, listed, shown)

    def _known(self, name: InTree, rows: Mapping[str, Row]) -> Entry | None:
        """None: it has to be asked for."""
        found, path = name.found, self._path(name)
        if found.is_directory:
            if not self._attributes:
                return Entry(path, f"{self._prefix}{path}/", True)
            marker = name.marker or (found.listed if found.folder else None)
            attributes = _of_row(rows, marker)
            if attributes is None:
                return None
            return Entry(path, f"{self._prefix}{path}/", True, 0, marker, attributes)
        listed = found.listed
        assert listed is not None
        attributes = _of_row(rows, listed)
        if attributes is not None:
            return self._entry_of(path, listed, attributes)
        if self._attributes or listed.size == 0:
            return None
        return Entry(path, listed.key, False, listed.size, listed)

    def _entry_of(self, path: str, listed: ListedObject, attributes: Attributes) -> Entry:
        """A marker without slash looks like an empty file in a listing."""
        is_directory = stat.S_ISDIR(attributes.mode)
        key = f"{listed.key}/" if is_directory else listed.key
        shown = attributes if self._attributes else None
        return Entry(path, key, is_directory, listed.size, listed, shown)

    async def _rows(self, names: Sequence[InTree]) -> Mapping[str, Row]:
        """By key, of all objects that the listing shows."""
        shown = [name.marker or name.found.listed for name in names]
        return await self._versions.rows(one for one in shown if one is not None)

    # -- by requests

    async def _ask(self, name: InTree) -> Entry | None:
        if name.found.is_directory:
            return await self._ask_directory(name)
        listed = name.found.listed
        assert listed is not None
        info, _ = await self._remote.head(listed.key)
        if info is None:
            return None
        now = ListedObject(info.key, info.size, info.etag, info.last_modified, listed.storage_class)
        return self._entry_of(self._path(name), now, self._versions.learn(info))

    async def _ask_directory(self, name: InTree) -> Entry:
        """By its marker, of the forms that it may have `x/` first."""
        found, path = name.found, self._path(name)
        key = f"{self._prefix}{path}/"
        forms = [] if found.folder else [key]
        forms += [one.key for one in (found.twin, found.listed) if one is not None]
        for form in forms:
            info, _ = await self._remote.head(form)
            if info is not None and _stands_for_directory(info):
                listed = ListedObject(info.key, info.size, info.etag, info.last_modified)
                attributes = self._versions.learn(info, is_directory=True)
                return Entry(path, key, True, 0, listed, attributes)
            self.shadowed += info is not None
        return self._plain(name)

    async def _follow(self, entries: list[Entry | None]) -> None:
        """The targets of symbolic links are their bodies."""

        async def read(index: int, entry: Entry) -> None:
            try:
                got = await self._remote.store.get(entry.key, 0, MAX_TARGET)
            except StoreError:
                return  # it is shown without one
            entries[index] = Entry(
                *(entry.path, entry.key, False, entry.size, entry.listed, entry.attributes),
                target=os.fsdecode(got.data),
            )

        links = [
            partial(read, index, entry)
            for index, entry in enumerate(entries)
            if entry is not None and entry.attributes and stat.S_ISLNK(entry.attributes.mode)
        ]
        await all_of(links, PARALLEL_HEADS)


def _of_row(rows: Mapping[str, Row], listed: ListedObject | None) -> Attributes | None:
    row = None if listed is None else rows.get(listed.key)
    if listed is None or row is None or not tells(row, listed):
        return None
    return row.attributes


def _stands_for_directory(info: ObjectInfo) -> bool:
    return is_folder_marker(info.key, info.size, info.metadata) or is_directory_object(
        info.key, info.size, info.headers.get("content-type"), info.metadata
    )
