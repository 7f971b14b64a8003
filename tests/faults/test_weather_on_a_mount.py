"""The campaign of contrib/campaign faults, small: programs on a real mount while requests fail."""

from pathlib import Path

from tests.campaign.campaign_faults import run_outage, run_weather
from tests.mounts.trees import MIB
from tests.servers import Bucket


def test_cp_and_rsync_do_not_notice_that_one_request_in_ten_fails(
    moto_bucket: Bucket, tmp_path: Path
) -> None:
    report = run_weather(moto_bucket, tmp_path / "w", rate=0.1, seed=3, files=40)
    print(report.figures)
    assert report.losses == []
    assert int(report.figures["failed"]) > 10


def test_a_large_write_outlives_an_outage(moto_bucket: Bucket, tmp_path: Path) -> None:
    report = run_outage(moto_bucket, tmp_path / "o", size=24 * MIB, seconds=5.0, seed=4)
    assert report.losses == []
