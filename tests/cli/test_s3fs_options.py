"""Every option of s3fs(1): what it does to the settings, or how it is refused."""

import base64
import mimetypes
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from s3mount.cli.mount_options import apply_words
from s3mount.cli.s3fs_options import Verdict
from s3mount.cli.s3fs_table import BY_NAME, S3FS_OPTIONS
from s3mount.cli.settings import Settings, build_config
from s3mount.core.config import GIB, MIB, MountConfig
from s3mount.core.errors import ConfigurationError


def configured(tmp_path: Path, *words: str, bucket: str = "bucket") -> tuple[MountConfig, Settings]:
    settings = Settings()
    settings.set("front", "bucket", bucket)
    settings.set("front", "mountpoint", str(tmp_path / "mountpoint"))
    settings.set("front", "cache_dir", tmp_path / "cache")
    apply_words(settings, words)
    return build_config(settings, {"HOME": str(tmp_path)}), settings


Look = Callable[[MountConfig], Any]

# Each understood option with a value, and where in the MountConfig it must be seen.
EFFECTS: dict[str, tuple[str, Look, Any]] = {
    "bucket": ("bucket=other", lambda c: c.store.bucket, "other"),
    "default_acl": ("default_acl=public-read", lambda c: c.store.acl, "public-read"),
    "retries": ("retries=9", lambda c: c.store.retries, 9),
    "storage_class": ("storage_class=standard_ia", lambda c: c.store.storage_class, "STANDARD_IA"),
    "use_rrs": ("use_rrs", lambda c: c.store.storage_class, "REDUCED_REDUNDANCY"),
    "use_sse": ("use_sse", lambda c: c.store.sse, "AES256"),
    "profile": ("profile=work", lambda c: c.store.profile, "work"),
    "public_bucket": ("public_bucket=1", lambda c: c.store.anonymous, True),
    "connect_timeout": ("connect_timeout=7", lambda c: c.store.connect_timeout, 7.0),
    "readwrite_timeout": ("readwrite_timeout=70", lambda c: c.store.read_timeout, 70.0),
    "list_object_max_keys": (
        "list_object_max_keys=5000",
        lambda c: c.store.list_page_size,
        1000,
    ),
    "max_stat_cache_size": ("max_stat_cache_size=77", lambda c: c.namespace.max_inodes, 77),
    "stat_cache_expire": ("stat_cache_expire=60", lambda c: c.namespace.metadata_ttl, 60.0),
    "no_check_certificate": ("no_check_certificate", lambda c: c.store.verify_tls, False),
    "multireq_max": ("multireq_max=20", lambda c: c.store.metadata_concurrency, 20),
    "parallel_count": ("parallel_count=30", lambda c: c.store.transfer_concurrency, 30),
    "max_thread_count": ("max_thread_count=31", lambda c: c.store.transfer_concurrency, 31),
    "multipart_size": ("multipart_size=16", lambda c: c.writeback.part_size, 16 * MIB),
    "multipart_copy_size": (
        "multipart_copy_size=100",
        lambda c: c.writeback.copy_part_size,
        100 * MIB,
    ),
    "bucket_size": ("bucket_size=30GB", lambda c: c.statfs_bytes, 30_000_000_000),
    "ensure_diskfree": ("ensure_diskfree=2048", lambda c: c.writeback.disk_reserve, 2 * GIB),
    "multipart_threshold": (
        "multipart_threshold=25",
        lambda c: c.writeback.single_put_limit,
        25 * MIB,
    ),
    "singlepart_copy_limit": (
        "singlepart_copy_limit=512",
        lambda c: c.writeback.max_copy_size,
        512 * MIB,
    ),
    "host": (
        "host=https://s3.example.org",
        lambda c: c.store.endpoint_url,
        "https://s3.example.org",
    ),
    "url": ("url=http://127.0.0.1:9000/", lambda c: c.store.endpoint_url, "http://127.0.0.1:9000"),
    "endpoint": ("endpoint=eu-central-1", lambda c: c.store.region, "eu-central-1"),
    "mp_umask": ("mp_umask=0077", lambda c: c.defaults.root_mode, 0o700),
    "umask": ("umask=0027", lambda c: c.defaults.umask, 0o027),
    "uid": ("uid=1234", lambda c: c.defaults.force_uid, 1234),
    "gid": ("gid=4321", lambda c: c.defaults.force_gid, 4321),
    "use_xattr": ("use_xattr=1", lambda c: c.xattrs, True),
    "use_path_request_style": (
        "use_path_request_style",
        lambda c: c.store.addressing_style,
        "path",
    ),
    "compat_dir": ("compat_dir", lambda c: c.namespace.compat_dir, True),
    "notsup_compat_dir": ("notsup_compat_dir", lambda c: c.namespace.compat_dir, False),
    "requester_pays": ("requester_pays", lambda c: c.store.requester_pays, True),
    "dbglevel": ("dbglevel=warn", lambda c: c.log_level, "warning"),
    "update_parent_dir_stat": (
        "update_parent_dir_stat",
        lambda c: c.update_parent_times,
        True,
    ),
    "nonempty": ("nonempty", lambda c: c.nonempty, True),
}

