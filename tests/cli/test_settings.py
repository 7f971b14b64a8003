"""Buckets, mount points, options of mount(8) and fstab, and s3mount's own."""

import os
from pathlib import Path

import pytest

from s3mount.cli import values
from s3mount.cli.mount_options import apply_words, split_words
from s3mount.cli.options import OPTIONS, find_option
from s3mount.cli.settings import (
    Settings,
    build_config,
    cache_names,
    fuse_options,
)
from s3mount.core.config import GIB, MIB, MountConfig
from s3mount.core.errors import ConfigurationError
from s3mount.core.location import check_bucket_name, parse_mount_source


def built(tmp_path: Path, *words: str, bucket: str = "bucket") -> MountConfig:
    settings = Settings()
    settings.set("front", "bucket", bucket)
    settings.set("front", "mountpoint", str(tmp_path / "mnt"))
    apply_words(settings, words)
    return build_config(settings, {"HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path / "c")})


@pytest.mark.parametrize(
    ("text", "bucket", "prefix"),
    [
        ("b", "b", ""),
        ("b:/", "b", ""),
        ("b:/a", "b", "a/"),
        ("b:/a/b c/", "b", "a/b c/"),
        ("b:/ü", "b", "ü/"),
        ("s3://b", "b", ""),
        ("s3://b/", "b", ""),
        ("s3://b/a/c", "b", "a/c/"),
    ],
)
def test_a_bucket_may_come_with_a_prefix(text: str, bucket: str, prefix: str) -> None:
    assert parse_mount_source(text) == (bucket, prefix)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("s3fs#mybucket:/p", "write 'mybucket:/p' .* fuse.s3mount"),
        ("https://mybucket/a", "mybucket:/a"),
        ("b:relative", "write b:/relative"),
        ("b:/a//b", "no path can name"),
        ("s3://b/a//b", "no path can name"),
        ("b:/a/../b", "no path can name"),
        ("b:/./a", "no path can name"),
        ("b:/" + "x" * 1001, "too long"),
    ],
)
def test_other_ways_to_write_a_bucket_come_with_ours(text: str, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        parse_mount_source(text)


@pytest.mark.parametrize("name", ["abc", "a-b.c1", "x" * 63, "123"])
def test_names_that_amazon_allows(name: str) -> None:
    check_bucket_name(name, amazon=True)


@pytest.mark.parametrize("name", ["", "ab", "Abc", "a_b", "-ab", "ab-", "a..b", "x" * 64, "a b"])
def test_names_that_no_bucket_at_amazon_can_have(name: str) -> None:
    with pytest.raises(ConfigurationError, match="no bucket can be called"):
        check_bucket_name(name, amazon=True)


def test_other_services_let_more_names_through_but_not_all() -> None:
    check_bucket_name("My_Bucket", amazon=False)
    for name in ("", "a/b", "a b", "ü", "a\nb", "x" * 256):
        with pytest.raises(ConfigurationError):
            check_bucket_name(name, amazon=False)


def test_what_mount_and_fstab_add_is_understood(tmp_path: Path) -> None:
    config = built(
        tmp_path,
        "rw,dev,suid,noauto,user,_netdev,nofail,x-systemd.automount,x-gvfs-show,defaults,noatime",
    )
    assert set(config.fuse_options) == {
        "rw",
        "dev",
        "suid",
        "noatime",
        "fsname=s3mount",
        "subtype=s3mount",
    }
    assert not config.read_only


def test_ro_and_sync_are_settings_of_ours(tmp_path: Path) -> None:
    config = built(tmp_path, "ro,sync")
    assert config.read_only
    assert config.writeback.sync


def test_options_that_would_break_the_mount_are_refused(tmp_path: Path) -> None:
    for word in ("max_read=65536", "remount", "direct_io", "subtype=x"):
        with pytest.raises(ConfigurationError, match="is refused"):
            built(tmp_path, word)


def test_a_comma_in_a_value_is_written_with_a_backslash() -> None:
    assert split_words(r"a=1\,2,b,,c=") == [("a", "1,2"), ("b", None), ("c", "")]


def test_allow_other_needs_the_systems_consent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = Settings(kernel_options=["allow_other"])
    monkeypatch.setattr(os, "getuid", lambda: 1000)
    monkeypatch.setattr("s3mount.cli.settings._user_allow_other", lambda: False)
    with pytest.raises(ConfigurationError, match=r"user_allow_other in /etc/fuse\.conf"):
        fuse_options(settings)
    monkeypatch.setattr("s3mount.cli.settings._user_allow_other", lambda: True)
    assert "allow_other" in fuse_options(settings)


def test_options_of_ours_are_words_of_o_too(tmp_path: Path) -> None:
    config = built(tmp_path, "part_size=16M,spool-size=2G,attributes=listing,df_size=1TB")
    assert config.writeback.part_size == 16 * MIB
    assert config.writeback.spool_limit == 2 * GIB
    assert config.namespace.attributes == "listing"
    assert config.statfs_bytes == 10**12
    with pytest.raises(ConfigurationError, match="part-size needs a value"):
        built(tmp_path, "part-size")
    with pytest.raises(ConfigurationError, match="escape-names takes no value"):
        built(tmp_path, "escape-names=maybe")


SAMPLES = {
    values.size: "100M",
    values.seconds: "7",
    values.octal: "0750",
    values.identifier: "12",
    values.whole_number: "3",
    values.positive_number: "3",
    values.at_once: "3",
    values.url: "https://s3.example.org",
    values.word: "word",
    values.path: "/some/where",
    str.upper: "GLACIER",
}


@pytest.mark.parametrize("option", OPTIONS, ids=lambda option: option.name)
def test_every_option_of_ours_ends_up_in_its_setting(option: object) -> None:
    from s3mount.cli.options import Option

    assert isinstance(option, Option)
    settings = Settings()
    choices = option.metavar.split("|")
    text = None
    if option.name == "ca-bundle":
        text = __file__
    elif option.parse is not None:
        text = SAMPLES.get(option.parse, choices[-1])
    option.apply(settings, text)
    found = settings.get(option.section, option.field, "nothing was set")
    if option.is_flag:
        assert found is option.constant
    elif option.parse is not None and text is not None:
        assert found == option.parse(text)
    assert find_option(option.name.replace("-", "_")) is option


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("0", 0),
        ("4096", 4096),
        ("8M", 8 * MIB),
        ("8MiB", 8 * MIB),
        ("8mb", 8_000_000),
        ("1.5G", 3 * GIB // 2),
        ("2k", 2048),
    ],
)
def test_sizes_have_suffixes(text: str, count: int) -> None:
    assert values.size(text) == count


