"""Write-back on a real mount: close without the network, what it costs, and errors that stay."""

import os
import stat
import threading

from tests.counting_proxy import CountingProxy, Fault, Reply, Seen, error_reply
from tests.mounting import PATIENT, Mount, Mounts, names, wait_until
from tests.servers import Bucket

ONE, TWO = b"one " * 1000, b"two " * 2000


def settled(mounted: Mount) -> None:
    """Until nothing is pending any more."""
    wait_until(lambda: not mounted.status()["pending"]["intents"])


def test_close_needs_no_network_and_fsync_does(moto_bucket: Bucket, mounts: Mounts) -> None:
    with CountingProxy(moto_bucket.server.url) as proxy:
        mounted = mounts.start(moto_bucket, "--durability=journal", url=proxy.url)
        assert names(mounted.path) == []
        proxy.down = True
        proxy.cut()
        (mounted.path / "f").write_bytes(ONE)
        (mounted.path / "f").chmod(0o600)
        assert (mounted.path / "f").read_bytes() == ONE
        assert moto_bucket.keys() == []
        pending = mounted.status()["pending"]
        assert (pending["intents"], pending["files"]) == (1, 1)
        proxy.down = False
        with (mounted.path / "g").open("wb") as file:
            file.write(TWO)
            file.flush()
            os.fsync(file.fileno())
            assert moto_bucket.get("g") == TWO
        mounted.run("retry", mounted.path)
        settled(mounted)
        assert moto_bucket.get("f") == ONE
        head = moto_bucket.client.head_object(Bucket=moto_bucket.name, Key="f")
        assert stat.S_IMODE(int(head["Metadata"]["mode"])) == 0o600
        mounted.unmount()


def test_files_made_as_rsync_makes_them_are_one_put_each(
    moto_bucket: Bucket, mounts: Mounts
) -> None:
    with CountingProxy(moto_bucket.server.url) as proxy:
        # Names, too, are believed for longer than it takes on a loaded machine.
        options = ("--durability=journal", "--metadata-ttl", "300")
        mounted = mounts.start(moto_bucket, *options, url=proxy.url, sabotage=PATIENT)
        (mounted.path / "d").mkdir()
        mounted.flush()
        proxy.counts.clear()
        for number in range(50):
            made = mounted.path / "d" / f".f{number}.tmp"
            made.write_bytes(ONE)
            os.utime(made, ns=(1, 2_000_000_003))
            made.chmod(0o640)
            made.rename(mounted.path / "d" / f"f{number}")
            (mounted.path / "d" / "passing").write_bytes(TWO)
            (mounted.path / "d" / "passing").unlink()
        mounted.flush()
        sent = dict(proxy.counts)
        mounted.unmount()
    assert sent == {"PutObject": 50}
    assert moto_bucket.keys() == ["d/", *sorted(f"d/f{number}" for number in range(50))]
    assert all(moto_bucket.get(f"d/f{number}") == ONE for number in range(50))


def test_what_the_bucket_refuses_stays_until_it_does_not(bucket: Bucket, mounts: Mounts) -> None:
    with CountingProxy(bucket.server.url) as proxy:
        mounted = mounts.start(bucket, "--durability=journal", url=proxy.url)

        full = threading.Event()
        full.set()

        def refused(seen: Seen) -> Reply | None:
            return error_reply(403, "QuotaExceeded") if full.is_set() else None

        proxy.inject("PutObject", Fault(before=refused), times=1000)
        (mounted.path / "f").write_bytes(ONE)
        wait_until(lambda: mounted.status()["pending"]["errors"])
        (error,) = mounted.status()["pending"]["errors"]
        assert "QuotaExceeded" in error
        assert (mounted.path / "f").read_bytes() == ONE
        tried = mounted.run("retry", mounted.path, "f")
        assert tried.stdout.startswith("tried now: put 'f'"), tried
        full.clear()
        mounted.run("retry", mounted.path, "f")  # unless it was sent in this moment
        settled(mounted)
        assert bucket.get("f") == ONE
        mounted.unmount()
