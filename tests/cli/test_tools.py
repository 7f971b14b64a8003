"""`s3mount ls`, `cp`, `mv` and `rm` on both services, as a user meets them."""

import json
from collections.abc import Iterator
from contextlib import nullcontext
from functools import partial
from pathlib import Path

import pytest

from s3mount.cli import transferring
from s3mount.cli.progress import Bar
from s3mount.core.config import MIB, WritebackConfig
from s3mount.transfer import copying
from tests.cli.tools import Tools
from tests.counting_proxy import CountingProxy, answer
from tests.servers import Bucket, CephServer, Server

MARKER = "application/x-directory"


@pytest.fixture
def tools(bucket: Bucket, tmp_path: Path) -> Tools:
    return Tools(bucket, tmp_path)


@pytest.fixture
def other(bucket: Bucket) -> Iterator[Bucket]:
    made = bucket.server.create_bucket()
    yield made
    made.remove()


def fill_as_s3_apu(bucket: Bucket) -> None:
    """Markers without slash, octal modes."""
    bucket.put("docs", ContentType=MARKER, Metadata={"mode": "040750", "uid": "7", "gid": "8"})
    bucket.put("docs/a", b"hello", Metadata={"mode": "0100640", "mtime": "1500000000"})
    bucket.put("empty", ContentType=MARKER, Metadata={"mode": "040755"})
    bucket.put("link", b"docs/a", Metadata={"mode": "41471"})
    bucket.put("x", b"hidden")
    bucket.put("x-1", b"1")
    bucket.put("x/y//z", b"1")


def test_a_bucket_that_s3_apu_filled_is_listed_as_a_mount_shows_it(tools: Tools) -> None:
    fill_as_s3_apu(tools.bucket)
    name = tools.bucket.name
    shown = tools.run("ls", name)
    assert shown.stdout.splitlines() == ["docs/", "empty/", "link", "x-1", "x/"]
    assert "1 object hidden" in shown.stderr
    assert tools.lines("ls", f"{name}:/docs") == ["a"]
    assert tools.lines("ls", f"{name}:/empty") == []
    assert tools.lines("ls", f"s3://{name}/docs/a") == ["docs/a"]
    found = {line.split()[-1]: line.split() for line in tools.lines("ls", "-lh", name)}
    assert (found["docs/"][0], found["x-1"][3:5]) == ("drwxr-x---", ["1", "B"])
    rows = [json.loads(line) for line in tools.lines("ls", "-lR", "--json", name)]
    by_path = {row["path"]: row for row in rows}
    assert list(by_path) == ["docs", "docs/a", "empty", "link", "x-1", "x", "x/y"]
    assert (by_path["docs"]["type"], by_path["docs"]["mode"]) == ("directory", "0750")
    assert (by_path["docs"]["uid"], by_path["docs"]["gid"]) == (7, 8)
    assert (by_path["docs/a"]["mode"], by_path["docs/a"]["mtime"]) == ("0640", 1_500_000_000)
    assert (by_path["docs/a"]["size"], by_path["docs/a"]["storage_class"]) == (5, "STANDARD")
    assert (by_path["link"]["type"], by_path["link"]["target"]) == ("symlink", "docs/a")
    assert "mtime" not in by_path["x"]
    flat = tools.lines("ls", "--flat", f"{name}:/x")
    assert flat == ["x", "x-1", "x/y//z"]
    assert len(tools.lines("ls", "--limit", "2", name)) == 2


def test_ls_without_a_bucket_lists_the_buckets(tools: Tools, other: Bucket) -> None:
    assert {tools.bucket.name, other.name} <= set(tools.lines("ls"))


def test_objects_are_copied_moved_and_deleted(tools: Tools, other: Bucket) -> None:
    fill_as_s3_apu(tools.bucket)
    here, there = tools.bucket.name, other.name
    tools.run("cp", f"{here}:/docs/a", f"{there}:/new/")
    tools.run("cp", "-r", f"{here}:/docs", f"s3://{there}")
    assert other.keys() == ["docs", "docs/a", "new/a"]
    assert other.get("docs/a") == b"hello"
    head = other.client.head_object(Bucket=there, Key="docs")
    assert (head["ContentType"], head["Metadata"]["mode"]) == (MARKER, "040750")
    summary = json.loads(tools.run("mv", "-r", "--json", f"{there}:/docs", f"{there}:/d").stdout)
    assert summary == {"objects": 2, "bytes": 5, "failed": 0, "dry_run": False}
    assert other.keys() == ["d", "d/a", "new/a"]
    tools.run("mv", f"{there}:/new/a", f"{here}:/back", "-q")
    assert (other.keys(), tools.bucket.get("back")) == (["d", "d/a"], b"hello")
    assert tools.lines("rm", "-r", "--dry-run", f"{there}:/d") == ["d/a", "d"]
    tools.run("rm", "-r", f"{there}:/d")
    assert other.keys() == []
    tools.run("rm", f"{here}:/back", f"{here}:/x/y//z")
    assert tools.bucket.keys() == ["docs", "docs/a", "empty", "link", "x", "x-1"]


