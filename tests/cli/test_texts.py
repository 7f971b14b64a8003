"""README, man page and the scripts say what the code does."""

import importlib.util
import re
import shutil
import subprocess
from pathlib import Path
from types import ModuleType

import pytest

import s3mount
from s3mount.cli.main import COMMANDS
from s3mount.cli.options import OPTIONS
from s3mount.cli.s3fs_table import S3FS_OPTIONS
from tests.cli.status_example import example

ROOT = Path(__file__).parents[2]


def tables() -> ModuleType:
    spec = importlib.util.spec_from_file_location("tables", ROOT / "contrib" / "readme_tables.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_tables_of_readme_and_man_page_are_those_of_the_code() -> None:
    for path, text in tables().contents().items():
        assert path.read_text() == text, f"run contrib/readme_tables.py: {path} is out of date"


def test_the_readme_names_every_option_of_s3fs() -> None:
    readme = (ROOT / "README.md").read_text()
    for option in S3FS_OPTIONS:
        assert f"| `{option.name}` | {option.verdict.value} |" in readme


def test_the_man_page_names_every_option_and_command() -> None:
    page = (ROOT / "contrib" / "s3mount.1").read_text().replace("\\-", "-")
    for option in OPTIONS:
        assert f"\\fB--{option.name}\\fR" in page
    for command in COMMANDS:
        assert f"\n.B {command}\n" in page


@pytest.mark.skipif(shutil.which("man") is None, reason="there is no man(1) here")
def test_the_man_page_is_well_formed() -> None:
    page = ROOT / "contrib" / "s3mount.1"
    done = subprocess.run(
        ["man", "--warnings", "-E", "UTF-8", "-l", "-Tutf8", "-Z", str(page)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0
    assert done.stderr == ""


def test_the_changelog_knows_this_version() -> None:
    assert f"## {s3mount.__version__} " in (ROOT / "CHANGELOG.md").read_text()


def test_the_scripts_are_plain_sh() -> None:
    for name in ("demo", "test", "mount.s3mount", "prepare.sh"):
        subprocess.run(["dash", "-n", str(ROOT / "contrib" / name)], check=True)


def test_the_unit_calls_an_existing_command_with_existing_options() -> None:
    unit = (ROOT / "contrib" / "s3mount@.service").read_text()
    assert "Type=notify" in unit
    found = re.search(r"^ExecStart=/usr/bin/env s3mount (\w+) (-f) ", unit, re.MULTILINE)
    assert found is not None
    assert found[1] in COMMANDS


def test_the_man_page_names_every_field_of_status() -> None:
    page = (ROOT / "contrib" / "s3mount.1").read_text().replace("\\-", "-")
    section = page.partition(".SH STATUS IN JSON")[2].partition(".SH ")[0]
    status = example()
    nested = [status[name] for name in ("pending", "totals", "spool", "cache", "recovery")]
    nested += [status["queue"], status["journal"], status["namespace"], status["intents"][0]]
    nested += [status["transfers"][0], status["workers"]["transfer"], status["conflicts"][0]]
    for name in {*status, *(name for part in nested for name in part)}:
        assert re.search(rf"\b{name}\b", section), name
