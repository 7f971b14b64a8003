"""Bad weather: one request in ten fails in every way that passes, and the network goes for a while.

No error may reach a program, and everything must be right afterwards. Over the memory store it is
the model test (tests/faults/examples.py); over HTTP `cp -a` and `rsync -a` on a real mount.
"""

import argparse
import collections
import logging
import os
import random
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.campaign.registry import Report, campaign, chosen_server
from tests.counting_proxy import Fault, Seen, answer
from tests.fault_proxy import FaultProxy, Weather, without
from tests.faults.examples import check, drawn
from tests.mounting import Mount
from tests.mounts.trees import MIB, Tree, assert_in_bucket, assert_same, describe
from tests.servers import Bucket

# Seconds of silence that the mount bears: an answer that never comes costs so much.
PATIENCE = 2
# Seconds that credentials last once they are used; ours are read again at most every 10.
ROTATION = 15.0
PROGRAM_SECONDS = 3600


class Expiring:
    """Weather on top of which credentials expire; the file always has the newest."""

    def __init__(self, weather: Weather, path: Path) -> None:
        self.weather = weather
        self.refused = 0
        self.turn = 0
        self._path = path
        self._since: float | None = None  # the first request that was signed with the newest
        self._lock = threading.Lock()  # the proxy asks from many threads
        self._rotate()

    def _rotate(self) -> None:
        self.turn += 1
        self._since = None
        fresh = self._path.with_suffix(".new")
        fresh.write_text(
            f"[default]\naws_access_key_id = KEY{self.turn}\naws_secret_access_key = secret\n"
        )
        fresh.replace(self._path)

    def __call__(self, seen: Seen) -> Fault | None:
        with self._lock:
            now = time.monotonic()
            if self._since is not None and now - self._since > ROTATION:
                self._rotate()
            if f"Credential=KEY{self.turn}/" not in seen.headers.get("authorization", ""):
                self.refused += 1
                return answer(403, "ExpiredToken")
            self._since = self._since or now
        return self.weather(seen)


def _make_tree(root: Path, files: int, seed: int) -> int:
    """Sizes as in a home directory, some in parts; returns the bytes."""
    rng, total = random.Random(seed), 0
    root.mkdir()
    for number in range(files):
        directory = root / f"d{number % 7}" / f"e{number % 3}"
        directory.mkdir(parents=True, exist_ok=True)
        size = rng.choice([0, 17, 900, 4096, 30_000, 200_000])
        if number % 40 == 5:
            size = rng.randrange(9 * MIB, 14 * MIB)
        path = directory / f"file {number}"
        path.write_bytes(rng.randbytes(size))
        path.chmod(rng.choice([0o644, 0o600, 0o755]))
        os.utime(path, ns=(0, rng.randrange(10**18)))
        total += size
        if number % 15 == 3:
            (directory / f"link{number}").symlink_to(f"file {number}")
    return total


def _program(report: Report, what: str, *command: str | Path) -> None:
    done = subprocess.run(
        [*map(str, command)], capture_output=True, text=True, timeout=PROGRAM_SECONDS, check=False
    )
    if done.returncode != 0:
        report.losses.append(f"{what}: exit {done.returncode}: {done.stderr[:500]}")


def _compare(report: Report, what: str, found: Tree, expected: Tree) -> None:
    try:
        assert_same(found, expected, what=what)
    except AssertionError as error:
        report.losses.append(str(error)[:500])


def run_weather(bucket: Bucket, directory: Path, *, rate: float, seed: int, files: int) -> Report:
    """cp -a, rsync -a, a directory's rename, rm -r, while the weather is bad."""
    report = Report()
    directory.mkdir(parents=True, exist_ok=True)
    source = directory / "source"
    size = _make_tree(source, files, seed)
    tree = describe(source, directory_times=False)
    with FaultProxy(bucket.server.url) as proxy:
        mount = Mount(
            bucket,
            directory,
            ("--part-size=5M", "-o", f"readwrite_timeout={PATIENCE}"),
            url=proxy.url,
            cache=directory / "cache",
        )
        kinds, tries = without("403 ExpiredToken"), bucket.config().retries
        weather = Weather(rate, seed, kinds, patience=PATIENCE, in_a_row=tries)
        if bucket.server.name == "moto":  # which checks no signatures
            credentials = directory / "credentials"
            for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
                mount.environment.pop(name)
            mount.environment["AWS_SHARED_CREDENTIALS_FILE"] = str(credentials)
            expiring = Expiring(weather, credentials)
            proxy.weather = expiring
        else:
            expiring = None
            proxy.weather = weather
        try:
            mount.start()
            programs: dict[str, tuple[str | Path, ...]] = {
                "cp": ("cp", "-a", source, mount.path / "cp"),
                "rsync": ("rsync", "-a", f"{source}/", f"{mount.path}/rsync/"),
            }
            with ThreadPoolExecutor(len(programs)) as pool:  # they mostly wait
                for _ in pool.map(lambda what: _program(report, what, *programs[what]), programs):
                    pass
            for what in programs:
                _compare(report, what, describe(mount.path / what, directory_times=False), tree)
            (mount.path / "rsync" / "d1").rename(mount.path / "renamed")
            _program(report, "rm", "rm", "-r", mount.path / "rsync")
            whole = describe(mount.path, directory_times=False)
            done = mount.run("umount", mount.path)
            if done.returncode:
                report.losses.append(f"umount: {done.stderr[:500]}")
            lines = mount.text().splitlines()
            report.losses += [f"log: {line}" for line in lines if "Traceback" in line]
        finally:
            mount.destroy()
            proxy.weather = None
    _check_uploads(report, bucket, weather.lost_uploads)
    expected = {f"cp/{name}": entry for name, entry in tree.items()}
    for name, entry in tree.items():
        if name.startswith("d1/"):
            expected["renamed" + name[2:]] = entry
    made = {name: entry for name, entry in whole.items() if name not in {"cp", "renamed"}}
    _compare(report, "all of it", made, expected)
    try:
        assert_in_bucket(bucket, whole)
    except AssertionError as error:
        report.losses.append(f"in the bucket: {str(error)[:500]}")
    report.figures = {
        "bytes copied": 2 * size,
        "requests": weather.requests,
        "failed": sum(weather.suffered.values()),
        **{f"  {name}": count for name, count in weather.suffered.most_common()},
    }
    if expiring is not None:
        report.figures["  403 ExpiredToken"] = expiring.refused
        report.figures["rotations of credentials"] = expiring.turn - 1
    return report


