"""The campaigns' own judge: it finds what is lost, and accepts what may be."""

import os
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.campaign.ledger import Entry, Group, Ledger, Step, file_entry, read_tree

A, B = file_entry(b"a", 0o644), file_entry(b"b", 0o644)


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    found = Ledger("test", tmp_path / "trace")
    found.accept({"a": A, "b": B})
    return found


def gone() -> None:
    raise OSError("the mount died")


def test_what_was_acknowledged_must_be_there(ledger: Ledger) -> None:
    assert ledger.settle({"a": A, "b": B}) == []
    assert len(ledger.settle({"a": A})) == 1


def test_another_content_mode_or_time_is_a_loss(ledger: Ledger) -> None:
    stamped = replace(A, mtime_ns=5)
    for other in (B, replace(A, mode=0o600), file_entry(b"")):
        ledger.accept({"a": A})
        assert len(ledger.settle({"a": other})) == 1
    ledger.accept({"a": stamped})
    assert len(ledger.settle({"a": replace(A, mtime_ns=6)})) == 1


def test_a_name_that_nobody_acknowledged_is_told(ledger: Ledger) -> None:
    assert len(ledger.settle({"a": A, "b": B, "stub": file_entry(b"")})) == 1


def test_an_operation_in_progress_happened_or_did_not(ledger: Ledger) -> None:
    rename: Group = {"a": None, "b": A}
    for found, wrong in (({"a": A, "b": B}, 0), ({"b": A}, 0), ({"b": B}, 1), ({}, 2)):
        ledger.accept({"a": A, "b": B})
        with pytest.raises(OSError, match="died"):
            ledger.do("rename", [rename], gone)
        assert len(ledger.settle(found)) == wrong, found


def steps(ledger: Ledger, *made: tuple[Group, bool, float]) -> None:
    now = time.monotonic()
    for group, kept, age in made:
        ledger.steps.append(Step("step", [group], kept, now - age))
        for path, entry in group.items():
            if entry is None:
                del ledger.tree[path]
            else:
                ledger.tree[path] = entry
    ledger.died = now


def test_a_power_cut_may_take_the_last_changes_of_names_and_only_these(ledger: Ledger) -> None:
    directory = Entry("directory")
    made: tuple[tuple[Group, bool, float], ...] = (
        ({"old": directory}, False, 5.0),
        ({"new": directory}, False, 0.1),
        ({"last": directory}, False, 0.05),
    )
    whole = {"a": A, "b": B, "old": directory, "new": directory, "last": directory}
    for lost, wrong, aged in (
        ((), False, False),
        (("last",), False, True),
        (("last", "new"), False, True),
        (("new",), True, False),
        (("last", "new", "old"), True, False),
        (("a",), True, False),
    ):
        ledger.accept({"a": A, "b": B})
        steps(ledger, *made)
        found = {path: entry for path, entry in whole.items() if path not in lost}
        losses, age = ledger.settle_after_cut(found, 0.5, all_kept=False)
        assert (bool(losses), bool(age)) == (wrong, aged), lost


def test_a_power_cut_never_takes_what_close_acknowledged(ledger: Ledger) -> None:
    directory = Entry("directory")
    made: tuple[tuple[Group, bool, float], ...] = (
        ({"d": directory}, False, 0.2),
        ({"c": A}, True, 0.1),
    )
    for found, all_kept, wrong in (
        ({"a": A, "b": B, "c": A}, False, False),  # the directory's mkdir alone is lost
        ({"a": A, "b": B, "c": A}, True, True),  # ... which one journal does not allow
        ({"a": A, "b": B, "d": directory}, False, True),
        ({"a": A, "b": B}, True, True),
    ):
        ledger.accept({"a": A, "b": B})
        steps(ledger, *made)
        losses, _ = ledger.settle_after_cut(found, 0.5, all_kept=all_kept)
        assert bool(losses) == wrong, (found, all_kept)


