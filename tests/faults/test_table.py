"""The table of faults in ARCHITECTURE.md, row by row: what a program sees, what log and status
say, and that everything is right afterwards. In virtual time, with all of the store's code but
the socket."""

import errno
import logging
from dataclasses import replace
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from s3mount.core.errors import FilesystemError
from s3mount.fuse.errno import describe, errno_of
from s3mount.store.errors import StoreError
from tests.counting_proxy import (
    Fault,
    Reply,
    Seen,
    answer,
    lost_answer,
    reset,
    short_body,
    slow_down,
)
from tests.fault_proxy import (
    corrupt_answer,
    corrupt_upload,
    cut_answer,
    done_but_error_inside,
    error_inside_200,
    never_answered,
    never_asked,
    refusing,
    wrong_etag,
    wrong_etag_inside,
)
from tests.faults.conftest import Service
from tests.model.bucket import contents, files, leftovers
from tests.model.mounted import TTL, Client

ONE, TWO = b"one " * 700, b"two " * 900
LARGE = bytes(range(256)) * 120  # in parts
HOUR = 3600.0


def status_errors(client: Client) -> list[str]:
    status: dict[str, Any] = client.fs.status()
    return [intent["error"] for intent in status["intents"] if intent["error"]]


async def refused(client: Client, path: str, data: bytes) -> tuple[int, str]:
    """The errno of a write and close that is refused, and its line in the log."""
    with pytest.raises((StoreError, FilesystemError)) as caught:
        await client.write(path, data)
    return errno_of(caught.value), describe(caught.value, "b")


# -- what passes: no program hears of it -----------------------------------------------------------

PASSING = [
    ("PutObject", slow_down),
    ("PutObject", answer(500, "InternalError")),
    ("PutObject", reset),
    ("PutObject", lost_answer),
    ("PutObject", never_asked),
    ("PutObject", never_answered),
    ("PutObject", corrupt_upload),
    ("PutObject", wrong_etag),
    ("GetObject", short_body),
    ("GetObject", cut_answer),
    ("GetObject", corrupt_answer),
    ("GetObject", wrong_etag),
    ("ListObjectsV2", cut_answer),
    ("UploadPart", corrupt_upload),
    ("CompleteMultipartUpload", lost_answer),
    ("CompleteMultipartUpload", error_inside_200),
    ("CompleteMultipartUpload", done_but_error_inside),
    ("CompleteMultipartUpload", wrong_etag_inside),
    ("CompleteMultipartUpload", cut_answer),
    ("CopyObject", error_inside_200),
    ("CopyObject", done_but_error_inside),
    ("CopyObject", lost_answer),
    ("DeleteObject", lost_answer),
]


@pytest.mark.parametrize(("operation", "fault"), PASSING)
async def test_what_passes_no_program_hears_of(
    client: Client,
    service: Service,
    autojump_clock: MockClock,
    caplog: pytest.LogCaptureFixture,
    operation: str,
    fault: Fault,
) -> None:
    caplog.set_level(logging.INFO)
    service.memory.put_foreign("there", TWO)
    left = [fault]

    def rule(seen: Seen) -> Fault | None:
        return left.pop() if left and seen.operation == operation else None

    service.rule = rule
    assert await client.read("there") == TWO
    await client.write("small", ONE)
    await client.write("large", LARGE)
    await client.rename("there", "moved")
    await client.fsyncdir()
    await trio.sleep(TTL + 1)
    assert await client.ls() == ["large", "moved", "small"]
    assert await client.read("large") == LARGE
    assert not left, "the fault was never suffered"
    assert operation.removesuffix("MultipartUpload") in caplog.text  # ours: "Complete of"
    await trio.sleep(60)
    assert contents(service.memory) == {"large": LARGE, "moved": TWO, "small": ONE}
    assert leftovers(client.fs, service.memory) == []


async def test_a_burst_of_slow_down_longer_than_all_retries_only_takes_longer(
    client: Client,
    service: Service,
    autojump_clock: MockClock,
    caplog: pytest.LogCaptureFixture,
) -> None:
    service.rule = refusing("SlowDown", 503, only=["PutObject"])
    async with trio.open_nursery() as nursery:
        nursery.start_soon(client.write, "f", ONE)
        await trio.sleep(40)
        assert "503 SlowDown" in status_errors(client)[0]
        assert "again in" in caplog.text
        service.clear()
    assert contents(service.memory) == {"f": ONE}


# -- the network ----------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", [reset, never_asked])
async def test_without_a_network_calls_end_in_time_and_all_goes_on_when_it_is_back(
    client: Client, service: Service, autojump_clock: MockClock, fault: Fault
) -> None:
    await client.write("known", ONE)
    assert await client.ls() == ["known"]
    service.rule = lambda seen: fault
    began = trio.current_time()
    assert await client.ls() == ["known"]
    assert await client.read("known") == ONE
    number, line = await refused(client, "f", TWO)
    assert number == errno.ETIMEDOUT
    assert "no progress for 120 s, still retried" in line
    assert trio.current_time() - began < 200
    assert status_errors(client)
    assert client.fs.statfs().blocks > 0
    await trio.sleep(HOUR)
    service.clear()
    await trio.sleep(60)
    assert contents(service.memory) == {"f": TWO, "known": ONE}
    assert leftovers(client.fs, service.memory) == []


