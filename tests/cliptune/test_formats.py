"""Files of every format: the same rows out of each, and the line where something is wrong."""

import codecs
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cliptune.errors import TaskError
from cliptune.formats import Rows, read_file

WANTED = {"text": "text", "label": "label"}
TEXTS = ['a "quoted" word', "two\nlines, one text", "  Größe 日本\t", "2024-01-31"]
ROWS = [{"id": 7 + i, "text": text, "label": i % 2} for i, text in enumerate(TEXTS)]


def write(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def separated(rows: list[dict[str, Any]], by: str) -> str:
    """As a spreadsheet writes it: every value in quotes."""
    records = [rows[0].keys(), *(row.values() for row in rows)]
    quoted = [['"' + str(v).replace('"', '""') + '"' for v in record] for record in records]
    return "".join(by.join(record) + "\r\n" for record in quoted)


def write_as(folder: Path, form: str, rows: list[dict[str, Any]]) -> Path:
    """The rows in a format; `array.json` and `stream.arrow` are the second kinds of theirs."""
    path = folder / form
    table = pa.Table.from_pylist(rows)
    if form == "array.json":
        return write(path, json.dumps(rows, indent=1))
    if form in ("a.jsonl", "a.json"):
        return write(path, "".join(json.dumps(row) + "\n" for row in rows))
    if form in ("a.csv", "a.tsv"):
        return write(path, separated(rows, {"a.csv": ",", "a.tsv": "\t"}[form]))
    if form == "a.parquet":
        pq.write_table(table, path)
        return path
    new = pa.ipc.new_stream if form == "stream.arrow" else pa.ipc.new_file
    with pa.OSFile(str(path), "wb") as file, new(file, table.schema) as writer:
        writer.write_table(table)
    return path


FORMS = [
    "a.jsonl",
    "a.json",
    "array.json",
    "a.csv",
    "a.tsv",
    "a.parquet",
    "a.arrow",
    "stream.arrow",
    "a.feather",
]


def read(path: Path, **wanted: str) -> Rows:
    return read_file(path, wanted or WANTED)


def message(path: Path, **wanted: str) -> str:
    with pytest.raises(TaskError) as error:
        read(path, **wanted)
    assert str(error.value).startswith(str(path))
    assert "\n" not in str(error.value)
    return str(error.value).removeprefix(str(path))


@pytest.mark.parametrize("form", FORMS)
def test_every_format_gives_the_same_texts(form: str, tmp_path: Path) -> None:
    rows = read(write_as(tmp_path, form, ROWS))
    assert rows.columns["text"] == TEXTS
    assert set(rows.columns) == {"text", "label"}
    assert len(rows) == 4


@pytest.mark.parametrize("form", FORMS)
def test_labels_are_numbers_where_the_format_has_them(form: str, tmp_path: Path) -> None:
    rows = read(write_as(tmp_path, form, ROWS))
    assert rows.only_text == (form in ("a.csv", "a.tsv"))
    expected = ["0", "1", "0", "1"] if rows.only_text else [0, 1, 0, 1]
    assert rows.columns["label"] == expected
    assert {type(label) for label in rows.columns["label"]} == {type(expected[0])}


@pytest.mark.parametrize("form", FORMS)
def test_columns_are_found_by_the_names_they_are_given(form: str, tmp_path: Path) -> None:
    rows = read(write_as(tmp_path, form, ROWS), text="id", label="label", text_pair="text")
    assert [str(value) for value in rows.columns["text"]] == ["7", "8", "9", "10"]
    assert rows.columns["text_pair"] == TEXTS


@pytest.mark.parametrize("form", FORMS)
def test_a_column_that_is_not_there_is_named_with_those_that_are(form: str, tmp_path: Path) -> None:
    said = message(write_as(tmp_path, form, ROWS), text="txt", label="label")
    assert said == (
        " lacks the column txt; found id, label, text (did you mean text?). "
        "Set task.columns.text to what it is called."
    )


@pytest.mark.parametrize(
    ("form", "places"),
    [
        ("a.jsonl", ["line 1", "line 2", "line 3"]),
        ("array.json", ["row 1", "row 2", "row 3"]),
        ("a.csv", ["line 2", "line 3", "line 5"]),
        ("a.parquet", ["row 1", "row 2", "row 3"]),
        ("stream.arrow", ["row 1", "row 2", "row 3"]),
        ("a.feather", ["row 1", "row 2", "row 3"]),
    ],
)
def test_a_row_knows_where_it_stands(form: str, places: list[str], tmp_path: Path) -> None:
    path = write_as(tmp_path, form, ROWS)
    rows = read(path)
    assert [rows.where(row) for row in range(3)] == [f"{path}, {place}" for place in places]


@pytest.mark.parametrize(
    ("name", "content", "numbers", "texts"),
    [
        (
            "a.jsonl",
            '\n{"text": "a", "label": 0}\r\n \n\n{"text": "b", "label": 1}',
            [2, 5],
            ["a", "b"],
        ),
        ("a.csv", '\ntext,label\n\na,0\r\n"b\n\nb",1\nc,1', [4, 5, 8], ["a", "b\n\nb", "c"]),
    ],
)
def test_blank_lines_are_counted_but_are_no_examples(
    name: str, content: str, numbers: list[int], texts: list[str], tmp_path: Path
) -> None:
    rows = read(write(tmp_path / name, content))
    assert list(rows.numbers) == numbers
    assert rows.columns["text"] == texts


@pytest.mark.parametrize("form", ["a.jsonl", "array.json", "a.csv", "a.tsv"])
def test_a_byte_order_mark_is_no_part_of_the_first_name(form: str, tmp_path: Path) -> None:
    path = write_as(tmp_path, form, [{"text": "a", "label": 0}])
    write(path, codecs.BOM_UTF8 + path.read_bytes())
    assert read(path).columns["text"] == ["a"]


@pytest.mark.parametrize("name", ["a.jsonl", "a.csv"])
def test_text_that_is_not_utf_8_is_named_with_its_line(name: str, tmp_path: Path) -> None:
    path = write(tmp_path / name, "text,label\n\nGröße,0\n".encode("latin-1"))
    assert message(path) == ", line 3: not UTF-8 text: invalid start byte 0xf6."


def test_line_separators_of_unicode_end_no_line(tmp_path: Path) -> None:
    content = '{"text": "a\u2028b\x85c", "label": 0}\n5'
    assert "line 2: expected an object" in message(write(tmp_path / "a.jsonl", content))


@pytest.mark.parametrize("value", ["2024-01-31", "1.0", "NaN", "null", "true", "1e3", ""])
@pytest.mark.parametrize("form", ["a.jsonl", "a.csv", "a.tsv"])
def test_texts_that_look_like_something_else_stay_texts(
    value: str, form: str, tmp_path: Path
) -> None:
    path = write_as(tmp_path, form, [{"text": value, "label": "0"}])
    assert read(path).columns["text"] == [value]


def test_one_odd_value_does_not_change_the_others(tmp_path: Path) -> None:
    content = '{"text": "a", "label": 1}\n{"text": "b", "label": 1.0}\n{"text": "c", "label": "1"}'
    labels = read(write(tmp_path / "a.jsonl", content)).columns["label"]
    assert [type(label) for label in labels] == [int, float, str]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ('{"text": "a"}\n\n{"text": "b",', "line 3: not JSON (Expecting property name"),
        ('{"text": "a"} {}\n', "line 1: not JSON (Extra data at character 15)"),
        ("text,label\n", "line 1: not JSON"),
        ('{"text": "a"}\n["b", 1]\n', "line 2: expected an object such as"),
        ('[{"text": "a"},\n {"text": "b"},\n 5]', "row 3: expected an object such as"),
        ('[{"text": "a"},\n {"text": "b"\n 5]', "line 3: not JSON (Expecting ',' delimiter"),
        ('{"label": ' + "1" * 5000 + "}", "line 1: not JSON (Exceeds the limit"),
        ("[" * 100_000, "line 1: not JSON (maximum recursion depth"),
    ],
)
def test_broken_json_is_named_with_its_line(content: str, said: str, tmp_path: Path) -> None:
    text = message(write(tmp_path / "a.json", content))
    assert text.startswith(f", {said}")
    assert len(text) < 300


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ('text,label\n"a\nb",0\nc\n', "line 4: expected 2 values, as in the header; found 1: 'c'"),
        ("text,label\na,b,0\n", "line 2: expected 2 values, as in the header; found 3: 'a,b,0'"),
        ('text,label\na,0\n"b,1\nc,0\n', "line 3: the quotes are not right: unexpected end"),
        ('text,label\n"a" b,0\n', "line 2: the quotes are not right: "),
    ],
)
def test_a_record_that_does_not_fit_is_named_with_its_line(
    content: str, said: str, tmp_path: Path
) -> None:
    assert message(write(tmp_path / "a.csv", content)).startswith(f", {said}")


