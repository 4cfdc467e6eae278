"""The file that a report goes to."""

import json
from pathlib import Path

import pytest

from cliptune.errors import ConfigError
from cliptune.reportfile import writable, write

FULL = Path("/dev/full")


def test_a_report_is_written_as_json_where_it_was_asked_for(tmp_path: Path) -> None:
    file = writable(tmp_path / "report.json")
    assert file is not None
    write({"a": [1, 2]}, file)
    assert json.loads(file.read_text()) == {"a": [1, 2]}


def test_without_a_file_nothing_is_written() -> None:
    assert writable(None) is None
    write({"a": 1}, None)


def test_a_file_that_cannot_be_written_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"^--json: .*none/report\.json cannot be written: No such"
    ):
        writable(tmp_path / "none" / "report.json")


def test_an_earlier_report_stays_until_there_is_another(tmp_path: Path) -> None:
    file = tmp_path / "report.json"
    write({"a": [1, 2]}, file)
    assert writable(file) == file
    assert json.loads(file.read_text()) == {"a": [1, 2]}
    write({}, file)
    assert json.loads(file.read_text()) == {}


@pytest.mark.skipif(not FULL.exists(), reason="this system has no /dev/full")
def test_a_disk_that_is_full_by_then_is_one_sentence() -> None:
    with pytest.raises(ConfigError, match=r"^--json: /dev/full cannot be written: No space left"):
        write({"a": 1}, FULL)
