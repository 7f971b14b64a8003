"""Two mounts race, in small; `contrib/campaign races` does it at full size."""

from pathlib import Path

import pytest

from tests.campaign.campaign_races import run_races
from tests.servers import Bucket


@pytest.mark.parametrize("server", ["strict", "moto", "ceph"])
@pytest.mark.parametrize("durability", ["close", "journal"])
def test_no_acknowledged_change_of_two_mounts_is_lost(
    server: str, durability: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    bucket: Bucket = request.getfixturevalue(f"{server}_bucket")
    report = run_races(bucket, tmp_path, durability, edits=80, locks=40, large=4)
    assert report.losses == []
    figures = report.figures
    assert figures["count_up: tried"] == 40
    assert figures["append: tried"] == 40
    assert int(figures["count_up: acknowledged"]) > 0
    assert int(figures["append: acknowledged"]) > 0
    assert int(figures["lock: acknowledged"]) >= (20 if server == "strict" else 1)
