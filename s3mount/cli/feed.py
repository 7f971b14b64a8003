"""`s3mount feed SRC BUCKET[:/KEY_ROOT]`."""

import json
import os
import stat
import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from s3mount.cli.exits import FAILED
from s3mount.cli.feed_stream import open_stream
from s3mount.cli.mount import complain
from s3mount.cli.progress import Bar, progress_bar, quiet_option
from s3mount.cli.service import Service, refuse, run, service_options
from s3mount.cli.texts import count_text, printable, size_text, time_text
from s3mount.cli.values import size as parse_size
from s3mount.core.errors import ConfigurationError
from s3mount.core.keys import name_from_bytes
from s3mount.core.location import Location, looks_remote, parse_mount_source

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager

    from s3mount.store.base import ListPage, ObjectStore
    from s3mount.transfer.feed.feeder import Feeding
    from s3mount.transfer.feed.report import Report
    from s3mount.transfer.feed.rules import Rules
    from s3mount.transfer.feed.session import Session

GO_ON = "what was sent is in the bucket, and the same command goes on where it was"
EXAMPLES = """\b
Examples:
  s3mount feed ~/photos my-bucket:/photos           what is in ~/photos, as keys photos/...
  s3mount feed -n --delete ~/www s3://my-site       says what would be done
  s3mount feed --exclude '*.tmp' --exclude /cache/ ~/work my-bucket:/work
  s3mount feed disk.img my-bucket:/images/          the key images/disk.img
  pg_dump db | s3mount feed - my-bucket:/db.sql     a stream
  s3mount feed --producer 'pg_dump db | gzip' - my-bucket:/db.sql.gz
                                                    the same; nothing is stored if it fails
"""


