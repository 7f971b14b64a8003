"""`s3mount feed` as a user calls it, on moto and on Ceph."""

import itertools
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from s3mount.cli.main import main
from tests.cli.tools import WAIT_SECONDS, Halfway
from tests.counting_proxy import (
    CountingProxy,
    Fault,
    Seen,
    answer,
    lost_answer,
    reset,
    slow_down,
)
from tests.mounting import wait_until
from tests.servers import Bucket

MIB = 1 << 20


class Feed:
    """The command on one bucket. `url`: the service, or a proxy before it."""

    def __init__(self, bucket: Bucket, directory: Path, url: str | None = None) -> None:
        server = bucket.server
        self.bucket = bucket
        self.source = directory / "source"
        self.source.mkdir()
        self.environment = {
            **{name: os.environ[name] for name in ("PATH", "PYTHONPATH") if name in os.environ},
            "HOME": str(directory),
            "XDG_CACHE_HOME": str(directory / "cache"),
            "AWS_ENDPOINT_URL": url or server.url,
            "AWS_ACCESS_KEY_ID": server.access_key,
            "AWS_SECRET_ACCESS_KEY": server.secret_key,
            "AWS_REGION": "us-east-1",
        }

    def start(self, *words: str, **options: Any) -> "subprocess.Popen[bytes]":
        return subprocess.Popen(
            [sys.executable, "-m", "s3mount", "feed", *words],
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            **options,
        )

    def run(self, *words: str, status: int = 0, given: bytes | None = None) -> tuple[str, str]:
        """What it says on standard output and on standard error."""
        if given is None:  # a process of its own takes a second to start
            result = CliRunner().invoke(main, ["feed", *words], env=self.environment)
            assert result.exception is None or isinstance(result.exception, SystemExit)
            code, out, err = result.exit_code, result.stdout, result.stderr
        else:
            process = self.start(*words, stdin=subprocess.PIPE)
            code, out, err = self.ended(process, given)
        assert code == status, err
        assert "Traceback" not in err
        return out, err

    def ended(
        self, process: "subprocess.Popen[bytes]", given: bytes | None = None
    ) -> tuple[int, str, str]:
        out, err = process.communicate(given, timeout=100)
        return process.returncode, out.decode(), err.decode()

    def keys(self) -> list[str]:
        listed = self.bucket.client.list_objects_v2(Bucket=self.bucket.name)
        return [one["Key"] for one in listed.get("Contents", ())]

    def body(self, key: str) -> bytes:
        body: bytes = self.bucket.client.get_object(Bucket=self.bucket.name, Key=key)["Body"].read()
        return body

    def uploads(self) -> list[Any]:
        found = self.bucket.client.list_multipart_uploads(Bucket=self.bucket.name)
        return list(found.get("Uploads", ()))


@pytest.fixture
def here(bucket: Bucket, tmp_path: Path) -> Feed:
    return Feed(bucket, tmp_path)


def test_a_folder_is_fed_changed_and_fed_again(here: Feed) -> None:
    for path in ("a.txt", "sub/ü b", "sub/deep/c"):
        (here.source / path).parent.mkdir(parents=True, exist_ok=True)
        (here.source / path).write_text(path)
    (here.source / "link").symlink_to("a.txt")
    big = os.urandom(17 * MIB)
    (here.source / "big").write_bytes(big)
    target = f"s3://{here.bucket.name}/root"
    _, err = here.run(str(here.source), target)
    assert "5 files sent (17.0 MiB), 3 directories made" in err
    expected = ["root/", "root/a.txt", "root/big", "root/link", "root/sub/", "root/sub/deep/"]
    expected += ["root/sub/deep/c", "root/sub/ü b"]
    assert here.keys() == expected
    assert here.body("root/big") == big
    assert here.body("root/link") == b"a.txt"

    summary = json.loads(here.run(str(here.source), target, "--json")[0])
    assert (summary["sent"], summary["unchanged"], summary["failed"]) == (0, 8, 0)
    assert summary["requests"].keys() <= {"ListObjectsV2", "BytesIn"}

    (here.source / "a.txt").chmod(0o600)
    (here.source / "sub/deep/c").unlink()
    (here.source / "new").write_text("new")
    out, _ = here.run(str(here.source), target, "--delete", "-v", "--exclude", "ü*")
    assert sorted(out.splitlines()) == [
        "attributes .",
        "attributes a.txt",
        "attributes sub/deep",
        "delete root/sub/deep/c",
        "send new",
    ]
    head = here.bucket.client.head_object(Bucket=here.bucket.name, Key="root/a.txt")
    assert head["Metadata"]["mode"] == str(0o100600)
    assert json.loads(here.run(str(here.source), target, "--json")[0])["unchanged"] == 8