# Understood options whose effect needs more than one word; each has a test of its own below.
TESTED_BELOW = {
    "tmpdir",
    "use_cache",
    "check_cache_dir_exist",
    "load_sse_c",
    "passwd_file",
    "free_space_ratio",
    "servicepath",
    "instance_name",
    "use_session_token",
    "mime",
    "logfile",
    "no_time_stamp_msg",
}


def test_every_understood_option_has_a_test_of_its_effect() -> None:
    understood = {o.name for o in S3FS_OPTIONS if o.verdict is Verdict.UNDERSTOOD}
    assert understood == set(EFFECTS) | TESTED_BELOW


@pytest.mark.parametrize("name", EFFECTS)
def test_an_understood_option_has_its_effect(name: str, tmp_path: Path) -> None:
    words, look, expected = EFFECTS[name]
    config, settings = configured(tmp_path, words)
    assert look(config) == expected
    assert settings.warnings == []


@pytest.mark.parametrize(
    "option", [o for o in S3FS_OPTIONS if o.verdict is Verdict.ACCEPTED], ids=lambda o: o.name
)
def test_an_accepted_option_warns_with_what_it_means_here(option: Any, tmp_path: Path) -> None:
    value = {
        "stat_cache_interval_expire": "=60",
        "ssl_verify_hostname": "=2",
        "ipresolve": "=whatever",
        "max_dirty_data": "=5120",
        "iam_role": "=auto",
    }.get(option.name, "")
    _, settings = configured(tmp_path, option.name + value)
    assert settings.warnings == [f"-o {option.name}: {option.meaning}"]


@pytest.mark.parametrize(
    "option", [o for o in S3FS_OPTIONS if o.verdict is Verdict.REFUSED], ids=lambda o: o.name
)
def test_a_refused_option_tells_the_reason_and_what_to_use(option: Any, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError) as raised:
        configured(tmp_path, f"{option.name}=x")
    assert f"-o {option.name} is refused: {option.meaning}" in str(raised.value)
    assert option.nearest in str(raised.value)


def test_accepted_options_with_an_effect_have_it(tmp_path: Path) -> None:
    config, _ = configured(tmp_path, "use_wtf8,stat_cache_interval_expire=30,curldbg=normal")
    assert config.namespace.escape_names
    assert config.namespace.metadata_ttl == 30.0
    assert config.log_level == "debug"


@pytest.mark.skipif(shutil.which("man") is None, reason="there is no man(1) here")
def test_the_installed_s3fs_has_no_option_that_is_missing_here() -> None:
    page = subprocess.run(["man", "s3fs"], capture_output=True, text=True, check=False)
    if page.returncode != 0:
        pytest.skip("s3fs's man page is not installed")
    text = re.sub(".\b", "", page.stdout)
    theirs = set(re.findall(r"^\s+-o (\w+)", text, re.MULTILINE))
    assert len(theirs) > 60
    assert theirs - set(BY_NAME) == set()


# --- options that need files, the environment or each other ---