def test_wildcards_are_characters_like_others(tools: Tools) -> None:
    for key in ("a", "ab", "a*", "[a]"):
        tools.bucket.put(key, b"1")
    name = tools.bucket.name
    tools.run("rm", f"{name}:/a*", f"{name}:/[a]")
    assert tools.bucket.keys() == ["a", "ab"]
    tools.run("rm", f"{name}:/a?", status=1)
    assert tools.bucket.keys() == ["a", "ab"]


def test_a_whole_bucket_is_deleted_only_when_that_is_confirmed(tools: Tools) -> None:
    tools.bucket.put("a", b"1")
    name = tools.bucket.name
    for said in ("n\n", ""):
        refused = tools.run("rm", "-r", name, answer=said, status=1)
        assert "nothing was deleted" in refused.output
        assert "--yes" in refused.output
    assert tools.bucket.keys() == ["a"]
    asked = tools.run("rm", "-r", name, answer="y\n")
    assert "the whole bucket" in asked.output
    assert "1 object, 1 B" in asked.output
    assert tools.bucket.keys() == []


@pytest.mark.parametrize("arguments", [
    ["ls", "{}:/nothing"], ["rm", "{}:/nothing"], ["cp", "{}:/nothing", "{}:/b"],
])  # fmt: skip
def test_what_is_not_there_is_said_with_a_remedy(tools: Tools, arguments: list[str]) -> None:
    name = tools.bucket.name
    failed = tools.run(*(word.format(name) for word in arguments), status=1)
    assert f"there is nothing at {name}:/nothing" in failed.output
    assert f"s3mount ls {name}" in failed.output


@pytest.mark.parametrize(("arguments", "text"), [
    (["cp", "{}:/d", "{}:/e"], "-r takes it"),
    (["rm", "{}:/d"], "-r deletes it"),
    (["mv", "-r", "{}:/d", "{}:/d/e"], "one inside"),
    (["cp", "{}:/f", "{}:/f"], "same file"),
    (["cp", "{}:/f", "{}:/d"], "{}:/d/ to have the file in it"),
    (["cp", "-r", "{}:/d", "{}:/f"], "is a file"),
    (["cp", "{}:/f", "{}:/f", "{}:/new"], "{}:/new/ to have them in it"),
    (["cp", "/etc/hostname", "{}:/f"], "s3mount feed"),
    (["ls", "http://host/{}"], "write BUCKET"),
    (["cp", "{}:f", "{}:/new"], "write {}:/f"),
])  # fmt: skip
def test_what_makes_no_sense_is_refused_with_a_remedy(
    moto_bucket: Bucket, tmp_path: Path, arguments: list[str], text: str
) -> None:
    moto_bucket.put("d/x", b"1")
    moto_bucket.put("f", b"1")
    name = moto_bucket.name
    refused = Tools(moto_bucket, tmp_path).run(*(w.format(name) for w in arguments), status=2)
    assert text.format(name) in refused.output
    assert moto_bucket.keys() == ["d/x", "f"]


@pytest.mark.parametrize("arguments", [
    ["ls", "no-such-bucket"], ["rm", "-r", "no-such-bucket"],
    ["mv", "no-such-bucket:/a", "no-such-bucket:/b"],
])  # fmt: skip
def test_a_bucket_that_is_not_there_is_said_with_a_remedy(
    tools: Tools, arguments: list[str]
) -> None:
    failed = tools.run(*arguments, status=2)
    assert "'no-such-bucket' does not exist" in failed.output
    assert "--endpoint-url" in failed.output


@pytest.mark.parametrize("arguments", [["ls"], ["ls", "{}"], ["cp", "{}:/a", "{}:/b"]])
def test_wrong_credentials_are_said_with_a_remedy(
    ceph_bucket: Bucket, tmp_path: Path, arguments: list[str]
) -> None:
    server = ceph_bucket.server
    wrong = Bucket(Server("ceph", server.url, server.access_key, "wrong"), ceph_bucket.name)
    words = [word.format(ceph_bucket.name) for word in arguments]
    failed = Tools(wrong, tmp_path).run(*words, status=1 if words == ["ls"] else 2)
    assert "credentials" in failed.output


