"""Both sides of a feed come in one order, whatever the names."""

import errno
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s3mount.store.base import ListedObject
from s3mount.store.memory import MemoryStore
from s3mount.transfer.feed.decide import LocalEntry, RemoteEntry
from s3mount.transfer.feed.local_tree import LocalTree, Walking, attributes_of
from s3mount.transfer.feed.remote_tree import KeyAssembler, RemoteTree
from s3mount.transfer.feed.rules import Rules, parse_rule

NAMES = st.text(alphabet="a- /0\U0001f600", min_size=1, max_size=7)


def listed(key: str) -> ListedObject:
    return ListedObject(key, 1, "e", 0.0)


def order(path: str) -> str:
    return f"{path}/" if path else ""


def assembled(keys: list[str]) -> list[RemoteEntry]:
    assembler = KeyAssembler()
    found = [one for key in sorted(keys) for one in assembler.feed(key, listed(key))]
    return [*found, *assembler.end()]


@given(st.sets(NAMES.filter(lambda key: not key.startswith("/")), max_size=12))
def test_every_key_comes_once_and_in_the_order_of_the_merge(keys: set[str]) -> None:
    entries = assembled(list(keys))
    paths = [order(entry.path) for entry in entries]
    assert paths == sorted(set(paths))
    objects = [one.key for entry in entries for one in (entry.listed, entry.marker) if one]
    assert sorted(objects) == sorted(keys)
    for entry in entries:
        below = [key for key in keys if key.startswith(entry.path + "/")]
        assert entry.is_directory == bool(below)


def test_an_object_comes_together_with_its_directory() -> None:
    entries = assembled(["x", "x-y", "x-y/z", "x/", "x/z"])
    assert [(e.path, bool(e.listed), bool(e.marker), e.below) for e in entries] == [
        ("x-y", True, False, True),
        ("x-y/z", True, False, False),
        ("x", True, True, False),
        ("x/z", True, False, False),
    ]


async def test_pages_of_a_listing_make_one_sequence() -> None:
    store = MemoryStore(page_size=3)
    for key in ["p", "p/", "p/a", "p/a-b", "p/a/b", "p/a/c", "p/c", "q"]:
        store.put_foreign(key, b"")
    tree = RemoteTree(store, "p/")
    paths = []
    while (batch := await tree.next_batch()) is not None:
        paths += [entry.path for entry in batch]
    assert paths == ["", "a-b", "a", "a/b", "a/c", "c"]
    assert tree.pages == 2
    one_level = RemoteTree(MemoryStore(), "")
    assert await one_level.next_batch() == []


async def test_one_level_knows_which_names_are_directories() -> None:
    store = MemoryStore()
    for key in ["a", "b/c", "b/d/e", "/"]:
        store.put_foreign(key, b"")
    entries = await RemoteTree(store, "", flat=False).next_batch()
    assert entries is not None
    assert [(entry.path, entry.below) for entry in entries] == [("a", False), ("b", True)]
    assert store.counts()["ListObjectsV2"] == 1


def walked(top: Path, **walking: object) -> tuple[list[LocalEntry], dict[str, Exception], bool]:
    failures: dict[str, Exception] = {}
    tree = LocalTree(os.fsencode(top), Walking(root="r/", **walking), failures.__setitem__)  # type: ignore[arg-type]
    entries: list[LocalEntry] = []
    while batch := tree.next_batch(2):
        entries += batch
    return entries, failures, tree.complete


def make(top: Path, *paths: str) -> None:
    for path in paths:
        (top / path).parent.mkdir(parents=True, exist_ok=True)
        if path.endswith("/"):
            (top / path).mkdir(exist_ok=True)
        else:
            (top / path).write_text(path)


