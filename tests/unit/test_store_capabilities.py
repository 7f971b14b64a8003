"""Capabilities: probed once, remembered, and never trusted from a damaged file."""

import json
from pathlib import Path

import pytest

from s3mount.core.config import StoreConfig
from s3mount.store import errors
from s3mount.store.base import Capabilities
from s3mount.store.capabilities import CapabilityProbe, Known

FOUND = Known(Capabilities(put_if_absent=True, checks_md5=True), quoted_if_match=False)


class Service:
    def __init__(self, *failures: errors.StoreError) -> None:
        self.failures = list(failures)
        self.prefixes: list[str] = []

    async def probe(self, prefix: str) -> Known:
        self.prefixes.append(prefix)
        if self.failures:
            raise self.failures.pop(0)
        return FOUND


def config(directory: Path | None, **fields: object) -> StoreConfig:
    return StoreConfig(bucket="b", endpoint_url="http://h", state_dir=directory, **fields)  # type: ignore[arg-type]


def files(directory: Path) -> list[Path]:
    return list(directory.iterdir())


def only_file(directory: Path) -> Path:
    [path] = files(directory)
    return path


async def test_one_probing_serves_every_later_mount(tmp_path: Path) -> None:
    service = Service()
    first = CapabilityProbe(config(tmp_path / "new" / "dir"), service.probe)
    first.prefix = "mine/"
    assert await first.known() == await first.known() == FOUND
    second = CapabilityProbe(config(tmp_path / "new" / "dir"), service.probe)
    assert await second.known() == FOUND
    assert service.prefixes == ["mine/"]
    path = only_file(tmp_path / "new" / "dir")  # no temporary file left
    assert path.stat().st_mode & 0o077 == 0


async def test_another_bucket_or_endpoint_is_probed_anew(tmp_path: Path) -> None:
    service = Service()
    for bucket, url in (("b", "http://h"), ("c", "http://h"), ("b", "http://i")):
        settings = StoreConfig(bucket=bucket, endpoint_url=url, state_dir=tmp_path)
        await CapabilityProbe(settings, service.probe).known()
    assert len(service.prefixes) == 3


async def test_a_failed_probe_is_safe_and_not_remembered(tmp_path: Path) -> None:
    service = Service(errors.AccessDenied("no"))
    probe = CapabilityProbe(config(tmp_path), service.probe)
    assert await probe.known() == await probe.known() == Known()
    assert len(service.prefixes) == 1  # not asked again at every call
    assert files(tmp_path) == []
    assert await CapabilityProbe(config(tmp_path), service.probe).known() == FOUND


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"format": 1}', '{"format": 99}', "\x00"])
async def test_a_damaged_file_is_probed_anew(tmp_path: Path, damage: str) -> None:
    service = Service()
    await CapabilityProbe(config(tmp_path), service.probe).known()
    path = only_file(tmp_path)
    path.write_text(damage)
    assert await CapabilityProbe(config(tmp_path), service.probe).known() == FOUND
    assert len(service.prefixes) == 2
    assert json.loads(path.read_text())["quoted_if_match"] is False


async def test_a_file_of_another_versions_fields_is_probed_anew(tmp_path: Path) -> None:
    service = Service()
    await CapabilityProbe(config(tmp_path), service.probe).known()
    path = only_file(tmp_path)
    stored = json.loads(path.read_text())
    del stored["capabilities"]["part_copy"]
    path.write_text(json.dumps(stored))
    assert await CapabilityProbe(config(tmp_path), service.probe).known() == FOUND
    assert len(service.prefixes) == 2


async def test_a_directory_that_cannot_be_written_only_costs_another_probing(
    tmp_path: Path,
) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    service = Service()
    assert await CapabilityProbe(config(blocked / "x"), service.probe).known() == FOUND


async def test_the_users_word_wins_over_the_probe(tmp_path: Path) -> None:
    for value in (True, False):
        settings = config(None, assume_conditional_writes=value)
        probe = CapabilityProbe(settings, Service().probe)
        for known in (probe.known_so_far(), await probe.known()):
            found = known.capabilities
            assert {found.put_if_absent, found.put_if_match} == {value}
            assert {found.complete_if_absent, found.complete_if_match} == {value}
        assert found.checks_md5


def test_nothing_is_claimed_before_the_probe() -> None:
    assert CapabilityProbe(config(None), Service().probe).known_so_far() == Known()
    assert Capabilities() == Capabilities(*[False] * 10)