def test_one_file_becomes_the_key_or_one_in_a_directory(
    moto_bucket: Bucket, tmp_path: Path
) -> None:
    here = Feed(moto_bucket, tmp_path)
    path = here.source / "page.html"
    path.write_text("page")
    here.run(str(path), f"{here.bucket.name}:/whole/name.htm")
    here.run(str(path), f"{here.bucket.name}:/in/")
    here.run(str(path), here.bucket.name)
    assert here.keys() == ["in/page.html", "page.html", "whole/name.htm"]
    out, _ = here.run(str(path), here.bucket.name, "--json")
    assert json.loads(out)["unchanged"] == 1


def test_one_file_costs_one_list_and_what_sends_it(moto_bucket: Bucket, tmp_path: Path) -> None:
    with CountingProxy(moto_bucket.server.url) as proxy:
        feed = Feed(moto_bucket, tmp_path, url=proxy.url)
        file = feed.source / "file"
        file.write_bytes(b"x")
        feed.run(str(file), f"{moto_bucket.name}:/probed")
        proxy.reset()
        feed.run(str(file), f"{moto_bucket.name}:/d/key")
        assert proxy.counts == {"ListObjectsV2": 1, "PutObject": 1}
        # What begins with its key is neither it nor in its way.
        moto_bucket.put("d/key2", b"other")
        proxy.reset()
        assert "1 name unchanged" in feed.run(str(file), f"{moto_bucket.name}:/d/key")[1]
        assert proxy.counts == {"ListObjectsV2": 1}
        file.write_bytes(b"more")
        feed.run(str(file), f"{moto_bucket.name}:/d/key")
        assert feed.body("d/key") == b"more"
        moto_bucket.put("d/key/below", b"a directory now")
        file.write_bytes(b"once more")
        assert "directory" in feed.run(str(file), f"{moto_bucket.name}:/d/key", status=1)[1]
        assert feed.body("d/key") == b"more"
        # Also where more names than a page has come before the directory's.
        for number in range(1000):
            moto_bucket.put(f"d/key-{number}", b"")
        assert "directory" in feed.run(str(file), f"{moto_bucket.name}:/d/key", status=1)[1]
        assert feed.body("d/key") == b"more"


@pytest.mark.parametrize("size", [5, 21 * MIB])
def test_a_stream_becomes_one_object(here: Feed, size: int) -> None:
    data = os.urandom(size)
    here.run("-", f"{here.bucket.name}:/a/stream", "--size", str(size), given=data)
    assert here.body("a/stream") == data
    assert here.keys() == ["a/stream"]
    assert here.uploads() == []


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["--size", "30M"], "20971520 bytes came, not 31457280"),
        (["--min-size", "21M"], "fewer than"),
        (["--producer", "head -c 20000000 /dev/zero; exit 7"], "failed with status 7"),
        (["--producer", "false | head -c 20000000 /dev/zero"], "failed with status 1"),
    ],
)
def test_a_stream_that_is_not_as_wanted_leaves_nothing(
    words: list[str], reason: str, moto_bucket: Bucket, tmp_path: Path
) -> None:
    here = Feed(moto_bucket, tmp_path)
    _, err = here.run("-", f"{here.bucket.name}:/s", *words, given=bytes(20 * MIB), status=1)
    assert reason in err
    assert here.keys() == []
    assert here.uploads() == []


def test_the_producer_s_output_is_stored_if_it_succeeds(
    moto_bucket: Bucket, tmp_path: Path
) -> None:
    here = Feed(moto_bucket, tmp_path)
    here.run("-", f"{here.bucket.name}:/s", "--producer", "seq 3 | tac")
    assert here.body("s") == b"3\n2\n1\n"


def test_an_interrupted_stream_is_aborted(moto_bucket: Bucket, tmp_path: Path) -> None:
    here = Feed(moto_bucket, tmp_path)
    process = here.start("-", f"{here.bucket.name}:/s", stdin=subprocess.PIPE)
    assert process.stdin is not None
    process.stdin.write(bytes(20 * MIB))
    process.stdin.flush()
    wait_until(lambda: bool(here.uploads()))
    process.send_signal(signal.SIGTERM)
    code, _, err = here.ended(process)
    assert code == 130
    assert "nothing was stored" in err
    assert "Traceback" not in err
    assert here.keys() == []
    assert here.uploads() == []