def test_a_tree_is_walked_in_the_order_of_the_merge(tmp_path: Path) -> None:
    make(tmp_path, "a/b", "a-b", "a.c/x", "empty/", "z", "\U0001f600", "\ue000")
    entries, failures, complete = walked(tmp_path)
    paths = [entry.path for entry in entries]
    assert paths == ["", "a-b", "a.c", "a.c/x", "a", "a/b", "empty", "z", "\ue000", "\U0001f600"]
    assert [order(path) for path in paths] == sorted(order(path) for path in paths)
    assert [entry.path for entry in entries if entry.empty] == ["empty"]
    assert (failures, complete) == ({}, True)


@pytest.mark.parametrize(
    ("depth", "paths"),
    [(1, ["", "f"]), (2, ["", "a", "a/f", "f"]), (0, ["", "a", "a/b", "a/b/f", "a/f", "f"])],
)
def test_the_walk_goes_as_deep_as_it_may(tmp_path: Path, depth: int, paths: list[str]) -> None:
    make(tmp_path, "f", "a/f", "a/b/f")
    assert [entry.path for entry in walked(tmp_path, depth=depth)[0]] == paths


def test_what_is_excluded_is_not_looked_at(tmp_path: Path) -> None:
    make(tmp_path, "a/x", "cache/y", "only/x.tmp")
    rules = Rules([parse_rule("cache/", include=False), parse_rule("*.tmp", include=False)])
    entries, failures, _ = walked(tmp_path, rules=rules)
    assert [(entry.path, entry.empty) for entry in entries] == [
        ("", False),
        ("a", False),
        ("a/x", False),
        ("only", True),
    ]
    assert failures == {}


def test_names_that_no_key_has_are_told_and_the_rest_goes_on(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("")
    with open(os.path.join(os.fsencode(tmp_path), b"bad\xff"), "w"):
        pass
    entries, failures, complete = walked(tmp_path)
    assert [entry.path for entry in entries] == ["", "a"]
    (error,) = failures.values()
    assert "--escape-names" in str(error)
    assert not complete
    entries, failures, complete = walked(tmp_path, escape=True)
    assert [entry.path for entry in entries] == ["", "a", "bad%FF"]
    assert (failures, complete) == ({}, True)


def test_symlinks_are_followed_if_wanted_but_not_in_circles(tmp_path: Path) -> None:
    make(tmp_path, "d/f")
    (tmp_path / "d/up").symlink_to("..")
    (tmp_path / "link").symlink_to("d")
    (tmp_path / "nowhere").symlink_to("absent")
    entries, failures, _ = walked(tmp_path)
    assert [entry.path for entry in entries] == ["", "d", "d/f", "d/up", "link", "nowhere"]
    assert failures == {}
    entries, failures, complete = walked(tmp_path, follow=True)
    assert [entry.path for entry in entries] == ["", "d", "d/f", "link", "link/f"]
    assert {path: getattr(error, "errno", 0) for path, error in failures.items()} == {
        "d/up": errno.ELOOP,
        "link/up": errno.ELOOP,
        "nowhere": errno.ENOENT,
    }
    assert not complete


def test_times_that_metadata_cannot_hold_are_fed_as_the_nearest(tmp_path: Path) -> None:
    """tmpfs has files of the year 9999."""
    late, early = 253_402_300_799 * 10**9, -62_135_596_800 * 10**9
    times = {"st_atime_ns": 5, "st_mtime_ns": late, "st_ctime_ns": early}
    found = attributes_of(os.stat_result((*tmp_path.stat()[:7], 0, 0, 0), times))
    assert found.mtime_ns == 9_223_372_035 * 10**9
    assert found.ctime_ns == -9_223_372_035 * 10**9
    assert found.atime_ns == 5


def test_the_deepest_directories_that_a_key_can_name_are_walked(tmp_path: Path) -> None:
    here = os.open(tmp_path, os.O_RDONLY)
    for _ in range(600):
        os.mkdir("d", dir_fd=here)
        below = os.open("d", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(here)
    entries, failures, complete = walked(tmp_path)
    assert len(entries) == 512  # 1024 bytes of key with the root's and the marker's slash
    (error,) = failures.values()
    assert getattr(error, "errno", 0) == errno.ENAMETOOLONG
    assert not complete
