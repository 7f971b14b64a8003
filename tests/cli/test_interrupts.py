"""Ctrl-C, a real SIGINT to the process, in the middle of each tool: nothing is lost, nothing is
left behind unsaid, and what is said then works."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import trio

from s3mount.cli.feed_stream import Stream
from s3mount.core.config import MIB
from tests.cli.tools import WAIT_SECONDS, Halfway, Tools, interrupted
from tests.counting_proxy import CountingProxy
from tests.mounting import environment, wait_until
from tests.servers import Bucket

PART = 5 * MIB
# Copies are in parts as those of objects over 5 GiB are.
IN_SMALL_PARTS = f"""
from functools import partial
from s3mount.transfer import copying
copying.WritebackConfig = partial(
    copying.WritebackConfig, max_copy_size={PART}, copy_part_size={PART}
)
"""


@pytest.fixture
def tools(bucket: Bucket, tmp_path: Path) -> Tools:
    return Tools(bucket, tmp_path)


READ = {"0", "63"}  # the number of read(2): x86-64, and arm64 or riscv64


def reads_stdin(pid: int) -> bool:
    """Whether its main thread is in read(2) of descriptor 0, the first argument."""
    number, *arguments = Path(f"/proc/{pid}/syscall").read_text().split()
    return number in READ and arguments[:1] == ["0x0"]


def uploads(bucket: Bucket) -> list[Any]:
    return list(bucket.client.list_multipart_uploads(Bucket=bucket.name).get("Uploads", ()))


def fill(bucket: Bucket, prefix: str, count: int) -> dict[str, bytes]:
    contents = {f"{n:03}": b"%d" % n for n in range(count)}
    for name, data in contents.items():
        bucket.put(f"{prefix}{name}", data)
    return contents


def test_a_move_has_each_object_under_one_of_its_names_and_goes_on(tools: Tools) -> None:
    contents = fill(tools.bucket, "old/", 40)
    name = tools.bucket.name
    words = ["mv", "-r", f"{name}:/old", f"{name}:/new"]
    assert "the same command moves the rest" in interrupted(tools, words, "CopyObject", 9)
    there = set(tools.bucket.keys())
    for part in contents:
        assert {f"old/{part}", f"new/{part}"} & there, part
    tools.run(*words)
    assert tools.bucket.keys() == [f"new/{part}" for part in contents]
    assert tools.bucket.get("new/037") == b"37"


def test_of_several_moves_those_that_are_done_do_not_stop_the_same_command(tools: Tools) -> None:
    contents = fill(tools.bucket, "", 3)
    name = tools.bucket.name
    words = ["mv", *(f"{name}:/{one}" for one in contents), f"{name}:/new/"]
    interrupted(tools, words, "CopyObject", 1)
    assert tools.bucket.keys()[0] != "000"
    told = tools.run(*words, status=1)
    assert f"there is nothing at {name}:/000" in told.output
    assert tools.bucket.keys() == [f"new/{one}" for one in contents]


def test_a_copy_has_whole_objects_alone_and_is_made_again(tools: Tools) -> None:
    contents = fill(tools.bucket, "old/", 40)
    name = tools.bucket.name
    words = ["cp", "-r", f"{name}:/old", f"{name}:/new"]
    told = interrupted(tools, words, "CopyObject", 9)
    assert "the same command copies all of it again" in told
    there = tools.bucket.keys()
    assert {f"old/{part}" for part in contents} <= set(there)
    for key in there:
        assert tools.bucket.get(key) == contents[key.partition("/")[2]]
    tools.run(*words)
    assert len(tools.bucket.keys()) == 2 * len(contents)


def test_a_copy_in_parts_leaves_no_upload_behind(tools: Tools) -> None:
    data = os.urandom(3 * PART)
    tools.bucket.put("old", data)
    name = tools.bucket.name
    words = ["cp", f"{name}:/old", f"{name}:/new"]
    interrupted(tools, words, "UploadPartCopy", 1, program=IN_SMALL_PARTS)
    assert tools.bucket.keys() == ["old"]
    assert uploads(tools.bucket) == []
    tools.run(*words)
    assert tools.bucket.get("new") == data


def test_what_is_not_deleted_yet_is_deleted_by_the_same_command(tools: Tools) -> None:
    for prefix in ("a/", "b/", "c/"):
        fill(tools.bucket, prefix, 5)
    words = ["rm", "-r", *(f"{tools.bucket.name}:/{one}" for one in ("a", "b", "c"))]
    told = interrupted(tools, words, "DeleteObjects", 1)
    assert "the same command deletes the rest" in told
    assert re.search("(5|10) objects .* deleted", told)
    left = tools.bucket.keys()
    assert [key for key in left if key < "c"] in ([], [f"b/{n:03}" for n in range(5)])
    assert len([key for key in left if key > "c"]) == 5
    told = tools.run(*words, status=1).output
    assert f"there is nothing at {tools.bucket.name}:/a" in told
    assert tools.bucket.keys() == []


def begun(bucket: Bucket, key: str, *bodies: bytes) -> None:
    where = {"Bucket": bucket.name, "Key": key}
    upload_id = bucket.client.create_multipart_upload(**where)["UploadId"]
    for number, body in enumerate(bodies, 1):
        bucket.client.upload_part(**where, UploadId=upload_id, PartNumber=number, Body=body)


def test_an_upload_that_goes_on_with_a_file_keeps_its_parts(tools: Tools) -> None:
    data = os.urandom(6 * PART)
    file = tools.home / "file"
    file.write_bytes(data)
    begun(tools.bucket, "k", data[:PART])
    words = ["uploads", "resume", f"{tools.bucket.name}:/k", str(file), "--transfers", "1"]
    told = interrupted(tools, words, "UploadPart", 2)
    assert "the upload keeps the parts that it has; the same command goes on with it" in told
    (upload,) = uploads(tools.bucket)
    where = {"Bucket": tools.bucket.name, "Key": "k", "UploadId": upload["UploadId"]}
    parts = len(tools.bucket.client.list_parts(**where)["Parts"])
    assert 3 <= parts < 6
    told = tools.run(*words).output
    assert f"{parts * 5}.0 MiB were there" in told
    assert tools.bucket.get("k") == data
    assert uploads(tools.bucket) == []


def test_uploads_that_are_not_aborted_yet_are_aborted_by_the_same_command(tools: Tools) -> None:
    for number in range(60):  # more than are aborted at a time
        begun(tools.bucket, f"k{number}")
    words = ["uploads", "abort", tools.bucket.name, "--yes"]
    told = interrupted(tools, words, "AbortMultipartUpload", 5)
    assert "what is aborted is gone; the same command goes on with the rest" in told
    assert 0 < len(uploads(tools.bucket)) <= 55
    tools.run(*words)
    assert uploads(tools.bucket) == []


def test_of_a_stream_nothing_is_stored(tools: Tools) -> None:
    words = ["feed", "-", f"{tools.bucket.name}:/k"]
    told = interrupted(tools, words, "UploadPart", 1, given=bytes(20 * MIB))
    assert "nothing was stored" in told
    assert tools.bucket.keys() == []
    assert uploads(tools.bucket) == []


async def test_the_end_of_a_stream_is_not_believed_before_an_interrupt_would_have_come(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Ctrl-C goes to the whole pipeline: its producer's end may be seen first."""
    with trio.move_on_after(0.05) as interrupt:
        await Stream(0, None, None, None).check(5)
    assert interrupt.cancelled_caught


