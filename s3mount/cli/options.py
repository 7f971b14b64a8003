"""s3mount's own options, in one table: each is a long option and, with '-' or '_', a word of -o."""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from s3mount.cli import values
from s3mount.cli.settings import Settings
from s3mount.core import config
from s3mount.core.errors import ConfigurationError

MISSING: Any = object()


@dataclass(frozen=True, slots=True)
class Option:
    """`constant` given: a flag that sets it; else the value's text goes through `parse`."""

    name: str
    section: str
    field: str
    help: str
    parse: values.Parse | None = None
    metavar: str = ""
    constant: Any = MISSING

    @property
    def is_flag(self) -> bool:
        return self.parse is None

    def apply(self, settings: Settings, text: str | None) -> None:
        """Raises ConfigurationError naming the option."""
        if self.parse is None:
            if text not in (None, "", "1", "yes", "true"):
                raise ConfigurationError(f"{self.name} takes no value, not {text!r}")
            value = self.constant
        elif text is None:
            raise ConfigurationError(f"{self.name} needs a value: {self.name}={self.metavar}")
        else:
            try:
                value = self.parse(text)
            except ConfigurationError as error:
                raise ConfigurationError(f"{self.name}: {error}") from None
        settings.set(self.section, self.field, value)


def flag(name: str, section: str, field: str, text: str, constant: Any = True) -> Option:
    return Option(name, section, field, text, constant=constant)


def valued(
    name: str, where: tuple[str, str], metavar: str, parse: values.Parse, text: str
) -> Option:
    return Option(name, where[0], where[1], text, parse, metavar)


