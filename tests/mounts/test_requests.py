"""What programs cost: requests counted by a proxy between the mount and moto.

Large objects are 64 MiB here, for moto's sake; what is asserted does not depend on the size.
"""

import os
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.counting_proxy import CountingProxy, Fault, Reply, Seen
from tests.mounting import END_SECONDS, PATIENT, Mount, Mounted, run_in
from tests.mounts.trees import MIB, data, digest
from tests.servers import Bucket

BIG = 64 * MIB
# The attributes of a version last written within so long are not believed by ETag alone.
RACY_SECONDS = 2.2
READS_OF_KEYS = ("GetObject", "HeadObject")


@pytest.fixture
def proxy(moto_bucket: Bucket) -> Iterator[CountingProxy]:
    with CountingProxy(moto_bucket.server.url) as proxy:
        yield proxy


@dataclass(frozen=True)
class Counted:
    """A mount whose requests are counted from `reset` on."""

    mount: Mount
    proxy: CountingProxy

    @property
    def path(self) -> Path:
        return self.mount.path

    def reset(self) -> None:
        self.mount.flush()
        self.proxy.reset()

    def counts(self) -> dict[str, int]:
        """Also of what was put off."""
        self.mount.flush()
        return dict(self.proxy.counts)


Start = Callable[[], Counted]


@pytest.fixture
def start(moto_bucket: Bucket, mounted: Mounted, proxy: CountingProxy) -> Start:
    """Mounts what is in the bucket by now. The service was probed then (that is once for a bucket
    and cache directory) and the root was looked at."""

    def start() -> Counted:
        # However long it takes, what was seen once is known.
        options = ("--metadata-ttl", "600")
        mount = mounted(moto_bucket, *options, url=proxy.url, sabotage=PATIENT)
        (mount.path / "probed").write_bytes(b"x")
        # What is asked for behind a listing is answered now, not after the reset.
        for name in os.listdir(mount.path):
            (mount.path / name).stat()
        counted = Counted(mount, proxy)
        counted.reset()
        return counted

    return start


@pytest.fixture
def counted(start: Start) -> Counted:
    return start()


def fill(bucket: Bucket, prefix: str, number: int, size: int = 100) -> None:
    """Small objects with metadata, from outside."""
    with ThreadPoolExecutor(8) as pool:
        list(
            pool.map(
                lambda n: bucket.put(
                    f"{prefix}file{n:04}",
                    data(n, size),
                    Metadata={"mode": "33184", "uid": "1000", "gid": "1001", "mtime": "7.5"},
                ),
                range(number),
            )
        )


WAYS = {
    "shell": "echo some text > new",
    "dd": "dd if=/dev/zero of=new bs=1000 count=20 2>/dev/null",
    "cp": "cp /etc/passwd new",
    "python": "/usr/bin/python3 -c \"open('new', 'wb').write(b'x' * 5000)\"",
    "touch": "touch new",
}


@pytest.mark.parametrize("way", WAYS)
def test_a_file_made_in_a_directory_made_here_costs_one_put(counted: Counted, way: str) -> None:
    place = counted.path / "made here"
    place.mkdir()
    counted.reset()
    run_in(place, WAYS[way])
    assert counted.counts() == {"PutObject": 1}
    assert (place / "new").stat().st_size == len(counted.mount.bucket.get("made here/new"))


