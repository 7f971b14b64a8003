"""The handlers themselves, without a mount: what they pass on and how they answer failures."""

import errno
import inspect
import logging
import stat
from types import SimpleNamespace
from typing import Any, cast

import pyfuse3
import pytest
import trio

from s3mount.core.errors import FilesystemError
from s3mount.core.metadata import Attributes
from s3mount.filesystem.filesystem import FileSystem
from s3mount.filesystem.stat import OpenResult, Stat, StatFs
from s3mount.fuse.operations import Operations
from s3mount.fuse.seldom import Seldom
from s3mount.store import errors

CTX = cast(pyfuse3.RequestContext, SimpleNamespace(uid=1000, gid=100, pid=1, umask=0o22))
INODE = pyfuse3.InodeT(7)
NAME = pyfuse3.FileNameT(b"name")

ATTRIBUTES = Attributes(
    mode=stat.S_IFREG | 0o640,
    uid=12,
    gid=34,
    mtime_ns=1_000_000_001,
    ctime_ns=2_000_000_002,
    atime_ns=3_000_000_003,
)
STAT = Stat(
    number=7,
    attributes=ATTRIBUTES,
    size=5000,
    nlink=1,
    blocks=10,
    entry_timeout=1.5,
    attr_timeout=2.5,
)


class RecordingFileSystem:
    """Answers every call with `result`, or raises it; remembers the calls."""

    def __init__(self, result: Any = None) -> None:
        self.result = result
        self.calls: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = []
        self.invalidate: Any = None

    def __getattr__(self, name: str) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            self.calls.append((name, args, kwargs))
            if isinstance(self.result, BaseException):
                raise self.result
            return self.result

        async def call_async(*args: Any, **kwargs: Any) -> Any:
            return call(*args, **kwargs)

        return call if name in ("forget", "acquire", "statfs", "dots") else call_async


def operations(result: Any = None, *, xattrs: bool = True) -> tuple[Operations, Any]:
    filesystem = RecordingFileSystem(result)
    return Operations(cast(FileSystem, filesystem), "bucket", xattrs=xattrs), filesystem


FLAGS = pyfuse3.FlagT(0)
MODE = pyfuse3.ModeT(0o600)
HANDLE = pyfuse3.FileHandleT(3)
XATTR = pyfuse3.XAttrNameT(b"user.x")
HANDLERS: list[tuple[str, tuple[Any, ...]]] = [
    ("lookup", (INODE, NAME, CTX)),
    ("forget", ([(INODE, 1)],)),
    ("getattr", (INODE, CTX)),
    ("readlink", (INODE, CTX)),
    ("mknod", (INODE, NAME, MODE, 0, CTX)),
    ("mkdir", (INODE, NAME, MODE, CTX)),
    ("unlink", (INODE, NAME, CTX)),
    ("rmdir", (INODE, NAME, CTX)),
    ("symlink", (INODE, NAME, NAME, CTX)),
    ("rename", (INODE, NAME, INODE, NAME, FLAGS, CTX)),
    ("open", (INODE, FLAGS, CTX)),
    ("create", (INODE, NAME, MODE, FLAGS, CTX)),
    ("read", (HANDLE, 0, 10)),
    ("write", (HANDLE, 0, b"x")),
    ("flush", (HANDLE,)),
    ("release", (HANDLE,)),
    ("fsync", (HANDLE, False)),
    ("opendir", (INODE, CTX)),
    ("readdir", (HANDLE, 0, None)),
    ("releasedir", (HANDLE,)),
    ("fsyncdir", (HANDLE, False)),
    ("statfs", (CTX,)),
    ("setxattr", (INODE, XATTR, b"v", CTX)),
    ("getxattr", (INODE, XATTR, CTX)),
    ("listxattr", (INODE, CTX)),
    ("removexattr", (INODE, XATTR, CTX)),
]


@pytest.mark.provokes
@pytest.mark.parametrize(("name", "args"), HANDLERS, ids=[name for name, _ in HANDLERS])
async def test_a_bug_in_any_handler_is_answered_eio_and_logged_with_its_traceback(
    name: str, args: tuple[Any, ...], caplog: pytest.LogCaptureFixture
) -> None:
    ops, _ = operations(ZeroDivisionError("bug"))
    with pytest.raises(pyfuse3.FUSEError) as raised:
        await getattr(ops, name)(*args)
    assert raised.value.errno == errno.EIO
    assert "ZeroDivisionError: bug" in caplog.text
    assert "Traceback" in caplog.text


