"""The one table from what went wrong to the errno that a program sees, and the log line for it."""

import errno
from collections.abc import Mapping

from s3mount.core.errors import FilesystemError
from s3mount.store import errors

# The most derived class of an error that is listed here decides.
STORE_ERRNO: Mapping[type[errors.StoreError], int] = {
    errors.StoreError: errno.EIO,
    errors.NotFound: errno.ENOENT,
    errors.NoSuchBucket: errno.EIO,
    errors.AccessDenied: errno.EACCES,
    errors.QuotaExceeded: errno.EDQUOT,
    errors.PreconditionFailed: errno.ESTALE,
    errors.EntityTooLarge: errno.EFBIG,
    errors.KeyTooLong: errno.ENAMETOOLONG,
    errors.MetadataTooLarge: errno.ENOSPC,
    errors.Archived: errno.EIO,
    errors.DeadlineExceeded: errno.ETIMEDOUT,
}

# What a local disk says about itself is passed on; any other OSError is ours, hence EIO.
LOCAL_ERRNO = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EMFILE, errno.ENFILE})

# Answers that are part of a program's ordinary life: worth a line only when debugging.
ORDINARY = frozenset(
    {
        errno.ENOENT,
        errno.EEXIST,
        errno.ENOTEMPTY,
        errno.ENOTDIR,
        errno.EISDIR,
        errno.EINVAL,
        errno.ENODATA,
        errno.ENOSYS,
        errno.EOPNOTSUPP,
        errno.EPERM,
        errno.EROFS,
        errno.ELOOP,
        errno.ENAMETOOLONG,
        errno.ENXIO,
    }
)


def errno_of(error: BaseException) -> int:
    """The errno for a failed call; EIO for what nobody expected."""
    if isinstance(error, FilesystemError):
        return error.errno
    for kind in type(error).__mro__:
        if kind in STORE_ERRNO:
            return STORE_ERRNO[kind]
    if isinstance(error, OSError) and error.errno in LOCAL_ERRNO:
        return error.errno
    return errno.EIO


def is_expected(error: BaseException) -> bool:
    """Whether the error is one of the file system's own, told in a line without a traceback."""
    return isinstance(error, (FilesystemError, errors.StoreError)) or (
        isinstance(error, OSError) and error.errno in LOCAL_ERRNO
    )


def cause_of(error: BaseException) -> BaseException:
    """Out of a group (of parallel tasks) the failure to answer with: a bug before all others."""
    if not isinstance(error, BaseExceptionGroup):
        return error
    causes = [cause_of(each) for each in error.exceptions]
    return next((each for each in causes if not is_expected(each)), causes[0])


def describe(error: BaseException, bucket: str) -> str:
    """One log line: what failed and, where there is one, the command that helps."""
    name = errno.errorcode.get(errno_of(error), "EIO")
    line = f"{name}: {error}"
    if isinstance(error, errors.Archived):
        line += (
            "; restore it first: aws s3api restore-object"
            f" --bucket {bucket} --key {error.key!r} --restore-request Days=7"
        )
    return line.replace("\n", " ")
