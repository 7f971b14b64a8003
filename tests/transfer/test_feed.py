"""What a feed sends, leaves, changes and deletes; requests counted, on a store in memory."""

import errno
import os
import socket
import stat
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import trio

from s3mount.cli.progress import Bar
from s3mount.core.metadata import decode
from s3mount.namespace.inode import Version
from s3mount.namespace.stat_cache import Row
from s3mount.store.base import ListedObject, WriteHeaders
from s3mount.store.errors import AccessDenied, BadCredentials, ServerError
from s3mount.store.memory import ALL_CAPABILITIES, MemoryStore
from s3mount.transfer.feed import performing
from s3mount.transfer.feed.decide import Action, LocalEntry
from s3mount.transfer.feed.local_tree import attributes_of
from s3mount.transfer.feed.report import NothingAnswers, Report
from s3mount.transfer.feed.rules import Rules, parse_rule
from s3mount.transfer.versions import tells_mostly
from tests.transfer.feeding import DEFAULTS, PART, Rig


@pytest.fixture
def here(tmp_path: Path) -> Rig:
    return Rig(tmp_path)


def keys(here: Rig) -> list[str]:
    return sorted(here.memory.objects)


def attributes(here: Rig, key: str) -> object:
    found = here.memory.objects[key]
    return decode(
        found.metadata,
        is_directory=key.endswith("/"),
        size=len(found.data),
        content_type=found.headers.get("content-type"),
        last_modified=0.0,
        defaults=DEFAULTS,
    )


async def test_small_files_cost_one_request_each_and_the_second_feed_only_the_lists(
    here: Rig,
) -> None:
    here.make(*(f"d{number % 7}/f{number}" for number in range(200)))
    report = await here.feed()
    assert here.requests() == {"ListObjectsV2": 1, "PutObject": 200 + 7}
    assert (report.counts.total(), report.markers, report.failed_count) == (200, 7, 0)
    assert here.memory.objects["d3/f3"].data == b"d3/f3"
    report = await here.feed()
    assert here.requests() == {"ListObjectsV2": 1}
    assert here.done == []


async def test_modes_owners_times_types_and_special_files_are_as_the_mount_stores_them(
    here: Rig,
) -> None:
    here.make("a.html", "run", "empty/")
    (here.source / "run").chmod(0o4750)
    (here.source / "empty").chmod(0o1777)
    (here.source / "link").symlink_to("no/where")
    os.mkfifo(here.source / "fifo", 0o600)
    with socket.socket(socket.AF_UNIX) as one:
        here_and_now = Path.cwd()
        os.chdir(here.source)  # a socket's path is short
        one.bind("socket")
        os.chdir(here_and_now)
    report = await here.feed()
    assert report.failures == []
    assert keys(here) == ["a.html", "empty/", "fifo", "link", "run", "socket"]
    assert here.memory.objects["a.html"].headers["content-type"] == "text/html"
    assert here.memory.objects["empty/"].headers["content-type"] == "application/x-directory"
    assert here.memory.objects["link"].data == b"no/where"
    for key in keys(here):
        found, stored = (here.source / key).lstat(), attributes(here, key)
        assert stored.mode == found.st_mode, key  # type: ignore[attr-defined]
        assert stored.uid == found.st_uid  # type: ignore[attr-defined]
        assert stored.mtime_ns == found.st_mtime_ns  # type: ignore[attr-defined]
    here.requests()
    assert (await here.feed()).failures == []
    assert here.done == []
    assert here.requests() == {"ListObjectsV2": 1}


async def test_what_nobody_here_has_sent_is_asked_for_once(here: Rig) -> None:
    here.make("a", "b")
    await here.feed()
    here.requests()
    here.remembers = False
    await here.feed()
    assert here.requests() == {"ListObjectsV2": 1, "HeadObject": 2}
    here.remembers = True
    for key in keys(here):  # a version that was never seen here
        stored = here.memory.objects[key]
        here.memory.put_foreign(key, stored.data, metadata=stored.metadata)
    here.memory.clock = lambda: time.time() + 100
    (here.directory / "attributes").unlink()
    await here.feed()
    assert here.requests() == {"ListObjectsV2": 1, "HeadObject": 2}
    await here.feed()
    assert here.requests() == {"ListObjectsV2": 1}
    assert here.done == []