class _Ordered(click.Command):
    """--include and --exclude work in the order in which they were given."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        given, _, order = self.make_parser(ctx).parse_args(args=list(args))
        values = {name: iter(given.get(name) or ()) for name in ("include", "exclude")}
        ctx.meta["rules"] = [
            (option.name == "include", next(values[option.name]))
            for option in order
            if option.name in values
        ]
        return super().parse_args(ctx, args)


def _size(context: click.Context, option: click.Parameter, text: str | None) -> int | None:
    try:
        return None if text is None else parse_size(text)
    except ConfigurationError as error:
        raise click.BadParameter(str(error)) from None


@click.command(cls=_Ordered, epilog=EXAMPLES, short_help="Upload a folder, a file or a stream.")
@click.argument("source", metavar="SRC")
@click.argument("target", metavar="BUCKET[:/KEY_ROOT]")
@click.option(
    "--check-missing",
    is_flag=True,
    help="Send what is not there; what is there is not compared. Costs LISTs alone.",
)
@click.option(
    "--checksum",
    is_flag=True,
    help="Compare files of one size by their bytes (ETag, stored checksum), not by mtime.",
)
@click.option(
    "--delete",
    is_flag=True,
    help="Delete from the bucket what SRC does not have: below KEY_ROOT, as deep as the"
    " feed goes, nothing excluded, and nothing if SRC could not be read.",
)
@click.option("-n", "--dry-run", is_flag=True, help="Say what would be done, do nothing.")
@click.option(
    "--depth",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    metavar="N",
    help="1: what is in SRC itself, 2: and in its folders, ...; 0: all the way down.",
)
@click.option(
    "--include",
    multiple=True,
    metavar="PATTERN",
    help="Send what matches; the first of the --include and --exclude that matches decides.",
)
@click.option(
    "--exclude",
    multiple=True,
    metavar="PATTERN",
    help="Leave out what matches: '*.tmp' names, 'cache/' directories, '/top' in SRC"
    " itself, 'a/*.o' ends of paths; '*' stops at '/', '**' does not.",
)
@click.option(
    "-L",
    "--follow-symlinks",
    is_flag=True,
    help="Send what symbolic links lead to, rather than the links.",
)
@click.option(
    "--directories",
    type=click.Choice(["all", "empty", "none"]),
    default="all",
    show_default=True,
    help="Which get an object of their own, that keeps mode, owner and times.",
)
@click.option(
    "--producer",
    metavar="COMMAND",
    help="With '-': the stream is COMMAND's output, stored only if it succeeds.",
)
@click.option(
    "--size",
    "exact",
    metavar="SIZE",
    callback=_size,
    help="With '-': stored only if it is just so long.",
)
@click.option(
    "--min-size",
    "least",
    metavar="SIZE",
    callback=_size,
    help="With '-': stored only if it is at least so long.",
)
@click.option("-v", "--verbose", is_flag=True, help="Name each file that something is done for.")
@click.option("--json", "as_json", is_flag=True, help="The summary as JSON, on standard output.")
@quiet_option
@service_options(writing=True, more=("part-size", "equal-parts", "escape-names", "xattrs"))
def feed(service: Service, source: str, target: str, **options: Any) -> None:
    """Upload a folder, a file or a stream in the layout of the mount.

    What is in the folder SRC (not SRC itself, whether or not it ends in a slash) becomes what is
    in KEY_ROOT: files, directories, symbolic links and special files, with modes, owners and
    times. A file becomes the key KEY_ROOT, or one in it if that ends in a slash. '-' is standard
    input. Extended attributes ('user.') are fed with --xattrs.

    Only what differs in size or mtime is sent, mode and owner alone are changed on the server.
    Large files go up in parts; an interrupted feed goes on with the parts that are there.

    A stream that ends is taken for complete: after 'a | s3mount feed - ...' nobody can tell
    whether a failed, not even with 'set -o pipefail'. --producer can.

    \b
    Exit status: 0 all done, 1 something could not be (it is named), 2 bad use, 130 interrupted.
    """
    rules = click.get_current_context().meta["rules"]
    _Feed(service, source, target, rules, options).run()


class _Feed:
    def __init__(
        self,
        service: Service,
        source: str,
        target: str,
        rules: list[tuple[bool, str]],
        options: Mapping[str, Any],
    ) -> None:
        self.service = service
        if looks_remote(source) and not os.path.lexists(source):
            refuse(f"what is uploaded comes first: s3mount feed {target} {source}")
        self.source = source
        self.path = source if source == "-" else os.path.realpath(source)
        self.options = options
        try:
            self.location = service.locate(target)
            self.config = service.store_config(self.location.bucket)
            self.writeback = service.writeback_config()
            self.rules = _rules(rules)
            self._check_options()
            self.kind = self._kind()
        except ConfigurationError as error:
            refuse(str(error))

    def _check_options(self) -> None:
        options = self.options
        if self.source == "-":
            for name in ("delete", "dry_run", "checksum", "check_missing"):
                if options[name]:
                    raise ConfigurationError(f"--{name.replace('_', '-')} needs a folder, not '-'")
        for name in ("producer", "exact", "least"):
            if options[name] is not None and self.source != "-":
                shown = {"exact": "size", "least": "min-size"}.get(name, name)
                raise ConfigurationError(f"--{shown} is for a stream: write '-' as SRC")
        if options["checksum"] and options["check_missing"]:
            raise ConfigurationError("give either --checksum or --check-missing, not both")

    def _kind(self) -> str:
        if self.source == "-":
            if not self.location.key or self.location.key.endswith("/"):
                raise ConfigurationError(
                    f"a stream needs the whole key: {self.location.bucket}:/KEY"
                )
            if self.options["producer"] is None and sys.stdin.isatty():
                raise ConfigurationError("standard input is the terminal: pipe something into it")
            return "stream"
        try:
            mode = Path(self.source).stat().st_mode
        except OSError as error:
            raise ConfigurationError(f"{self.source}: {error.strerror}") from None
        if stat.S_ISDIR(mode):
            parse_mount_source(str(self.location))  # a key root that paths can name
            return "folder"
        if not stat.S_ISREG(mode):
            raise ConfigurationError(
                f"{self.source} is neither a folder nor a file; a pipe is fed by '-'"
            )
        if self.options["delete"]:
            raise ConfigurationError("--delete needs a folder")
        return "file"

    # -- running

    def run(self) -> None:
        quiet = self.options["quiet"]
        if_interrupted = "nothing was stored" if self.kind == "stream" else GO_ON
        with progress_bar(self._title(), quiet=quiet) as bar:
            report = self._report(bar)
            requests = run(partial(self._feed, report), if_interrupted=if_interrupted)
        self._tell(report, requests)

    def _title(self) -> str:
        return "comparing" if self.options["dry_run"] else "feeding"

    def _report(self, bar: Bar) -> "Report":
        from s3mount.transfer.feed.report import Report

        names = self.options["verbose"] or self.options["dry_run"]
        # Lines on a terminal go around the bar.
        say = bar.say if sys.stdout.isatty() and not self.options["quiet"] else click.echo
        complaint = complain if self.options["quiet"] else lambda text: bar.say(f"s3mount: {text}")
        return Report(
            bar,
            done=lambda action, path: say(f"{action.value} {_shown(path)}") if names else None,
            failed=lambda path, reason: complaint(f"{_shown(path)}: {reason}"),
        )

    async def _feed(self, report: "Report") -> Mapping[str, int]:
        from s3mount.transfer.feed.session import Place, open_session

        shared = self.service.shared_directory(self.config)
        place = Place(shared, self.config.bucket, self.location.key, self.path)
        async with (
            self._open() as (store, page),
            open_session(
                *(store, place, self.writeback, self.service.defaults),
                self.service.stat_cache(self.config),
                report,
                dry_run=self.options["dry_run"],
            ) as session,
        ):
            await self._feed_kind(session, page)
            return store.counts()

    def _open(self) -> "AbstractAsyncContextManager[tuple[ObjectStore, ListPage]]":
        """Of a single file the first request tells already what is there."""
        where = self.location
        if self.kind != "file":
            return self.service.open_listed(where, max_keys=1)
        return self.service.open_listed(Location(where.bucket, "".join(self._file_key())))

    def _file_key(self) -> tuple[str, str]:
        """What a single file's key begins with, and its name."""
        key = self.location.key
        if not key or key.endswith("/"):
            name = name_from_bytes(os.path.basename(os.fsencode(self.source)), False)
            return self.location.prefix, name
        cut = key.rfind("/") + 1
        return key[:cut], key[cut:]

    async def _feed_kind(self, session: "Session", page: "ListPage") -> None:
        if self.kind == "stream":
            limits = self.options["exact"], self.options["least"]
            with open_stream(self.options["producer"], *limits) as stream:
                await session.feed_stream(stream.fd, self.location.key, stream.check)
        elif self.kind == "file":
            prefix, name = self._file_key()
            await session.feed_file(self._feeding(prefix), name, page)
        else:
            totals = sys.stderr.isatty() and not self.options["quiet"]
            await session.feed_folder(self._feeding(self.location.prefix), totals=totals)

    def _feeding(self, prefix: str) -> "Feeding":
        from s3mount.transfer.feed.decide import Comparing
        from s3mount.transfer.feed.feeder import Feeding
        from s3mount.transfer.feed.local_tree import Walking

        options = self.options
        xattrs = self.service.settings.get("mount", "xattrs", False)
        return Feeding(
            os.fsencode(self.path),
            prefix,
            Walking(
                depth=options["depth"],
                rules=self.rules,
                follow=options["follow_symlinks"] or self.kind == "file",
                escape=self.service.settings.get("namespace", "escape_names", False),
                root=prefix,
                xattrs=xattrs,
            ),
            Comparing(
                missing_only=options["check_missing"],
                checksum=options["checksum"],
                delete=options["delete"],
                directories=options["directories"],
                xattrs=xattrs,
            ),
            dry_run=options["dry_run"],
            large_from=self.writeback.single_put_limit,
        )

    # -- the end

    def _tell(self, report: "Report", requests: Mapping[str, int]) -> None:
        summary = report.summary(requests)
        for problem in report.problems:
            complain(problem)
        if self.options["as_json"]:
            click.echo(json.dumps(summary))
        elif not self.options["quiet"]:
            click.echo(_sentence(summary, dry_run=self.options["dry_run"]), err=True)
        if report.failed_count or report.problems:
            if not self.options["quiet"]:
                complain(f"{count_text(report.failed_count, 'name')} could not be fed (see above)")
            sys.exit(FAILED)


