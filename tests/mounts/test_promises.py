"""Rows of the README's table of promises that no program of the matrix shows by itself.

'The other host' is boto3, or a second mount of the same bucket.
"""

import errno
import os
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.counting_proxy import CountingProxy, short_body
from tests.mounting import Mount, Mounted, wait_until
from tests.mounts.trees import MIB, data
from tests.servers import Bucket

TTL = 1.0
FAST = (f"--metadata-ttl={TTL}",)


def keys(bucket: Bucket) -> set[str]:
    return set(bucket.keys())


def raises(number: int) -> Any:
    return pytest.raises(OSError, match=os.strerror(number))


@pytest.fixture
def mount(bucket: Bucket, mounted: Mounted) -> Mount:
    return mounted(bucket, *FAST)


@pytest.fixture
def other(bucket: Bucket, mounted: Mounted) -> Mount:
    """A second mount of the same bucket: another host."""
    return mounted(bucket, *FAST)


# -- within one mount --------------------------------------------------------------------------


def test_what_is_written_is_seen_at_once_through_every_handle(mount: Mount) -> None:
    path = mount.path / "log"
    with path.open("wb", buffering=0) as writer, path.open("rb", buffering=0) as reader:
        writer.write(b"first ")
        assert reader.read() == b"first "
        writer.write(b"second")
        assert reader.read() == b"second"
        assert path.stat().st_size == 12


def test_other_hosts_see_the_old_object_until_the_new_one_is_whole(
    mount: Mount, bucket: Bucket
) -> None:
    path = mount.path / "file"
    path.write_bytes(b"old")
    with path.open("wb", buffering=0) as writer:
        for part in range(3):
            writer.write(data(("new", part), 8 * MIB))
            assert bucket.get("file") == b"old"
    assert bucket.get("file") == b"".join(data(("new", part), 8 * MIB) for part in range(3))


def test_no_empty_stub_appears_while_a_new_file_is_written(mount: Mount, bucket: Bucket) -> None:
    with (mount.path / "file").open("wb", buffering=0) as writer:
        writer.write(b"some")
        assert "file" not in keys(bucket)
    assert bucket.get("file") == b"some"


def test_a_rename_replaces_its_target_and_never_leaves_a_moment_without_either(
    mount: Mount, bucket: Bucket
) -> None:
    (mount.path / "a").write_bytes(b"new")
    (mount.path / "b").write_bytes(b"old")
    with (mount.path / "b").open("rb", buffering=0) as reader:
        os.rename(mount.path / "a", mount.path / "b")
        assert (mount.path / "b").read_bytes() == b"new"
        assert os.listdir(mount.path) == ["b"]
        mount.flush()
        assert reader.read() == b"old"
    assert bucket.get("b") == b"new"
    assert keys(bucket) == {"b"}


def test_a_file_written_under_another_name_has_the_type_of_its_last_one(
    mount: Mount, bucket: Bucket
) -> None:
    """As rsync, sed -i and editors do; a type that somebody chose stays."""
    bucket.put("chosen.txt", b"x", ContentType="text/x-odd")
    for name in (".page.html.Ab12", "link", "part.txt"):
        if name == "link":
            (mount.path / name).symlink_to("page.html")
        else:
            (mount.path / name).write_bytes(b"x")
    mount.flush()
    renames = {
        ".page.html.Ab12": "page.html",
        "link": "link.html",
        "part.txt": "part.bin",
        "chosen.txt": "chosen.html",
    }
    for old, new in renames.items():
        (mount.path / old).rename(mount.path / new)
    mount.flush()
    types = {
        new: bucket.client.head_object(Bucket=bucket.name, Key=new)["ContentType"]
        for new in renames.values()
    }
    assert types == {
        "page.html": "text/html",
        "link.html": "application/octet-stream",
        "part.bin": "application/octet-stream",
        "chosen.html": "text/x-odd",
    }


def test_renameat2_knows_noreplace_and_refuses_exchange(mount: Mount) -> None:
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    for name in ("a", "b"):
        (mount.path / name).write_bytes(name.encode())

    def rename(flags: int) -> int:
        a, b = (os.fsencode(mount.path / name) for name in ("a", "b"))
        return 0 if libc.renameat2(-100, a, -100, b, flags) == 0 else ctypes.get_errno()

    assert rename(1) == errno.EEXIST
    assert rename(2) == errno.EINVAL
    assert [(mount.path / name).read_bytes() for name in ("a", "b")] == [b"a", b"b"]


def test_special_files_keep_type_and_device_numbers(mount: Mount) -> None:
    os.mkfifo(mount.path / "fifo", 0o640)
    os.mknod(mount.path / "disk", stat.S_IFBLK | 0o600, os.makedev(8, 300))
    os.mknod(mount.path / "tty", stat.S_IFCHR | 0o600, os.makedev(5, 1))
    mount.remount()
    seen = {name: os.lstat(mount.path / name) for name in ("fifo", "disk", "tty")}
    assert [seen[name].st_mode for name in ("fifo", "disk", "tty")] == [0o10640, 0o60600, 0o20600]
    assert (os.major(seen["disk"].st_rdev), os.minor(seen["disk"].st_rdev)) == (8, 300)
    assert (os.major(seen["tty"].st_rdev), os.minor(seen["tty"].st_rdev)) == (5, 1)


