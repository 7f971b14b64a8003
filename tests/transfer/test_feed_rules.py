"""--include and --exclude decide as rsync's do."""

import shutil
import subprocess
from pathlib import Path

import pytest

from s3mount.transfer.feed.rules import Rules, parse_rule


def rules(*texts: str) -> Rules:
    """'+ pattern' or '- pattern'."""
    return Rules([parse_rule(text[2:], include=text[0] == "+") for text in texts])


TREE = [
    "a.txt", "a.tmp", "b/a.tmp", "b/keep.tmp", "b/c/a.txt", "cache/x", "b/cache/x", "cache.d/x",
    "b/c/d/e.o", "sub dir/[x]", "ü.tmp", "b/c/core", "core/x",
]  # fmt: skip


@pytest.mark.parametrize(
    "texts",
    [
        [],
        ["- *.tmp"],
        ["+ keep.tmp", "- *.tmp"],
        ["- *.tmp", "+ keep.tmp"],
        ["- cache/"],
        ["- /cache/"],
        ["- /cache"],
        ["- b/*.tmp"],
        ["- /b/c/**"],
        ["- c/**/*.o"],
        ["+ */", "+ *.txt", "- *"],
        ["- [ab].t?t"],
        ["- [!a]*.tmp"],
        ["- core/"],
        ["- \\[x\\]"],
        ["- /b/*/d"],
        ["- **.o"],
    ],
)
def test_rules_choose_the_files_that_rsync_chooses(texts: list[str], tmp_path: Path) -> None:
    if shutil.which("rsync") is None:
        pytest.skip("no rsync")
    source, target = tmp_path / "source", tmp_path / "target"
    for path in TREE:
        (source / path).parent.mkdir(parents=True, exist_ok=True)
        (source / path).touch()
    filters = [f"--filter={text}" for text in texts]
    subprocess.run(["rsync", "-r", *filters, f"{source}/", str(target)], check=True)
    expected = {str(one.relative_to(target)) for one in target.rglob("*") if one.is_file()}
    ours = rules(*texts)
    assert {path for path in TREE if ours.admit_below(path, is_directory=False)} == expected


def test_a_pattern_that_can_match_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="matches nothing"):
        parse_rule("/", include=False)
