"""From options to a MountConfig: settings are collected by name, then checked and built."""

import hashlib
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from s3mount.cli.passwd_file import Credentials, find_credentials
from s3mount.core.config import (
    AttributeDefaults,
    MountConfig,
    NamespaceConfig,
    ReadConfig,
    StoreConfig,
    WritebackConfig,
)
from s3mount.core.errors import ConfigurationError
from s3mount.core.location import check_bucket_name, parse_mount_source
from s3mount.fuse.mountpoint import resolve

SECTIONS = ("store", "defaults", "namespace", "writeback", "read", "mount", "front")
FSNAME = "s3mount"


@dataclass(slots=True)
class Settings:
    """Values as given, by (section, field); sections are the parts of MountConfig, and 'front'.

    The front section is for the command line alone: bucket, mountpoint, cache_dir, read_cache,
    spool_parent, passwd_file, log_file, log_timestamps, instance_name, servicepath,
    free_space_ratio, sse_custom, need_session_token, need_cache_dir,
    any_hostname.
    """

    values: dict[tuple[str, str], Any] = field(default_factory=dict)
    kernel_options: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def set(self, section: str, name: str, value: Any) -> None:
        assert section in SECTIONS, section
        self.values[section, name] = value

    def get(self, section: str, name: str, default: Any = None) -> Any:
        return self.values.get((section, name), default)

    def section(self, section: str) -> dict[str, Any]:
        return {name: value for (where, name), value in self.values.items() if where == section}


def build_config(settings: Settings, environment: Mapping[str, str] = os.environ) -> MountConfig:
    """Raises ConfigurationError for what cannot work, with the remedy."""
    bucket, prefix = parse_mount_source(_required(settings, "bucket", "name the bucket to mount"))
    _check_combinations(settings, environment)
    store = build_store_config(settings, bucket, environment)
    endpoint = store.endpoint_url
    mountpoint = resolve(Path(_required(settings, "mountpoint", "name the directory to mount on")))
    root = cache_root(settings, environment)
    bucket_name, name = cache_names(endpoint, bucket, prefix, mountpoint)
    shared_dir = root / bucket_name
    cache_dir = shared_dir / "mounts" / name
    spool_parent = settings.get("front", "spool_parent")
    spool_dir = spool_parent / f"s3mount-{bucket}-{name}" if spool_parent else cache_dir / "spool"
    if settings.get("mount", "read_only"):
        # The other one may hold what a mount with journal has yet to send.
        spool_dir = spool_dir.with_name(f"{spool_dir.name}-read-only")
    read_cache = settings.get("front", "read_cache")
    ratio = settings.get("front", "free_space_ratio")
    if ratio is not None:
        settings.set("writeback", "disk_reserve", disk_reserve_of(ratio, spool_dir))
    writeback = writeback_config(settings, spool_dir)
    defaults = attribute_defaults(settings)
    return MountConfig(
        mountpoint=mountpoint,
        prefix=prefix,
        store=store,
        defaults=defaults,
        namespace=NamespaceConfig(
            stat_cache_path=stat_cache_path(shared_dir, defaults),
            **settings.section("namespace"),
        ),
        writeback=writeback,
        read=ReadConfig(
            disk_dir=read_cache / f"s3mount-{bucket_name}" if read_cache else None,
            **settings.section("read"),
        ),
        cache_dir=cache_dir,
        shared_dir=shared_dir,
        fuse_options=fuse_options(settings),
        **settings.section("mount"),
    )


def writeback_config(settings: Settings, spool_dir: Path) -> WritebackConfig:
    """Raises ConfigurationError."""
    found = WritebackConfig(spool_dir=spool_dir, **settings.section("writeback"))
    _check_parts(found)
    return found


def attribute_defaults(settings: Settings) -> AttributeDefaults:
    given = settings.section("defaults")
    return AttributeDefaults(**{"uid": os.getuid(), "gid": os.getgid()} | given)