def test_a_listing_ends_at_once(tools: Tools) -> None:
    fill(tools.bucket, "d/", 3)
    told = interrupted(tools, ["ls", "-lR", tools.bucket.name], "HeadObject", 1)
    assert "ls changes nothing: start it again" in told
    told = interrupted(tools, ["ls", "-R", tools.bucket.name], "ListObjectsV2", 1)
    assert "ls changes nothing: start it again" in told


def test_at_a_question_nothing_is_done(moto_bucket: Bucket, tmp_path: Path) -> None:
    moto_bucket.put("a", b"1")
    with subprocess.Popen(
        [sys.executable, "-m", "s3mount", "rm", "-r", moto_bucket.name],
        env=environment(moto_bucket, tmp_path),
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stderr is not None
        asked = ""
        while "[y/N]" not in asked:
            said = process.stderr.read(1)
            assert said, f"it ended with {process.wait()}: {asked}"
            asked += said
        # Nobody is so quick that it comes between the question and the wait for its answer.
        wait_until(lambda: reads_stdin(process.pid))
        process.send_signal(signal.SIGINT)
        told = process.stderr.read()
    assert process.returncode == 130, told
    assert "s3mount: interrupted; " in told
    assert moto_bucket.keys() == ["a"]


def test_a_command_under_nohup_goes_on_when_its_terminal_is_closed(
    moto_bucket: Bucket, tmp_path: Path
) -> None:
    moto_bucket.put("a", b"data")
    halfway = Halfway(0)
    with CountingProxy(moto_bucket.server.url) as proxy:
        proxy.inject("CopyObject", halfway.fault, times=1000)
        words = ["cp", f"{moto_bucket.name}:/a", f"{moto_bucket.name}:/b"]
        with subprocess.Popen(
            ["nohup", sys.executable, "-m", "s3mount", *words, "--endpoint-url", proxy.url],
            env=environment(moto_bucket, tmp_path),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        ) as process:
            assert halfway.reached.wait(WAIT_SECONDS)
            process.send_signal(signal.SIGHUP)
            halfway.go.set()
            _, told = process.communicate(timeout=WAIT_SECONDS)
    assert process.returncode == 0, told
    assert moto_bucket.get("b") == b"data"
