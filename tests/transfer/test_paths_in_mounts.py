"""Tools that are given paths in a mount work on what is stored for them."""

import os
from pathlib import Path

from tests.cli.tools import Tools
from tests.mounting import Mounts
from tests.servers import Bucket


def test_paths_in_a_mount_name_what_is_stored_for_them(
    bucket: Bucket, mounts: Mounts, tmp_path: Path
) -> None:
    mount = mounts.start(bucket, "--metadata-ttl", "0")
    tools = Tools(bucket, tmp_path)
    (mount.path / "dir").mkdir()
    (mount.path / "dir" / "a").write_bytes(b"hello")
    (mount.path / "unsent").mkdir()  # not in the bucket for half a second
    os.chmod(mount.path / "dir" / "a", 0o640)
    tools.run("cp", "-r", mount.path / "unsent", f"{mount.path}/dir/")
    assert "dir/unsent/" in bucket.keys()  # noqa: SIM118
    tools.run("cp", mount.path / "dir" / "a", f"{bucket.name}:/b")
    assert (mount.path / "b").read_bytes() == b"hello"
    assert (mount.path / "b").stat().st_mode == 0o100640
    tools.run("mv", f"s3://{bucket.name}/b", f"{mount.path}/dir/")
    assert sorted(os.listdir(mount.path / "dir")) == ["a", "b", "unsent"]
    tools.run("rm", "-r", mount.path / "dir", "--yes")
    assert bucket.keys() == ["unsent/"]
    asked = tools.run("rm", "-r", mount.path, answer="n\n", status=1)
    assert "the whole bucket" in asked.output
    local = tools.run("cp", tmp_path / "x", f"{mount.path}/x", status=2)
    assert "local path" in local.output
    mount.stop()