@pytest.mark.parametrize("text", ["", "M", "-1", "1e3", "8 parsecs", "0x10"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(ConfigurationError, match="is not a size"):
        values.size(text)


def test_times_have_suffixes() -> None:
    assert [values.seconds(t) for t in ("3", "0.5", "90s", "2m", "1h")] == [3, 0.5, 90, 120, 3600]


def test_a_spool_that_holds_no_four_parts_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="four parts"):
        built(tmp_path, "spool-size=16M,part-size=8M")


def test_a_bucket_name_that_cannot_exist_is_refused_before_any_request(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="no bucket can be called 'Not A Bucket'"):
        built(tmp_path, bucket="Not A Bucket")


def test_each_mount_has_a_cache_of_its_own_below_that_of_its_bucket(tmp_path: Path) -> None:
    config = built(tmp_path, bucket="bucket:/a")
    assert config.shared_dir is not None
    assert config.shared_dir.parent == tmp_path / "c" / "s3mount"
    assert config.shared_dir.name.startswith("bucket-")
    assert config.cache_dir.parent == config.shared_dir / "mounts"
    assert config.writeback.spool_dir == config.cache_dir / "spool"
    assert config.namespace.stat_cache_path is not None
    assert config.namespace.stat_cache_path.parent == config.shared_dir
    names = [
        cache_names(None, "b", "", Path("/m")),
        cache_names("http://x", "b", "", Path("/m")),
        cache_names(None, "b", "p/", Path("/m")),
        cache_names(None, "b", "", Path("/n")),
    ]
    assert len(set(names)) == 4
    assert len({shared for shared, _ in names}) == 2


def test_mounts_that_show_other_owners_do_not_share_what_they_know(tmp_path: Path) -> None:
    plain, same, other = built(tmp_path), built(tmp_path), built(tmp_path, "uid=7")
    assert plain.namespace.stat_cache_path == same.namespace.stat_cache_path
    assert plain.namespace.stat_cache_path != other.namespace.stat_cache_path


def test_a_read_only_mount_leaves_the_spool_of_a_journal_alone(tmp_path: Path) -> None:
    writable, readable = built(tmp_path), built(tmp_path, "ro")
    assert writable.cache_dir == readable.cache_dir
    assert writable.writeback.spool_dir != readable.writeback.spool_dir


def test_a_profile_and_a_passwd_file_contradict_each_other(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="either a profile or a passwd_file"):
        built(tmp_path, "profile=x,passwd_file=/y")


def test_defaults_are_those_of_the_mounting_user(tmp_path: Path) -> None:
    config = built(tmp_path)
    assert (config.defaults.uid, config.defaults.gid) == (os.getuid(), os.getgid())
    assert config.store.acl is None
    assert config.store.verify_tls


@pytest.mark.parametrize("text", ["9" * 400, "9" * 400 + "E", "17E", "1e9"])
def test_a_size_that_no_disk_has_is_refused_briefly(text: str) -> None:
    assert values.size("16E") == 2**64
    with pytest.raises(ConfigurationError) as caught:
        values.size(text)
    assert len(str(caught.value)) < 250


@pytest.mark.parametrize("text", ["9" * 5000, "10000000000000", "\u0663", "-1", "1e9"])
def test_a_number_that_nobody_counts_to_is_refused_briefly(text: str) -> None:
    assert values.whole_number("0004294967294") == 2**32 - 2
    with pytest.raises(ConfigurationError) as caught:
        values.whole_number(text)
    assert len(str(caught.value)) < 250


def test_a_time_that_no_clock_takes_is_refused() -> None:
    assert values.seconds("36500d") == 36500 * 86400
    for text in ("36501d", "9" * 400):
        with pytest.raises(ConfigurationError, match="36500d"):
            values.seconds(text)


@pytest.mark.parametrize("text", ["~nobody.has.this.name/x", "x" * 5000, "/" + "x" * 300])
def test_a_file_with_an_impossible_name_is_not_there(text: str) -> None:
    with pytest.raises(ConfigurationError, match=r"nobody has|there is no file") as caught:
        values.existing_file(text)
    assert len(str(caught.value)) < 250


@pytest.mark.parametrize("name", ["transfers", "parallel_count", "multireq_max"])
def test_more_requests_at_once_than_there_can_be_threads_are_refused(
    tmp_path: Path, name: str
) -> None:
    built(tmp_path, f"{name}=1000")
    with pytest.raises(ConfigurationError, match="at most 1000"):
        built(tmp_path, f"{name}=4000000000")
