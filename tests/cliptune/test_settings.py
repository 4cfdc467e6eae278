"""Settings written as YAML and read again."""

from pathlib import Path

import pytest
import yaml

from cliptune.settings import read_file, safe_dump

TEXTS = ("1e5", "1.5e3", "-2E1", ".5e2", "0012", "1_000", "12:30", "yes", "null", "2024-11-05")


@pytest.mark.parametrize("text", TEXTS)
def test_a_text_that_looks_like_a_number_stays_one(text: str, tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(safe_dump({"task": {"labels": [text]}}))
    assert read_file(file) == {"task": {"labels": [text]}}
    assert yaml.safe_load(file.read_text()) == read_file(file)


@pytest.mark.parametrize("value", [1, -3, 0.5, 1e-5, 1e16, float("inf"), True, None])
def test_what_is_no_text_stays_what_it_is(value: object, tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(safe_dump({"search": value}))
    assert read_file(file) == {"search": value}
