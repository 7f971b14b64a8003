"""kill -9 at named points and at random moments; recovery is killed as well."""

import argparse
import random
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from tests.campaign.checking import journal_rows, set_aside, spool_bytes
from tests.campaign.registry import Report, campaign, chosen_server, side_by_side
from tests.campaign.siege import Siege
from tests.campaign.victim import Dead, Failed
from tests.campaign.workloads import ALL, Workload
from tests.servers import Bucket

# Of all kills: those by the clock instead of at a named point, and those of a mount that is
# still recovering from the last one.
BY_THE_CLOCK = 0.25
IN_RECOVERY = 0.3
LEAVING = 0.1  # of the others: told to leave, and killed before it has
TOLD = 10  # kills between two lines on how far it is: a full run takes half an hour


def choose_point(reached: Counter[str], died_at: Counter[str], chance: random.Random) -> str:
    """Mostly one where no mount died yet; 'POINT N', N among the times that it was reached."""
    points = sorted(reached)
    weights = [1.0 / (1 + 3 * died_at[point]) ** 2 for point in points]
    (point,) = chance.choices(points, weights)
    return f"{point} {chance.randint(1, min(6, reached[point]))}"


def kill_often(siege: Siege, kills: int, *, look_first: bool) -> None:
    """`look_first`: what was closed must be in the bucket before the mount recovers. Whatever is
    there must be whole."""
    chance = siege.random
    told = 0
    while True:
        done = int(siege.report.figures.get("kills", 0))
        if done // TOLD > told:
            told = done // TOLD
            lost = len(siege.report.losses)
            print(f"{siege.directory.name}: {done} of {kills} kills, {lost} losses", flush=True)
        recovering = siege.reached and chance.random() < IN_RECOVERY and done < kills
        order = choose_point(siege.reached, siege.died_at, chance) if recovering else ""
        try:
            siege.start(order, an_hour_later=done >= kills)
        except Dead:
            siege.count_death()
            siege.report.count("kills in recovery")
            continue
        try:
            siege.check()
        except Dead:
            siege.report.count("kills in recovery")
            continue
        if done >= kills:
            break
        by_the_clock = not siege.reached or chance.random() < BY_THE_CLOCK
        order = "" if by_the_clock else choose_point(siege.reached, siege.died_at, chance)
        leaving = chance.uniform(0, 0.8) if chance.random() < LEAVING else None
        siege.load(order, chance.uniform(0.1, 2.0) if by_the_clock else 4.0, leaving=leaving)
        siege.check_bucket_before_recovery(all_closed=look_first)
    siege.finish()


def check_leftovers(siege: Siege) -> None:
    """After the last, orderly end: nothing is left on this machine."""
    assert siege.cache is not None
    for row in journal_rows(siege.cache, siege.directory):
        siege.lost(f"left in the journal: {row}")
    if spool_bytes(siege.cache):
        siege.lost(f"{spool_bytes(siege.cache)} bytes are left in the spool")
    for name in set_aside(siege.cache):
        siege.lost(f"set aside: {name}")


def run_kills(
    bucket: Bucket,
    directory: Path,
    kills: int,
    seed: int,
    durability: str,
    kinds: Sequence[type[Workload]] = ALL,
) -> Report:
    options = ("--part-size", "5M", f"--durability={durability}")
    siege = Siege(bucket, directory, kinds, seed, options)
    try:
        kill_often(siege, kills, look_first=durability == "close")
        check_leftovers(siege)
    except Failed as error:
        siege.lost(f"the campaign cannot go on: {error}")
    finally:
        siege.destroy()
    named = [point for point in siege.died_at if ":" in point]
    siege.report.figures["named points at which it died"] = len(named)
    siege.report.figures["points reached"] = len(siege.reached)
    return siege.report


@campaign("kills", __doc__)
def kills(arguments: argparse.Namespace) -> Report:
    with chosen_server(arguments) as server:
        return side_by_side(run_kills, server, arguments, arguments.kills)


@kills.options
def _options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--kills", type=int, default=100, help="in each mode")
    parser.add_argument("--durability", default="close,journal", help="modes, with commas")
