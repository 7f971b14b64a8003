"""Power cuts: the mount dies and its cache directory loses what was not fsynced."""

import argparse
import random
from collections.abc import Sequence
from pathlib import Path

from tests.campaign.campaign_kills import check_leftovers, kill_often
from tests.campaign.crash_disk import CrashDisk
from tests.campaign.registry import Report, campaign, chosen_server, side_by_side
from tests.campaign.siege import Siege
from tests.campaign.victim import Failed
from tests.campaign.workloads import ALL, Workload
from tests.servers import Bucket

# 100 ms to the fsync, and what a busy machine takes for that itself.
WINDOW = 0.6


def run_power(
    bucket: Bucket,
    directory: Path,
    cuts: int,
    seed: int,
    durability: str,
    kinds: Sequence[type[Workload]] = ALL,
    window: float = WINDOW,
) -> Report:
    chance = random.Random(seed)
    options = ("--part-size", "5M", f"--durability={durability}")
    with CrashDisk(directory / "power") as disk:
        siege = Siege(
            bucket,
            directory,
            kinds,
            seed,
            options,
            cache=disk.path / "cache",
            power_cut=lambda: disk.cut(chance if chance.random() < 0.6 else None),
            window=window,
            all_kept=durability == "journal",
        )
        try:
            kill_often(siege, cuts, look_first=durability == "close")
            check_leftovers(siege)
        except Failed as error:
            siege.lost(f"the campaign cannot go on: {error}")
        finally:
            siege.destroy()
    return siege.report


@campaign("power", __doc__)
def power(arguments: argparse.Namespace) -> Report:
    with chosen_server(arguments) as server:
        return side_by_side(run_power, server, arguments, arguments.cuts)


@power.options
def _options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--cuts", type=int, default=50, help="in each mode")
    parser.add_argument("--durability", default="close,journal", help="modes, with commas")