OPTIONS: tuple[Option, ...] = (
    # the service
    valued("endpoint-url", ("store", "endpoint_url"), "URL", values.url,
           "The S3 service; also from AWS_ENDPOINT_URL_S3, AWS_ENDPOINT_URL or the profile."),
    valued("region", ("store", "region"), "NAME", values.word, "Also from AWS_REGION."),
    valued("profile", ("store", "profile"), "NAME", values.word,
           "A profile of ~/.aws; also from AWS_PROFILE."),
    flag("no-sign-request", "store", "anonymous", "Public bucket: ask without credentials."),
    valued("passwd-file", ("front", "passwd_file"), "FILE", values.path,
           "Credentials in s3fs's format."),
    valued("addressing-style", ("store", "addressing_style"), "auto|path|virtual",
           values.one_of("auto", "path", "virtual"), "Where the bucket's name goes in the URL."),
    flag("no-verify-ssl", "store", "verify_tls", "Do not check the service's certificate.", False),
    valued("ca-bundle", ("store", "ca_bundle"), "FILE",
           lambda text: str(values.existing_file(text)), "Certificates to trust."),
    flag("requester-pays", "store", "requester_pays", "The requester pays, that is you."),
    valued("acl", ("store", "acl"), "NAME", values.word, "Canned ACL of what is written."),
    valued("storage-class", ("store", "storage_class"), "NAME", str.upper,
           "Storage class of what is written."),
    valued("sse", ("store", "sse"), "AES256|aws:kms",
           lambda text: {"aes256": "AES256", "aws:kms": "aws:kms"}[
               values.one_of("aes256", "aws:kms")(text)],
           "Encryption by the service of what is written."),
    valued("sse-kms-key-id", ("store", "sse_kms_key_id"), "ID", values.word, "Key of aws:kms."),
    # names and attributes
    valued("metadata-ttl", ("namespace", "metadata_ttl"), "TIME", values.seconds,
           "How long names and attributes that others may change are believed."),
    valued("attributes", ("namespace", "attributes"), "full|listing",
           values.one_of("full", "listing"),
           "'listing': no request per file, hence default modes and owners."),
    valued("max-inodes", ("namespace", "max_inodes"), "N", values.positive_number,
           "Names kept in memory."),
    flag("escape-names", "namespace", "escape_names",
         "Names that are not UTF-8 are stored as %XX instead of refused."),
    valued("uid", ("defaults", "force_uid"), "ID", values.identifier, "Owner shown of all files."),
    valued("gid", ("defaults", "force_gid"), "ID", values.identifier, "Group shown of all files."),
    valued("umask", ("defaults", "umask"), "MODE", values.octal,
           "Permission bits cleared from all modes shown."),
    valued("file-mode", ("defaults", "file_mode"), "MODE", values.octal,
           "Mode of files that have none stored."),
    valued("dir-mode", ("defaults", "directory_mode"), "MODE", values.octal,
           "Mode of directories that have none stored."),
    flag("xattrs", "mount", "xattrs", "Store extended attributes (about 2 KB a file)."),
    # the way out
    valued("part-size", ("writeback", "part_size"), "SIZE", values.size,
           "Part size of the first 1000 parts of a large file."),
    flag("equal-parts", "writeback", "equal_parts", "All parts of a file have one size."),
    valued("spool-size", ("writeback", "spool_limit"), "SIZE", values.size,
           "Disk space for what is not yet in the bucket."),
    valued("disk-reserve", ("writeback", "disk_reserve"), "SIZE", values.size,
           "Space that the spool leaves free on its disk."),
    valued("cache-dir", ("front", "cache_dir"), "DIR", values.path,
           "Spool, journal and known attributes; on a disk that survives."),
    valued("durability", ("writeback", "durability"), "close|journal",
           values.one_of("close", "journal"),
           "When close returns: once the file is in the bucket, or safe on the local disk."),
    flag("ordered", "writeback", "ordered",
         "Changes reach the bucket in the order of their making."),
    flag("sync", "writeback", "sync", "Each change of a name waits for the bucket."),
    valued("excl", ("writeback", "exclusive_at"), "close|open", values.one_of("close", "open"),
           "When O_EXCL is decided between hosts."),
    flag("no-early-publish", "writeback", "refuse_early_publish",
         "ENOSPC when the disk is full, rather than completing a file early."),
    valued("progress-timeout", ("writeback", "no_progress_timeout"), "TIME", values.seconds,
           "close and fsync fail after so long without any byte sent."),
    valued("leave-timeout", ("mount", "leave_timeout"), "TIME", values.seconds,
           "How long umount and SIGTERM wait for what is pending; the rest stays in the journal."),
    # the way in
    valued("read-memory", ("read", "memory_limit"), "SIZE", values.size,
           "Memory for what was read."),
    valued("read-cache", ("front", "read_cache"), "DIR", values.path,
           "Keeps what was read on disk as well."),
    valued("read-cache-size", ("read", "disk_limit"), "SIZE", values.size,
           "Bound of the read cache on disk."),
    # requests
    valued("transfers", ("store", "transfer_concurrency"), "N", values.at_once,
           "Uploads of parts and files at a time."),
    valued("retries", ("store", "retries"), "N", values.whole_number,
           "Attempts after a request's first."),
    valued("request-deadline", ("store", "request_deadline"), "TIME", values.seconds,
           "For one request with all its retries."),
    # the mount
    flag("read-only", "mount", "read_only", "Nothing can be written."),
    flag("nonempty", "mount", "nonempty", "Mount over a directory that has files, hiding them."),
    valued("df-size", ("mount", "statfs_bytes"), "SIZE", values.size, "What df shows."),
    valued("log-level", ("mount", "log_level"), "error|warning|info|debug",
           values.one_of("error", "warning", "info", "debug"), "What is worth a line."),
    valued("log-file", ("front", "log_file"), "FILE", values.path,
           "Instead of syslog; reopened at SIGHUP."),
)  # fmt: skip

BY_NAME = {option.name: option for option in OPTIONS}

_DEFAULTS: dict[str, type] = {
    "store": config.StoreConfig,
    "defaults": config.AttributeDefaults,
    "namespace": config.NamespaceConfig,
    "writeback": config.WritebackConfig,
    "read": config.ReadConfig,
    "mount": config.MountConfig,
}


def find_option(name: str) -> Option | None:
    """By its name of the command line or of -o (part-size, part_size)."""
    return BY_NAME.get(name.replace("_", "-"))


def default_text(option: Option) -> str:
    """The default as --help shows it; empty where it is plain."""
    kind = _DEFAULTS.get(option.section)
    if kind is None or option.is_flag:
        return ""
    value = {f.name: f.default for f in dataclasses.fields(kind)}[option.field]
    if value is None or value is dataclasses.MISSING:
        return ""
    show: dict[values.Parse, Callable[[Any], str]] = {values.size: _size_text, values.octal: oct}
    return str(show.get(option.parse or str, str)(value))


def _size_text(value: int) -> str:
    for unit, name in ((config.TIB, "TiB"), (config.GIB, "GiB"), (config.MIB, "MiB")):
        if value >= unit and value % unit == 0:
            return f"{value // unit} {name}"
    return str(value)
