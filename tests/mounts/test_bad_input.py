"""What others put into a bucket, and what services answer, however odd: a clear errno, nothing
lost, and a file still writes afterwards."""

import errno
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.counting_proxy import CountingProxy, cut_xml, repeat_token, short_body
from tests.mounting import Mount, Mounted
from tests.servers import Bucket

TIB = 1024**4


@pytest.fixture
def proxy(moto_bucket: Bucket) -> Iterator[CountingProxy]:
    with CountingProxy(moto_bucket.server.url) as proxy:
        yield proxy


def assert_still_writes(mount: Mount, bucket: Bucket) -> None:
    path = mount.path / "still writes"
    path.write_bytes(b"yes")
    assert path.read_bytes() == b"yes"
    assert bucket.get("still writes") == b"yes"


def test_keys_that_no_path_can_name_are_skipped_and_counted(
    bucket: Bucket, mounted: Mounted
) -> None:
    odd = ["a//b", "d/../x", "d/./y", "d/..", "l" * 256, "d/" + "m" * 300 + "/deep"]
    for key in ["good", "d/good", *odd]:
        bucket.put(key, key[:9].encode())
    mount = mounted(bucket)
    assert sorted(os.listdir(mount.path)) == ["a", "d", "good"]
    assert os.listdir(mount.path / "a") == []
    assert os.listdir(mount.path / "d") == ["good"]
    assert (mount.path / "d" / "good").read_bytes() == b"d/good"
    namespace = mount.status()["namespace"]
    assert namespace["unreachable"] >= 5, namespace
    assert "l" * 256 in namespace["unreachable_samples"]
    assert_still_writes(mount, bucket)
    mount.stop()
    assert set(odd) <= set(bucket.keys())


def test_a_file_hidden_by_a_directory_of_its_name_is_reported_and_kept(
    bucket: Bucket, mounted: Mounted
) -> None:
    bucket.put("x", b"hidden")
    bucket.put("x-and", b"between")
    bucket.put("x/file", b"shown")
    mount = mounted(bucket)
    assert sorted(os.listdir(mount.path)) == ["x", "x-and"]
    assert os.listdir(mount.path / "x") == ["file"]
    assert mount.status()["namespace"]["shadowed_samples"].keys() == {"x"}
    assert_still_writes(mount, bucket)
    assert bucket.get("x") == b"hidden"


def test_garbage_in_metadata_falls_back_to_defaults_and_foreign_metadata_stays(
    bucket: Bucket, mounted: Mounted
) -> None:
    garbage = {
        "mode": "abc",
        "mtime": "1e400",
        "uid": "-1",
        "gid": "99999999999999999999",
        "xattr": "%7Bnot json",
        "foreign": "kept",
    }
    bucket.put("file", b"content", Metadata=garbage, ContentType="text/x-odd")
    bucket.put("dir/", b"", Metadata={"mode": "0999", "mtime": "nan"})
    bucket.put("empty-mode", b"c", Metadata={"mode": "", "mtime": "-5"})
    mount = mounted(bucket)
    about = (mount.path / "file").stat()
    assert (about.st_mode, about.st_uid, about.st_gid) == (0o100644, os.getuid(), os.getgid())
    head = bucket.client.head_object(Bucket=bucket.name, Key="file")
    assert abs(about.st_mtime - head["LastModified"].timestamp()) <= 1
    assert (mount.path / "dir").is_dir()
    assert sorted(os.listdir(mount.path)) == ["dir", "empty-mode", "file"]
    assert (mount.path / "file").read_bytes() == b"content"
    os.chmod(mount.path / "file", 0o600)
    assert_still_writes(mount, bucket)
    mount.flush()
    head = bucket.client.head_object(Bucket=bucket.name, Key="file")
    assert head["Metadata"]["mode"] == str(0o100600)
    assert head["Metadata"]["foreign"] == "kept"
    assert head["ContentType"] == "text/x-odd"


