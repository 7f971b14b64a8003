"""`s3mount uploads` on both services, as a user meets it."""

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio

from s3mount.cli.settings import shared_directory
from s3mount.core.config import MIB
from s3mount.store.base import WriteHeaders
from s3mount.transfer.feed.books import open_books
from s3mount.writeback.journal_records import UploadRecord
from tests.cli.tools import WAIT_SECONDS, Halfway, Tools
from tests.counting_proxy import CountingProxy
from tests.mounting import environment, wait_until
from tests.servers import Bucket

PART = 5 * MIB


@pytest.fixture
def tools(bucket: Bucket, tmp_path: Path) -> Tools:
    return Tools(bucket, tmp_path)


def begin(bucket: Bucket, key: str, *bodies: bytes) -> str:
    """Another tool has begun one and sent these parts."""
    client, where = bucket.client, {"Bucket": bucket.name, "Key": key}
    upload_id = client.create_multipart_upload(**where, Metadata={"theirs": "1"})["UploadId"]
    for number, body in enumerate(bodies, 1):
        client.upload_part(**where, UploadId=upload_id, PartNumber=number, Body=body)
    return str(upload_id)


def listed(tools: Tools, path: str = "") -> list[dict[str, Any]]:
    where = tools.bucket.name + path
    return [json.loads(line) for line in tools.lines("uploads", "list", where, "--json")]


def test_uploads_are_listed_with_their_parts_and_bytes(tools: Tools) -> None:
    ids = {key: begin(tools.bucket, key, b"12", b"345") for key in ("v", "v/a", "v-b")}
    found = listed(tools)
    assert {each["key"]: each["upload_id"] for each in found} == ids
    assert {(each["parts"], each["bytes"]) for each in found} == {(2, 5)}
    assert all(each["initiator"] for each in found)
    assert {each["needed_by"] for each in found} == {None}
    assert [each["key"] for each in listed(tools, ":/v")] == ["v", "v/a"]
    table = tools.run("uploads", "list", tools.bucket.name)
    assert "3 uploads, 15 B in parts" in table.stderr
    assert {line.split()[-2] for line in table.stdout.splitlines()} == {"v", "v-b", "v/a"}
    shown = tools.lines("uploads", "show", f"{tools.bucket.name}:/v-b")
    assert [line.split()[:2] for line in shown[1:]] == [["1", "2"], ["2", "3"]]
    begun = [each["initiated"] for each in found]
    assert begun == sorted(begun)


def test_uploads_are_aborted_by_key_and_by_id_when_that_is_confirmed(tools: Tools) -> None:
    name = tools.bucket.name
    first = begin(tools.bucket, "a/b", b"1")
    second = begin(tools.bucket, "a/b", b"1")
    other = begin(tools.bucket, "c")
    refused = tools.run("uploads", "abort", f"{name}:/a", answer="n\n", status=1)
    assert "nothing was aborted" in refused.output
    assert len(listed(tools)) == 3
    unknown = tools.run("uploads", "abort", name, "unknown", "-y", status=1)
    assert "no upload unknown" in unknown.output
    seen = tools.run("uploads", "abort", name, "--dry-run")
    assert "3 uploads (2 B) would be aborted" in seen.output
    tools.run("uploads", "abort", f"{name}:/a", first, answer="y\n")
    assert {each["upload_id"] for each in listed(tools)} == {second, other}
    done = json.loads(tools.run("uploads", "abort", f"{name}:/a", "-y", "--json").stdout)
    assert (done["aborted"], done["failed"]) == (1, 0)
    assert [each["upload_id"] for each in listed(tools)] == [other]


def test_only_uploads_older_than_that_are_aborted(ceph_bucket: Bucket, tmp_path: Path) -> None:
    """(moto's are all of 2010.)"""
    tools = Tools(ceph_bucket, tmp_path)
    begin(ceph_bucket, "a")
    told = tools.run("uploads", "abort", ceph_bucket.name, "--older-than", "2d", "--yes")
    assert "0 uploads" in told.output
    assert len(listed(tools)) == 1
    wait_until(lambda: tools.run(
        "uploads", "abort", ceph_bucket.name, "--older-than", "1s", "--yes"
    ) and not listed(tools))  # fmt: skip
    wrong = tools.run("uploads", "abort", ceph_bucket.name, "--older-than", "2 weeks", status=2)
    assert "2d" in wrong.output or "90s" in wrong.output