@pytest.mark.parametrize("form", ["a.csv", "a.tsv"])
def test_line_breaks_in_quotes_stay_as_they_are(form: str, tmp_path: Path) -> None:
    path = write_as(tmp_path, form, [{"text": "a\r\nb\nc\rd", "label": 0}])
    assert read(path).columns["text"] == ["a\r\nb\nc\rd"]


def test_quotes_of_a_tab_separated_file_may_be_just_quotes(tmp_path: Path) -> None:
    """As in GLUE's files: a text begins with a quote, and a later line ends with one."""
    lines = ["text\tlabel", '"the film\t0', 'the end"\t1', 'a "good" one\t1']
    rows = read(write(tmp_path / "a.tsv", "\n".join(lines)))
    assert rows.columns["text"] == ['"the film', 'the end"', 'a "good" one']
    assert rows.columns["label"] == ["0", "1", "1"]


def test_a_column_that_is_asked_for_already_is_no_suggestion(tmp_path: Path) -> None:
    said = message(write_as(tmp_path, "a.jsonl", ROWS), text="text", text_pair="texts")
    assert said.startswith(" lacks the column texts; found id, label, text. Set task.columns.text_")


def test_two_columns_of_one_name_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "text,label,text\na,0,b\n")
    assert "has two columns called text" in message(path)


