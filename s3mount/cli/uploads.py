"""`s3mount uploads list|show|resume|abort`."""

import click

from s3mount.cli.progress import quiet_option
from s3mount.cli.service import Service, service_options
from s3mount.cli.suggestions import NearestGroup
from s3mount.cli.tool_options import (
    dry_run_option,
    lines_json_option,
    summary_json_option,
    yes_option,
)

LIST_EXAMPLES = """\b
Examples:
  s3mount uploads list my-bucket
  s3mount uploads list my-bucket:/videos --json
"""
SHOW_EXAMPLES = """\b
Examples:
  s3mount uploads show my-bucket:/videos/a.mp4
"""
ABORT_EXAMPLES = """\b
Examples:
  s3mount uploads abort my-bucket --older-than 2d    asks before it does so
  s3mount uploads abort my-bucket:/videos/a.mp4      all of this key
  s3mount uploads abort my-bucket UPLOAD_ID --yes
"""
RESUME_EXAMPLES = """\b
Examples:
  s3mount uploads resume my-bucket                      what mounts that died have left
  s3mount uploads resume my-bucket:/videos/a.mp4 a.mp4  one upload, from a local file
"""
location_argument = click.argument("location", metavar="BUCKET[:/PATH]")


EXAMPLES = """\b
Examples:
  s3mount uploads list my-bucket
  s3mount uploads abort my-bucket --older-than 2d     shows them, and asks
  s3mount uploads COMMAND --help                      has more
"""


@click.group(cls=NearestGroup, epilog=EXAMPLES)
def uploads() -> None:
    """Multipart uploads that are not finished.

    Their parts cost money until they are finished or aborted. Those that a mount on this machine,
    alive or dead, still needs are marked. PATH is a key, or a directory with all below it.
    """


@uploads.command("list", epilog=LIST_EXAMPLES)
@location_argument
@lines_json_option
@quiet_option
@service_options()
def list_uploads(service: Service, location: str, as_json: bool, quiet: bool) -> None:
    """Age, initiator, parts, bytes, key and id of each, the oldest first."""
    from s3mount.cli.uploads_shown import list_them

    list_them(service, location, as_json=as_json, quiet=quiet)


@uploads.command("show", epilog=SHOW_EXAMPLES)
@location_argument
@click.argument("upload_id", required=False)
@lines_json_option
@service_options()
def show(service: Service, location: str, upload_id: str | None, as_json: bool) -> None:
    """The parts of each: number, size, ETag, checksum."""
    from s3mount.cli.uploads_shown import show_parts

    show_parts(service, location, upload_id, as_json=as_json)


@uploads.command("abort", epilog=ABORT_EXAMPLES)
@location_argument
@click.argument("upload_ids", nargs=-1, metavar="[UPLOAD_ID...]")
@click.option("--older-than", metavar="TIME", help="Only those begun so long ago: 2d, 12h, 30m.")
@click.option(
    "--force",
    is_flag=True,
    help="Also those that a mount on this machine needs: it sends everything anew.",
)
@yes_option
@dry_run_option
@summary_json_option
@quiet_option
@service_options()
def abort(
    service: Service,
    location: str,
    upload_ids: tuple[str, ...],
    older_than: str | None,
    force: bool,
    yes: bool,
    dry_run: bool,
    as_json: bool,
    quiet: bool,
) -> None:  # fmt: skip
    """Abort uploads: their parts are deleted. Asks before it does so.

    Those that a journal on this machine needs are left alone, and named.
    """
    from s3mount.cli.uploads_aborted import Choice, abort_them

    choice = Choice(location, upload_ids, older_than, force, yes, dry_run, as_json, quiet)
    abort_them(service, choice)


@uploads.command("resume", epilog=RESUME_EXAMPLES)
@location_argument
@click.argument("file", required=False)
@click.option("--upload-id", metavar="ID", help="Which one, where there are several of the key.")
@click.option(
    "--timeout",
    metavar="TIME",
    default="10m",
    show_default=True,
    help="How long to try; what is left then stays in the journal.",
)
@lines_json_option
@quiet_option
@service_options(writing=True)
def resume(
    service: Service,
    location: str,
    file: str | None,
    upload_id: str | None,
    timeout: str,
    as_json: bool,
    quiet: bool,
) -> None:  # fmt: skip
    """Go on with what was interrupted.

    Without FILE: everything that the journals of dead mounts of this bucket on this machine hold,
    which is what the next mount would do: uploads, names, attributes, in their order. Changes that
    others have made since are never overwritten. Files that were not closed when their mount died
    are kept for 's3mount recover'.

    With FILE: the unfinished upload of the key BUCKET:/PATH, whoever began it. Parts that equal
    the file are kept, the others are sent. Content-Type and attributes are those that the upload
    began with.
    """
    from s3mount.cli.uploads_resumed import resume_file, resume_journals

    if file is None:
        resume_journals(service, location, timeout, as_json=as_json, quiet=quiet)
    else:
        resume_file(service, location, file, upload_id, as_json=as_json, quiet=quiet)