def test_the_spool_is_below_tmpdir(tmp_path: Path) -> None:
    config, _ = configured(tmp_path, f"tmpdir={tmp_path}/t")
    assert config.writeback.spool_dir.parent == tmp_path / "t"
    assert config.cache_dir.is_relative_to(tmp_path / "cache")


def test_use_cache_keeps_what_was_read_and_may_be_required_to_exist(tmp_path: Path) -> None:
    config, _ = configured(tmp_path, f"use_cache={tmp_path}/c")
    assert config.read.disk_dir is not None
    assert config.read.disk_dir.parent == tmp_path / "c"
    with pytest.raises(ConfigurationError, match="check_cache_dir_exist"):
        configured(tmp_path, f"use_cache={tmp_path}/c,check_cache_dir_exist")
    (tmp_path / "c").mkdir()
    configured(tmp_path, f"use_cache={tmp_path}/c,check_cache_dir_exist")


def key_file(tmp_path: Path, text: str, mode: int = 0o600) -> Path:
    path = tmp_path / "sse-c"
    path.write_text(text)
    path.chmod(mode)
    return path


def test_customer_keys_come_from_files_in_both_forms(tmp_path: Path) -> None:
    raw = b"0123456789abcdef0123456789ABCDEF"
    path = key_file(tmp_path, raw.decode() + "\n")
    for words in (f"use_sse=custom:{path}", f"use_sse=c:{path}", f"use_sse={path}"):
        assert configured(tmp_path, words)[0].store.sse_customer_key == raw
    path = key_file(tmp_path, "# new\n" + base64.b64encode(raw).decode() + "\nolder\n")
    config, settings = configured(tmp_path, f"use_sse=custom,load_sse_c={path}")
    assert config.store.sse_customer_key == raw
    assert "only the first key is used" in settings.warnings[0]


def test_customer_keys_are_refused_when_unsafe_broken_or_alone(tmp_path: Path) -> None:
    path = key_file(tmp_path, "short\n")
    with pytest.raises(ConfigurationError, match="32 bytes"):
        configured(tmp_path, f"use_sse=custom:{path}")
    path.chmod(0o644)
    with pytest.raises(ConfigurationError, match="chmod 600"):
        configured(tmp_path, f"use_sse=custom:{path}")
    path = key_file(tmp_path, "0123456789abcdef0123456789ABCDEF")
    with pytest.raises(ConfigurationError, match="both ways"):
        configured(tmp_path, f"load_sse_c={path}")
    with pytest.raises(ConfigurationError, match="both ways"):
        configured(tmp_path, "use_sse=custom")


def test_the_services_keys_are_named_or_taken_from_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, _ = configured(tmp_path, "use_sse=kmsid:K1")
    assert (config.store.sse, config.store.sse_kms_key_id) == ("aws:kms", "K1")
    with pytest.raises(ConfigurationError, match="AWSSSEKMSID"):
        configured(tmp_path, "use_sse=kmsid")
    monkeypatch.setenv("AWSSSEKMSID", "K2")
    assert configured(tmp_path, "use_sse=k")[0].store.sse_kms_key_id == "K2"


def test_passwd_file_is_read_for_this_bucket(tmp_path: Path) -> None:
    path = tmp_path / "passwd"
    path.write_text("bucket:AK:SK\n")
    path.chmod(0o600)
    config, _ = configured(tmp_path, f"passwd_file={path}")
    assert (config.store.access_key, config.store.secret_key) == ("AK", "SK")
    path.chmod(0o644)
    with pytest.raises(ConfigurationError, match="open to others"):
        configured(tmp_path, f"passwd_file={path}")
    assert configured(tmp_path, f"passwd_file={path},public_bucket=1")[0].store.access_key is None


def test_a_ratio_of_free_space_is_bytes_of_the_spools_disk(tmp_path: Path) -> None:
    config, _ = configured(tmp_path, "free_space_ratio=10")
    assert config.writeback.disk_reserve == shutil.disk_usage(tmp_path).total * 10 // 100
    with pytest.raises(ConfigurationError, match="0 to 100"):
        configured(tmp_path, "free_space_ratio=101")


