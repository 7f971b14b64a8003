"""What `s3mount cp` and `s3mount mv` have in common."""

import functools
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any

import click

from s3mount.cli.mount import complain
from s3mount.cli.named import Named, named
from s3mount.cli.progress import Bar, progress_bar, quiet_option
from s3mount.cli.service import Service, run, service_options
from s3mount.cli.texts import count_text, printable
from s3mount.cli.tool_options import (
    dry_run_option,
    end,
    one_of,
    recursive_option,
    summary_json_option,
    tell,
    verbose_option,
)
from s3mount.core.errors import ConfigurationError
from s3mount.core.location import Location
from s3mount.store.base import ObjectStore
from s3mount.transfer.copying import Transfer
from s3mount.transfer.places import Place, find, look, target_of
from s3mount.transfer.removing import Outcome


@dataclass(frozen=True, slots=True)
class Manner:
    recursive: bool
    dry_run: bool
    verbose: bool
    as_json: bool
    quiet: bool
    move: bool = False


@dataclass(slots=True)
class Stores:
    """Of each bucket one, opened when it is first asked for."""

    stack: AsyncExitStack
    opened: dict[tuple[str | None, str], ObjectStore] = field(default_factory=dict)

    async def of(self, what: Named) -> ObjectStore:
        """Raises ConfigurationError if the bucket cannot be used."""
        endpoint = what.service.store_config(what.location.bucket).endpoint_url
        where = (endpoint, what.location.bucket)
        if where not in self.opened:
            opening = what.service.open(what.location)
            self.opened[where] = await self.stack.enter_async_context(opening)
        return self.opened[where]


async def transfer_all(
    sources: Sequence[str], target: str, service: Service, manner: Manner, done: Outcome
) -> None:
    """Raises what ends it; where single objects fail that is in `done`, and the others go on."""
    to = named(target, service)
    given = [named(source, service) for source in sources]
    if len(given) > 1 and to.location.key and not to.location.key.endswith("/"):
        raise ConfigurationError(
            f"several things cannot all become {target}; write {target}/ to have them in it"
        )
    endpoints = {each.service.store_config(each.location.bucket).endpoint_url for each in given}
    if endpoints != {to.service.store_config(to.location.bucket).endpoint_url}:
        raise ConfigurationError(
            "only one service can copy within itself; mount both buckets, and use cp(1) or rsync"
        )
    async with AsyncExitStack() as stack:
        stores = Stores(stack)
        with progress_bar("moving" if manner.move else "copying", quiet=manner.quiet) as bar:
            for source in given:
                one = _One(source, to, manner, bar, alone=len(given) == 1)
                with one_of(sources, done):
                    await one.run(await stores.of(source), await stores.of(to), done)


def run_transfer(
    sources: Sequence[str], target: str, service: Service, manner: Manner, *, if_interrupted: str
) -> None:
    """To the end of the command."""
    done, verb = Outcome(), "moved" if manner.move else "copied"
    shown = {"dry_run": manner.dry_run, "as_json": manner.as_json, "quiet": manner.quiet}

    async def work() -> None:
        try:
            await transfer_all(sources, target, service, manner, done)
        except BaseException:
            if done.objects or done.failed:
                tell(done, verb, **shown)
            raise

    run(work, if_interrupted=if_interrupted)
    end(done, verb, **shown)


