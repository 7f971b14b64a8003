"""What the commands that work on a bucket without a mount have in common: the options that tell
how to reach it, opening it, running to the end, and ending badly."""

import logging
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
import trio

from s3mount.cli.exits import FAILED, INTERRUPTED, USAGE
from s3mount.cli.mount import complain
from s3mount.cli.options import BY_NAME, default_text
from s3mount.cli.settings import (
    Settings,
    attribute_defaults,
    build_store_config,
    cache_root,
    shared_directory,
    stat_cache_path,
    writeback_config,
)
from s3mount.cli.signals import until_signal
from s3mount.core.config import AttributeDefaults, NamespaceConfig, StoreConfig, WritebackConfig
from s3mount.core.errors import ConfigurationError, FilesystemError
from s3mount.core.location import Location, parse_location
from s3mount.store.base import ListPage, ObjectStore
from s3mount.store.errors import StoreError
from s3mount.transfer.places import NothingThere

if TYPE_CHECKING:
    from s3mount.namespace import StatCache

T = TypeVar("T")

# Of the mount's own options those that say how to reach a bucket, and what is written there.
_READING = (
    *("endpoint-url", "region", "profile", "no-sign-request", "passwd-file", "addressing-style"),
    *("no-verify-ssl", "ca-bundle", "requester-pays", "cache-dir", "retries", "request-deadline"),
)
_WRITING = ("acl", "storage-class", "sse", "sse-kms-key-id", "transfers")


class Declined(Exception):
    """The user was asked and said no; the text says what that means."""


@dataclass(slots=True)
class Service:
    """The options as given; a bucket is opened by its location."""

    settings: Settings = field(default_factory=Settings)

    @property
    def cache_root(self) -> Path:
        return cache_root(self.settings)

    def locate(self, text: str) -> Location:
        """Raises ConfigurationError."""
        return parse_location(text)

    def store_config(self, bucket: str) -> StoreConfig:
        """Raises ConfigurationError."""
        return build_store_config(self.settings, bucket, os.environ)

    def account_config(self) -> StoreConfig:
        """Of no bucket. Raises ConfigurationError."""
        return build_store_config(self.settings, "", os.environ)

    @property
    def defaults(self) -> AttributeDefaults:
        """What objects without metadata look like."""
        return attribute_defaults(self.settings)

    def shared_directory(self, config: StoreConfig) -> Path:
        """Of all that this machine keeps of the bucket."""
        return shared_directory(self.cache_root, config.endpoint_url, config.bucket)

    def writeback_config(self) -> WritebackConfig:
        """How objects are cut into parts; nothing goes through the spool. Raises
        ConfigurationError."""
        found = writeback_config(self.settings, self.cache_root)
        transfers = self.settings.get("store", "transfer_concurrency", 0)
        room = max(found.bytes_in_flight, transfers * found.part_size)
        return replace(found, bytes_in_flight=room)

    def stat_cache(self, config: StoreConfig) -> "StatCache | None":
        """That of the bucket's mounts; None where its directory cannot be used."""
        from s3mount.filesystem.directories import make_private
        from s3mount.namespace.stat_cache import StatCache, fingerprint

        shared = self.shared_directory(config)
        try:
            make_private(shared)
        except ConfigurationError:
            return None
        path = stat_cache_path(shared, self.defaults)
        rows = NamespaceConfig().stat_cache_rows
        return StatCache(path, rows, fingerprint=fingerprint(self.defaults))

    @asynccontextmanager
    async def open(self, location: Location) -> AsyncIterator[ObjectStore]:
        """The store of its bucket, after a first request below its prefix.

        Raises ConfigurationError with the remedy if the bucket cannot be used.
        """
        async with self.open_listed(location, max_keys=1) as (store, _):
            yield store

    @asynccontextmanager
    async def open_listed(
        self, location: Location, *, max_keys: int = 1000
    ) -> AsyncIterator[tuple[ObjectStore, ListPage]]:
        """As `open`, with what that request has listed: the keys that begin with the location's,
        one level of them."""
        # Imported here: boto3 takes a third of a second that --help need not wait for.
        from s3mount.store.open import open_store
        from s3mount.store.reachable import require_bucket

        config = self.store_config(location.bucket)
        store = open_store(config)
        try:
            page = await require_bucket(store, config, location.key, max_keys=max_keys)
            yield store, page
        finally:
            with trio.CancelScope(shield=True):
                await store.aclose()


def service_options(
    *, writing: bool = False, more: tuple[str, ...] = ()
) -> Callable[[Callable[..., None]], Any]:
    """Adds the options, `more` of the mount's among them; the command gets them as one argument,
    `service: Service`."""
    names = _READING + (_WRITING if writing else ()) + more

    def decorate(command: Callable[..., None]) -> Any:
        def with_service(**arguments: Any) -> None:
            given = {name: arguments.pop(name.replace("-", "_")) for name in names}
            command(service=_service(given), **arguments)

        with_service.__doc__ = command.__doc__
        with_service.__name__ = command.__name__
        decorated: Any = with_service
        # Options that the command itself declared below this decorator.
        decorated.__click_params__ = list(getattr(command, "__click_params__", []))
        for name in reversed(names):
            option = BY_NAME[name]
            default = default_text(option)
            text = option.help + (f" [default: {default}]" if default else "")
            kind: dict[str, Any] = (
                {"is_flag": True} if option.is_flag else {"metavar": option.metavar}
            )
            decorated = click.option(f"--{name}", help=text, default=None, **kind)(decorated)
        return decorated

    return decorate


def _service(given: Mapping[str, str | bool | None]) -> Service:
    service = Service()
    try:
        for name, value in given.items():
            if value:
                BY_NAME[name].apply(service.settings, None if value is True else str(value))
    except ConfigurationError as error:
        refuse(str(error))
    return service


def run(work: Callable[[], Awaitable[T]], *, if_interrupted: str) -> T:
    """`work` in a trio loop of its own. What is logged below it is left out: the tool itself says
    what became of what it was told to do. Exits with a message, and the status
    of exits.py for it, where it fails; `if_interrupted` says after Ctrl-C how to go on: `work` is
    cancelled then."""
    logging.getLogger("s3mount").addHandler(logging.NullHandler())
    try:
        return trio.run(until_signal, work, complain)
    except BaseException as error:
        cause = _innermost(error)
        if isinstance(cause, KeyboardInterrupt):
            complain(f"interrupted; {if_interrupted}")
            sys.exit(INTERRUPTED)
        if isinstance(cause, ConfigurationError):
            refuse(str(cause))
        if isinstance(cause, BrokenPipeError):  # who reads has enough, as `| head` does
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(FAILED)
        if isinstance(cause, (StoreError, FilesystemError, OSError, Declined, NothingThere)):
            complain(str(cause))
            sys.exit(FAILED)
        raise


def _innermost(error: BaseException) -> BaseException:
    """Trio wraps what a task raises once per nursery on its way; an interrupt comes first."""
    while isinstance(error, BaseExceptionGroup):
        interrupt, _ = error.split(KeyboardInterrupt)
        error = (interrupt or error).exceptions[0]
    return error


def refuse(text: str) -> Any:
    """Ends the command: it was called in a way that cannot work."""
    complain(text)
    sys.exit(USAGE)
