"""Who may read Ray's token."""

from pathlib import Path

import pytest

from cluster.access import protect_token


def test_a_token_that_others_can_read_becomes_its_owners_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = tmp_path / "token"
    token.write_text("secret")
    token.chmod(0o644)
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(token))
    assert protect_token() is None
    assert token.stat().st_mode & 0o777 == 0o600


def test_a_token_of_somebody_else_is_said_to_be_readable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = tmp_path / "token"
    token.touch(0o644)
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(token))
    monkeypatch.setattr("os.getuid", lambda: token.stat().st_uid + 1)
    assert "may be read by others" in str(protect_token())


def test_where_there_is_no_token_there_is_nothing_to_protect(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "none"))
    assert protect_token() is None
