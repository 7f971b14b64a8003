"""`s3mount ls [BUCKET[:/PATH]]`."""

import json
import sys
from collections.abc import Sequence

import click

from s3mount.cli.exits import FAILED
from s3mount.cli.mount import complain
from s3mount.cli.service import Service, run, service_options
from s3mount.cli.texts import count_text
from s3mount.cli.tool_options import lines_json_option

EXAMPLES = """\b
Examples:
  s3mount ls                             your buckets
  s3mount ls my-bucket                   what is in the bucket
  s3mount ls -lh my-bucket:/photos       sizes, owners, modes, times
  s3mount ls -R s3://my-bucket/photos    everything below it
  s3mount ls --flat my-bucket:/pho       the keys that begin with 'pho'
"""


@click.command(
    context_settings={"help_option_names": ["--help"]},
    epilog=EXAMPLES,
    short_help="List a bucket as a mount shows it, or the buckets.",
)
@click.argument("location", required=False, metavar="[BUCKET[:/PATH]]")
@click.option("-l", "long", is_flag=True, help="Mode, owner, size, time, storage class as well.")
@click.option("-h", "human", is_flag=True, help="Sizes as 4.0 KiB, 1.5 GiB.")
@click.option("-R", "recursive", is_flag=True, help="Everything below, each with its path.")
@click.option("--flat", is_flag=True,
              help="The keys as they are, of all that begin with what follows 'BUCKET:/', also"
                   " those that no path can name.")  # fmt: skip
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="At most N names.")
@lines_json_option
@click.option("-q", "--quiet", is_flag=True, help="Nothing is said of what is left out.")
@service_options()
def ls(
    service: Service,
    location: str | None,
    long: bool,
    human: bool,
    recursive: bool,
    flat: bool,
    limit: int | None,
    as_json: bool,
    quiet: bool,
) -> None:
    """List a bucket, a directory in it or one file, as a mount shows them; or the buckets.

    A name that ends in a slash is a directory. Attributes (-l) that a mount or an earlier ls on
    this machine has seen are not asked for again. PATH is taken literally: there are no wildcards.
    """
    if location is None:
        _list_buckets(service, as_json)
        return
    _Ls(service, location, long, human, recursive, flat, limit, as_json, quiet).run()


def _list_buckets(service: Service, as_json: bool) -> None:
    from s3mount.store.buckets import list_buckets

    for bucket in run(
        lambda: list_buckets(service.account_config()), if_interrupted="no harm done"
    ):
        fields = {"bucket": bucket.name, "created": bucket.created}
        click.echo(json.dumps(fields) if as_json else bucket.name)


class _Ls:
    def __init__(
        self,
        service: Service,
        location: str,
        long: bool,
        human: bool,
        recursive: bool,
        flat: bool,
        limit: int | None,
        as_json: bool,
        quiet: bool,
    ) -> None:
        from s3mount.cli.ls_lines import Lines

        self.service = service
        self.location = location
        self.attributes = long and not flat
        self.recursive = recursive
        self.flat = flat
        self.left = limit
        self.cut = False
        self.quiet = quiet
        self.lines = Lines(long=long, human=human, as_json=as_json, flat=flat)

    def run(self) -> None:
        from s3mount.transfer.listing import Listed, Lister
        from s3mount.transfer.places import NothingThere

        async def work() -> Listed:
            where = self.service.locate(self.location)
            async with self.service.open(where) as store:
                config = self.service.store_config(where.bucket)
                cache = None if self.flat else self.service.stat_cache(config)
                lister = Lister(store, self.service.defaults, cache, attributes=self.attributes)
                if self.flat:
                    found = await lister.flat(where.key, self._take)
                else:
                    found = await lister.view(where, self._take, recursive=self.recursive)
                if not found.found:
                    raise NothingThere(where)
                return found

        listed = run(work, if_interrupted="ls changes nothing: start it again")
        if self.cut and not self.quiet:
            complain("there is more (--limit)")
        if listed.unreachable and not self.quiet:
            keys = count_text(listed.unreachable, "key")
            complain(f"{keys} that no path can name are left out; --flat shows them")
        if listed.shadowed and not self.quiet:
            objects = count_text(listed.shadowed, "object")
            complain(f"{objects} hidden by a directory of the same name; --flat shows them")
        if listed.failures:
            what = count_text(listed.failures, "object")
            complain(f"the attributes of {what} could not be read: {listed.first_failure}")
            sys.exit(FAILED)

    def _take(self, entries: Sequence[object]) -> bool:
        if self.left is not None:
            self.cut = len(entries) > self.left
            entries = entries[: self.left]
            self.left -= len(entries)
        self.lines.show(entries)  # type: ignore[arg-type]
        return self.left != 0 or not self.cut
