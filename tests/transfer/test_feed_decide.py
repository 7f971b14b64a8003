"""The decision of a feed, against what it promises, whatever is on both sides."""

import stat
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from s3mount.core.metadata import Attributes
from s3mount.store.base import ListedObject
from s3mount.transfer.feed.decide import (
    Action,
    Comparing,
    Known,
    LocalEntry,
    RemoteEntry,
    decide,
    relevant,
)

SECOND = 1_000_000_000
TYPES = st.sampled_from([stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK, stat.S_IFIFO])


@st.composite
def some_attributes(draw: st.DrawFn) -> Attributes:
    kind = draw(TYPES)
    mtime = draw(st.sampled_from([5 * SECOND, 5 * SECOND + 7, 6 * SECOND]))
    mode = kind | draw(st.sampled_from([0o644, 0o755]))
    return Attributes(mode, draw(st.sampled_from([1, 2])), 1, mtime, 0, 0)


@st.composite
def local_entries(draw: st.DrawFn) -> LocalEntry:
    attributes = draw(some_attributes())
    size = 0 if stat.S_ISDIR(attributes.mode) else draw(st.sampled_from([0, 1]))
    return LocalEntry("p", b"p", size, attributes, draw(st.booleans()))


def objects(key: str) -> st.SearchStrategy[ListedObject | None]:
    sizes = st.sampled_from([0, 1])
    return st.none() | sizes.map(lambda size: ListedObject(key, size, "e", 5.0))


REMOTES = st.builds(RemoteEntry, st.just("p"), objects("p"), objects("p/"), st.booleans()).filter(
    lambda one: one.listed or one.marker or one.below
)
KNOWN = st.none() | st.builds(Known, st.none() | some_attributes(), st.sampled_from([5, 6]))
HOW = st.builds(
    Comparing,
    st.booleans(),
    st.booleans(),
    st.booleans(),
    st.sampled_from(["all", "empty", "none"]),
)
SAME = st.none() | st.booleans()


@given(local_entries(), REMOTES | st.none(), HOW, KNOWN, SAME)
def test_every_question_is_asked_once_and_for_something(
    local: LocalEntry,
    remote: RemoteEntry | None,
    how: Comparing,
    known: Known | None,
    same: bool | None,
) -> None:
    action = decide(local, remote, how, known, same)
    if action is Action.ASK:
        assert known is None
        assert relevant(local, remote) is not None
        assert not how.missing_only
    if action is Action.COMPARE:
        assert same is None
        assert known is not None
        assert local.is_regular
    if action is Action.ATTRIBUTES:
        assert known is not None
        assert known.attributes is not None
        assert stat.S_IFMT(known.attributes.mode) == stat.S_IFMT(local.attributes.mode)
        assert local.is_directory or same is True or not how.checksum
    if how.missing_only and remote is not None and relevant(local, remote) is not None:
        assert action in {Action.NOTHING, Action.CONFLICT, Action.SEND}
        if action is Action.SEND:  # of another kind, which only --delete replaces
            assert how.delete or local.is_directory
    assert action is not Action.DELETE


@given(local_entries(), HOW)
def test_what_is_not_there_is_sent_but_for_unwanted_markers(
    local: LocalEntry, how: Comparing
) -> None:
    wanted = how.directories == "all" or (how.directories == "empty" and local.empty)
    expected = Action.SEND if not local.is_directory or wanted else Action.NOTHING
    assert decide(local, None, how) is expected


@given(REMOTES, HOW)
def test_only_delete_deletes(remote: RemoteEntry, how: Comparing) -> None:
    there = remote.listed or remote.marker
    expected = Action.DELETE if how.delete and there else Action.NOTHING
    assert decide(None, remote, how) is expected


@given(local_entries().filter(lambda one: one.is_regular), HOW, SAME)
def test_what_equals_the_object_is_left_alone(
    local: LocalEntry, how: Comparing, same: bool | None
) -> None:
    remote = RemoteEntry("p", ListedObject("p", local.size, "e", 5.0))
    known = Known(local.attributes, 5)
    action = decide(local, remote, how, known, same)
    if how.missing_only:
        assert action is Action.NOTHING
    elif how.checksum and same is None:
        assert action is Action.COMPARE
    else:
        assert action is (Action.SEND if same is False else Action.NOTHING)


@given(local_entries(), HOW.filter(lambda how: not how.delete), KNOWN, SAME)
def test_without_delete_no_kind_replaces_another(
    local: LocalEntry, how: Comparing, known: Known | None, same: bool | None
) -> None:
    if local.is_directory:
        remote = RemoteEntry("p", ListedObject("p", 1, "e", 5.0))
    else:
        remote = RemoteEntry("p", None, ListedObject("p/", 0, "e", 5.0))
    assert decide(local, remote, how, known, same) is Action.CONFLICT


@given(local_entries().filter(lambda one: one.is_regular))
def test_a_file_of_another_size_is_sent_without_a_question(local: LocalEntry) -> None:
    remote = RemoteEntry("p", ListedObject("p", local.size + 1, "e", 5.0))
    assert decide(local, remote, Comparing(checksum=True)) is Action.SEND


@given(local_entries().filter(lambda one: one.is_regular), st.booleans())
def test_attributes_alone_are_changed_on_the_server(local: LocalEntry, touched: bool) -> None:
    ours = local.attributes
    theirs = replace(ours, mode=ours.mode ^ 0o020)
    if touched:
        theirs = replace(theirs, mtime_ns=ours.mtime_ns + SECOND + 1)
    remote = RemoteEntry("p", ListedObject("p", local.size, "e", 5.0))
    known = Known(theirs, 99)
    action = decide(local, remote, Comparing(), known)
    assert action is (Action.COMPARE if touched else Action.ATTRIBUTES)
    assert decide(local, remote, Comparing(), known, True) is Action.ATTRIBUTES
    assert decide(local, remote, Comparing(), known, False) is Action.SEND