def test_a_text_may_be_long(tmp_path: Path) -> None:
    long = "long " * 100_000
    path = write_as(tmp_path, "a.csv", [{"text": long, "label": 0}])
    assert read(path).columns["text"] == [long]


@pytest.mark.parametrize("name", ["a.jsonl", "a.csv", "a.parquet", "a.arrow"])
def test_an_empty_file_is_refused(name: str, tmp_path: Path) -> None:
    assert message(write(tmp_path / name, "")) == " is empty; expected examples."


@pytest.mark.parametrize(("name", "form"), [("a.parquet", "Parquet"), ("a.arrow", "Arrow")])
@pytest.mark.parametrize("content", ["text,label\na,0\n", "ARROW1 and no more"])
def test_a_file_of_another_format_is_refused(
    name: str, form: str, content: str, tmp_path: Path
) -> None:
    said = message(write(tmp_path / name, content))
    assert said.startswith(f" cannot be read as {form}: ")


@pytest.mark.parametrize("form", ["a.parquet", "a.arrow", "stream.arrow"])
@pytest.mark.parametrize("bad", [b"\x80", b"\xff"])
def test_a_text_of_damaged_bytes_is_refused(form: str, bad: bytes, tmp_path: Path) -> None:
    """Arrow itself opens such a file without a word."""
    path = tmp_path / form
    write_as(tmp_path, form, [{"text": "unmistakable", "label": 0}])
    content = path.read_bytes()
    assert b"unmistakable" in content
    write(path, content.replace(b"unmistakable", b"unmistakabl" + bad))
    assert message(path).startswith(" cannot be read, it is damaged: ")


@pytest.mark.parametrize("form", ["a.parquet", "a.arrow", "stream.arrow"])
def test_a_column_whose_name_is_damaged_is_refused(form: str, tmp_path: Path) -> None:
    path = tmp_path / form
    write_as(tmp_path, form, [{"text": "fine", "label": 0, "unmistakable": 1}])
    content = path.read_bytes()
    assert b"unmistakable" in content
    write(path, content.replace(b"unmistakable", b"unmistakabl\x80"))
    assert " cannot be read as " in message(path)


def test_a_name_that_says_no_format_is_refused(tmp_path: Path) -> None:
    said = message(write(tmp_path / "a.txt", "a"))
    assert "expected .jsonl, .json, .csv, .tsv, .parquet, .arrow, .feather" in said