def _check_uploads(report: Report, bucket: Bucket, lost: int) -> None:
    """What may be left of uploads: those, empty, whose creation was never answered. They go."""
    found = bucket.client.list_multipart_uploads(Bucket=bucket.name).get("Uploads", [])
    for upload in found:
        parts = bucket.client.list_parts(
            Bucket=bucket.name, Key=upload["Key"], UploadId=upload["UploadId"]
        ).get("Parts")
        if parts:
            report.losses.append(f"an upload of {upload['Key']!r} with {len(parts)} parts is left")
        bucket.client.abort_multipart_upload(
            Bucket=bucket.name, Key=upload["Key"], UploadId=upload["UploadId"]
        )
    if len(found) > lost:
        report.losses.append(f"{len(found)} uploads are left, {lost} creations were not answered")


def run_outage(bucket: Bucket, directory: Path, *, size: int, seconds: float, seed: int) -> Report:
    """The network goes in the middle of one large write and comes back: the write finishes."""
    report = Report()
    directory.mkdir(parents=True, exist_ok=True)
    chance, step = random.Random(seed), MIB
    pieces = [chance.randbytes(step) for _ in range(16)]
    with FaultProxy(bucket.server.url) as proxy:
        mount = Mount(bucket, directory, url=proxy.url, cache=directory / "cache")
        try:
            mount.start()
            gone, back = threading.Event(), threading.Event()

            def outage() -> None:
                with proxy.outage():
                    gone.set()
                    time.sleep(seconds)
                    back.set()

            begin = time.monotonic()
            with (mount.path / "large").open("wb", buffering=0) as out:
                for index in range(size // step):
                    out.write(pieces[index % 16])
                    if index == size // step // 2:
                        threading.Thread(target=outage, daemon=True).start()
                        gone.wait()
            took = time.monotonic() - begin
            if not back.is_set():
                report.losses.append("close returned while the network was gone")
            mount.unmount()
        except OSError as error:
            report.losses.append(f"the write failed: {error}")
        finally:
            mount.destroy()
    body = bucket.client.get_object(Bucket=bucket.name, Key="large")["Body"]
    index = 0
    while piece := body.read(step):
        if piece != pieces[index % 16]:
            report.losses.append(f"MiB {index} is not what was written")
            break
        index += 1
    if index * step != size:
        report.losses.append(f"{index} MiB are there of {size // MIB}")
    report.figures = {
        "bytes": size,
        "seconds of outage": int(seconds),
        "seconds of the write": int(took),
    }
    return report


def run_memory(*, first: int, seeds: int, rate: float) -> Report:
    """The model test; a seed that fails is a loss."""
    report = Report()
    suffered: collections.Counter[str] = collections.Counter()
    requests = 0
    logging.disable(logging.CRITICAL)
    try:
        for seed in range(first, first + seeds):
            how, operations = drawn(seed, 60)
            try:
                weather = check(how, operations, lambda _: None, rate=rate)
            except Exception as error:
                report.losses.append(f"seed {seed}: {type(error).__name__}: {str(error)[:200]}")
                continue
            suffered.update(weather.suffered)
            requests += weather.requests
    finally:
        logging.disable(logging.NOTSET)
    report.figures = {
        "model runs in memory": seeds,
        "requests in memory": requests,
        "failed in memory": sum(suffered.values()),
    }
    return report


@campaign("faults", "one request in ten fails in every way; 60 s without a network")
def faults(arguments: argparse.Namespace) -> Report:
    whole = run_memory(first=arguments.seed % 100_000, seeds=arguments.runs, rate=arguments.rate)
    with chosen_server(arguments) as server:
        place: Path = arguments.directory
        weather = run_weather(
            server.create_bucket(),
            place / "weather",
            rate=arguments.rate,
            seed=arguments.seed,
            files=arguments.files,
        )
        outage = run_outage(
            server.create_bucket(),
            place / "outage",
            size=arguments.mib * MIB,
            seconds=arguments.outage,
            seed=arguments.seed,
        )
    for part in (weather, outage):
        whole.figures |= part.figures
        whole.losses += part.losses
    return whole


@faults.options
def _options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--rate", type=float, default=0.1, help="share of requests that fail")
    parser.add_argument("--runs", type=int, default=500, help="of the model test in memory")
    parser.add_argument("--files", type=int, default=1000)
    parser.add_argument("--mib", type=int, default=1024, help="written while the network goes")
    parser.add_argument("--outage", type=float, default=60.0, help="seconds without a network")
