"""The campaigns of `contrib/campaign`, small: nothing acknowledged is lost."""

from pathlib import Path

import pytest

from tests.campaign.campaign_kills import run_kills
from tests.campaign.campaign_power import run_power
from tests.campaign.campaign_resume import run_resume
from tests.servers import Bucket

pytestmark = pytest.mark.bounded(600)

MIB = 1 << 20
# How soon an fsync of the journal begins is asserted by a clock of its own in
# tests/unit/test_journal_troubles.py; this machine may stand still for longer than the campaign
# grants it. What was fsynced must be there in any case.
WINDOW = 60.0


@pytest.mark.parametrize("durability", ["close", "journal"])
def test_a_mount_killed_ten_times_loses_nothing(
    durability: str, moto_bucket: Bucket, tmp_path: Path
) -> None:
    report = run_kills(moto_bucket, tmp_path, 10, 3, durability)
    assert not report.losses
    assert report.figures["kills"] == 10
    assert int(report.figures["files compared"]) > 50


@pytest.mark.parametrize("durability", ["close", "journal"])
def test_power_cuts_take_nothing_that_close_or_fsync_acknowledged(
    durability: str, moto_bucket: Bucket, tmp_path: Path
) -> None:
    report = run_power(moto_bucket, tmp_path, 3, 5, durability, window=WINDOW)
    assert not report.losses
    assert int(report.figures["power cuts"]) >= 3


def test_an_upload_cut_off_by_a_kill_sends_only_what_s3_does_not_have(
    moto_bucket: Bucket, tmp_path: Path
) -> None:
    report = run_resume(moto_bucket, tmp_path, 100 * MIB, 7)
    assert not report.losses
    assert report.figures["parts"] == 20
    assert report.figures["answered at the kill"] == 12
    assert report.figures["sent after it"] == 8
