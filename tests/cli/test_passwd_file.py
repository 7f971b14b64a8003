"""Credentials from s3fs's password files: forms, permissions, precedence."""

import os
from pathlib import Path

import pytest

from s3mount.cli import passwd_file
from s3mount.cli.passwd_file import find_credentials, read_passwd_file
from s3mount.core.errors import ConfigurationError


def written(path: Path, text: str, mode: int = 0o600) -> Path:
    path.write_text(text)
    path.chmod(mode)
    return path


def test_one_entry_serves_every_bucket(tmp_path: Path) -> None:
    found = read_passwd_file(written(tmp_path / "p", "AK:SK\n"), "any")
    assert (found.access_key, found.secret_key, found.session_token) == ("AK", "SK", None)


def test_the_entry_of_the_bucket_wins_and_comments_are_skipped(tmp_path: Path) -> None:
    path = written(tmp_path / "p", "# mine\n\nAK:SK\nother:AK2:SK2\nwanted:AK3:SK3\n")
    assert read_passwd_file(path, "wanted").access_key == "AK3"
    assert read_passwd_file(path, "third").access_key == "AK"


def test_the_format_of_aws_with_a_session_token(tmp_path: Path) -> None:
    text = (
        "[default]\naws_access_key_id = AK\naws_secret_access_key = S%K/+=\n"
        "aws_session_token = T\n[work]\naws_access_key_id = no\n"
    )
    found = read_passwd_file(written(tmp_path / "p", text), "b")
    assert (found.access_key, found.secret_key, found.session_token) == ("AK", "S%K/+=", "T")


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o660, 0o620, 0o601, 0o610])
def test_a_file_open_to_others_is_refused_with_the_chmod_that_helps(
    tmp_path: Path, mode: int
) -> None:
    path = written(tmp_path / "p", "AK:SECRET", mode)
    with pytest.raises(ConfigurationError, match=f"chmod 600 {path}") as raised:
        read_passwd_file(path, "b")
    assert "SECRET" not in str(raised.value)


def test_the_system_wide_file_may_be_read_by_a_group(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = written(tmp_path / "system", "AK:SK", 0o640)
    monkeypatch.setattr(passwd_file, "SYSTEM_FILE", path)
    assert read_passwd_file(path, "b").access_key == "AK"
    path.chmod(0o660)
    with pytest.raises(ConfigurationError, match="chmod 640"):
        read_passwd_file(path, "b")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("AK\n", "line 1 .* neither"),
        ("a:b:c:d\n", "neither"),
        (":SK\n", "neither"),
        ("AK:SK\nAK2:SK2\n", "line 2 .* second entry"),
        ("other:AK:SK\n", "no entry for the bucket 'b'"),
        ("", "no entry"),
        ("[default]\naws_access_key_id = AK\n", "aws_secret_access_key"),
        ("[default\nx", "not in the format"),
    ],
)
def test_nonsense_is_refused_without_telling_secrets(
    tmp_path: Path, text: str, message: str
) -> None:
    path = written(tmp_path / "p", text)
    with pytest.raises(ConfigurationError, match=message) as raised:
        read_passwd_file(path, "b")
    assert "SK" not in str(raised.value)


def test_a_missing_or_strange_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="No such file"):
        read_passwd_file(tmp_path / "none", "b")
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigurationError, match="it is not text"):
        read_passwd_file(tmp_path / "binary", "b")
    with pytest.raises(ConfigurationError, match="is not a file"):
        read_passwd_file(tmp_path, "b")


def test_the_default_files_come_after_boto3s_own_sources(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(passwd_file, "SYSTEM_FILE", tmp_path / "none")
    home = {"HOME": str(tmp_path)}
    assert find_credentials("b", None, home) is None
    written(tmp_path / ".passwd-s3fs", "AK:SK")
    found = find_credentials("b", None, home)
    assert found is not None
    assert found.access_key == "AK"
    assert find_credentials("b", None, home | {"AWS_ACCESS_KEY_ID": "x"}) is None
    assert find_credentials("b", None, home | {"AWS_PROFILE": "x"}) is None
    (tmp_path / ".aws").mkdir()
    (tmp_path / ".aws" / "credentials").touch()
    assert find_credentials("b", None, home) is None


def test_a_named_file_wins_over_the_environment(tmp_path: Path) -> None:
    path = written(tmp_path / "p", "AK:SK")
    found = find_credentials("b", path, {"AWS_ACCESS_KEY_ID": "other"})
    assert found is not None
    assert found.access_key == "AK"


def test_the_system_wide_file_is_the_last_resort(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(passwd_file, "SYSTEM_FILE", written(tmp_path / "system", "AK9:SK9"))
    found = find_credentials("b", None, {"HOME": os.fspath(tmp_path)})
    assert found is not None
    assert found.access_key == "AK9"


def test_secrets_do_not_show_in_a_repr(tmp_path: Path) -> None:
    found = read_passwd_file(written(tmp_path / "p", "AK:SECRET"), "b")
    assert "SECRET" not in repr(found)


def test_default_files_that_cannot_be_looked_for_are_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(passwd_file, "SYSTEM_FILE", tmp_path / "none")
    assert find_credentials("b", None, {"HOME": "/" + "x" * 5000}) is None
    shared = {"HOME": str(tmp_path), "AWS_SHARED_CREDENTIALS_FILE": "x" * 5000}
    assert find_credentials("b", None, shared) is None


@pytest.mark.parametrize("text", ["[DEFAULT]\n", "[half\n", "a = b\n[\n"])
def test_a_file_that_only_looks_like_aws_credentials_is_named(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigurationError, match="not in the format of"):
        read_passwd_file(written(tmp_path / "p", text), "b")


def test_a_pipe_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe", 0o600)
    with pytest.raises(ConfigurationError, match="is not a file"):
        read_passwd_file(tmp_path / "pipe", "b")