async def test_only_what_changed_is_sent(here: Rig) -> None:
    here.make("same", "longer", "other", "new time")
    await here.feed()
    here.requests()
    (here.source / "longer").write_text("longer than before")
    (here.source / "other").write_text("rehto")
    os.utime(here.source / "new time", (5, 5))
    here.make("added")
    await here.feed()
    assert sorted(here.done) == [
        "attributes new time",
        "send added",
        "send longer",
        "send other",
    ]
    assert here.requests() == {
        "ListObjectsV2": 1,
        "PutObject": 3,
        "HeadObject": 1,
        "CopyObject": 1,
    }
    assert here.memory.objects["other"].data == b"rehto"
    await here.feed()
    assert here.done == []


async def test_mode_and_owner_are_changed_on_the_server_and_foreign_metadata_stays(
    here: Rig,
) -> None:
    here.make("a", "d/")
    await here.feed()
    stored = here.memory.objects["a"]
    here.memory.put_foreign(
        "a",
        stored.data,
        metadata={**stored.metadata, "foreign": "kept"},
        headers={"content-type": "x/y", "cache-control": "no-store"},
    )
    (here.source / "a").chmod(0o600)
    (here.source / "d").chmod(0o700)
    here.requests()
    await here.feed()
    assert sorted(here.done) == ["attributes a", "attributes d"]
    assert "PutObject" not in here.requests()
    now = here.memory.objects["a"]
    assert now.metadata["foreign"] == "kept"
    assert (now.headers["content-type"], now.headers["cache-control"]) == ("x/y", "no-store")
    assert now.metadata["mode"] == str(stat.S_IFREG | 0o600)
    assert now.metadata["mtime"] == stored.metadata["mtime"]
    assert here.memory.objects["d/"].metadata["mode"] == str(stat.S_IFDIR | 0o700)


async def test_checksum_finds_what_size_and_mtime_hide(here: Rig) -> None:
    here.make("a", "b")
    (here.source / "big").write_bytes(bytes(5 * PART + 1))
    await here.feed()
    found = (here.source / "b").stat()
    (here.source / "b").write_text("X")
    os.utime(here.source / "b", ns=(found.st_atime_ns, found.st_mtime_ns))
    await here.feed()
    assert here.done == []
    here.requests()
    await here.feed(checksum=True)
    assert here.done == ["send b"]
    assert here.requests() == {"ListObjectsV2": 1, "PutObject": 1}


