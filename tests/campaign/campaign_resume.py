"""A large file closed in write-back mode, the mount killed at 60 % of its upload, then resumed."""

import argparse
import hashlib
import random
import threading
from pathlib import Path

from tests.campaign.registry import Report, campaign, chosen_server
from tests.counting_proxy import CountingProxy, Fault, Reply, Seen
from tests.mounting import Mount, wait_until
from tests.servers import Bucket

MIB = 1 << 20
PART = 5 * MIB
KILL_AT = 0.6
TRANSFERS = 4
HELD_SECONDS = 600.0


class PartCounter:
    """UploadPart requests that came and those that were answered; after `most` of them the
    service holds its answers back, until `release`."""

    def __init__(self, proxy: CountingProxy, most: int) -> None:
        self.came: list[str] = []
        self.answered: list[str] = []
        self._most = most
        self._released = threading.Event()
        self._lock = threading.Lock()
        proxy.inject("UploadPart", Fault(self._before, self._after), times=100_000)

    def _before(self, seen: Seen) -> Reply | None:
        with self._lock:
            self.came.append(seen.target)
            held = len(self.came) > self._most
        if held:
            self._released.wait(HELD_SECONDS)
        return None

    def _after(self, seen: Seen, reply: Reply) -> Reply:
        with self._lock:
            self.answered.append(seen.target)
        return reply

    def release(self) -> None:
        self._released.set()


def run_resume(bucket: Bucket, directory: Path, size: int, seed: int) -> Report:
    report = Report()
    chance = random.Random(seed)
    parts = -(-size // PART)
    digest = hashlib.sha256()
    with CountingProxy(bucket.server.url) as proxy:
        options = ("--durability=journal", "--part-size=5M", f"--transfers={TRANSFERS}")
        mount = Mount(bucket, directory, options, url=proxy.url, cache=directory / "cache")
        try:
            mount.start()
            counter = PartCounter(proxy, int(KILL_AT * parts))
            with (mount.path / "large").open("wb", buffering=0) as out:
                for begin in range(0, size, MIB):
                    piece = chance.randbytes(min(MIB, size - begin))
                    digest.update(piece)
                    out.write(piece)
            wait_until(lambda: len(counter.came) == int(KILL_AT * parts) + TRANSFERS, HELD_SECONDS)
            mount.kill()
            proxy.cut()
            counter.release()
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
        "answered at the kill": answered,
        "in flight at the kill": came - answered,
        "sent after it": again,
    }
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
        return run_resume(server.create_bucket(), arguments.directory, size, arguments.seed)


@resume.options
def _options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--mib", type=int, default=1024, help="size of the file")
