"""The main job: large files through the mount with memory bounded, and long listings.

1 GiB by default; 5 GiB with S3MOUNT_TEST_GIB=5 (Ceph then keeps 10 GiB in memory).
"""

import hashlib
import os
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, quote, urlsplit

import pytest

from tests.mounting import Mounted
from tests.mounts.trees import MIB
from tests.servers import Bucket, CephServer, Server

GIB = 1024 * MIB
SIZE = int(os.environ.get("S3MOUNT_TEST_GIB", "1")) * GIB
WRITE_MEMORY = 400 * 1000 * 1000
LIST_MEMORY = 300 * 1000 * 1000
ENTRIES = 100_000


def stream(size: int) -> Iterator[bytes]:
    """Pieces of 1 MiB, each another one, cheap to make."""
    random = hashlib.shake_128(b"main job").digest(MIB)
    for number in range(size // MIB):
        yield number.to_bytes(8, "little") + random[8:]


@pytest.fixture(scope="module")
def large_ceph(state_dir: Path) -> Iterator[Server]:
    """A cluster of its own, for its memory."""
    with CephServer(state_dir, size_gib=3 * SIZE // GIB + 2) as cluster:
        yield cluster.server


@pytest.mark.long
@pytest.mark.bounded(240 + 240 * (SIZE // GIB))
def test_a_large_file_is_written_and_read_with_bounded_memory(
    large_ceph: Server, mounted: Mounted
) -> None:
    bucket = large_ceph.create_bucket()
    mount = mounted(bucket)
    wanted = hashlib.sha256()
    with (mount.path / "large").open("wb", buffering=0) as file:
        for piece in stream(SIZE):
            wanted.update(piece)
            assert file.write(piece) == MIB
    head = bucket.client.head_object(Bucket=bucket.name, Key="large")
    assert head["ContentLength"] == SIZE
    written = mount.memory_peak()
    mount.remount()
    found = hashlib.sha256()
    with (mount.path / "large").open("rb", buffering=0) as file:
        while piece := file.read(MIB):
            found.update(piece)
    assert found.hexdigest() == wanted.hexdigest()
    read = mount.memory_peak()
    print(f"VmHWM: writing {written // MIB} MiB, reading {read // MIB} MiB")
    mount.stop()
    bucket.remove()
    assert written < WRITE_MEMORY
    assert read < WRITE_MEMORY


class _Listings(BaseHTTPRequestHandler):
    """LIST pages of a bucket with ENTRIES objects in `d/`; nothing else is found."""

    protocol_version = "HTTP/1.1"
    page = 1000

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        if "list-type" not in query:
            self._answer(404, b"<Error><Code>NoSuchKey</Code></Error>")
            return
        prefix = query.get("prefix", "")
        if not "d/".startswith(prefix) or query.get("start-after", "") >= "d0":
            self._list("<IsTruncated>false</IsTruncated>")
            return
        if query.get("delimiter") and prefix != "d/":
            common = "<CommonPrefixes><Prefix>d/</Prefix></CommonPrefixes>"
            self._list(f"<IsTruncated>false</IsTruncated>{common}")
            return
        begin = int(query.get("continuation-token", "0"))
        end = min(begin + min(self.page, int(query.get("max-keys", "1000"))), ENTRIES)
        rows = [
            f"<Contents><Key>d/entry-{number:06}</Key><Size>{5000 + number}</Size>"
            "<LastModified>2024-01-02T03:04:05.000Z</LastModified>"
            f"<ETag>&quot;{number:032x}&quot;</ETag></Contents>"
            for number in range(begin, end)
        ]
        more = "true" if end < ENTRIES else "false"
        body = f"<IsTruncated>{more}</IsTruncated>{''.join(rows)}"
        if end < ENTRIES:
            body += f"<NextContinuationToken>{quote(str(end))}</NextContinuationToken>"
        self._list(body)

    def _list(self, body: str) -> None:
        self._answer(200, f"<ListBucketResult>{body}</ListBucketResult>".encode())

    def do_HEAD(self) -> None:
        self._answer(404, b"")

    def _answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/xml")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: object) -> None:
        return


@pytest.fixture
def listings() -> Iterator[Bucket]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Listings)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield Bucket(
        Server("listings", f"http://127.0.0.1:{server.server_address[1]}", "access", "secret"),
        "bucket",
    )
    server.shutdown()
    server.server_close()


@pytest.mark.long
@pytest.mark.bounded(600)
def test_a_hundred_thousand_entries_are_listed_with_bounded_memory(
    listings: Bucket, mounted: Mounted
) -> None:
    mount = mounted(listings, "--attributes", "listing")
    with os.scandir(mount.path / "d") as found:
        count = 0
        for number, entry in enumerate(found):
            assert entry.name == f"entry-{number:06}"
            assert entry.stat(follow_symlinks=False).st_size == 5000 + number
            count += 1
    assert count == ENTRIES
    memory = mount.memory_peak()
    print(f"VmHWM: {memory // MIB} MiB for {ENTRIES} entries")
    assert memory < LIST_MEMORY
