"""Rows written as they come: what is there afterwards, and after an interruption."""

from datetime import date
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cliptune.errors import RunError
from cliptune.streams import Record, read_chunks
from cliptune.writers import WRITERS, partial, writing

WANTED = {"text": "review"}
RECORDS: list[Record] = [
    {"id": "1", "review": "good"},
    {"id": "2", "review": 'two\nlines, "quoted"'},
    {"id": "3", "review": "Üble — 悪い"},
]


def records(path: Path, wanted: dict[str, str] = WANTED, size: int = 2) -> list[Record]:
    return [record for chunk in read_chunks(path, wanted, size) for record in chunk.records]


@pytest.mark.parametrize("suffix", WRITERS)
def test_what_is_written_is_read_again(suffix: str, tmp_path: Path) -> None:
    out = tmp_path / f"out{suffix}"
    with writing(out) as writer:
        writer.write(RECORDS[:2])
        writer.write(RECORDS[2:])
        assert not out.exists()
    assert writer.written == 3
    assert records(out) == RECORDS
    assert [file.name for file in tmp_path.iterdir()] == [out.name]


@pytest.mark.parametrize("suffix", WRITERS)
def test_what_was_written_before_an_interruption_can_be_read(suffix: str, tmp_path: Path) -> None:
    out = tmp_path / f"out{suffix}"
    out.write_text("of another day", encoding="utf-8")
    with pytest.raises(KeyboardInterrupt), writing(out) as writer:
        writer.write(RECORDS[:2])
        raise KeyboardInterrupt
    assert records(partial(out)) == RECORDS[:2]
    assert out.read_text(encoding="utf-8") == "of another day"


@pytest.mark.parametrize("suffix", WRITERS)
def test_an_interruption_before_the_first_row_leaves_nothing(suffix: str, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), writing(tmp_path / f"out{suffix}"):
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("suffix", [name for name in WRITERS if name != ".jsonl"])
def test_a_row_with_a_column_more_is_refused_where_columns_are_fixed(
    suffix: str, tmp_path: Path
) -> None:
    out = tmp_path / f"out{suffix}"
    with pytest.raises(RunError, match=r"does not fit.*more.*ends in \.jsonl"), writing(out) as to:
        to.write(RECORDS)
        to.write([{**RECORDS[0], "more": 1}])
    assert records(partial(out)) == RECORDS


def test_values_that_json_has_no_word_for_are_written_as_texts(tmp_path: Path) -> None:
    rows = tmp_path / "rows.parquet"
    table = pa.Table.from_pylist([{"review": "good", "day": date(2024, 11, 5)}])
    pq.write_table(table, rows)
    with writing(tmp_path / "out.jsonl") as writer:
        writer.write(records(rows))
    assert records(tmp_path / "out.jsonl") == [{"review": "good", "day": "2024-11-05"}]


@pytest.mark.parametrize(
    ("name", "complaint"),
    [("a.xlsx", "must end in .jsonl"), ("none/a.csv", "No such file"), ("a.csv", "is a folder")],
)
def test_a_file_that_cannot_be_written_is_refused(
    name: str, complaint: str, tmp_path: Path
) -> None:
    (tmp_path / "a.csv").mkdir()
    with pytest.raises(RunError, match=complaint), writing(tmp_path / name):
        pass
