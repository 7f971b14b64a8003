"""Deleting without a mount: in few requests, markers last, and what fails is told."""

from collections.abc import Sequence

import pytest

from s3mount.store import base, errors
from s3mount.store.memory import MemoryStore
from s3mount.transfer.removing import MarkersLast, Remover, survey


def filled(count: int, *, page_size: int = 1000) -> MemoryStore:
    store = MemoryStore(page_size=page_size)
    for n in range(count):
        store.put_foreign(f"d/{n % 7}/{n:05}", b"12")
    for n in range(7):
        store.put_foreign(f"d/{n}/")
    store.put_foreign("d/")
    store.put_foreign("d-beside", b"stays")
    return store


async def test_thousands_go_by_a_thousand_a_request_and_nothing_else_goes() -> None:
    store = filled(3500)
    remover = Remover(store)
    await remover.tree("d/")
    assert list(store.objects) == ["d-beside"]
    assert (remover.outcome.objects, remover.outcome.bytes) == (3508, 7000)
    # Four of files, two of markers: those whose children have gone, and those above.
    assert store.counts()["DeleteObjects"] <= 6
    assert store.counts()["ListObjectsV2"] == 4


@pytest.mark.parametrize("page_size", [3, 10, 1000])
async def test_a_marker_goes_after_all_that_is_below_it(page_size: int) -> None:
    store = filled(60, page_size=page_size)

    def check(operation: str, key: str) -> None:
        for there in store.objects:
            parts = there.split("/")[:-1] if not there.endswith("/") else there.split("/")[:-2]
            for depth in range(1, len(parts) + 1):
                assert "/".join(parts[:depth]) + "/" in store.objects, there

    store.after = check
    await Remover(store).tree("d/")
    assert list(store.objects) == ["d-beside"]


async def test_what_cannot_be_deleted_is_reported_and_keeps_its_directory() -> None:
    class Refusing(MemoryStore):
        async def delete_many(self, keys: Sequence[str]) -> Sequence[base.DeleteFailure]:
            await super().delete_many([key for key in keys if key != "d/a"])
            denied = errors.AccessDenied("no", operation="DeleteObjects", key="d/a")
            return [base.DeleteFailure("d/a", denied)] if "d/a" in keys else []

    store = Refusing()
    for key in ("d/", "d/a", "d/b"):
        store.put_foreign(key, b"")
    remover = Remover(store)
    await remover.tree("d/")
    assert sorted(store.objects) == ["d/", "d/a"]
    assert [key for key, _ in remover.outcome.failures] == ["d/a"]
    assert (remover.outcome.objects, remover.outcome.failed) == (1, 1)


async def test_a_dry_run_deletes_nothing_and_names_everything() -> None:
    store = filled(10)
    named: list[str] = []
    await Remover(store, dry_run=True, each=named.append).tree("d/")
    assert sorted(named) == sorted(key for key in store.objects if key.startswith("d/"))
    assert store.counts().keys() == {"ListObjectsV2"}


async def test_other_forms_of_its_marker_go_with_the_directory() -> None:
    store = filled(3)
    store.put_foreign("d_$folder$")
    await Remover(store).tree("d/", ["d_$folder$"])
    assert list(store.objects) == ["d-beside"]


async def test_a_survey_stops_when_it_has_seen_enough() -> None:
    store = filled(3000)
    assert (await survey(store, "d/", 10_000)).objects == 3008
    found = await survey(store, "d/", 1500)
    assert (found.objects, found.bytes >= 3900, found.more) == (2000, True, True)
    assert store.counts()["ListObjectsV2"] == 4 + 2


def test_held_back_markers_are_those_of_the_path_alone() -> None:
    order = MarkersLast()
    keys = ["a/", "a/b/", "a/b/c", "a/d", "e/", "e/f"]
    at_once, closed = order.sort([base.ListedObject(key, 0, "", 0) for key in keys])
    assert [one.key for one in at_once] == ["a/b/c", "a/d", "e/f"]
    assert [one.key for one in closed] == ["a/b/", "a/"]
    assert [one.key for one in order.rest()] == ["e/"]