def test_no_credentials_are_said_with_a_remedy(moto_bucket: Bucket, tmp_path: Path) -> None:
    nobody = Bucket(Server("moto", moto_bucket.server.url, "", ""), moto_bucket.name)
    failed = Tools(nobody, tmp_path).run("ls", moto_bucket.name, status=2)
    assert "AWS_PROFILE" in failed.output


def test_a_stranger_is_refused_with_a_remedy(
    ceph: CephServer, ceph_bucket: Bucket, tmp_path: Path
) -> None:
    stranger = Bucket(ceph.create_user(f"stranger-{tmp_path.name}"), ceph_bucket.name)
    ceph_bucket.put("a", b"1")
    for words in (["ls", ceph_bucket.name], ["rm", f"{ceph_bucket.name}:/a"]):
        failed = Tools(stranger, tmp_path).run(*words, status=2)
        assert "no permission to list the bucket" in failed.output
    assert ceph_bucket.keys() == ["a"]


def tags_of(bucket: Bucket, key: str) -> dict[str, str]:
    answer = bucket.client.get_object_tagging(Bucket=bucket.name, Key=key)
    return {tag["Key"]: tag["Value"] for tag in answer.get("TagSet", ())}


@pytest.mark.parametrize("limit", [5 * MIB, 20 * MIB], ids=["in parts", "whole"])
def test_tags_are_kept_by_copies_and_moves_within_and_between_buckets(
    tools: Tools, other: Bucket, monkeypatch: pytest.MonkeyPatch, limit: int
) -> None:
    config = partial(WritebackConfig, max_copy_size=limit, copy_part_size=5 * MIB)
    monkeypatch.setattr(copying, "WritebackConfig", config)
    here, there = tools.bucket.name, other.name
    tools.bucket.put("d/a", bytes(6 * MIB), Tagging="project=s3%20mount&b=2")
    tools.run("cp", f"{here}:/d/a", f"{here}:/copy")
    tools.run("cp", "-r", f"{here}:/d", f"{there}:/d")
    tools.run("mv", f"{here}:/d/a", f"{here}:/moved")
    for bucket, key in ((tools.bucket, "copy"), (tools.bucket, "moved"), (other, "d/a")):
        assert tags_of(bucket, key) == {"project": "s3 mount", "b": "2"}
        assert len(bucket.get(key)) == 6 * MIB


def test_copies_whose_tags_are_refused_are_made_and_named(
    moto_bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = partial(WritebackConfig, max_copy_size=5 * MIB, copy_part_size=5 * MIB)
    monkeypatch.setattr(copying, "WritebackConfig", config)
    moto_bucket.put("a", bytes(6 * MIB), Tagging="b=2")
    name = moto_bucket.name
    with CountingProxy(moto_bucket.server.url) as proxy:
        proxy.inject("GetObjectTagging", answer(403, "AccessDenied"))
        told = Tools(moto_bucket, tmp_path).run(
            "cp", f"{name}:/a", f"{name}:/b", "--endpoint-url", proxy.url
        )
    assert "1 copy without tags, the first one is b: GetObjectTagging 'a': 403" in told.stderr
    assert len(moto_bucket.get("b")) == 6 * MIB


@pytest.mark.parametrize("command", ["cp", "mv"])
def test_the_bar_of_a_large_object_moves_with_its_parts(
    moto_bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    part, size = 5 * MIB, 12 * MIB
    config = partial(WritebackConfig, max_copy_size=part, copy_part_size=part)
    monkeypatch.setattr(copying, "WritebackConfig", config)
    seen: list[tuple[int, int | None]] = []

    class Watched(Bar):
        def __setattr__(self, name: str, value: object) -> None:
            super().__setattr__(name, value)
            if name == "done_bytes":
                seen.append((self.done_bytes, self.total_bytes))

    monkeypatch.setattr(
        transferring, "progress_bar", lambda title, quiet: nullcontext(Watched(title))
    )
    moto_bucket.put("a", bytes(size))
    name = moto_bucket.name
    Tools(moto_bucket, tmp_path).run(command, f"{name}:/a", f"{name}:/b")
    assert len(moto_bucket.get("b")) == size
    told = [done for done, total in seen if total == size]
    assert len(told) == 3
    assert told[-1] == size


def test_a_bucket_called_like_a_command_can_still_be_listed(
    moto_bucket: Bucket, tmp_path: Path
) -> None:
    client = moto_bucket.client
    client.create_bucket(Bucket="uploads")
    try:
        client.put_object(Bucket="uploads", Key="a", Body=b"1")
        assert Tools(moto_bucket, tmp_path).lines("ls", "uploads") == ["a"]
    finally:
        client.delete_object(Bucket="uploads", Key="a")
        client.delete_bucket(Bucket="uploads")