def stat_cache_path(shared_dir: Path, defaults: AttributeDefaults) -> Path:
    """Mounts that show the same object differently do not share what they know of it."""
    return shared_dir / f"attributes-{_digest(repr(defaults))[:8]}.sqlite"


def build_dead_mount_config(
    settings: Settings, owner: Mapping[str, Any], directory: Path
) -> MountConfig:
    """Of a mount that died and left its journal in `directory`, as far as its journal's identity
    (`owner`) tells. Raises ConfigurationError."""
    known = Settings({**settings.values})
    known.set("front", "bucket", f"{owner['bucket']}:/{owner['prefix']}")
    known.set("front", "mountpoint", owner["mountpoint"])
    if owner["endpoint"]:
        known.set("store", "endpoint_url", owner["endpoint"])
    config = build_config(known)
    return replace(
        config,
        mountpoint=Path(owner["mountpoint"]),  # as it was then
        cache_dir=directory,
        writeback=replace(config.writeback, spool_dir=directory / "spool"),
    )


def build_store_config(
    settings: Settings, bucket: str, environment: Mapping[str, str] = os.environ
) -> StoreConfig:
    """How to reach `bucket` ('': the service alone), from the settings of the section `store`, the
    environment, and s3fs's passwd files. Raises ConfigurationError."""
    _append_servicepath(settings)
    endpoint = settings.get("store", "endpoint_url") or _endpoint_of(environment)
    if bucket:
        check_bucket_name(bucket, amazon=_is_amazon(endpoint))
    return StoreConfig(
        bucket=bucket,
        state_dir=cache_root(settings, environment) / "services",
        **_keys(_credentials(settings, bucket, environment)),
        **settings.section("store") | {"endpoint_url": endpoint},
    )


def cache_root(settings: Settings, environment: Mapping[str, str] = os.environ) -> Path:
    """Where everything is that is kept on this machine."""
    return settings.get("front", "cache_dir") or default_cache_dir(environment)


def fuse_options(settings: Settings) -> tuple[str, ...]:
    """/proc/mounts then shows 's3mount ... fuse.s3mount'."""
    given = list(dict.fromkeys(settings.kernel_options))
    if "allow_other" in given and os.getuid() != 0 and not _user_allow_other():
        raise ConfigurationError(
            "allow_other needs the line user_allow_other in /etc/fuse.conf; add it as root:"
            " echo user_allow_other >> /etc/fuse.conf"
        )
    named = {option.partition("=")[0] for option in given}
    if "fsname" not in named:
        given.append(f"fsname={FSNAME}")
    return (*given, f"subtype={FSNAME}")


def _user_allow_other() -> bool:
    try:
        lines = Path("/etc/fuse.conf").read_text().splitlines()
    except OSError:
        return False
    return any(line.strip() == "user_allow_other" for line in lines)


def _endpoint_of(environment: Mapping[str, str]) -> str | None:
    """As boto3 does it, but here, for it is a part of the mount's identity."""
    if environment.get("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS", "").lower() == "true":
        return None
    return environment.get("AWS_ENDPOINT_URL_S3") or environment.get("AWS_ENDPOINT_URL")


def _is_amazon(endpoint: str | None) -> bool:
    return endpoint is None or ".amazonaws.com" in endpoint


def default_cache_dir(environment: Mapping[str, str]) -> Path:
    if environment.get("XDG_CACHE_HOME"):
        return Path(environment["XDG_CACHE_HOME"]) / "s3mount"
    if os.getuid() == 0:
        return Path("/var/cache/s3mount")
    return Path.home() / ".cache" / "s3mount"


def disk_reserve_of(ratio: int, directory: Path) -> int:
    """free_space_ratio in bytes of the disk that `directory` is, or will be, on."""
    while not directory.exists():
        directory = directory.parent
    return shutil.disk_usage(directory).total * ratio // 100


