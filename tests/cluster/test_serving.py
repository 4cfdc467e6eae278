"""Who may ask a provider: tokens, and addresses that others reach."""

from pathlib import Path
from typing import Any

import pytest

from cliptune.errors import ConfigError
from cliptune.protocol import TOKEN
from cluster.serving import Stand, read_token, refuse_open_door


@pytest.fixture(autouse=True)
def no_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(TOKEN, raising=False)


def test_a_token_is_a_files_or_the_environments_or_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert read_token(None) is None
    monkeypatch.setenv(TOKEN, " of the environment\n")
    assert read_token(None) == "of the environment"
    file = tmp_path / "token"
    file.touch(0o600)
    file.write_text("of the file\n")
    assert read_token(file) == "of the file"


@pytest.mark.parametrize(
    ("mode", "content", "words"),
    [
        (0o644, b"token", "may be read by others than its owner: chmod 600"),
        (0o600, b" \n", "is empty: expected a token"),
        (0o600, b"\xff\xfe", "cannot be read: it is not text"),
    ],
)
def test_a_bad_token_file_is_refused(mode: int, content: bytes, words: str, tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_bytes(content)
    file.chmod(mode)
    with pytest.raises(ConfigError, match=words):
        read_token(file)


def test_a_token_file_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read: No such file"):
        read_token(tmp_path / "nothing")


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "::1", "localhost"])
def test_on_this_machine_no_token_is_needed(host: str) -> None:
    refuse_open_door(host, None)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.1", "gpu-box"])  # noqa: S104
def test_elsewhere_one_is(host: str) -> None:
    refuse_open_door(host, "token")
    with pytest.raises(ConfigError, match=f"--host {host} lets other machines ask"):
        refuse_open_door(host, None)


def stand(**given: Any) -> Stand:
    some = {"replicas": 1, "threads": 1, "gpus": None, "address": None}
    return Stand(**{"host": "127.0.0.1", "port": 8400, **some, **given})


def test_an_address_is_printed_as_a_browser_takes_it() -> None:
    assert stand().url == "http://127.0.0.1:8400"
    assert stand(host="::1").url == "http://[::1]:8400"


def test_only_a_ray_that_goes_on_is_tidied(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    assert stand().own_ray
    assert not stand(address="127.0.0.1:6379").own_ray
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:6379")
    assert not stand().own_ray