@pytest.fixture
def proxy(bucket: Bucket) -> Iterator[CountingProxy]:
    with CountingProxy(bucket.server.url) as found:
        yield found


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_killed_at_60_percent_only_the_parts_in_flight_travel_twice(
    bucket: Bucket, proxy: CountingProxy, tmp_path: Path, number: signal.Signals
) -> None:
    here = Feed(bucket, tmp_path, proxy.url)
    parts, transfers = 10, 2
    data = os.urandom(parts * 5 * MIB)
    (here.source / "big").write_bytes(data)
    words = [str(here.source), here.bucket.name, "--part-size", "5M"]
    words += ["--transfers", str(transfers)]
    (tmp_path / "probe").write_bytes(bytes(9 * MIB))
    here.run(str(tmp_path / "probe"), f"{here.bucket.name}:/probe")

    proxy.reset()
    halfway = Halfway(parts * 6 // 10, holding=transfers, lost=True)
    proxy.inject("UploadPart", halfway.fault, times=1000)
    process = here.start(*words, bufsize=0)
    assert halfway.reached.wait(WAIT_SECONDS)
    process.send_signal(number)
    if number is signal.SIGTERM:
        # Until it has heard that, the end of one request may let it begin the next.
        assert process.stderr is not None
        assert b"what is on its way is finished first" in process.stderr.readline()
    halfway.go.set()
    code, _, err = here.ended(process)
    if number is signal.SIGKILL:
        assert code == -number
    else:
        assert code == 130
        assert "the same command goes on where it was" in err
        assert "Traceback" not in err
    sent = proxy.counts["UploadPart"]
    assert sent == parts * 6 // 10 + transfers

    proxy.clear()
    proxy.reset()
    summary = json.loads(here.run(*words, "--json")[0])
    again = proxy.counts["UploadPart"]
    assert sent + again == parts + transfers
    assert proxy.counts["CreateMultipartUpload"] == 0
    assert proxy.counts["ListParts"] == 1
    assert summary["resumed_bytes"] == (parts - again) * 5 * MIB
    assert here.body("big") == data
    assert here.uploads() == []


def test_requests_that_fail_are_repeated_and_everything_arrives_once(
    bucket: Bucket, proxy: CountingProxy, tmp_path: Path
) -> None:
    here = Feed(bucket, tmp_path, proxy.url)
    content = {f"d{number % 3}/f{number}": os.urandom(number * 100) for number in range(60)}
    content["big"] = os.urandom(12 * MIB)
    for path, data in content.items():
        (here.source / path).parent.mkdir(exist_ok=True)
        (here.source / path).write_bytes(data)
    faults = itertools.cycle([slow_down, reset, lost_answer, answer(500, "InternalError")])
    numbers = itertools.count()

    def weather(seen: Seen) -> Fault | None:
        """An upload whose creation had no answer is aborted an hour later, not at once."""
        if seen.operation == "CreateMultipartUpload":
            return None
        return next(faults) if next(numbers) % 6 == 5 else None

    proxy.weather = weather
    out, _ = here.run(str(here.source), here.bucket.name, "--json")
    summary = json.loads(out)
    assert (summary["sent"], summary["failed"]) == (61, 0)
    assert summary["requests"]["Retries"] > 5
    assert summary["requests"]["SlowDowns"] > 0
    proxy.weather = None
    files = [key for key in sorted(here.keys()) if not key.endswith("/")]
    assert {key: here.body(key) for key in files} == content
    assert here.uploads() == []
    assert json.loads(here.run(str(here.source), here.bucket.name, "--json")[0])["sent"] == 0


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["/nowhere", "bucket"], "No such file or directory"),
        (["-", "bucket"], "a stream needs the whole key"),
        (["-", "bucket:/k", "--delete"], "--delete needs a folder"),
        ([".", "bucket", "--size", "5"], "--size is for a stream"),
        ([".", "bucket", "--exclude", "/"], "matches nothing"),
        ([".", "bucket:/a//b"], "no path can name"),
        ([".", "bucket", "--checksum", "--check-missing"], "not both"),
        ([".", "bucket", "--dept", "1"], "--depth"),
        ([".", "bucket:photos"], "bucket:/photos"),
        (["bucket:/photos", "."], "s3mount feed . bucket:/photos"),
    ],
)
def test_what_cannot_work_is_told_before_anything_is_done(
    words: list[str], reason: str, moto_bucket: Bucket, tmp_path: Path
) -> None:
    assert reason in Feed(moto_bucket, tmp_path).run(*words, status=2, given=b"")[1]


def test_a_bucket_that_is_not_there_is_told(here: Feed) -> None:
    _, err = here.run(str(here.source), "no-such-bucket-here", status=2)
    assert "does not exist" in err


def test_rules_work_in_the_order_in_which_they_were_given(
    moto_bucket: Bucket, tmp_path: Path
) -> None:
    here = Feed(moto_bucket, tmp_path)
    for name in ("keep.tmp", "a.tmp", "b.txt"):
        (here.source / name).write_text(name)
    order = ["--include", "keep.*", "--exclude=*.tmp", "--include", "*"]
    out, _ = here.run(str(here.source), here.bucket.name, "-n", "-v", *order)
    assert sorted(out.splitlines()) == ["send b.txt", "send keep.tmp"]


def test_what_could_not_be_sent_is_in_the_exit_status(moto_bucket: Bucket, tmp_path: Path) -> None:
    here = Feed(moto_bucket, tmp_path)
    (here.source / "a").write_text("a")
    os.mknod(os.path.join(os.fsencode(here.source), b"\xff"))
    out, err = here.run(str(here.source), here.bucket.name, "--json", status=1)
    assert "--escape-names" in err
    assert re.search("1 name could not be fed", err)
    (failure,) = json.loads(out)["failures"]
    assert "not UTF-8" in failure["reason"]
    assert here.keys() == ["a"]
    out, err = here.run(str(here.source), here.bucket.name, "-q", "--escape-names")
    assert (out, err) == ("", "")
    assert here.keys() == ["%FF", "a"]
