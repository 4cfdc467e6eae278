"""Columns of plain values out of one file; nothing is converted, and every row knows its line."""

import csv
import io
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from cliptune.errors import TaskError
from cliptune.wording import nearest, one_line, shown, some

Wanted = Mapping[str, str]  # setting of task.columns -> what the column is called in the file


@dataclass(frozen=True)
class Rows:
    """The wanted columns of one file, or of one split of a dataset."""

    source: str
    columns: Mapping[str, Sequence[Any]]  # by the setting that names them
    numbers: Sequence[int]  # of the rows' lines, from 1
    unit: str = "row"
    only_text: bool = False  # the format has no numbers
    note: str = ""  # for people

    def __len__(self) -> int:
        return len(self.numbers)

    def where(self, row: int) -> str:
        """Where a row stands, in words."""
        return f"{self.source}, {self.unit} {self.numbers[row]}"


@dataclass(frozen=True)
class Table:
    """All of a file: its rows as values by column."""

    source: str
    records: Sequence[dict[str, Any]]
    numbers: Sequence[int]  # of the rows' lines, from 1
    unit: str = "row"
    only_text: bool = False

    def rows(self, wanted: Wanted) -> Rows:
        """The wanted columns, empty where a record lacks one."""
        columns = {field: [r.get(name) for r in self.records] for field, name in wanted.items()}
        return Rows(self.source, columns, self.numbers, self.unit, self.only_text)


def read_file(path: Path, wanted: Wanted) -> Rows:
    """The wanted columns of a file, whose name says the format."""
    reader = FORMATS.get(path.suffix.lower())
    if reader is None:
        raise TaskError(
            f"{path} is in no format that is known by its name; expected {', '.join(FORMATS)}."
        )
    if path.stat().st_size == 0:
        raise TaskError(f"{path} is empty; expected examples.")
    return reader(path, wanted)


def need_columns(source: str, found: Iterable[str], wanted: Wanted) -> None:
    """Raise a TaskError where a column is not there, or there twice."""
    names = [str(name) for name in found]
    for setting, column in wanted.items():
        if column not in names:
            free = [name for name in names if name not in wanted.values()]
            raise TaskError(
                f"{source} lacks the column {column}; found {some(sorted(names))}"
                f"{nearest(column, free)}. Set task.columns.{setting} to what it is called."
            )
        if names.count(column) > 1:
            raise TaskError(f"{source} has two columns called {column}; rename one of them.")


def from_table(source: str, table: Any, wanted: Wanted) -> Rows:
    """The wanted columns of a pyarrow table, which may come from a damaged file."""
    import pyarrow as pa

    table = table.select(list(dict.fromkeys(wanted.values())))
    try:
        table.validate(
            full=True
        )  # else offsets beyond the end are read, and bytes that are no text
        columns = {setting: table.column(name).to_pylist() for setting, name in wanted.items()}
    except (pa.ArrowException, ValueError, OverflowError) as error:
        raise TaskError(f"{source} cannot be read, it is damaged: {one_line(error)}.") from error
    return Rows(source, columns, range(1, table.num_rows + 1))


def json_table(path: Path, wanted: Wanted) -> Table:
    """One object a line, or one array of objects, which have the wanted columns."""
    text = _text(path)
    if text.lstrip().startswith("["):
        items = parse_json(text, path, 1)
        table = Table(str(path), items, range(1, len(items) + 1))
    else:
        lines = [(n, line) for n, line in enumerate(text.split("\n"), start=1) if line.strip()]
        items = [parse_json(line, path, number) for number, line in lines]
        table = Table(str(path), items, [number for number, _ in lines], "line")
    for number, item in zip(table.numbers, items, strict=True):
        if not isinstance(item, dict):
            raise TaskError(
                f"{path}, {table.unit} {number}: expected an object such as "
                f'{{"text": "...", "label": 0}}; found {shown(item)}.'
            )
    if items:
        need_columns(table.source, dict.fromkeys(key for item in items for key in item), wanted)
    return table


def parse_json(text: str, path: Path | str, line: int) -> Any:
    """The JSON value of a text that begins at a line of a file."""
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        line += error.lineno - 1
        reason = f"{error.msg} at character {error.colno}"
        text = text.split("\n")[error.lineno - 1]
    except (ValueError, RecursionError) as error:
        reason = one_line(error)
    raise TaskError(
        f"{path}, line {line}: not JSON ({reason}); expected an object a line, found "
        f"{shown(text.strip())}."
    )