def test_too_long_names_and_keys_are_refused(moto_bucket: Bucket, mounted: Mounted) -> None:
    mount = mounted(moto_bucket)
    directory = mount.path
    for _ in range(5):
        directory = directory / ("d" * 200)
        directory.mkdir()
    (directory / "short").write_bytes(b"fits")
    for name in ("n" * 256, "n" * 20):  # 5 * 201 + 20 > 1024
        for make in (Path.mkdir, Path.touch):
            with pytest.raises(OSError) as raised:
                make(directory / name)
            assert raised.value.errno == errno.ENAMETOOLONG
    with pytest.raises(OSError) as raised:
        (directory / "short").rename(directory / ("n" * 20))
    assert raised.value.errno == errno.ENAMETOOLONG
    assert (directory / "short").read_bytes() == b"fits"
    assert_still_writes(mount, moto_bucket)


def test_more_metadata_than_s3_holds_is_refused_and_nothing_cut(
    bucket: Bucket, mounted: Mounted
) -> None:
    mount = mounted(bucket, "-o", "use_xattr")
    path = mount.path / "file"
    path.write_bytes(b"content")
    os.setxattr(path, "user.small", b"value")
    with pytest.raises(OSError) as raised:
        os.setxattr(path, "user.large", b"v" * 2000)
    assert raised.value.errno == errno.ENOSPC
    assert_still_writes(mount, bucket)
    mount.remount()
    assert os.listxattr(path) == ["user.small"]
    assert os.getxattr(path, "user.small") == b"value"
    assert path.read_bytes() == b"content"


def test_a_file_larger_than_s3_holds_is_refused_before_anything_is_sent(
    moto_bucket: Bucket, mounted: Mounted, proxy: CountingProxy
) -> None:
    mount = mounted(moto_bucket, url=proxy.url)
    proxy.reset()  # the probing before has bodies, too
    path = mount.path / "file"
    path.write_bytes(b"content")
    with pytest.raises(OSError) as raised:
        os.truncate(path, 5 * TIB + 1)
    assert raised.value.errno == errno.EFBIG
    with path.open("r+b", buffering=0) as file:
        file.seek(5 * TIB)
        with pytest.raises(OSError) as raised:
            file.write(b"x")
    assert raised.value.errno == errno.EFBIG
    assert path.read_bytes() == b"content"
    assert_still_writes(mount, moto_bucket)
    assert proxy.bytes_out < 100_000
    assert moto_bucket.get("file") == b"content"


def test_a_listing_cut_in_the_middle_is_asked_for_again(
    moto_bucket: Bucket, mounted: Mounted, proxy: CountingProxy
) -> None:
    for number in range(20):
        moto_bucket.put(f"d/{number:02}", b"x")
    mount = mounted(moto_bucket, url=proxy.url)
    proxy.inject("ListObjectsV2", cut_xml, times=2)
    proxy.inject("ListObjectsV2", short_body)
    assert sorted(os.listdir(mount.path / "d")) == [f"{number:02}" for number in range(20)]
    assert_still_writes(mount, moto_bucket)


def test_listings_that_stay_cut_are_an_error_never_a_short_directory(
    moto_bucket: Bucket, mounted: Mounted, proxy: CountingProxy
) -> None:
    for number in range(20):
        moto_bucket.put(f"d/{number:02}", b"x")
    mount = mounted(moto_bucket, "--retries", "1", url=proxy.url)
    assert os.listdir(mount.path) == ["d"]
    proxy.inject("ListObjectsV2", cut_xml, times=1000)
    with pytest.raises(OSError) as raised:
        os.listdir(mount.path / "d")
    assert raised.value.errno == errno.EIO
    proxy.clear()
    assert len(os.listdir(mount.path / "d")) == 20
    assert_still_writes(mount, moto_bucket)


def test_a_listing_that_repeats_its_token_ends(
    moto_bucket: Bucket, mounted: Mounted, proxy: CountingProxy
) -> None:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: moto_bucket.put(f"d/{number:04}", b""), range(1200)))
    mount = mounted(moto_bucket, "--attributes", "listing", "--retries", "1", url=proxy.url)
    assert os.listdir(mount.path) == ["d"]
    proxy.reset()
    proxy.inject("ListObjectsV2", repeat_token, times=1000)
    with pytest.raises(OSError) as raised:
        os.listdir(mount.path / "d")
    assert raised.value.errno == errno.EIO
    assert proxy.counts["ListObjectsV2"] < 20
    proxy.clear()
    assert len(os.listdir(mount.path / "d")) == 1200
    assert_still_writes(mount, moto_bucket)