def _shown(path: str) -> str:
    return printable(path) or "."


def _rules(given: list[tuple[bool, str]]) -> "Rules":
    from s3mount.transfer.feed.rules import Rules, parse_rule

    try:
        return Rules([parse_rule(pattern, include=include) for include, pattern in given])
    except ValueError as error:
        raise ConfigurationError(str(error)) from None


def _sentence(summary: Mapping[str, Any], *, dry_run: bool) -> str:
    parts = [f"{count_text(summary['sent'], 'file')} sent"]
    if summary["sent_bytes"]:
        parts[0] += f" ({size_text(summary['sent_bytes'])})"
    if summary["resumed_bytes"]:
        parts.append(f"{size_text(summary['resumed_bytes'])} were there from an earlier run")
    for name, text in (
        ("directories", "{} made"),
        ("attributes", "{} with other attributes"),
        ("deleted", "{} deleted"),
        ("unchanged", "{} unchanged"),
        ("failed", "{} failed"),
    ):
        if summary[name]:
            nouns = ("directory", "directories") if name == "directories" else ("name", "names")
            parts.append(text.format(count_text(summary[name], *nouns)))
    begun = "it would be: " if dry_run else ""
    return f"{begun}{', '.join(parts)}; in {time_text(summary['seconds'])}"