@pytest.mark.parametrize("size", [10, 6 * MIB], ids=["whole", "in parts"])
def test_tags_survive_changes_of_attributes_and_renames(
    bucket: Bucket, mounted: Mounted, size: int
) -> None:
    """In parts as objects over 5 GiB."""
    bucket.put("d/a", bytes(size), Tagging="project=s3%20mount&b=2")
    bucket.put("d/b", bytes(size), Tagging="project=s3%20mount&b=2")
    mount = mounted(bucket, *FAST, "-o", "singlepart_copy_limit=5,multipart_copy_size=5")
    (mount.path / "d" / "a").chmod(0o600)
    mount.flush()
    (mount.path / "d" / "a").rename(mount.path / "moved")
    mount.flush()
    (mount.path / "d").rename(mount.path / "new")
    mount.flush()
    assert keys(bucket) >= {"moved", "new/b"}
    for key in ("moved", "new/b"):
        answer = bucket.client.get_object_tagging(Bucket=bucket.name, Key=key)
        tags = {tag["Key"]: tag["Value"] for tag in answer["TagSet"]}
        assert tags == {"project": "s3 mount", "b": "2"}, key
        assert len(bucket.get(key)) == size
    head = bucket.client.head_object(Bucket=bucket.name, Key="moved")
    assert stat.S_IMODE(int(head["Metadata"]["mode"])) == 0o600
    assert ("-" in head["ETag"]) == (size > 5 * MIB)


def test_an_empty_directory_survives_and_a_full_one_is_not_removed(mount: Mount) -> None:
    (mount.path / "empty").mkdir()
    (mount.path / "full" / "sub").mkdir(parents=True)
    with raises(errno.ENOTEMPTY):
        os.rmdir(mount.path / "full")
    mount.remount()
    assert sorted(os.listdir(mount.path)) == ["empty", "full"]
    assert os.listdir(mount.path / "full") == ["sub"]


def test_a_directory_is_listed_right_while_it_is_emptied(mount: Mount) -> None:
    folder = mount.path / "d"
    folder.mkdir()
    for number in range(300):
        (folder / f"{number:03}").touch()
    seen = []
    with os.scandir(folder) as entries:
        for entry in entries:
            seen.append(entry.name)
            os.unlink(entry.path)
    assert sorted(seen) == [f"{number:03}" for number in range(300)]
    assert os.listdir(folder) == []
    os.rmdir(folder)


def test_directory_times_change_with_their_names_and_links_are_not_counted(mount: Mount) -> None:
    folder = mount.path / "d"
    folder.mkdir()
    before = folder.stat()
    time.sleep(0.01)
    (folder / "sub").mkdir()
    after = folder.stat()
    assert after.st_mtime_ns > before.st_mtime_ns
    assert after.st_ctime_ns > before.st_ctime_ns
    assert after.st_nlink == 1


def test_reading_changes_no_time(mount: Mount, bucket: Bucket) -> None:
    path = mount.path / "file"
    path.write_bytes(b"read me")
    mount.remount()
    before = path.stat()
    assert path.read_bytes() == b"read me"
    after = path.stat()
    assert (after.st_mtime_ns, after.st_ctime_ns) == (before.st_mtime_ns, before.st_ctime_ns)


# -- other hosts -------------------------------------------------------------------------------


def test_new_content_of_another_host_is_seen_at_the_next_open(mount: Mount, bucket: Bucket) -> None:
    bucket.put("file", b"one")
    assert (mount.path / "file").read_bytes() == b"one"
    bucket.put("file", b"another one")
    time.sleep(TTL + 0.1)
    assert (mount.path / "file").read_bytes() == b"another one"
    assert (mount.path / "file").stat().st_size == 11


def test_names_of_another_host_appear_and_vanish_after_the_ttl(
    mount: Mount, bucket: Bucket
) -> None:
    (mount.path / "made-here").mkdir()
    assert os.listdir(mount.path / "made-here") == []
    mount.flush()
    bucket.put("made-here/file", b"theirs")
    wait_until(lambda: os.listdir(mount.path / "made-here") == ["file"])
    assert (mount.path / "made-here" / "file").read_bytes() == b"theirs"
    bucket.client.delete_object(Bucket=bucket.name, Key="made-here/file")
    wait_until(lambda: not (mount.path / "made-here" / "file").exists())