def test_no_handler_of_pyfuse3_is_left_unwrapped() -> None:
    covered = {name for name, _ in HANDLERS} | {"setattr", "link"}
    theirs = {
        name
        for name, member in vars(pyfuse3.Operations).items()
        if inspect.iscoroutinefunction(member)
    }
    # access: default_permissions lets the kernel decide; poll: never asked of ordinary files.
    assert theirs - covered <= {"access", "poll"}
    for name in covered:
        assert hasattr(vars(Operations)[name], "__wrapped__"), name


async def test_an_expected_failure_is_one_warning_with_key_and_request_id(
    caplog: pytest.LogCaptureFixture,
) -> None:
    error = errors.AccessDenied("no", operation="PutObject", key="k", status=403, request_id="R1")
    ops, _ = operations(error)
    with pytest.raises(pyfuse3.FUSEError) as raised:
        await ops.flush(HANDLE)
    assert raised.value.errno == errno.EACCES
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert "flush" in record.message
    assert "'k'" in record.message
    assert "R1" in record.message
    assert record.exc_info is None


async def test_a_missing_name_is_no_news_for_the_log(caplog: pytest.LogCaptureFixture) -> None:
    ops, _ = operations(FilesystemError(errno.ENOENT))
    with pytest.raises(pyfuse3.FUSEError) as raised:
        await ops.lookup(INODE, NAME, CTX)
    assert raised.value.errno == errno.ENOENT
    assert not [each for each in caplog.records if each.levelno > logging.DEBUG]


async def test_names_that_cannot_be_stored_are_told_once_a_minute_with_their_number(
    caplog: pytest.LogCaptureFixture,
) -> None:
    ops, _ = operations(FilesystemError(errno.EILSEQ, "not UTF-8"))
    times = iter((0.0, 1.0, 59.0, 61.0, 62.0))
    ops.unnameable = Seldom(logging.getLogger("s3mount"), lambda: next(times))
    for _ in range(5):
        with pytest.raises(pyfuse3.FUSEError) as raised:
            await ops.lookup(INODE, NAME, CTX)
        assert raised.value.errno == errno.EILSEQ
    lines = [each.getMessage() for each in caplog.records if each.levelno > logging.DEBUG]
    assert lines == [
        "lookup: EILSEQ: [EILSEQ] not UTF-8",
        "lookup: EILSEQ: [EILSEQ] not UTF-8 (and 2 more like it before)",
    ]


async def test_a_conflict_at_close_is_told_but_the_retry_of_an_open_is_not(
    caplog: pytest.LogCaptureFixture,
) -> None:
    ops, _ = operations(FilesystemError(errno.ESTALE, "replaced"))
    with pytest.raises(pyfuse3.FUSEError):
        await ops.open(INODE, FLAGS, CTX)
    assert not [each for each in caplog.records if each.levelno > logging.DEBUG]
    with pytest.raises(pyfuse3.FUSEError):
        await ops.flush(HANDLE)
    assert [each.levelno for each in caplog.records if each.levelno > logging.DEBUG] == [
        logging.WARNING
    ]


async def test_failures_of_parallel_tasks_are_answered_with_the_expected_one() -> None:
    ops, _ = operations(ExceptionGroup("nursery", [errors.QuotaExceeded("full", key="k")]))
    with pytest.raises(pyfuse3.FUSEError) as raised:
        await ops.write(HANDLE, 0, b"x")
    assert raised.value.errno == errno.EDQUOT


async def test_cancellation_is_not_mistaken_for_a_failure() -> None:
    ops, _ = operations()

    async def forever(handle: int) -> None:
        await trio.sleep_forever()

    ops._filesystem.flush = forever  # type: ignore[method-assign]
    with trio.move_on_after(0.01) as scope:
        await ops.flush(HANDLE)
    assert scope.cancelled_caught


async def test_attributes_reach_the_kernel_to_the_nanosecond() -> None:
    ops, filesystem = operations(STAT)
    entry = await ops.getattr(INODE, CTX)
    assert filesystem.calls == [("getattr", (INODE,), {})]
    assert (entry.st_ino, entry.st_mode, entry.st_uid, entry.st_gid) == (7, 0o100640, 12, 34)
    assert (entry.st_size, entry.st_blocks, entry.st_nlink) == (5000, 10, 1)
    assert entry.st_mtime_ns == 1_000_000_001
    assert entry.st_ctime_ns == 2_000_000_002
    assert entry.st_atime_ns == 3_000_000_003
    assert (entry.entry_timeout, entry.attr_timeout) == (1.5, 2.5)