def test_an_upload_goes_on_with_a_file_and_only_parts_that_differ_are_sent(tools: Tools) -> None:
    data = os.urandom(2 * PART + 1000)
    file = tools.home / "file"
    file.write_bytes(data)
    wrong = b"x" * PART
    upload_id = begin(tools.bucket, "v/a", data[:PART], wrong)
    where = f"{tools.bucket.name}:/v/a"
    told = tools.run("uploads", "resume", where, file, "--json")
    assert json.loads(told.stdout) == {"key": "v/a", "kept": PART, "sent": PART + 1000}
    assert tools.bucket.get("v/a") == data
    head = tools.bucket.client.head_object(Bucket=tools.bucket.name, Key="v/a")
    assert head["Metadata"] == {"theirs": "1"}
    assert upload_id not in {each["upload_id"] for each in listed(tools)}
    again = tools.run("uploads", "resume", where, file, status=1)
    assert "there is no unfinished upload at" in again.output
    missing = tools.run("uploads", "resume", tools.bucket.name, file, status=2)
    assert "name the key" in missing.output


def parts_sent(proxy: CountingProxy) -> Counter[str]:
    """Of the file, not of the probing."""
    return Counter(
        seen.target
        for seen in list(proxy.requests)
        if seen.operation == "UploadPart" and seen.key == "k"
    )


def test_a_resume_killed_at_60_percent_and_started_again_sends_only_what_was_in_flight_twice(
    bucket: Bucket, tmp_path: Path
) -> None:
    count, at_once = 12, 2
    file = tmp_path / "file"
    file.write_bytes(os.urandom(count * PART))
    begin(bucket, "k", file.read_bytes()[:PART])
    words = ["uploads", "resume", f"{bucket.name}:/k", str(file)]
    halfway = Halfway(count * 6 // 10, holding=at_once, lost=True)
    with CountingProxy(bucket.server.url) as proxy:
        proxy.inject("UploadPart", halfway.fault, times=1000)
        options = ["--endpoint-url", proxy.url, "--transfers", str(at_once)]
        process = subprocess.Popen(
            [sys.executable, "-m", "s3mount", *words, *options],
            env=environment(bucket, tmp_path),
            stderr=subprocess.DEVNULL,
        )
        assert halfway.reached.wait(WAIT_SECONDS)
        process.send_signal(signal.SIGKILL)
        process.wait()
        halfway.go.set()
        proxy.clear()
        before = parts_sent(proxy)
        Tools(bucket, tmp_path).run(*words, *options)
        sent = parts_sent(proxy)
    assert len(before) == count * 6 // 10 + at_once
    assert len(sent) == count - 1  # the first one was there
    twice = [query for query, times in sent.items() if times > 1]
    assert len(twice) == at_once, sent
    assert bucket.get("k") == file.read_bytes()
    assert listed(Tools(bucket, tmp_path)) == []


def test_nothing_was_left_is_said(tools: Tools) -> None:
    told = tools.run("uploads", "resume", tools.bucket.name)
    assert "has left anything unfinished" in told.output


@pytest.mark.parametrize("words", [["list"], ["show"], ["abort", "-y"], ["resume"]])
def test_a_bucket_that_is_not_there_is_said_with_a_remedy(
    moto_bucket: Bucket, tmp_path: Path, words: list[str]
) -> None:
    failed = Tools(moto_bucket, tmp_path).run("uploads", *words, "no-such-bucket", status=2)
    assert "'no-such-bucket' does not exist" in failed.output


def test_a_typo_is_answered_with_the_nearest_word(moto_bucket: Bucket, tmp_path: Path) -> None:
    failed = Tools(moto_bucket, tmp_path).run("uploads", "lst", moto_bucket.name, status=2)
    assert "'list'" in failed.output


async def test_an_upload_that_an_interrupted_feed_needs_is_left_alone(
    moto_bucket: Bucket, tmp_path: Path
) -> None:
    tools = Tools(moto_bucket, tmp_path)
    upload_id = begin(moto_bucket, "k", b"1")
    shared = shared_directory(tmp_path / "cache/s3mount", moto_bucket.server.url, moto_bucket.name)
    async with open_books(shared, moto_bucket.name, "", "/some/where") as books:
        record = UploadRecord(1, None, "k", WriteHeaders(), upload_id, 0.0)
        books.journal.begin_upload(record)
        found = await trio.to_thread.run_sync(listed, tools)
        assert (found[0]["needed_by"], found[0]["alive"]) == ("the feed of /some/where", True)
    abort = partial(tools.run, "uploads", "abort", moto_bucket.name, "-y", status=1)
    spared = await trio.to_thread.run_sync(abort)
    assert "the feed of /some/where, dead" in spared.output
    resume = partial(tools.run, "uploads", "resume", moto_bucket.name, status=3)
    told = await trio.to_thread.run_sync(resume)
    assert "the same s3mount feed goes on" in told.output
    assert len(await trio.to_thread.run_sync(listed, tools)) == 1
