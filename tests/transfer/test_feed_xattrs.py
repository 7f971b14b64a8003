"""Extended attributes of what is fed, in the format of mounts; only where they are asked for."""

import os
from dataclasses import replace
from pathlib import Path

import pytest

from s3mount.core.metadata import USER_XATTRS, Attributes, decode, encode
from tests.mounting import Mounts
from tests.servers import Bucket
from tests.transfer.feeding import DEFAULTS, PART, Rig
from tests.transfer.test_feed_command import Feed


@pytest.fixture
def here(tmp_path: Path) -> Rig:
    rig = Rig(tmp_path)
    rig.make("d/f", "d/plain", "d/")
    (rig.source / "d" / "large").write_bytes(os.urandom(3 * PART))
    (rig.source / "link").symlink_to("d")
    for name in ("f", "large", ""):
        os.setxattr(rig.source / "d" / name, "user.colour", b"\x00blue\xff")
    return rig


def attributes(here: Rig, key: str) -> Attributes:
    found = here.memory.objects[key]
    return decode(
        found.metadata,
        is_directory=key.endswith("/"),
        size=len(found.data),
        content_type=None,
        last_modified=0.0,
        defaults=DEFAULTS,
    )


async def test_they_are_sent_where_that_is_asked_for_and_only_then(here: Rig) -> None:
    await here.feed()
    assert not any("xattr" in found.metadata for found in here.memory.objects.values())
    await here.feed(xattrs=True)
    # The bytes are there already.
    assert sorted(here.done) == ["attributes d", "attributes d/f", "attributes d/large"]
    for key in ("d/", "d/f", "d/large"):
        assert attributes(here, key).xattrs == {"user.colour": b"\x00blue\xff"}
    assert "xattr" not in here.memory.objects["d/plain"].metadata
    for how in (True, False):
        await here.feed(xattrs=how)
        assert here.done == []


async def test_new_objects_have_them_at_once(here: Rig) -> None:
    here.requests()
    await here.feed(xattrs=True)
    assert "CopyObject" not in here.requests()
    for key in ("d/", "d/f", "d/large"):
        assert attributes(here, key).xattrs == {"user.colour": b"\x00blue\xff"}


async def test_a_change_is_a_copy_on_the_server_and_others_stay(here: Rig) -> None:
    here.remembers = False  # a change by others within the same second is none to the stat cache
    await here.feed(xattrs=True)
    kept = attributes(here, "d/f")
    theirs = {**kept.xattrs, "trusted.theirs": b"1"}
    found = here.memory.objects["d/f"]
    here.memory.put_foreign(
        "d/f", found.data, {**found.metadata, **encoded(kept, theirs)}, found.headers
    )
    os.setxattr(here.source / "d" / "f", "user.new", b"2")
    os.removexattr(here.source / "d" / "large", "user.colour")
    here.requests()
    await here.feed(xattrs=True)
    assert sorted(here.done) == ["attributes d/f", "attributes d/large"]
    assert here.requests()["CopyObject"] == 2
    assert attributes(here, "d/large").xattrs == {}
    assert attributes(here, "d/f").xattrs == {**theirs, "user.new": b"2"}
    await here.feed(xattrs=True)
    assert here.done == []


def encoded(attributes: Attributes, xattrs: dict[str, bytes]) -> dict[str, str]:
    return encode(replace(attributes, xattrs=xattrs))


async def test_more_than_an_object_takes_is_reported_and_nothing_of_it_is_cut(here: Rig) -> None:
    os.setxattr(here.source / "d" / "f", "user.large", os.urandom(2000))
    report = await here.feed(xattrs=True)
    ((path, reason),) = report.failures
    assert (path, "metadata; S3 takes 2048" in reason) == ("d/f", True)
    assert sorted(here.memory.objects) == ["d/", "d/large", "d/plain", "link"]


async def test_the_system_s_own_are_not_sent(here: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.listxattr
    monkeypatch.setattr(os, "listxattr", lambda file: [*real(file), "security.selinux"])
    await here.feed(xattrs=True)
    for found in ("d/", "d/f", "d/large", "d/plain"):
        assert all(name.startswith(USER_XATTRS) for name in attributes(here, found).xattrs)


def test_a_mount_shows_them(moto_bucket: Bucket, mounts: Mounts, tmp_path: Path) -> None:
    feed = Feed(moto_bucket, tmp_path)
    (feed.source / "f").write_bytes(b"1")
    os.setxattr(feed.source / "f", "user.colour", b"blue")
    feed.run(str(feed.source / "f"), f"{moto_bucket.name}:/one", "--xattrs")
    feed.run(str(feed.source), f"{moto_bucket.name}:/d", "--xattrs")
    mount = mounts.start(moto_bucket, "--xattrs")
    for name in ("one", "d/f"):
        assert os.getxattr(mount.path / name, "user.colour") == b"blue"
    mount.stop()