def cache_names(
    endpoint: str | None, bucket: str, prefix: str, mountpoint: Path
) -> tuple[str, str]:
    """Two directories: of what all mounts of the bucket share (known attributes, read cache), and
    below it of what belongs to one mount (lock, journal, spool)."""
    own = _digest("\0".join([prefix, os.fspath(mountpoint)]))[:12]
    return shared_directory(Path(), endpoint, bucket).name, own


def shared_directory(root: Path, endpoint: str | None, bucket: str) -> Path:
    """Below the cache root: what all mounts of the bucket share."""
    return root / f"{bucket}-{_digest(chr(0).join([endpoint or '', bucket]))[:12]}"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()


def _required(settings: Settings, name: str, remedy: str) -> str:
    value = settings.get("front", name)
    if not value:
        raise ConfigurationError(f"{remedy}: s3mount BUCKET MOUNTPOINT")
    return str(value)


def _credentials(
    settings: Settings, bucket: str, environment: Mapping[str, str]
) -> Credentials | None:
    if settings.get("store", "anonymous"):
        return None
    named = settings.get("front", "passwd_file")
    if named is None and settings.get("store", "profile"):
        return None
    return find_credentials(bucket, named, environment)


def _keys(credentials: Credentials | None) -> dict[str, Any]:
    if credentials is None:
        return {}
    return {
        "access_key": credentials.access_key,
        "secret_key": credentials.secret_key,
        "session_token": credentials.session_token,
    }


def _check_combinations(settings: Settings, environment: Mapping[str, str]) -> None:
    # Nothing is checked with no_check_certificate, which may come later.
    if settings.get("front", "any_hostname") and settings.get("store", "verify_tls", True):
        raise ConfigurationError(
            "-o ssl_verify_hostname: checking the certificate but not its name is not possible;"
            " use no_check_certificate instead"
        )
    if settings.get("front", "need_session_token") and (
        "AWS_ACCESS_KEY_ID" in environment and "AWS_SESSION_TOKEN" not in environment
    ):
        raise ConfigurationError(
            "use_session_token is given but AWS_SESSION_TOKEN is not set; set it or drop the option"
        )
    cache = settings.get("front", "read_cache")
    if settings.get("front", "need_cache_dir") and cache and not cache.is_dir():
        raise ConfigurationError(
            f"the cache directory {cache} does not exist (check_cache_dir_exist); create it"
        )
    if settings.get("store", "profile") and settings.get("front", "passwd_file"):
        raise ConfigurationError("give either a profile or a passwd_file, not both")
    if settings.get("store", "sse") and settings.get("store", "sse_customer_key"):
        raise ConfigurationError("give either a key of yours (SSE-C) or the service's, not both")

    if bool(settings.get("front", "sse_custom")) != bool(settings.get("store", "sse_customer_key")):
        raise ConfigurationError(
            "SSE-C needs the key for both ways: -o use_sse=custom:FILE"
            " (or use_sse=custom with load_sse_c=FILE)"
        )


def _append_servicepath(settings: Settings) -> None:
    path = settings.get("front", "servicepath")
    if not path:
        return
    endpoint = settings.get("store", "endpoint_url")
    if endpoint is None:
        raise ConfigurationError("servicepath needs the service it belongs to: url=URL")
    settings.set("store", "endpoint_url", f"{endpoint}/{path}")


def _check_parts(writeback: WritebackConfig) -> None:
    for name, value in (
        ("part-size", writeback.part_size),
        ("copy-part-size", writeback.copy_part_size),
    ):
        if not writeback.min_part_size <= value <= writeback.max_part_size:
            raise ConfigurationError(
                f"{name} is {value} bytes; S3 allows 5 MiB to 5 GiB (parts grow by themselves"
                " where an object needs more than 10,000)"
            )
    if writeback.spool_limit < 4 * writeback.part_size:
        raise ConfigurationError(
            f"spool-size is {writeback.spool_limit} bytes; it must hold four parts of"
            f" {writeback.part_size} bytes at least"
        )
