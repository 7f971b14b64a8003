"""Named points in the mount's code at which a campaign kills it.

Each method below has two: 'store.put:before' and 'store.put:after'. What does not exist in this
version of the code is left out.
"""

import functools
import importlib
import inspect
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from enum import Enum
from types import ModuleType
from typing import Any

Reached = Callable[[str], None]

# Short name, module, class, methods.
METHODS: tuple[tuple[str, str, str, str], ...] = (
    (
        "store",
        "s3mount.store.s3",
        "S3Store",
        "head get list put delete delete_many copy create_upload upload_part upload_part_copy"
        " complete_upload abort_upload list_parts list_uploads",
    ),
    (
        "journal",
        "s3mount.writeback.sqlite_journal",
        "SqliteJournal",
        "load record update forget write_file forget_file begin_upload learn_upload write_part"
        " forget_part end_upload sync",
    ),
    ("segment", "s3mount.writeback.journal_log", "Segment", "create append"),
    ("database", "s3mount.writeback.journal_database", "Database", "rows apply"),
    ("spool", "s3mount.writeback.spool", "Spool", "restore"),
    ("spooled", "s3mount.writeback.spooled_file", "SpooledFile", "try_write seal sync truncate"),
    ("pool", "s3mount.writeback.chunk_pool", "ChunkPool", "dense sparse release"),
    ("upload", "s3mount.writeback.file_upload", "FileUpload", "commit"),
    ("queue", "s3mount.writeback.queue", "IntentQueue", "add hurry"),
    (
        "filesystem",
        "s3mount.filesystem.filesystem",
        "FileSystem",
        "create open write flush fsync release mkdir rmdir unlink rename setattr symlink",
    ),
)

# Modules in which every function and method is a point: the steps of recovery.
MODULES: tuple[tuple[str, str], ...] = (
    ("recovery", "s3mount.writeback.recovery"),
    ("after_crash", "s3mount.writeback.after_crash"),
    ("replay", "s3mount.filesystem.replay"),
    ("recovered_put", "s3mount.filesystem.recovered_put"),
    ("recoverable", "s3mount.writeback.recoverable"),
)


def wrap_all(reached: Reached) -> list[str]:
    """Replaces the methods; `reached(point)` is called in whatever thread comes by.

    To be called before anything else of s3mount is imported. Returns the names of the points.
    """
    points: list[str] = []
    # Modules first: whoever imports a function by its name shall get the wrapped one.
    for short, name in MODULES:
        module = _module(name)
        if module is not None:
            points += _wrap_module(short, module, reached)
    for short, name, kind, methods in METHODS:
        module = _module(name)
        owner = None if module is None else getattr(module, kind, None)
        if owner is not None:
            points += _wrap_methods(short, owner, methods.split(), reached)
            if hasattr(owner, "transaction"):
                points += _wrap_transaction(short, owner, reached)
    return points


def _module(name: str) -> ModuleType | None:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name:
            raise
        return None


def _wrap_methods(short: str, owner: Any, names: list[str], reached: Reached) -> Iterator[str]:
    for name in names:
        found = inspect.getattr_static(owner, name, None)
        kind = type(found) if isinstance(found, classmethod | staticmethod) else None
        function = found if kind is None else found.__func__
        if not inspect.isfunction(function):
            continue
        point = f"{short}.{name}"
        wrapped = _wrapped(point, function, reached)
        setattr(owner, name, wrapped if kind is None else kind(wrapped))
        yield from (f"{point}:before", f"{point}:after")


def _wrap_module(short: str, module: ModuleType, reached: Reached) -> Iterator[str]:
    for name, found in list(vars(module).items()):
        if getattr(found, "__module__", None) != module.__name__ or name.startswith("__"):
            continue
        if inspect.isfunction(found):
            setattr(module, name, _wrapped(f"{short}.{name}", found, reached))
            yield from (f"{short}.{name}:before", f"{short}.{name}:after")
        elif inspect.isclass(found) and not issubclass(found, BaseException | Enum):
            own = [
                each
                for each, value in vars(found).items()
                if inspect.isfunction(value)
                and value.__module__ == module.__name__
                and not each.startswith("__")
            ]
            yield from _wrap_methods(short, found, own, reached)


def _wrapped(point: str, function: Callable[..., Any], reached: Reached) -> Callable[..., Any]:
    if inspect.isasyncgenfunction(function) or inspect.isgeneratorfunction(function):
        return function

    if inspect.iscoroutinefunction(function):

        @functools.wraps(function)
        async def later(*arguments: Any, **named: Any) -> Any:
            reached(f"{point}:before")
            result = await function(*arguments, **named)
            reached(f"{point}:after")
            return result

        return later

    @functools.wraps(function)
    def now(*arguments: Any, **named: Any) -> Any:
        reached(f"{point}:before")
        result = function(*arguments, **named)
        reached(f"{point}:after")
        return result

    return now


def _wrap_transaction(short: str, owner: Any, reached: Reached) -> Iterator[str]:
    original = owner.transaction
    point = f"{short}.commit"

    @contextmanager
    def transaction(self: Any) -> Iterator[Any]:
        inner: AbstractContextManager[Any] = original(self)
        with inner as value:
            yield value
            reached(f"{point}:before")
        reached(f"{point}:after")

    owner.transaction = transaction
    yield from (f"{point}:before", f"{point}:after")