@pytest.mark.parametrize("all_kept", [False, True])
def test_a_power_cut_may_take_the_last_renames_and_never_what_they_renamed(
    ledger: Ledger, all_kept: bool
) -> None:
    """rsync: written and closed as `.x`, then renamed."""
    ledger.extra = lambda path: path.startswith(".")
    for found, age, wrong in (
        ({"a": B, "b": B}, 0.1, False),
        ({"a": A, "b": B, ".x": B}, 0.1, False),
        ({"a": A, "b": B, ".x": B}, 0.9, True),  # too long ago
        ({"a": A, "b": A}, 0.1, True),  # its bytes are gone
        ({"b": B, ".x": B}, 0.1, True),
    ):
        ledger.accept({"a": A, "b": B})
        steps(ledger, ({"a": B}, True, age))
        ledger.steps[-1] = replace(ledger.steps[-1], renamed=True)
        losses, _ = ledger.settle_after_cut(found, 0.5, all_kept=all_kept)
        assert bool(losses) == wrong, (found, age)


def test_a_symlink_may_be_in_the_bucket_before_older_changes_and_implies_its_directory(
    ledger: Ledger,
) -> None:
    """It is an object as a file is, sent without the journal's fsync."""
    link, directory = Entry("link", "target"), Entry("directory", mode=0o755)
    for found, wrong in (
        ({"a": A, "b": B, "d": directory, "d/l": link}, False),  # the rename is lost alone
        ({"b": B, "c": A, "d": directory, "d/l": link}, False),
        ({"a": A, "b": B}, False),
        ({"a": A, "b": B, "d": directory, "d/x": link}, True),
    ):
        ledger.accept({"a": A, "b": B})
        steps(
            ledger,
            ({"a": None, "c": A}, False, 0.3),
            ({"d": directory}, False, 0.2),
            ({"d/l": link}, False, 0.1),
        )
        ledger.steps[-1] = replace(ledger.steps[-1], what="symlink d/l")
        losses, _ = ledger.settle_after_cut(found, 0.5, all_kept=False)
        assert bool(losses) == wrong, found


def test_a_power_cut_never_takes_what_the_journal_had_fsynced(ledger: Ledger) -> None:
    directory = Entry("directory")
    for synced_before, wrong in ((0.2, False), (0.05, True)):
        ledger.accept({"a": A, "b": B})
        steps(ledger, ({"d": directory}, False, 0.1))
        assert ledger.died is not None
        ledger.safe_until = ledger.died - synced_before
        losses, _ = ledger.settle_after_cut({"a": A, "b": B}, 0.5, all_kept=False)
        assert bool(losses) == wrong


def test_what_a_dead_mount_left_in_the_bucket_was_once_a_whole_file(ledger: Ledger) -> None:
    with pytest.raises(OSError, match="died"):
        ledger.do("write", [{"new": B}], gone)
    assert ledger.halves({"a": A, "new": B}) == []
    for half in ({"a": B}, {"new": file_entry(b"")}, {"stranger": A}):
        assert len(ledger.halves(half)) == 1


def test_a_name_that_is_shown_twice_is_told(
    ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "a").write_bytes(b"a")
    real = os.walk

    def twice(root: Path, **options: Any) -> Iterator[Any]:
        for directory, names, files in real(root, **options):
            yield directory, names, [*files, *files]

    monkeypatch.setattr(os, "walk", twice)
    assert sorted(read_tree(tmp_path / "tree")) == ["a", "a (shown twice)"]


def test_what_was_fsynced_or_checked_is_in_the_bucket_of_a_dead_mount(ledger: Ledger) -> None:
    old, synced, closed = (file_entry(name * 40) for name in (b"o", b"s", b"c"))
    ledger.accept({"old": old})
    steps(ledger, ({"synced": synced, "closed": closed}, True, 0.1))
    ledger.stored.add(synced.digest)
    whole = {"old": old, "renamed": synced, "closed": closed}
    for gone, wrong, wrong_if_all_closed in (
        ("", 0, 0),
        ("old", 1, 1),
        ("renamed", 1, 1),
        ("closed", 0, 1),
    ):
        found = {path: entry for path, entry in whole.items() if path != gone}
        assert len(ledger.missing(found, all_closed=False)) == wrong
        assert len(ledger.missing(found, all_closed=True)) == wrong_if_all_closed


def test_the_leftover_of_a_program_that_was_cut_off_need_not_stay(ledger: Ledger) -> None:
    again = file_entry(b"r" * 40)
    ledger.extra = lambda path: path.startswith(".")
    ledger.accept({".temporary": again})
    steps(ledger, ({".temporary": None, "again": again}, True, 0.1))
    assert ledger.missing({}, all_closed=False) == []
    assert len(ledger.missing({}, all_closed=True)) == 1