def test_copying_many_small_files_costs_one_put_each(counted: Counted, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for number in range(200):
        (source / f"{number}").write_bytes(data(number, 500))
        os.utime(source / f"{number}", ns=(number, number))
        os.chown(source / f"{number}", 1000, 1001)
    subprocess.run(["cp", "-a", source, counted.path], check=True)
    counts = counted.counts()
    # The directory's marker is one of them, and another when its times are set at the end.
    assert 201 <= counts["PutObject"] <= 202
    assert sum(counts.values()) <= 201 + 5, counts


def assert_only_listed(proxy: CountingProxy, most: int) -> None:
    asked = {seen.key for seen in proxy.requests if seen.operation in READS_OF_KEYS}
    # Of the mount point ("/") and the directory, in each form it may have; none of the files.
    assert asked <= {"/", "d", "d/"}, asked
    assert 1 <= proxy.counts["ListObjectsV2"] <= most, proxy.counts


def test_a_known_directory_is_listed_without_asking_for_its_files(
    moto_bucket: Bucket, mounted: Mounted, proxy: CountingProxy
) -> None:
    count, ttl = 300, 4
    fill(moto_bucket, "d/", count)
    time.sleep(RACY_SECONDS)
    mount = mounted(moto_bucket, "--metadata-ttl", str(ttl), url=proxy.url)

    def listing() -> str:
        return subprocess.run(
            ["ls", "-ln", "--time-style=+%s.%N", mount.path / "d"],
            capture_output=True,
            text=True,
            check=True,
        ).stdout

    first = listing()
    assert first.count("-rw-r----- 1 1000 1001 100 7.500000000 file") == count
    time.sleep(ttl)  # names are not believed any longer, attributes of known versions are
    for again in (False, True):
        if again:
            mount.remount()
        proxy.reset()
        begun = time.monotonic()
        assert listing() == first
        # Those that take longer than names are believed begin anew.
        assert_only_listed(proxy, most=4 + 2 * int((time.monotonic() - begun) / ttl))


def test_a_name_missing_in_a_listed_directory_costs_nothing(
    moto_bucket: Bucket, start: Start
) -> None:
    fill(moto_bucket, "d/", 20)
    counted = start()
    assert len(os.listdir(counted.path / "d")) == 20
    counted.reset()
    for name in ("missing", ".git", "file", "file0005.old"):
        assert not (counted.path / "d" / name).exists()
    assert counted.counts() == {}


def test_opening_and_reading_a_small_file_is_one_get(moto_bucket: Bucket, start: Start) -> None:
    fill(moto_bucket, "d/", 3)
    counted = start()
    assert (counted.path / "d" / "file0001").read_bytes() == data(1, 100)
    counts = counted.counts()
    assert counts["GetObject"] == 1
    assert "HeadObject" not in counts
    assert sum(counts.values()) <= 4, counts
    counted.reset()
    assert (counted.path / "d" / "file0001").read_bytes() == data(1, 100)
    assert counted.counts() == {}, "read again within a second"


@pytest.fixture
def content(moto_bucket: Bucket) -> bytes:
    """Of the object d/big."""
    content = data("big", BIG)
    moto_bucket.client.put_object(
        Bucket=moto_bucket.name,
        Key="d/big",
        Body=content,
        Metadata={"mode": "33188", "foreign": "kept"},
        ContentType="video/mp4",
    )
    return content


def assert_edited(counted: Counted, expected: bytes, at_most: int) -> None:
    """`at_most` bytes went either way through this host."""
    counted.mount.flush()
    assert counted.proxy.bytes_in <= at_most, counted.proxy.counts
    assert counted.proxy.bytes_out <= at_most, counted.proxy.counts
    found = counted.mount.bucket.client.get_object(Bucket=counted.mount.bucket.name, Key="d/big")
    assert digest(found["Body"].read()) == digest(expected)
    assert found["Metadata"]["foreign"] == "kept"
    assert found["ContentType"] == "video/mp4"
    assert digest((counted.path / "d" / "big").read_bytes()) == digest(expected)


def test_appending_to_a_big_object_moves_only_what_is_new(content: bytes, counted: Counted) -> None:
    with (counted.path / "d" / "big").open("ab") as file:
        file.write(data("more", MIB))
    assert_edited(counted, content + data("more", MIB), 7 * MIB)


def test_changing_the_middle_of_a_big_object_moves_only_its_surroundings(
    content: bytes, counted: Counted
) -> None:
    with (counted.path / "d" / "big").open("r+b") as file:
        file.seek(BIG // 2 + 7)
        file.write(b"c" * 4096)
    expected = content[: BIG // 2 + 7] + b"c" * 4096 + content[BIG // 2 + 7 + 4096 :]
    assert_edited(counted, expected, 6 * MIB)


def test_truncating_a_big_object_moves_nothing_of_it(content: bytes, counted: Counted) -> None:
    os.truncate(counted.path / "d" / "big", BIG // 2 + 7)
    assert_edited(counted, content[: BIG // 2 + 7], 6 * MIB)


def test_renaming_a_big_object_moves_no_byte_through_this_host(
    content: bytes, counted: Counted
) -> None:
    assert (counted.path / "d" / "big").stat().st_size == BIG
    counted.reset()
    (counted.path / "d" / "big").rename(counted.path / "renamed")
    counts = counted.counts()
    assert counted.proxy.bytes_in + counted.proxy.bytes_out < 64 * 1024, counts
    assert "GetObject" not in counts
    assert "UploadPart" not in counts
    bucket = counted.mount.bucket
    found = bucket.client.get_object(Bucket=bucket.name, Key="renamed")
    assert digest(found["Body"].read()) == digest(content)
    assert found["Metadata"]["foreign"] == "kept"
    assert sorted(bucket.keys()) == ["d/", "probed", "renamed"]  # d was implied by d/big


def test_removing_a_thousand_files_is_a_handful_of_deletes(
    moto_bucket: Bucket, start: Start
) -> None:
    fill(moto_bucket, "d/", 1000)
    counted = start()
    assert len(os.listdir(counted.path / "d")) == 1000
    counted.reset()
    subprocess.run(["rm", "-r", counted.path / "d"], check=True)
    counts = counted.counts()
    assert counted.mount.bucket.keys() == ["probed"]
    assert counts.get("DeleteObjects", 0) + counts.get("DeleteObject", 0) <= 6, counts
    assert sum(counts.values()) <= 15, counts


def test_a_file_and_its_attributes_are_one_put(counted: Counted) -> None:
    """As rsync and editors do it: written under another name, attributes set, renamed."""
    place = counted.path / "d"
    place.mkdir()
    counted.reset()
    with (place / ".new").open("wb") as file:
        file.write(b"content")
        os.fchmod(file.fileno(), 0o640)
        os.fchown(file.fileno(), 1000, 1001)
        os.utime(file.fileno(), ns=(1, 2_000_000_003))
    assert counted.counts() == {"PutObject": 1}
    (place / ".new").rename(place / "name")
    os.chmod(place / "name", 0o600)
    os.utime(place / "name", ns=(1, 5))
    counts = counted.counts()
    assert counts["PutObject"] == 1
    assert sum(counts.values()) <= 5, counts
    head = counted.mount.bucket.client.head_object(Bucket=counted.mount.bucket.name, Key="d/name")
    assert head["Metadata"]["mode"] == str(0o100600)
    assert head["Metadata"]["mtime"] == "0.000000005"


def test_attributes_set_while_the_upload_begins_reach_the_object(counted: Counted) -> None:
    """The answer to CreateMultipartUpload is late: its headers are older than the attributes."""
    asked, changed = threading.Event(), threading.Event()

    def until_changed(seen: Seen, reply: Reply) -> Reply:
        asked.set()
        changed.wait(END_SECONDS)
        return reply

    counted.proxy.inject("CreateMultipartUpload", Fault(after=until_changed))
    content = data("late", 9 * MIB)
    with (counted.path / "file").open("wb") as file:
        file.write(content)
        assert asked.wait(END_SECONDS)
        os.fchmod(file.fileno(), 0o600)
        os.utime(file.fileno(), ns=(1, 2_000_000_003))
        changed.set()
    found = counted.mount.bucket.client.get_object(Bucket=counted.mount.bucket.name, Key="file")
    assert digest(found["Body"].read()) == digest(content)
    assert found["Metadata"]["mode"] == str(0o100600)
    assert found["Metadata"]["mtime"] == "2.000000003"