# -- refusals: told at once, kept, sent once they end ----------------------------------------------

REFUSALS = [
    (403, "QuotaExceeded", errno.EDQUOT, "quota raised"),
    (403, "UserSuspended", errno.EACCES, "account is suspended"),
    (404, "NoSuchBucket", errno.EIO, "the bucket is gone"),
    (403, "AccessDenied", errno.EACCES, "check the bucket's policy"),
    # Read again where they come from, and still the old ones; or taken back.
    (403, "ExpiredToken", errno.EACCES, "renew the credentials"),
    (403, "InvalidAccessKeyId", errno.EACCES, "renew the credentials"),
    (403, "RequestTimeTooSkewed", errno.EACCES, "timedatectl set-ntp true"),
]


@pytest.mark.parametrize(("status", "code", "number", "remedy"), REFUSALS)
async def test_a_refusal_is_told_with_its_remedy_and_sent_once_it_ends(
    client: Client,
    service: Service,
    autojump_clock: MockClock,
    caplog: pytest.LogCaptureFixture,
    status: int,
    code: str,
    number: int,
    remedy: str,
) -> None:
    await client.write("before", ONE)
    assert await client.ls() == ["before"]
    writes = ("PutObject", "CopyObject", "DeleteObject", "CreateMultipartUpload")
    service.rule = refusing(code, status, only=() if code == "NoSuchBucket" else writes)
    began = trio.current_time()
    told, line = await refused(client, "f", TWO)
    assert told == number
    assert trio.current_time() - began < 5
    for text in (line, caplog.text, status_errors(client)[0]):
        assert all(part in text for part in ("'f'", code, "REFUSED", remedy)), text
    assert await client.read("f") == TWO
    if code != "NoSuchBucket":
        assert await client.read("before") == ONE
    await trio.sleep(HOUR)
    assert contents(service.memory) == {"before": ONE}
    service.clear()
    await trio.sleep(400)
    assert contents(service.memory) == {"before": ONE, "f": TWO}
    assert status_errors(client) == []
    assert leftovers(client.fs, service.memory) == []


async def test_a_rename_and_a_delete_outlive_the_absence_of_the_bucket(
    client: Client, service: Service, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A HEAD's 404 says nothing of the bucket: what it was asked for must not count as gone."""
    monkeypatch.setattr("s3mount.store.s3.BUCKET_SEEN", 0.0)
    await client.write("a", ONE)
    await client.write("b", TWO)
    assert await client.ls() == ["a", "b"]
    await client.rename("a", "c")
    await client.unlink("b")
    dialect = service.store._wire.dialect  # type: ignore[attr-defined]
    dialect.missing = True
    await trio.sleep(HOUR)
    dialect.missing = False
    await trio.sleep(400)
    assert files(service.memory) == {"c": ONE}
    assert leftovers(client.fs, service.memory) == []


async def test_expired_credentials_are_renewed_and_no_program_hears_of_it(
    client: Client, service: Service, autojump_clock: MockClock
) -> None:
    def expired(seen: Seen) -> Fault | None:
        old = "Credential=KEY0/" in seen.headers["authorization"]
        return answer(403, "ExpiredToken") if old else None

    service.rule = expired
    await client.write("f", ONE)
    assert await client.ls() == ["f"]
    assert contents(service.memory) == {"f": ONE}


async def test_a_clock_that_is_wrong_is_corrected_by_the_services_own(
    client: Client,
    service: Service,
    autojump_clock: MockClock,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Here the service lives in another year than this machine."""

    def strict(seen: Seen) -> Fault | None:
        right = seen.headers["x-amz-date"].startswith("20231114T22")
        headers = {"Date": "Tue, 14 Nov 2023 22:13:20 GMT"}
        return None if right else answer(403, "RequestTimeTooSkewed", headers)

    service.rule = strict
    await client.write("f", ONE)
    await client.write("g", TWO)
    assert contents(service.memory) == {"f": ONE, "g": TWO}
    assert caplog.text.count("this machine's clock is") == 1
    assert "ahead of the service's" in caplog.text


# -- answers that stay wrong -----------------------------------------------------------------------


@pytest.mark.parametrize("how", ["short", "corrupt"])
async def test_bytes_that_stay_corrupt_are_never_passed_on(
    client: Client, service: Service, autojump_clock: MockClock, how: str
) -> None:
    """(The same bytes again and again are what is stored: those are shown.)"""
    service.memory.put_foreign("f", TWO)
    turns = iter(range(10_000))

    def damage(seen: Seen) -> Fault | None:
        if seen.operation != "GetObject":
            return None
        turn = next(turns)

        def after(_: Seen, reply: Reply) -> Reply:
            spoilt = bytearray(reply.body)
            spoilt[turn % len(spoilt)] ^= 1
            return replace(reply, body=bytes(spoilt))

        return short_body if how == "short" else Fault(after=after)

    await client.ls()
    service.rule = damage
    with pytest.raises((StoreError, FilesystemError)) as caught:
        await client.read("f")
    assert errno_of(caught.value) == errno.EIO
    service.clear()
    assert await client.read("f") == TWO
