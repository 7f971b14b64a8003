"""What a failed request becomes for the program that made the call."""

import errno

import pytest

from s3mount.core.errors import FilesystemError
from s3mount.fuse.errno import cause_of, describe, errno_of, is_expected
from s3mount.store import errors


@pytest.mark.parametrize(
    ("kind", "number"),
    [
        (errors.NotFound, errno.ENOENT),
        (errors.AccessDenied, errno.EACCES),
        (errors.BadCredentials, errno.EACCES),
        (errors.ClockSkewed, errno.EACCES),
        (errors.QuotaExceeded, errno.EDQUOT),
        (errors.PreconditionFailed, errno.ESTALE),
        (errors.Archived, errno.EIO),
        (errors.EntityTooLarge, errno.EFBIG),
        (errors.KeyTooLong, errno.ENAMETOOLONG),
        (errors.MetadataTooLarge, errno.ENOSPC),
        (errors.DeadlineExceeded, errno.ETIMEDOUT),
        (errors.ConnectionLost, errno.EIO),
        (errors.SlowDown, errno.EIO),
        (errors.CorruptAnswer, errno.EIO),
        (errors.NoSuchBucket, errno.EIO),
        (errors.InvalidRequest, errno.EIO),
        (errors.NotImplementedByService, errno.EIO),
    ],
)
def test_each_error_of_the_store_has_its_errno(kind: type[errors.StoreError], number: int) -> None:
    assert errno_of(kind("refused", operation="PutObject", key="k")) == number


def test_an_error_of_the_file_system_keeps_its_errno() -> None:
    assert errno_of(FilesystemError(errno.ENOTEMPTY)) == errno.ENOTEMPTY


def test_a_full_local_disk_is_told_and_any_other_bug_is_eio() -> None:
    assert errno_of(OSError(errno.ENOSPC, "full")) == errno.ENOSPC
    assert errno_of(OSError(errno.EBADF, "ours")) == errno.EIO
    assert errno_of(KeyError("bug")) == errno.EIO
    assert not is_expected(OSError(errno.EBADF, "ours"))


def test_out_of_a_group_of_parallel_failures_one_answers_and_a_bug_comes_first() -> None:
    denied = errors.AccessDenied("no", operation="HeadObject", key="k")
    bug = KeyError("bug")
    assert cause_of(ExceptionGroup("outer", [ExceptionGroup("inner", [denied])])) is denied
    assert cause_of(ExceptionGroup("outer", [denied, ExceptionGroup("inner", [bug])])) is bug


def test_the_log_line_names_key_and_request_and_stays_one_line() -> None:
    error = errors.AccessDenied(
        "Access\nDenied",
        operation="PutObject",
        key="a/b",
        status=403,
        code="AccessDenied",
        request_id="R1",
    )
    line = describe(error, "bucket")
    assert "\n" not in line
    for part in ("EACCES", "PutObject", "'a/b'", "403", "AccessDenied", "R1"):
        assert part in line


def test_an_archived_object_comes_with_the_command_that_restores_it() -> None:
    error = errors.Archived("in Glacier", operation="GetObject", key="old/data")
    line = describe(error, "my-bucket")
    assert "restore-object --bucket my-bucket --key 'old/data'" in line
