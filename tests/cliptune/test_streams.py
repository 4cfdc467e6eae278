"""Rows read some at a time: formats, broken lines."""

import csv
import io
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyarrow import feather

from cliptune.errors import TaskError
from cliptune.streams import Record, read_chunks, read_lines, texts_chunk

WANTED = {"text": "review"}
RECORDS: list[Record] = [
    {"id": "1", "review": "good"},
    {"id": "2", "review": 'two\nlines, "quoted"'},
    {"id": "3", "review": "Üble — 悪い"},
]


def write(path: Path, records: list[Record] = RECORDS) -> Path:
    if path.suffix == ".jsonl":
        path.write_text("\n\n".join(map(json.dumps, records)), encoding="utf-8")
    elif path.suffix == ".csv":
        with path.open("w", encoding="utf-8-sig", newline="") as file:
            rows = csv.DictWriter(file, list(records[0]))
            rows.writeheader()
            rows.writerows(records)
    elif path.suffix == ".json":
        path.write_text(json.dumps(records), encoding="utf-8")
    elif path.suffix == ".tsv":
        path.write_text(
            "\n".join("\t".join(each) for each in [records[0], *map(dict.values, records)]),
            encoding="utf-8",
        )
    elif path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(records), path)
    elif path.suffix == ".feather":
        feather.write_feather(pa.Table.from_pylist(records), path)
    else:
        table = pa.Table.from_pylist(records)
        with pa.ipc.new_stream(path, table.schema) as stream:  # as `datasets` writes it
            stream.write_table(table, max_chunksize=1)
    return path


def records(path: Path, wanted: dict[str, str] = WANTED, size: int = 2) -> list[Record]:
    return [record for chunk in read_chunks(path, wanted, size) for record in chunk.records]


@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".parquet", ".json", ".arrow", ".feather"])
def test_rows_come_some_at_a_time_with_all_of_their_columns(suffix: str, tmp_path: Path) -> None:
    chunks = list(read_chunks(write(tmp_path / f"rows{suffix}"), WANTED, 2))
    assert [chunk.records for chunk in chunks] == [RECORDS[:2], RECORDS[2:]]
    assert [chunk.rows.columns["text"] for chunk in chunks] == [
        [record["review"] for record in some] for some in (RECORDS[:2], RECORDS[2:])
    ]
    lines = {".jsonl": (1, 3, 5), ".csv": (2, 3, 5)}.get(suffix, (1, 2, 3))
    assert tuple(number for chunk in chunks for number in chunk.rows.numbers) == lines


@pytest.mark.parametrize(
    ("lines", "texts", "numbers"),
    [
        ("one\n\n two \r\n", ["one", " two "], [1, 3]),
        ('\n{"review": "one"}\n\n{"review": "two", "id": 3}\n', ["one", "two"], [2, 4]),
        ("\ufeffone", ["one"], [1]),
        ('\ufeff{"review": "one"}', ["one"], [1]),
        ("", [], []),
        ("\n\n", [], []),
    ],
)
def test_lines_are_texts_unless_the_first_one_begins_with_a_brace(
    lines: str, texts: list[str], numbers: list[int]
) -> None:
    chunks = list(read_lines(io.BytesIO(lines.encode()), "standard input", WANTED, 5))
    assert [text for chunk in chunks for text in chunk.rows.columns["text"]] == texts
    assert [number for chunk in chunks for number in chunk.rows.numbers] == numbers


def test_reading_waits_for_no_more_lines_than_a_chunk_has() -> None:
    taken = []

    def lines() -> Any:
        for number in range(10):
            taken.append(number)
            yield b"text\n"

    next(read_lines(lines(), "standard input", WANTED, 3))
    assert len(taken) == 3


@pytest.mark.parametrize(
    ("name", "content", "complaint"),
    [
        ("a.jsonl", b'{"review": "a"}\n{"review": \n', r"a.jsonl, line 2: not JSON"),
        ("a.jsonl", b'{"review": "a"}\n[1]\n', r"line 2: expected an object a line; found \[1\]"),
        ("a.jsonl", b'{"text": "a"}\n', r"lacks the column review; found text"),
        ("a.jsonl", b'{"review": "a"}\n{"review": "\xff"}', r"line 2: not UTF-8 text"),
        ("a.csv", b"review,id\na,1\nb\n", r"a.csv, line 3: expected 2 values.*found 1: 'b'"),
        ("a.csv", b'review,id\na,1\n"b\n\n', r"a.csv, line 3: the quotes are not right"),
        ("a.csv", b"text,id\na,1\n", r"a.csv lacks the column review"),
        ("a.parquet", b"PAR1 and nothing else", r"a.parquet cannot be read as Parquet"),
        ("a.arrow", b"ARROW1 and nothing else", r"a.arrow cannot be read as Arrow"),
        ("a.feather", b"FEA1 of an older kind", r"a.feather cannot be read as Arrow"),
        ("a.json", b'[{"review": "a"}, 1]', r"a.json, row 2: expected an object.*found 1"),
        ("a.tsv", b"review\tid\na\n", r"a.tsv, line 2: expected 2 values"),
        ("a.xlsx", b"", r"expected .jsonl, .csv, .parquet, .arrow, .feather, .txt, .json, .tsv"),
    ],
)
def test_a_broken_file_is_refused_by_its_line(
    name: str, content: bytes, complaint: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(TaskError, match=complaint):
        records(tmp_path / name)


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TaskError, match=r"none\.csv cannot be read: No such file"):
        records(tmp_path / "none.csv")


def test_texts_of_pairs_need_objects(tmp_path: Path) -> None:
    pairs = {"text": "premise", "text_pair": "hypothesis"}
    with pytest.raises(TaskError, match="has premise and hypothesis, which a line of text cannot"):
        list(read_lines([b"one\n"], "standard input", pairs, 5))
    chunk = texts_chunk([("a", "b"), ("c", "d")], pairs)
    assert chunk.records[1] == {"premise": "c", "hypothesis": "d"}
    assert chunk.rows.columns == {"text": ["a", "c"], "text_pair": ["b", "d"]}


def test_quotes_of_a_tab_separated_file_are_as_in_a_tasks(tmp_path: Path) -> None:
    rows = write(
        tmp_path / "rows.tsv", [{"id": "1", "review": '"good'}, {"id": "2", "review": "b"}]
    )
    (chunk,) = read_chunks(rows, WANTED, 9)
    assert chunk.rows.columns["text"] == ['"good', "b"]
    assert (chunk.rows.unit, list(chunk.rows.numbers)) == ("line", [2, 3])


@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".json"])
def test_an_empty_file_has_no_rows(suffix: str, tmp_path: Path) -> None:
    (tmp_path / f"a{suffix}").touch()
    assert records(tmp_path / f"a{suffix}") == []