def test_an_open_reader_never_sees_a_mixture_of_two_versions(mount: Mount, bucket: Bucket) -> None:
    old, new = data("old", 12 * MIB), data("new", 12 * MIB)
    bucket.put("file", old)
    with (mount.path / "file").open("rb", buffering=0) as reader:
        begin = reader.read(64 * 1024)
        bucket.put("file", new)
        time.sleep(TTL + 0.1)
        assert (mount.path / "file").read_bytes() == new
        rest = bytearray()
        try:
            while piece := reader.read(MIB):
                rest += piece
        except OSError as error:
            assert error.errno == errno.ESTALE  # noqa: PT017
        assert old.startswith(begin + rest)


def test_an_edit_of_what_another_host_changed_is_a_conflict_and_keeps_the_bytes(
    mount: Mount, bucket: Bucket
) -> None:
    mount.expect("changed by another host", "another host changed")
    path = mount.path / "file"
    path.write_bytes(b"first line\n")
    handle = os.open(path, os.O_WRONLY | os.O_APPEND)
    os.write(handle, b"ours\n")
    bucket.put("file", b"theirs\n")
    with raises(errno.ESTALE):
        os.close(handle)
    assert bucket.get("file") == b"theirs\n"
    kept = [key for key in keys(bucket) if key.startswith("file.conflict-")]
    assert len(kept) == 1
    assert bucket.get(kept[0]) == b"first line\nours\n"
    wait_until(lambda: path.read_bytes() == b"theirs\n")
    path.write_bytes(b"and on it goes")
    assert bucket.get("file") == b"and on it goes"


def test_the_last_close_of_whole_rewrites_wins(mount: Mount, other: Mount, bucket: Bucket) -> None:
    first, second = (one.path / "file" for one in (mount, other))
    with first.open("wb") as a, second.open("wb") as b:
        a.write(b"a")
        b.write(b"bb")
        a.close()
        b.close()
    assert bucket.get("file") == b"bb"


def test_of_two_hosts_that_create_a_file_exclusively_one_wins(
    mount: Mount, other: Mount, bucket: Bucket
) -> None:
    other.expect("changed by another host", "another host changed")
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
    handles = [os.open(one.path / "lock", flags, 0o600) for one in (mount, other)]
    for number, handle in enumerate(handles):
        os.write(handle, f"host {number}".encode())
    os.close(handles[0])
    with raises(errno.EEXIST):
        os.close(handles[1])
    assert bucket.get("lock") == b"host 0"


def test_with_excl_open_the_loser_learns_it_at_open(bucket: Bucket, mounted: Mounted) -> None:
    first, second = (mounted(bucket, *FAST, "-o", "excl=open") for _ in range(2))
    second.expect("changed by another host", "another host changed")
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
    assert not (second.path / "lock").exists()
    handle = os.open(first.path / "lock", flags, 0o600)
    with raises(errno.EEXIST):
        os.open(second.path / "lock", flags, 0o600)
    os.write(handle, b"mine")
    os.close(handle)
    assert bucket.get("lock") == b"mine"


# -- the network -------------------------------------------------------------------------------


@pytest.fixture
def proxy(moto_bucket: Bucket) -> Iterator[CountingProxy]:
    with CountingProxy(moto_bucket.server.url) as proxy:
        yield proxy


def test_a_short_answer_is_asked_for_again_and_never_passed_on(
    moto_bucket: Bucket, mounted: Mounted, proxy: CountingProxy
) -> None:
    content = data("whole", 3 * MIB)
    moto_bucket.put("file", content)
    mount = mounted(moto_bucket, url=proxy.url)
    proxy.inject("GetObject", short_body, times=3)
    assert (mount.path / "file").read_bytes() == content


def test_without_a_network_calls_end_in_time_and_all_goes_on_when_it_is_back(
    moto_bucket: Bucket, mounted: Mounted, proxy: CountingProxy
) -> None:
    moto_bucket.put("known/file", b"known")
    mount = mounted(moto_bucket, "--progress-timeout=3", "--retries=1", url=proxy.url)
    mount.expect("ConnectionLost|given up|again in|no progress|still retried|refused|timed out")
    assert os.listdir(mount.path / "known") == ["file"]
    handle = os.open(mount.path / "new", os.O_WRONLY | os.O_CREAT, 0o644)
    os.write(handle, b"written in the dark")
    proxy.down = True
    proxy.cut()
    began = time.monotonic()
    with pytest.raises(OSError) as raised:
        os.close(handle)
    assert raised.value.errno in (errno.ETIMEDOUT, errno.EIO)
    assert time.monotonic() - began < 100
    began = time.monotonic()
    assert os.statvfs(mount.path).f_bsize > 0
    assert os.listdir(mount.path / "known") == ["file"]
    assert (mount.path / "known" / "file").stat().st_size == 5
    assert time.monotonic() - began < 40  # no request of these is answered
    assert (mount.path / "new").read_bytes() == b"written in the dark"
    assert mount.status()["pending"]["files"] == 1
    proxy.down = False
    wait_until(lambda: "new" in keys(moto_bucket))
    assert moto_bucket.get("new") == b"written in the dark"
    assert Path(mount.path / "known" / "file").read_bytes() == b"known"
