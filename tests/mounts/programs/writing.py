"""Ways to write into a file."""

import mmap
import subprocess
import sys
from typing import Any

from tests.mounting import END_SECONDS
from tests.mounts.programs.job import Job, program, run, shell, wait_until
from tests.mounts.trees import MIB, data, digest


def _parts(client: Any, bucket: str, key: str) -> list[Any]:
    """Parts on the server of the key's uploads that are not completed."""
    uploads = client.list_multipart_uploads(Bucket=bucket, Prefix=key).get("Uploads", [])
    return [
        part
        for upload in uploads
        for part in client.list_parts(
            Bucket=bucket, Key=upload["Key"], UploadId=upload["UploadId"]
        ).get("Parts", [])
    ]


@program
def header_rewritten(job: Job) -> None:
    """header rewritten after 64 MB"""
    content = data("stream", 64 * MIB)
    header = data("header", 100)
    client, name = job.mount.bucket.client, job.mount.bucket.name
    with (job.place / "video").open("wb", buffering=0) as file:
        for offset in range(0, len(content), MIB):
            file.write(content[offset : offset + MIB])
        assert wait_until(lambda: _parts(client, name, "work/video")), (
            "no part came before the last write"
        )
        assert job.mount.bucket.keys().count("work/video") == 0
        file.seek(0)
        file.write(header)
    expected = digest(header + content[100:])
    assert digest(job.mount.bucket.get("work/video")) == expected
    assert digest((job.place / "video").read_bytes()) == expected


@program
def memory_maps(job: Job) -> None:
    """mmap"""
    path = job.place / "map"
    content = bytearray(data("map", MIB))
    path.write_bytes(content)
    with path.open("rb") as file:
        private = mmap.mmap(file.fileno(), 0, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ)
        assert private[:] == content
        private.close()
    with path.open("r+b") as file:
        private = mmap.mmap(file.fileno(), 0, flags=mmap.MAP_PRIVATE)
        private[0:4] = b"mine"
        shared = mmap.mmap(file.fileno(), 0)
        shared[4096:4100] = b"sync"
        shared.flush()
    shared[500_000:500_005] = b"later"  # after close
    content[4096:4100] = b"sync"
    content[500_000:500_005] = b"later"
    assert path.read_bytes() == content
    shared.close()
    private.close()
    assert wait_until(lambda: job.mount.bucket.get("work/map") == content)


APPENDER = """
import os, sys
out = os.open(sys.argv[1], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
for number in range(500):
    os.write(out, f"{sys.argv[2]} {number:04} {'x' * 90}\\n".encode())
os.close(out)
"""


@program
def two_appenders(job: Job) -> None:
    """O_APPEND, two processes"""
    path = job.place / "log"
    both = [
        subprocess.Popen([sys.executable, "-c", APPENDER, path, name]) for name in ("one", "two")
    ]
    assert [process.wait(timeout=END_SECONDS) for process in both] == [0, 0]
    lines = path.read_text().splitlines()
    assert len(lines) == 1000
    for name in ("one", "two"):
        mine = [line for line in lines if line.startswith(name)]
        assert mine == [f"{name} {number:04} {'x' * 90}" for number in range(500)]


@program
def log_loop(job: Job) -> None:
    """1,000 lines by >>"""
    shell('for i in $(seq 1000); do echo "line $i" >> log; done', job.place)
    assert (job.place / "log").read_text().splitlines() == [f"line {n}" for n in range(1, 1001)]
    # Each close is durable, so each line is a PUT, and nothing else is asked.
    counts = job.mount.requests()
    assert counts["PutObject"] <= 1010
    assert counts["HeadObject"] + counts["GetObject"] <= 20


@program
def dd_synchronous(job: Job) -> None:
    """dd conv=fsync"""
    content = data("dd", 20 * MIB + 5)
    (job.scratch / "source").write_bytes(content)
    run("dd", f"if={job.scratch}/source", f"of={job.place}/file", "bs=1M", "conv=fsync")
    assert digest(job.mount.bucket.get("work/file")) == digest(content)
    run(
        *("dd", f"if={job.scratch}/source", f"of={job.place}/file", "bs=1000", "count=5"),
        *("skip=1", "seek=7000", "conv=fsync,notrunc"),
    )
    expected = content[:7_000_000] + content[1000:6000] + content[7_005_000:]
    assert digest(job.mount.bucket.get("work/file")) == digest(expected)
    assert digest((job.place / "file").read_bytes()) == digest(expected)


@program
def truncate(job: Job) -> None:
    """truncate"""
    path = job.place / "file"
    content = data("truncate", 10 * MIB)
    path.write_bytes(content)
    run("truncate", "-s", "6000001", path)
    assert digest(path.read_bytes()) == digest(content[:6_000_001])
    run("truncate", "-s", "12M", path)
    assert digest(path.read_bytes()) == digest(content[:6_000_001] + bytes(12 * MIB - 6_000_001))
    run("truncate", "-s", "3", path)
    run("truncate", "-s", "+5", path)
    assert path.read_bytes() == content[:3] + bytes(5)
    run("truncate", "-s", "100", job.place / "new")
    assert (job.place / "new").read_bytes() == bytes(100)
    with path.open("r+b") as file:
        file.truncate(2)
        file.seek(6)
        file.write(b"end")
    assert path.read_bytes() == content[:2] + bytes(4) + b"end"