def separated_table(path: Path, wanted: Wanted, separator: str) -> Table:
    """A header and one record a row; quoted values may span lines. All values are texts."""
    csv.field_size_limit(2**31 - 1)  # texts may be long
    records, numbers = _records(path, separator)
    header = records[0] if records else []
    for number, record in zip(numbers, records, strict=True):
        if len(record) != len(header):
            raise TaskError(
                f"{path}, line {number}: expected {len(header)} values, as in the header; found "
                f"{len(record)}: {shown(separator.join(record))}."
            )
    need_columns(str(path), header, wanted)
    items = [dict(zip(header, record, strict=True)) for record in records[1:]]
    return Table(str(path), items, numbers[1:], "line", only_text=True)


Records = tuple[list[list[str]], list[int]]


def _records(path: Path, separator: str) -> Records:
    """Records that are not blank, and the lines on which they begin.

    In tab-separated files, quotes are often just quotes: where that gives more records, all of one
    size, they are.
    """
    text = _text(path)
    plain: Records = ([], [])
    if separator == "\t" and '"' in text:
        plain = _parsed(text, separator, quoted=False)
    rectangular = len(set(map(len, plain[0]))) == 1
    try:
        records = _parsed(text, separator, quoted=True)
    except csv.Error as error:
        if rectangular:
            return plain
        reason, line = error.args
        raise TaskError(f"{path}, line {line}: the quotes are not right: {reason}.") from None
    return plain if rectangular and len(plain[0]) > len(records[0]) else records


def _parsed(text: str, separator: str, *, quoted: bool) -> Records:
    quoting: Any = csv.QUOTE_MINIMAL if quoted else csv.QUOTE_NONE
    lines = io.StringIO(text, newline="")
    reader = csv.reader(lines, delimiter=separator, strict=True, quoting=quoting)
    records: list[list[str]] = []
    numbers: list[int] = []
    line = 1
    try:
        for record in reader:
            if record:
                records.append(record)
                numbers.append(line)
            line = reader.line_num + 1
    except csv.Error as error:
        raise csv.Error(str(error), line) from None
    return records, numbers


def _read_parquet(path: Path, wanted: Wanted) -> Rows:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            need_columns(str(path), file.schema_arrow.names, wanted)
            table = file.read(columns=list(set(wanted.values())))
    except (pa.ArrowException, UnicodeDecodeError) as error:  # the latter of a column's name
        raise TaskError(f"{path} cannot be read as Parquet: {one_line(error)}.") from error
    return from_table(str(path), table, wanted)


def opened_arrow(file: Any) -> Any:
    """A reader of batches of Arrow's file format, which is Feather too, or of its stream format."""
    import pyarrow as pa

    is_file = file.read(6) == b"ARROW1"
    file.seek(0)
    return (pa.ipc.open_file if is_file else pa.ipc.open_stream)(file)


def _read_arrow(path: Path, wanted: Wanted) -> Rows:
    """Arrow's file format, or its stream format, which `datasets` writes."""
    import pyarrow as pa

    try:
        with pa.OSFile(str(path)) as file:
            table = opened_arrow(file).read_all()
            names = table.column_names
    except (pa.ArrowException, UnicodeDecodeError) as error:  # the latter of a column's name
        raise TaskError(f"{path} cannot be read as Arrow: {one_line(error)}.") from error
    need_columns(str(path), names, wanted)
    return from_table(str(path), table, wanted)


def _text(path: Path) -> str:
    content = path.read_bytes()
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise TaskError(
            f"{path}, line {line}: not UTF-8 text: {error.reason} {content[error.start]:#04x}."
        ) from None


def _read_json(path: Path, wanted: Wanted) -> Rows:
    return json_table(path, wanted).rows(wanted)


def _read_separated(path: Path, wanted: Wanted, separator: str) -> Rows:
    return separated_table(path, wanted, separator).rows(wanted)


FORMATS: Mapping[str, Callable[[Path, Wanted], Rows]] = {
    ".jsonl": _read_json,
    ".json": _read_json,
    ".csv": partial(_read_separated, separator=","),
    ".tsv": partial(_read_separated, separator="\t"),
    ".parquet": _read_parquet,
    ".arrow": _read_arrow,
    ".feather": _read_arrow,
}