def test_the_service_path_is_appended_to_the_url(tmp_path: Path) -> None:
    config, _ = configured(tmp_path, "url=https://example.org,servicepath=/objects/")
    assert config.store.endpoint_url == "https://example.org/objects"
    with pytest.raises(ConfigurationError, match="url=URL"):
        configured(tmp_path, "servicepath=/objects")


def test_what_the_log_looks_like(tmp_path: Path) -> None:
    _, settings = configured(
        tmp_path, f"instance_name=backup,no_time_stamp_msg,logfile={tmp_path}/log"
    )
    assert settings.get("front", "instance_name") == "backup"
    assert settings.get("front", "log_timestamps") is False
    assert settings.get("front", "log_file") == tmp_path / "log"


def test_a_session_token_can_be_required(tmp_path: Path) -> None:
    settings = Settings()
    settings.set("front", "bucket", "bucket")
    settings.set("front", "mountpoint", str(tmp_path))
    apply_words(settings, ["use_session_token"])
    keys = {"HOME": str(tmp_path), "AWS_ACCESS_KEY_ID": "A", "AWS_SECRET_ACCESS_KEY": "S"}
    with pytest.raises(ConfigurationError, match="AWS_SESSION_TOKEN"):
        build_config(settings, keys)
    build_config(settings, keys | {"AWS_SESSION_TOKEN": "T"})


def test_a_table_of_types_replaces_the_systems(tmp_path: Path) -> None:
    (tmp_path / "types").write_text("application/x-tested tested\n")
    try:
        configured(tmp_path, f"mime={tmp_path}/types")
        assert mimetypes.guess_type("a.tested")[0] == "application/x-tested"
    finally:
        mimetypes.init()
    with pytest.raises(ConfigurationError, match="there is no file"):
        configured(tmp_path, f"mime={tmp_path}/none")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("multipart_size=abc", "multipart_size: 'abc' is not a whole number"),
        ("multipart_size=4", "5 MiB to 5 GiB"),
        ("multipart_size=6000", "5 MiB to 5 GiB"),
        ("multipart_size", "a value is needed"),
        ("umask=999", "not an octal mode"),
        ("uid=-1", "not a whole number"),
        ("uid=4294967295", "not a user or group id"),
        ("stat_cache_expire=soon", "is not a time"),
        ("default_acl=world", "none of private"),
        ("storage_class=cheap", "none of standard"),
        ("dbglevel=loud", "none of crit"),
        ("url=s3.example.org", "is not a URL"),
        ("url=https://", "is not a URL"),
        ("use_sse=maybe", "none of 1, kmsid:ID, custom:FILE"),
        ("parallel_count=0", "write 1 or more"),
        ("bucket_size=big", "is not a size"),
        ("compat_dir=often", "takes no value but 1 or 0"),
        ("ssl_verify_hostname=0", "no_check_certificate instead"),
        ("ipresolve=IPv6", "one IP version"),
        ("multipart_sise=10", "did you mean multipart_size"),
        ("use_cahce=/tmp", "did you mean use_cache"),
        ("xyzzy", "xyzzy is not known"),
    ],
)
def test_nonsense_is_refused_by_name(words: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=re.escape(message)):
        configured(tmp_path, words)


@pytest.mark.parametrize("words", ["no_check_certificate,{}", "{},no_check_certificate"])
def test_the_name_in_a_certificate_that_is_not_checked_does_not_matter(
    words: str, tmp_path: Path
) -> None:
    """s3fs's own tests mount with both."""
    config, _ = configured(tmp_path, words.format("ssl_verify_hostname=0"))
    assert not config.store.verify_tls


def test_switches_that_are_off_change_nothing(tmp_path: Path) -> None:
    config, _ = configured(tmp_path, "public_bucket=0,use_xattr=0")
    plain, _ = configured(tmp_path)
    assert config == plain


def test_names_are_unique_and_every_option_says_what_it_does() -> None:
    assert len(BY_NAME) == len(S3FS_OPTIONS)
    for option in S3FS_OPTIONS:
        assert option.meaning
        assert (option.apply is not None) or option.verdict is not Verdict.UNDERSTOOD
