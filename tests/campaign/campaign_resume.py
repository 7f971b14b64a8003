"""A large file closed in write-back mode, the mount killed at 60 % of its upload, then resumed."""

import argparse
import hashlib
import random
import threading
import time
from pathlib import Path

from tests.campaign.registry import Report, campaign, chosen_server
from tests.counting_proxy import CountingProxy, Fault, Reply, Seen
from tests.mounting import Mount, wait_until
from tests.servers import Bucket

MIB = 1 << 20
PART = 5 * MIB
KILL_AT = 0.6
TRANSFERS = 4


class PartCounter:
    """UploadPart requests that came and those that were answered; each takes `delay` seconds."""

    def __init__(self, proxy: CountingProxy, delay: float) -> None:
        self.came: list[str] = []
        self.answered: list[str] = []
        self._delay = delay
        self._lock = threading.Lock()
        proxy.inject("UploadPart", Fault(self._before, self._after), times=100_000)

    def _before(self, seen: Seen) -> Reply | None:
        with self._lock:
            self.came.append(seen.target)
        time.sleep(self._delay)
        return None

    def _after(self, seen: Seen, reply: Reply) -> Reply:
        with self._lock:
            self.answered.append(seen.target)
        return reply


def run_resume(bucket: Bucket, directory: Path, size: int, seed: int, delay: float) -> Report:
    report = Report()
    chance = random.Random(seed)
    parts = -(-size // PART)
    digest = hashlib.sha256()
    with CountingProxy(bucket.server.url) as proxy:
        options = ("--durability=journal", "--part-size=5M", f"--transfers={TRANSFERS}")
        mount = Mount(bucket, directory, options, url=proxy.url, cache=directory / "cache")
        try:
            mount.start()
            counter = PartCounter(proxy, delay)
            with (mount.path / "large").open("wb", buffering=0) as out:
                for begin in range(0, size, MIB):
                    piece = chance.randbytes(min(MIB, size - begin))
                    digest.update(piece)
                    out.write(piece)
            at_close = len(counter.answered)
            wait_until(lambda: len(counter.answered) >= KILL_AT * parts, 600)
            mount.kill()
            proxy.cut()
            came, answered = len(counter.came), len(counter.answered)
            proxy.clear()
            proxy.reset()
            mount.destroy()
            mount.start()
            mount.flush()
            counts = dict(proxy.counts)
            mount.unmount()
        finally:
            mount.destroy()
    found = hashlib.sha256()
    body = bucket.client.get_object(Bucket=bucket.name, Key="large")["Body"]
    while piece := body.read(8 * MIB):
        found.update(piece)
    again = counts.get("UploadPart", 0)
    report.figures = {
        "bytes": size,
        "parts": parts,
        "answered when close returned": at_close,
        "answered at the kill": answered,
        "in flight at the kill": came - answered,
        "sent after it": again,
    }
    if at_close >= KILL_AT * parts:
        report.losses.append("close returned only when most was uploaded")
    if found.digest() != digest.digest():
        report.losses.append("the content is not what was written")
    if again > parts - answered:
        report.losses.append(f"{again - (parts - answered)} parts travelled twice for nothing")
    if bucket.client.list_multipart_uploads(Bucket=bucket.name).get("Uploads"):
        report.losses.append("an upload is left")
    return report


@campaign("resume", __doc__)
def resume(arguments: argparse.Namespace) -> Report:
    with chosen_server(arguments) as server:
        size = arguments.mib * MIB
        return run_resume(
            server.create_bucket(), arguments.directory, size, arguments.seed, arguments.delay
        )


@resume.options
def _options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--mib", type=int, default=1024, help="size of the file")
    parser.add_argument("--delay", type=float, default=0.5, help="of each part's answer, seconds")
