"""`s3mount rm LOCATION...`."""

import click

from s3mount.cli.mount import complain
from s3mount.cli.named import Named, named
from s3mount.cli.progress import progress_bar, quiet_option
from s3mount.cli.service import Service, run, service_options
from s3mount.cli.texts import count_text, printable, size_text
from s3mount.cli.tool_options import (
    confirm,
    dry_run_option,
    end,
    one_of,
    recursive_option,
    summary_json_option,
    tell,
    verbose_option,
)
from s3mount.core.errors import ConfigurationError
from s3mount.store.base import ListedObject, ObjectStore
from s3mount.transfer.places import Place, find
from s3mount.transfer.removing import Outcome, Remover, survey

ASK_FROM = 1000  # objects: what one request deletes is soon made again, more may not be
COUNTED = 10_000  # objects, ten requests: enough to know that it is much

EXAMPLES = """\b
Examples:
  s3mount rm my-bucket:/a.txt
  s3mount rm -r my-bucket:/old --dry-run    show what would go
  s3mount rm -r my-bucket:/old              asks where it is much
  s3mount rm -r my-bucket --yes             empties the bucket
"""


@click.command(epilog=EXAMPLES, short_help="Delete objects.")
@click.argument("locations", nargs=-1, required=True, metavar="BUCKET:/KEY...")
@recursive_option
@click.option(
    "-y",
    "--yes",
    is_flag=True,
    help=f"Do not ask: neither above {ASK_FROM} objects, nor for a bucket.",
)
@dry_run_option
@verbose_option
@summary_json_option
@quiet_option
@service_options()
def rm(
    service: Service,
    locations: tuple[str, ...],
    recursive: bool,
    yes: bool,
    dry_run: bool,
    verbose: bool,
    as_json: bool,
    quiet: bool,
) -> None:
    """Delete objects, by requests of a thousand each; a directory's marker after what is in it.

    BUCKET:/KEY may be s3://BUCKET/KEY or a path in a mount as well. Keys are taken literally:
    '*' is a character like others.
    """
    removing = _Removing(service, recursive, yes, dry_run, verbose or dry_run, quiet)
    shown = {"dry_run": dry_run, "as_json": as_json, "quiet": quiet}

    async def work() -> None:
        try:
            await removing.run(locations)
        except BaseException:
            if removing.done.objects or removing.done.failed:
                tell(removing.done, "deleted", **shown)
            raise

    run(work, if_interrupted="what is deleted is deleted; the same command deletes the rest")
    end(removing.done, "deleted", **shown)


class _Removing:
    def __init__(
        self,
        service: Service,
        recursive: bool,
        yes: bool,
        dry_run: bool,
        verbose: bool,
        quiet: bool,
    ) -> None:
        self.service = service
        self.recursive = recursive
        self.ask = not (yes or dry_run)
        self.dry_run = dry_run
        self.verbose = verbose
        self.quiet = quiet
        self.done = Outcome()

    async def run(self, words: tuple[str, ...]) -> None:
        for what in [named(word, self.service) for word in words]:
            async with what.service.open(what.location) as store:
                with one_of(words, self.done):
                    await self._one(what, store)

    async def _one(self, what: Named, store: ObjectStore) -> None:
        place = await find(store, what.location)
        self._check(what, place)
        if place.is_directory and self.ask:
            await self._confirm(what, place, store)
        await self._remove(store, place)

    def _check(self, what: Named, place: Place) -> None:
        if place.is_directory and not self.recursive:
            raise ConfigurationError(
                f"{what.text} is a directory; -r deletes it with all that is in it"
            )
        if place.shadowed and not self.quiet:
            complain(f"a file of the name {what.text} is hidden by the directory; it stays")

    async def _confirm(self, what: Named, place: Place, store: ObjectStore) -> None:
        """Raises Declined."""
        found = await survey(store, place.prefix, COUNTED)
        if found.objects <= ASK_FROM and place.prefix:
            return
        more = "more than " if found.more else ""
        amount = f"{more}{count_text(found.objects, 'object')}, {size_text(found.bytes)}"
        where = what.text if place.prefix else f"the whole bucket {what.location.bucket}"
        confirm(f"delete {where}: {amount}?", "nothing was deleted")

    async def _remove(self, store: ObjectStore, place: Place) -> None:
        with progress_bar("deleting", quiet=self.quiet) as bar:

            def each(key: str) -> None:
                bar.done_files += 1
                bar.note = key
                if self.verbose:
                    click.echo(printable(key))

            remover = Remover(store, outcome=self.done, dry_run=self.dry_run, each=each)
            if place.info is not None:
                info = place.info
                await remover.objects(
                    [ListedObject(info.key, info.size, info.etag, info.last_modified)]
                )
            else:
                await remover.tree(place.prefix, place.markers)
