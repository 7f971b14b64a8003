"""Every setting of a mount, as immutable values; the command line fills them in.

Sizes are bytes and times are seconds everywhere.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

KIB = 1024
MIB = 1024 * KIB
GIB = 1024 * MIB
TIB = 1024 * GIB


@dataclass(frozen=True, slots=True)
class StoreConfig:
    """How to reach the bucket; credentials come from boto3's chain unless given here."""

    bucket: str
    endpoint_url: str | None = None
    region: str | None = None
    profile: str | None = None
    access_key: str | None = None  # from s3fs's passwd_file only, never from an argument
    secret_key: str | None = field(default=None, repr=False)
    session_token: str | None = field(default=None, repr=False)
    anonymous: bool = False  # s3fs: public_bucket
    addressing_style: Literal["auto", "path", "virtual"] = "auto"
    verify_tls: bool = True
    ca_bundle: str | None = None
    requester_pays: bool = False
    acl: str | None = None  # None sends no ACL header: the service's default, private
    storage_class: str | None = None
    sse: Literal["AES256", "aws:kms"] | None = None
    sse_kms_key_id: str | None = None
    sse_customer_key: bytes | None = field(default=None, repr=False)  # 32 bytes (SSE-C)
    extra_headers: Mapping[str, str] = field(default_factory=dict)
    list_page_size: int = 1000  # S3's own maximum
    connect_timeout: float = 5.0
    read_timeout: float = 20.0  # silence on an open connection
    request_deadline: float = 60.0  # one request with all its retries (ruling 6)
    retries: int = 5  # attempts after the first
    # Threads, hence connections, of each lane (ruling 1). 64 HEADs in flight list 1000 files
    # within 0.5 s at 30 ms a request; 16 transfers of 8 MiB fill 500 MB/s at 30 ms.
    metadata_concurrency: int = 64
    read_concurrency: int = 32
    transfer_concurrency: int = 16
    mutation_concurrency: int = 48
    assume_conditional_writes: bool | None = None  # None: probe
    state_dir: Path | None = None  # where probed capabilities are remembered; None: memory only


@dataclass(frozen=True, slots=True)
class AttributeDefaults:
    """What an object without metadata of its own looks like; overrides of the options."""

    uid: int
    gid: int
    file_mode: int = 0o644
    directory_mode: int = 0o755
    force_uid: int | None = None  # s3fs: uid=
    force_gid: int | None = None  # s3fs: gid=
    umask: int | None = None  # s3fs: umask=, cleared from every mode shown
    root_mode: int | None = None  # s3fs: mp_umask, the mount point's own permission bits


@dataclass(frozen=True, slots=True)
class NamespaceConfig:
    metadata_ttl: float = 3.0  # how long names and attributes of others are believed
    attributes: Literal["full", "listing"] = "full"
    max_inodes: int = 500_000  # beyond it the least recent names are dropped (ruling 6)
    stat_cache_path: Path | None = None  # SQLite file of attributes by version; None: off
    stat_cache_rows: int = 2_000_000  # about 300 bytes each on disk
    escape_names: bool = False  # non-UTF-8 bytes as %XX instead of EILSEQ
    compat_dir: bool = True  # recognise all marker forms and implied directories
    prefetch_tree: bool = True  # one flat LIST for a walk over sub-directories


@dataclass(frozen=True, slots=True)
class WritebackConfig:
    spool_dir: Path
    spool_limit: int = 4 * GIB
    disk_reserve: int = 512 * MIB  # free space that the spool leaves on its disk
    part_size: int = 8 * MIB
    equal_parts: bool = False
    max_parts: int = 10_000
    max_object_size: int = 5 * TIB
    min_part_size: int = 5 * MIB
    max_part_size: int = 5 * GIB
    max_copy_size: int = 5 * GIB  # CopyObject's limit; beyond it UploadPartCopy
    copy_part_size: int = 64 * MIB  # sixteen of them in parallel copy 1 GiB at once
    single_put_limit: int = 8 * MIB  # larger files go up in parts
    bytes_in_flight: int = 128 * MIB  # bodies of parts held in memory: sixteen of the default size
    no_progress_timeout: float = 120.0  # close and fsync give up after so long without a byte
    namespace_delay: float = 0.5  # how long write-behind intents wait to be coalesced
    exclusive_at: Literal["close", "open"] = "close"  # O_EXCL between hosts
    sync: bool = False  # --sync: each namespace change waits for S3
    # When close returns: once the file is in S3, or once it is safe on the local disk.
    durability: Literal["close", "journal"] = "close"
    ordered: bool = False  # --ordered: every change waits for the one before it
    refuse_early_publish: bool = False  # ENOSPC instead of design.md 7's exception


@dataclass(frozen=True, slots=True)
class ReadConfig:
    memory_limit: int = 128 * MIB  # what was read and what is on its way
    disk_dir: Path | None = None  # None: no disk cache
    disk_limit: int = 10 * GIB
    first_request: int = 256 * KIB  # small, so that the first byte comes in one round trip
    # What a random read fetches around the bytes asked for; four times as much near an earlier one.
    # 128 KiB at 80 MB/s would add 1.2 ms to the 30 ms of a round trip.
    random_request: int = 32 * KIB
    max_window: int = 64 * MIB  # read-ahead: bandwidth-delay product of 500 MB/s and 100 ms
    max_request: int = 4 * MIB  # one ranged GET
    small_object: int = 256 * KIB  # fetched whole by one GET, which replaces the HEAD
    sibling_window: int = 32  # small files fetched ahead in a directory read in order


@dataclass(frozen=True, slots=True)
class MountConfig:
    """All of it; `prefix` is empty or ends in a slash."""

    mountpoint: Path
    prefix: str
    store: StoreConfig
    defaults: AttributeDefaults
    namespace: NamespaceConfig
    writeback: WritebackConfig
    read: ReadConfig
    cache_dir: Path  # of this mount alone: its lock and journal
    shared_dir: Path | None = None  # of all mounts of the bucket on this machine
    read_only: bool = False
    nonempty: bool = False  # mount over a directory that has files, hiding them
    xattrs: bool = False  # off: ENOSYS, which spares a GETXATTR before every write
    statfs_bytes: int = 1024 * TIB  # what df shows as the size
    # How long umount and SIGTERM wait for what is pending: less than the 15 minutes after which the
    # systemd unit would kill the process. What is left then is in the journal.
    leave_timeout: float = 600.0
    update_parent_times: bool = True
    fuse_options: tuple[str, ...] = ()
    log_level: str = "info"
    foreground: bool = False