async def test_setattr_passes_on_only_what_is_to_change() -> None:
    ops, filesystem = operations(STAT)
    wanted = pyfuse3.EntryAttributes()
    wanted.st_size = 77
    wanted.st_mtime_ns = 123_456_789_012_345_678
    fields = cast(
        pyfuse3.SetattrFields,
        SimpleNamespace(
            update_mode=False,
            update_uid=False,
            update_gid=False,
            update_size=True,
            update_atime=False,
            update_mtime=True,
            update_ctime=False,
        ),
    )
    await ops.setattr(INODE, wanted, fields, None, CTX)
    assert filesystem.calls == [
        ("setattr", (INODE,), {"size": 77, "mtime_ns": 123_456_789_012_345_678})
    ]


async def test_new_files_belong_to_whoever_made_them() -> None:
    ops, filesystem = operations((3, STAT))
    info, entry = await ops.create(INODE, NAME, MODE, FLAGS, CTX)
    assert filesystem.calls == [("create", (INODE, b"name", 0o600, 0, 1000, 100), {})]
    assert (info.fh, entry.st_ino) == (3, 7)


async def test_a_hard_link_is_refused_rather_than_silently_copied() -> None:
    ops, filesystem = operations(STAT)
    with pytest.raises(pyfuse3.FUSEError) as raised:
        await ops.link(INODE, INODE, NAME, CTX)
    assert raised.value.errno == errno.EOPNOTSUPP
    assert filesystem.calls == []


@pytest.mark.parametrize(("uid", "may"), [(0, True), (12, True), (1000, False)])
async def test_an_acl_is_changed_by_root_and_the_owner_alone(uid: int, may: bool) -> None:
    ops, filesystem = operations(STAT)
    caller = cast(pyfuse3.RequestContext, SimpleNamespace(uid=uid, gid=34, pid=1, umask=0o22))
    acl = pyfuse3.XAttrNameT(b"system.posix_acl_access")
    for change in (ops.setxattr(INODE, acl, b"v", caller), ops.removexattr(INODE, acl, caller)):
        if may:
            await change
        else:
            with pytest.raises(pyfuse3.FUSEError) as raised:
                await change
            assert raised.value.errno == errno.EPERM
    changed = [name for name, _, _ in filesystem.calls if name != "getattr"]
    assert changed == (["setxattr", "removexattr"] if may else [])
    await ops.setxattr(INODE, XATTR, b"v", caller)  # of others the kernel decides


@pytest.mark.parametrize("name", ["getxattr", "setxattr", "listxattr", "removexattr"])
async def test_xattrs_that_nobody_asked_for_answer_enosys(name: str) -> None:
    ops, filesystem = operations(b"", xattrs=False)
    with pytest.raises(pyfuse3.FUSEError) as raised:
        await getattr(ops, name)(*dict(HANDLERS)[name])
    assert raised.value.errno == errno.ENOSYS
    assert filesystem.calls == []


async def test_trusted_attributes_are_listed_for_root_alone() -> None:
    ops, _ = operations([b"user.a", b"trusted.b", b"c"])
    root = cast(pyfuse3.RequestContext, SimpleNamespace(uid=0, gid=0, pid=1, umask=0o22))
    assert await ops.listxattr(INODE, CTX) == [b"user.a", b"c"]
    assert await ops.listxattr(INODE, root) == [b"user.a", b"trusted.b", b"c"]


async def test_files_that_the_kernel_forgot_to_release_are_released_at_the_end() -> None:
    ops, filesystem = operations(OpenResult(handle=5, keep_cache=True))
    info = await ops.open(INODE, FLAGS, CTX)
    assert info.keep_cache
    filesystem.result = OpenResult(handle=6, keep_cache=False)
    await ops.open(INODE, FLAGS, CTX)
    await ops.release(pyfuse3.FileHandleT(5))
    filesystem.calls.clear()
    await ops.release_all(cut_off=False)
    await ops.release_all(cut_off=False)
    assert filesystem.calls == [("release", (6,), {})]


async def test_df_shows_what_the_file_system_says() -> None:
    ops, _ = operations(
        StatFs(block_size=4096, blocks=100, free=60, files=10, free_files=5, name_max=255)
    )
    data = await ops.statfs(CTX)
    assert (data.f_bsize, data.f_blocks, data.f_bfree, data.f_bavail) == (4096, 100, 60, 60)
    assert (data.f_files, data.f_ffree, data.f_namemax) == (10, 5, 255)


def test_the_kernel_is_told_of_names_only_once_it_is_there() -> None:
    ours, filesystem = operations()
    assert filesystem.invalidate is None  # a recovery before the mount has nobody to tell
    ours.init()
    assert filesystem.invalidate is not None
