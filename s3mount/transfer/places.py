"""What stands at a location: a file, a directory, or nothing, as a mount would show it."""

from dataclasses import dataclass

from s3mount.core.errors import ConfigurationError
from s3mount.core.keys import FOLDER_SUFFIX, ROOT_MARKER
from s3mount.core.location import Location
from s3mount.core.metadata import is_directory_object, is_folder_marker
from s3mount.store.base import ObjectInfo, ObjectStore
from s3mount.store.errors import NotFound
from s3mount.writeback.parallel import all_of


class NothingThere(Exception):
    """Of a location at which there is neither a file nor a directory, or not `what`; `see` is the
    command that shows what there is."""

    def __init__(self, location: Location, what: str = "nothing", see: str = "s3mount ls") -> None:
        super().__init__(
            f"there is {what} at {location}; see what is there: {see} {location.bucket}"
        )


@dataclass(frozen=True, slots=True)
class Place:
    """`info`: of a file. `markers`: of a directory, the keys beside `prefix` that stand for it.
    `shadowed`: there is a file of that name as well, which the directory hides."""

    location: Location
    info: ObjectInfo | None = None
    is_directory: bool = False
    markers: tuple[str, ...] = ()
    shadowed: bool = False

    @property
    def exists(self) -> bool:
        return self.is_directory or self.info is not None

    @property
    def prefix(self) -> str:
        """Of a directory: what the keys in it begin with."""
        key = self.location.key
        return key if not key or key.endswith("/") else f"{key}/"


async def find(store: ObjectStore, location: Location) -> Place:
    """As look; raises NothingThere."""
    place = await look(store, location)
    if not place.exists:
        raise NothingThere(location)
    return place


async def look(store: ObjectStore, location: Location) -> Place:
    """Two requests side by side, and a third where they find nothing. Raises StoreErrors."""
    key = location.key
    place = Place(location)
    if not key or key.endswith("/"):
        page = await store.list(key, delimiter="", max_keys=1)
        return Place(location, is_directory=bool(page.objects) or not key)
    found: list[ObjectInfo | None] = [None]
    below = False

    async def head() -> None:
        found[0] = await head_or_none(store, key)

    async def list_below() -> None:
        nonlocal below
        below = bool((await store.list(place.prefix, delimiter="", max_keys=1)).objects)

    await all_of([head, list_below], 2)
    info = found[0]
    if info is not None and stands_for_directory(info):
        return Place(location, is_directory=True, markers=(key,))
    if below:
        return Place(location, is_directory=True, shadowed=info is not None)
    if info is not None:
        return Place(location, info)
    legacy = await head_or_none(store, key + FOLDER_SUFFIX)
    if legacy is not None and is_folder_marker(legacy.key, legacy.size, legacy.metadata):
        return Place(location, is_directory=True, markers=(legacy.key,))
    return place


async def head_or_none(store: ObjectStore, key: str) -> ObjectInfo | None:
    try:
        return await store.head(key)
    except NotFound:
        return None


def stands_for_directory(info: ObjectInfo) -> bool:
    content_type = info.headers.get("content-type")
    return is_directory_object(info.key, info.size, content_type, info.metadata)


def name_of(location: Location) -> str:
    """The last component; '' of a whole bucket."""
    return location.key.rstrip("/").rpartition("/")[2]


def target_of(source: Place, target: Location) -> Location:
    """Where a copy of `source` goes: below a target that is a bucket or ends in a slash, under its
    own name; else to the target itself. Of a whole bucket what is in it goes there.

    Raises ConfigurationError for a source that has no name of its own.
    """
    if target.key and not target.key.endswith("/"):
        return target
    name = name_of(source.location)
    if not name and source.location.key not in ("", ROOT_MARKER):
        raise ConfigurationError(f"{source.location} has no name to be copied under")
    if not source.location.key:
        return target
    return Location(target.bucket, target.key + name)