async def test_the_comparing_of_a_large_file_can_be_interrupted(
    here: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    here.make("a")
    await here.feed()
    begun, release, ended = threading.Event(), threading.Event(), threading.Event()

    def endless(*arguments: object) -> bool:
        begun.set()
        release.wait(100)
        ended.set()
        return True

    monkeypatch.setattr(performing, "same_bytes", endless)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(partial(here.feed, checksum=True))
        await trio.to_thread.run_sync(begun.wait)
        nursery.cancel_scope.cancel()
    assert not ended.is_set()
    release.set()


async def test_where_etags_tell_nothing_the_stored_checksum_does(here: Rig) -> None:
    here.store = MemoryStore(capabilities=replace(ALL_CAPABILITIES, md5_etags=False))
    here.make("a", "b")
    await here.feed()
    for key in keys(here):
        stored = here.memory.objects[key]
        headers = WriteHeaders(stored.metadata, stored.headers)
        here.memory._store(key, stored.data, headers, "0" * 32)  # as of an encrypted object
    (here.directory / "attributes").unlink()
    found = (here.source / "b").stat()
    (here.source / "b").write_text("X")
    os.utime(here.source / "b", ns=(found.st_atime_ns, found.st_mtime_ns))
    here.requests()
    await here.feed(checksum=True)
    assert here.done == ["send b"]
    assert here.requests() == {"ListObjectsV2": 1, "HeadObject": 4, "PutObject": 1}


async def test_check_missing_costs_lists_alone_and_compares_nothing(here: Rig) -> None:
    here.make("a", "d/b")
    here.memory.put_foreign("a", b"other bytes")
    here.memory.put_foreign("d/c", b"")
    here.requests()
    await here.feed(missing_only=True)
    assert here.done == ["send d/b"]
    assert here.requests() == {"ListObjectsV2": 1, "PutObject": 1}
    assert here.memory.objects["a"].data == b"other bytes"


async def test_delete_removes_what_the_source_does_not_have_in_batches(here: Rig) -> None:
    here.prefix = "top/"
    here.make("a", "keep.tmp")
    for number in range(1500):
        here.memory.put_foreign(f"top/gone/{number}", b"")
    for key in ("top/gone/", "top/x.tmp", "top/cache/y", "outside", "topping", "top//odd"):
        here.memory.put_foreign(key, b"1")
    here.requests()
    rules = Rules([parse_rule("*.tmp", include=False), parse_rule("cache/", include=False)])
    await here.feed(delete=True, rules=rules)
    assert keys(here) == [
        *("outside", "top/", "top//odd", "top/a", "top/cache/y", "top/x.tmp", "topping"),
    ]
    assert here.requests()["DeleteObjects"] == 2
    assert len(here.done) == 1501 + 2


async def test_a_dry_run_says_what_would_be_done_and_does_nothing(here: Rig) -> None:
    here.make("a", "d/")
    here.memory.put_foreign("gone", b"")
    here.requests()
    await here.feed(delete=True, dry_run=True)
    assert here.done == ["send a", "send d", "delete gone"]
    assert here.requests() == {"ListObjectsV2": 1}
    assert keys(here) == ["gone"]


async def test_nothing_deeper_than_the_feed_goes_is_touched(here: Rig) -> None:
    here.make("a", "d/b", "d/e/f")
    for key in ("old", "d/old", "d/e/old", "x/y", "marker", "g/"):
        here.memory.put_foreign(key, b"")
    await here.feed(delete=True, depth=1)
    assert keys(here) == ["a", "d/e/old", "d/old", "g/", "x/y"]
    await here.feed(delete=True, depth=2)
    assert keys(here) == ["a", "d/", "d/b", "d/e/old"]


async def test_nothing_is_deleted_when_the_source_could_not_be_read(here: Rig) -> None:
    here.make("a")
    os.mknod(os.path.join(os.fsencode(here.source), b"\xff"))
    here.memory.put_foreign("there", b"")
    report = await here.feed(delete=True)
    assert "there" in here.memory.objects
    assert "nothing was deleted" in report.problems[0]
    assert report.failed_count == 1


async def test_a_file_where_a_directory_is_is_refused_or_replaced(here: Rig) -> None:
    here.make("x", "y/z")
    for key in ("x/", "x/old", "y"):
        here.memory.put_foreign(key, b"1" if key == "y" else b"")
    report = await here.feed()
    assert {path for path, _ in report.failures} == {"x", "y"}
    assert "--delete" in report.failures[0][1]
    report = await here.feed(delete=True)
    assert report.failures == []
    assert keys(here) == ["x", "y/", "y/z"]


async def test_nothing_goes_into_a_directory_that_would_hide_a_file(here: Rig) -> None:
    here.make("x/a", "x/b/c", "x-", "e/f", "z")
    here.memory.put_foreign("x", b"data")
    here.memory.put_foreign("e", b"")
    report = await here.feed()
    assert sorted(path for path, _ in report.failures) == ["e", "x"]
    assert "nothing in it is sent" in report.failures[0][1]
    assert keys(here) == ["e", "x", "x-", "z"]
    here.prefix = "z/"
    report = await here.feed(delete=True)
    assert [path for path, _ in report.failures] == ["z/"]
    assert keys(here) == ["e", "x", "x-", "z"]


async def test_a_refused_deletion_is_told(here: Rig) -> None:
    here.make("a")
    here.memory.put_foreign("gone", b"")

    def refuse(operation: str, key: str) -> None:
        if operation == "DeleteObjects":
            raise AccessDenied("no", operation=operation, key=key)

    here.memory.before = refuse
    report = await here.feed(delete=True)
    assert "not all was deleted" in report.problems[0]
    assert keys(here) == ["a", "gone"]


@pytest.mark.parametrize(
    ("directories", "expected"),
    [
        ("all", ["d/", "d/f", "e/"]),
        ("empty", ["d/f", "e/"]),
        ("none", ["d/f"]),
    ],
)
async def test_directories_get_objects_as_wanted(
    here: Rig, directories: str, expected: list[str]
) -> None:
    here.make("d/f", "e/")
    await here.feed(directories=directories)
    assert keys(here) == expected
    here.requests()
    await here.feed(directories=directories)
    assert here.requests() == {"ListObjectsV2": 1}


async def test_the_key_root_gets_the_attributes_of_the_source(here: Rig) -> None:
    here.prefix = "a/b/"
    here.make("f")
    here.source.chmod(0o711)
    await here.feed()
    assert keys(here) == ["a/b/", "a/b/f"]
    assert here.memory.objects["a/b/"].metadata["mode"] == str(stat.S_IFDIR | 0o711)
    here.requests()
    await here.feed()
    assert here.requests() == {"ListObjectsV2": 1}


async def test_large_files_go_up_in_parts_and_are_not_sent_again(here: Rig) -> None:
    data = os.urandom(5 * PART + 7)
    (here.source / "big").write_bytes(data)
    report = await here.feed()
    assert here.memory.objects["big"].data == data
    assert report.sent_bytes == len(data)
    assert here.requests() == {
        "ListObjectsV2": 1,
        "CreateMultipartUpload": 1,
        "UploadPart": 6,
        "CompleteMultipartUpload": 1,
    }
    await here.feed()
    assert here.requests() == {"ListObjectsV2": 1}


async def cut_off(here: Rig, after: int) -> None:
    """The feed is cancelled when the service has that many parts."""
    with trio.CancelScope() as scope:
        sent = 0

        def die(operation: str, key: str) -> None:
            nonlocal sent
            if operation == "UploadPart":
                sent += 1
                if sent == after:
                    scope.cancel()

        here.memory.after = die
        await here.feed()
    here.memory.after = None
    assert scope.cancelled_caught


async def test_an_interrupted_feed_goes_on_with_the_parts_that_are_there(here: Rig) -> None:
    data = os.urandom(10 * PART)
    (here.source / "big").write_bytes(data)
    await cut_off(here, after=6)
    assert "big" not in here.memory.objects
    there = sum(len(one.parts) for one in here.memory.uploads.values())
    here.requests()
    report = await here.feed()
    assert here.requests()["UploadPart"] == 10 - there
    assert report.kept_bytes == there * PART
    assert here.memory.objects["big"].data == data
    assert here.memory.uploads == {}


async def test_what_an_interrupted_feed_has_left_is_aborted_when_it_is_not_wanted(
    here: Rig,
) -> None:
    (here.source / "big").write_bytes(os.urandom(10 * PART))
    await cut_off(here, after=6)
    assert len(here.memory.uploads) == 1
    (here.source / "big").unlink()
    await here.feed()
    assert here.memory.uploads == {}
    assert here.requests()["AbortMultipartUpload"] == 1


async def test_a_file_that_changes_while_it_is_read_is_sent_again(here: Rig) -> None:
    path = here.source / "big"
    path.write_bytes(os.urandom(10 * PART))
    changes = 1

    def change(operation: str, key: str) -> None:
        nonlocal changes
        if operation == "UploadPart" and changes:
            changes -= 1
            path.write_bytes(os.urandom(10 * PART))

    here.memory.before = change
    report = await here.feed()
    assert report.failures == []
    assert here.memory.objects["big"].data == path.read_bytes()
    assert here.memory.uploads == {}
    changes = 1000
    path.write_bytes(os.urandom(9 * PART))
    before = here.memory.objects["big"].data
    report = await here.feed()
    assert [path for path, _ in report.failures] == ["big"]
    assert "changed while it was read" in report.failures[0][1]
    assert here.memory.objects["big"].data == before
    assert here.memory.uploads == {}


async def test_what_cannot_be_sent_is_named_and_the_rest_goes_on(here: Rig) -> None:
    here.make("a", "b", "c", "d/e")

    def refuse(operation: str, key: str) -> None:
        if operation == "PutObject" and key in ("b", "d/"):
            raise AccessDenied("no", operation=operation, key=key)

    here.memory.before = refuse
    report = await here.feed()
    assert {path for path, _ in report.failures} == {"b", "d"}
    assert keys(here) == ["a", "c", "d/e"]
    assert report.summary({})["failed"] == 2


async def test_a_file_that_may_not_be_read_is_named(here: Rig) -> None:
    here.make("a", "b")
    real = os.open

    def refused(path: object, *arguments: object, **options: object) -> int:
        if os.fsdecode(path).endswith("/b"):  # type: ignore[arg-type]
            raise PermissionError(errno.EACCES, "Permission denied")
        return real(path, *arguments, **options)  # type: ignore[arg-type]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "open", refused)
        report = await here.feed()
    assert report.failures == [("b", "Permission denied")]
    assert keys(here) == ["a"]


async def test_what_makes_everything_fail_ends_the_feed(here: Rig) -> None:
    here.make(*(f"f{number}" for number in range(300)))

    def refuse(operation: str, key: str) -> None:
        if operation == "PutObject":
            raise ServerError("down", operation=operation, key=key)

    here.memory.before = refuse
    with pytest.raises(BaseExceptionGroup) as group:
        await here.feed()
    assert group.group_contains(NothingAnswers, match="goes on where it was")
    assert here.requests()["PutObject"] < 200

    def expired(operation: str, key: str) -> None:
        if operation == "PutObject":
            raise BadCredentials("expired", operation=operation, key=key)

    here.memory.before = expired
    with pytest.raises(BaseExceptionGroup) as group:
        await here.feed()
    assert group.group_contains(BadCredentials)


async def test_two_feeds_of_the_same_do_not_run_at_once(here: Rig) -> None:
    here.make("a")

    async def second(operation: str, key: str) -> None:
        if operation == "PutObject":
            with pytest.raises(BaseException, match="is feeding"):
                await Rig(here.directory, here.store).feed()

    here.memory.before = second
    await here.feed()
    assert keys(here) == ["a"]


async def test_a_bucket_that_s3_apu_filled_is_left_as_it_is(here: Rig) -> None:
    """Markers without slash, octal modes, times of whole seconds."""
    here.prefix = "home/"
    here.make("dir/file", "dir/sub/", "empty/", mtime=1_300_000_000.75)
    owner = {"uid": str(os.getuid()), "gid": str(os.getgid()), "mtime": "1300000000"}
    for path in (here.source, *here.source.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o640)
        os.utime(path, (1_300_000_000.75, 1_300_000_000.75))
    marker = {"content-type": "application/x-directory"}
    for key in ("home", "home/dir", "home/dir/sub", "home/empty"):
        here.memory.put_foreign(key, b"", metadata={"mode": "040755", **owner}, headers=marker)
    here.memory.put_foreign("home/dir/file", b"dir/file", metadata={"mode": "0100640", **owner})
    before = dict(here.memory.objects)
    here.requests()
    report = await here.feed(delete=True)
    assert report.failures == []
    assert here.done == []
    assert here.requests() == {"ListObjectsV2": 2, "HeadObject": 5}
    assert here.memory.objects == before
    (here.source / "dir").chmod(0o700)
    await here.feed(delete=True)
    assert here.done == ["attributes dir"]
    assert here.memory.objects.keys() == before.keys()
    assert attributes(here, "home/dir").mode & 0o777 == 0o700  # type: ignore[attr-defined]
    (here.source / "empty").rmdir()
    await here.feed(delete=True)
    assert "home/empty" not in here.memory.objects


async def test_a_legacy_marker_stays_as_long_as_its_directory(here: Rig) -> None:
    here.make("d/f", "file_$folder$")
    for key in ("d_$folder$", "gone_$folder$", "file_$folder$"):
        here.memory.put_foreign(key, b"")
    await here.feed(delete=True)
    assert keys(here) == ["d/", "d/f", "d_$folder$", "file_$folder$"]
    assert here.memory.objects["file_$folder$"].data == b"file_$folder$"


async def test_a_bucket_without_metadata_is_not_sent_again(here: Rig) -> None:
    """As `aws s3 sync` has it: the same size, and not changed since."""
    here.make("a", mtime=1_000_000)
    (here.source / "a").chmod(0o644)
    here.memory.put_foreign("a", b"b")
    report = await here.feed()
    assert report.failures == []
    assert here.done in ([], ["attributes a"])  # as another user's file it gets an owner
    os.utime(here.source / "a", (4_000_000_000, 4_000_000_000))
    await here.feed()
    assert here.done == ["send a"]


@pytest.mark.parametrize("first", ["counted", "compared"])
def test_a_progress_bar_is_told_of_what_is_still_to_come(first: str) -> None:
    report = Report(Bar(""))
    same = LocalEntry("same", b"", 5, attributes_of(os.stat(__file__)))
    folder = LocalEntry("folder", b"", 0, attributes_of(os.stat("/")))
    steps: list[Callable[[], None]] = [
        lambda: report.counted(3, 25),
        lambda: report.unchanged(same),
    ]
    for step in steps if first == "counted" else reversed(steps):
        step()
    report.unchanged(folder)
    report.did(Action.SEND, "sent")
    report.progress(7)
    report.did(Action.SEND, "other folder", directory=True)
    gauge = report.gauge
    assert (gauge.total_files, gauge.done_files) == (2, 1)
    assert (gauge.total_bytes, gauge.done_bytes) == (20, 7)


async def test_the_source_is_counted_while_it_is_fed(here: Rig) -> None:
    here.make("a", "d/b")
    counted = trio.Event()

    async def wait(operation: str, key: str) -> None:
        if key == "a":
            await counted.wait()

    class Watched(Bar):
        def __setattr__(self, name: str, value: object) -> None:
            super().__setattr__(name, value)
            if name == "total_bytes" and value == 4:
                counted.set()

    here.memory.before = wait
    here.bar = Watched("")
    with trio.fail_after(100):
        await here.feed(totals=True)
    assert (here.bar.total_files, here.bar.done_files) == (2, 2)


@pytest.mark.parametrize(
    ("modified", "answered", "listed", "told"),
    [
        (100, 100, 100.0, True),  # our own PUT, answered within its second
        (100, 100, 99.9, True),  # begun in the second before its answer
        (100, 100, 101.0, False),  # somebody has written it since
        (100, 200, 100.5, True),  # known beyond doubt
        (100, 200, 99.0, False),
    ],
)
def test_a_version_of_ours_is_known_by_etag_size_and_time(
    modified: int, answered: int, listed: float, told: bool
) -> None:
    version = Version("e", 5, modified)
    row = Row.of("k", version, attributes_of(os.stat("/")), answered, 7)
    assert tells_mostly(row, ListedObject("k", 5, "e", listed)) is told
    assert not tells_mostly(row, ListedObject("k", 5, "other", listed))
    assert not tells_mostly(row, ListedObject("k", 6, "e", listed))
