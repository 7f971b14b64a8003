"""The campaigns that `contrib/campaign` knows: one sub-command each.

A module of this package whose name begins with `campaign_` is imported by `main`; there a campaign
announces itself:

    @campaign("kills", "kill -9 at named points and at random moments")
    def run(arguments: argparse.Namespace) -> Report: ...

and, if it has options of its own, `@run.options` names what adds them to the parser. All campaigns
have --server, --seed and --directory. A test calls the same functions with small numbers.
"""

import argparse
import importlib
import multiprocessing
import pkgutil
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.servers import CephServer, MotoServer, Server, StrictServer

PREFIX = "campaign_"


@dataclass
class Report:
    """What a campaign found. `figures` are printed in their order; `losses` should stay empty."""

    figures: dict[str, str | int] = field(default_factory=dict)
    losses: list[str] = field(default_factory=list)

    def count(self, name: str, more: int = 1) -> None:
        """Adds to a figure that is a number."""
        value = self.figures.get(name, 0)
        assert isinstance(value, int)
        self.figures[name] = value + more

    def add(self, part: "Report", title: str) -> None:
        """Another report's figures, under a title of their own."""
        self.figures |= {f"{title}: {name}": value for name, value in part.figures.items()}
        self.losses += part.losses


Run = Callable[[argparse.Namespace], Report]
Options = Callable[[argparse.ArgumentParser], None]


@dataclass
class Campaign:
    name: str
    help: str
    run: Run
    add_options: Options = lambda parser: None

    def __call__(self, arguments: argparse.Namespace) -> Report:
        return self.run(arguments)

    def options(self, add: Options) -> Options:
        self.add_options = add
        return add


CAMPAIGNS: dict[str, Campaign] = {}


def campaign(name: str, text: str) -> Callable[[Run], Campaign]:
    def register(run: Run) -> Campaign:
        CAMPAIGNS[name] = Campaign(name, text, run)
        return CAMPAIGNS[name]

    return register


@contextmanager
def chosen_server(arguments: argparse.Namespace) -> Iterator[Server]:
    """The service of --server, running."""
    if arguments.server == "moto":
        with MotoServer(Path(arguments.directory)) as server:
            yield server
    elif arguments.server == "strict":
        with StrictServer(Path(arguments.directory)) as server:
            yield server
    else:
        with CephServer(Path(arguments.directory)) as cluster:
            yield cluster.server


def side_by_side(
    run: Callable[..., Report], server: Server, arguments: argparse.Namespace, number: int
) -> Report:
    """`run(bucket, directory, number, seed, durability)` for each mode of --durability.

    Each in a process of its own: they mostly wait, and a process that starts a program closes, in
    its child, the files that another one writes, which their mount takes for a close.
    """
    whole = Report()
    modes = arguments.durability.split(",")
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(len(modes), mp_context=context) as pool:
        runs = [
            pool.submit(
                _run_mode,
                run,
                server,
                Path(arguments.directory, durability),
                number,
                arguments.seed + index,
                durability,
            )
            for index, durability in enumerate(modes)
        ]
        for durability, each in zip(modes, runs, strict=True):
            whole.add(each.result(), durability)
    return whole


def _run_mode(
    run: Callable[..., Report],
    server: Server,
    directory: Path,
    number: int,
    seed: int,
    durability: str,
) -> Report:
    return run(server.create_bucket(), directory, number, seed, durability)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="contrib/campaign", description=__doc__.split("\n")[0])
    commands = parser.add_subparsers(dest="name", required=True, metavar="CAMPAIGN")
    for each in sorted(CAMPAIGNS.values(), key=lambda found: found.name):
        # argparse formats it: a percent sign would begin a field.
        _common(commands.add_parser(each.name, help=each.help.replace("%", "%%")), each)
    whole = commands.add_parser("all", help="every campaign at its full size, one after the other")
    _common(whole, None)
    return parser


def _common(parser: argparse.ArgumentParser, each: Campaign | None) -> None:
    parser.add_argument("--server", choices=("moto", "strict", "ceph"), default="moto")
    parser.add_argument("--seed", type=int, default=None, help="of what is chosen at random")
    parser.add_argument("--directory", type=Path, default=None, help="for caches and mount points")
    if each is not None:
        each.add_options(parser)


def _run(each: Campaign, arguments: argparse.Namespace) -> bool:
    if arguments.seed is None:
        arguments.seed = random.randrange(1 << 32)
    print(f"== {each.name}: seed {arguments.seed}, {arguments.server}", flush=True)
    begin = time.monotonic()
    if arguments.directory is not None:
        arguments.directory.mkdir(parents=True, exist_ok=True)
    directory = tempfile.mkdtemp(prefix=f"s3mount-{each.name}-", dir=arguments.directory)
    report = each.run(argparse.Namespace(**{**vars(arguments), "directory": Path(directory)}))
    if report.losses:
        print(f"{'logs and traces are kept in':44} {directory}")
    else:
        shutil.rmtree(directory, ignore_errors=True)
    for name, value in report.figures.items():
        print(f"{name:44} {value}")
    print(f"{'losses':44} {len(report.losses)}")
    for loss in report.losses:
        print(f"  LOST: {loss}")
    print(f"{'seconds':44} {time.monotonic() - begin:.0f}", flush=True)
    return not report.losses


def main(words: Sequence[str] | None = None) -> int:
    package = importlib.import_module(__package__ or "tests.campaign")
    for module in pkgutil.iter_modules(package.__path__):
        if module.name.startswith(PREFIX):
            importlib.import_module(f"{package.__name__}.{module.name}")
    arguments = _parser().parse_args(words)
    if arguments.name != "all":
        return 0 if _run(CAMPAIGNS[arguments.name], arguments) else 1
    good = True
    for each in CAMPAIGNS.values():
        own = argparse.ArgumentParser()
        _common(own, each)
        defaults = own.parse_args([])
        chosen = {name: value for name, value in vars(arguments).items() if name != "name"}
        good = _run(each, argparse.Namespace(**{**vars(defaults), **chosen})) and good
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