class _One:
    """One source word to the target; `alone`: there is no other."""

    def __init__(self, source: Named, to: Named, manner: Manner, bar: Bar, *, alone: bool) -> None:
        self.source = source
        self.to = to
        self.manner = manner
        self.bar = bar
        self.alone = alone

    async def run(self, origin: ObjectStore, store: ObjectStore, done: Outcome) -> None:
        place = await find(origin, self.source.location)
        target = self._checked(place)
        there = await look(store, target)
        same_bucket = origin is store
        transfer = Transfer(
            store,
            None if same_bucket else origin,
            outcome=done,
            move=self.manner.move,
            dry_run=self.manner.dry_run,
            each=self._each,
            progress=self._progress,
        )
        try:
            if place.info is not None:
                self._check_file(place, target, there, same_bucket)
                if self.alone:  # else how much there is is known at the end
                    self.bar.total_bytes = place.info.size
                await transfer.file(place.info, target.key)
            else:
                prefix = _prefix(target)
                self._check_tree(place, prefix, there, same_bucket)
                markers = {key: prefix[:-1] + key[len(place.prefix) - 1 :] for key in place.markers}
                await transfer.tree(place.prefix, prefix, markers)
        finally:
            for key in transfer.left:
                complain(
                    f"an unfinished upload of {printable(key)} may be left; s3mount uploads abort"
                    f" {Location(target.bucket, key)} removes it"
                )
        if transfer.untagged:
            key, reason = transfer.untagged[0]
            copies = count_text(len(transfer.untagged), "copy", "copies")
            complain(f"{copies} without tags, the first one is {printable(key)}: {reason}")
        if transfer.vanished and not self.manner.quiet:
            gone = count_text(transfer.vanished, "object")
            complain(f"{gone} had gone before their turn came")

    def _checked(self, place: Place) -> Location:
        """The target of this source. Raises ConfigurationError."""
        text = self.source.text
        if place.is_directory and not self.manner.recursive:
            raise ConfigurationError(f"{text} is a directory; -r takes it with all that is in it")
        if place.shadowed and not self.manner.quiet:
            complain(f"a file of the name {text} is hidden by the directory; it stays as it is")
        return target_of(place, self.to.location)

    def _check_file(self, place: Place, target: Location, there: Place, same_bucket: bool) -> None:
        if there.is_directory:
            raise ConfigurationError(
                f"{target} is a directory; write {target}/ to have the file in it"
            )
        if same_bucket and place.location.key == target.key:
            raise ConfigurationError(f"{self.source.text} and {target} are the same file")

    def _check_tree(self, place: Place, prefix: str, there: Place, same_bucket: bool) -> None:
        if there.info is not None:
            raise ConfigurationError(f"{there.location} is a file; name a directory, or a new name")
        inside = place.prefix.startswith(prefix) or prefix.startswith(place.prefix)
        if same_bucket and inside:
            raise ConfigurationError(
                f"{self.source.text} and {Location(there.location.bucket, prefix)} are one inside"
                " the other, or the same; choose another target"
            )

    def _progress(self, amount: int) -> None:
        self.bar.done_bytes += amount

    def _each(self, source: str, target: str) -> None:
        self.bar.done_files += 1
        self.bar.note = source
        if self.manner.verbose or self.manner.dry_run:
            click.echo(printable(f"{source} -> {target}"))


def _prefix(target: Location) -> str:
    return f"{target.key.rstrip('/')}/" if target.key else ""


def transfer_options(*, move: bool = False) -> Callable[[Callable[..., None]], Any]:
    """SOURCE... TARGET, -r, --dry-run, -v, --json, -q, and those of the service; the command gets
    `sources`, `target`, `service: Service` and `manner: Manner`."""

    def decorate(command: Callable[..., None]) -> Any:
        @functools.wraps(command)
        def with_manner(
            *,
            recursive: bool,
            dry_run: bool,
            verbose: bool,
            as_json: bool,
            quiet: bool,
            **arguments: Any,
        ) -> None:
            command(manner=Manner(recursive, dry_run, verbose, as_json, quiet, move), **arguments)

        decorated = service_options(writing=True)(with_manner)
        for option in (
            *(quiet_option, summary_json_option, verbose_option, dry_run_option, recursive_option),
            click.argument("target"),
            click.argument("sources", nargs=-1, required=True, metavar="SOURCE..."),
        ):
            decorated = option(decorated)
        return decorated

    return decorate
