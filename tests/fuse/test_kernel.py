"""What of pyfuse3's log is kept."""

import logging

import pytest

from s3mount.fuse.kernel import VanishedRequests, ignore_vanished_requests


def test_only_replies_to_withdrawn_requests_are_dropped(caplog: pytest.LogCaptureFixture) -> None:
    logger = logging.getLogger("pyfuse3")
    ignore_vanished_requests()
    try:
        message = "fuse_releasedir(): fuse_reply_* failed with %s"
        logger.error(message, "No such file or directory")
        logger.error(message, "Invalid argument")
    finally:
        for one in [one for one in logger.filters if isinstance(one, VanishedRequests)]:
            logger.removeFilter(one)
    assert [record.getMessage() for record in caplog.records] == [
        "fuse_releasedir(): fuse_reply_* failed with Invalid argument"
    ]
