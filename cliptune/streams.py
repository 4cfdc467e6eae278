"""Rows of a file some at a time, with all of their columns; writers.py writes them again.

What trains a prompt is small and read whole (formats.py); what it is used on may not fit memory.
"""

import csv
import io
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import IO, Any

from cliptune.errors import TaskError
from cliptune.formats import (
    Rows,
    Table,
    Wanted,
    json_table,
    need_columns,
    opened_arrow,
    parse_json,
    separated_table,
)
from cliptune.wording import one_line, shown

Record = dict[str, Any]  # a row: values by column
Numbered = Iterator[tuple[int, Record]]  # with the lines that rows begin on, from 1
Batches = tuple[Sequence[str], Iterable[Any]]  # names of columns, and Arrow's batches of rows


@dataclass(frozen=True)
class Chunk:
    """Some rows that follow each other."""

    records: list[Record]
    rows: Rows  # the wanted columns of them


def read_chunks(path: Path, wanted: Wanted, size: int) -> Iterator[Chunk]:
    """Rows of a file, `size` at a time; its name says the format.

    Raises TaskError, with the line, for what cannot be read and for columns that are not there.
    """
    suffix = path.suffix.lower()
    if suffix not in FILES:
        raise TaskError(f"{path} is in no format that can be read; expected {', '.join(FILES)}.")
    try:
        if suffix in WHOLE:
            table = WHOLE[suffix](path, wanted)
            numbered = zip(table.numbers, table.records, strict=True)
            yield from _chunks(numbered, table.source, wanted, size, table.unit)
            return
        with path.open("rb") as file:
            yield from _read(file, suffix, str(path), wanted, size)
    except OSError as error:
        raise TaskError(f"{path} cannot be read: {error.strerror or one_line(error)}.") from error


def read_lines(file: Iterable[bytes], source: str, wanted: Wanted, size: int) -> Iterator[Chunk]:
    """The same of lines of text, or of JSON objects where the first line begins with a brace."""
    lines = iter(file)
    blank = []
    for line in lines:
        blank.append(line)
        if line.strip():
            break
    is_json = bool(blank) and blank[-1].removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"{")
    reader = _json_lines if is_json else _plain
    yield from _chunks(reader(chain(blank, lines), source, wanted), source, wanted, size)


def read_stream(
    file: IO[bytes], kind: str, source: str, wanted: Wanted, size: int
) -> Iterator[Chunk]:
    """Rows of what is no file, `size` at a time; of a `kind` in STREAMS."""
    if kind not in STREAMS:
        raise TaskError(f"{source} can be read as {', '.join(STREAMS)}; found {kind}.")
    suffix = f".{kind}"
    whole = io.BytesIO(file.read()) if suffix in BATCHES else file  # which one has to move about in
    yield from _read(whole, suffix, source, wanted, size)


def texts_chunk(texts: Sequence[Sequence[str]], wanted: Wanted) -> Chunk:
    """Texts that were typed, each as many as an example has."""
    columns = list(wanted.values())
    records = [dict(zip(columns, each, strict=True)) for each in texts]
    return _chunk(list(enumerate(records, 1)), "what was typed", wanted, "text")


def _read(file: IO[bytes], suffix: str, source: str, wanted: Wanted, size: int) -> Iterator[Chunk]:
    unit = "row" if suffix in BATCHES else "line"
    yield from _chunks(READERS[suffix](file, source, wanted), source, wanted, size, unit)


def _chunks(
    numbered: Numbered, source: str, wanted: Wanted, size: int, unit: str = "line"
) -> Iterator[Chunk]:
    while some := list(islice(numbered, size)):
        yield _chunk(some, source, wanted, unit)


def _chunk(some: list[tuple[int, Record]], source: str, wanted: Wanted, unit: str) -> Chunk:
    numbers, records = [number for number, _ in some], [record for _, record in some]
    columns = {field: [r.get(column) for r in records] for field, column in wanted.items()}
    return Chunk(records, Rows(source, columns, numbers, unit))


def _plain(file: Iterable[bytes], source: str, wanted: Wanted) -> Numbered:
    """A text a line."""
    if len(wanted) > 1:
        raise TaskError(
            f"{source}: an example has {' and '.join(wanted.values())}, which a line of text "
            "cannot hold. Give objects of JSON, one a line."
        )
    (column,) = wanted.values()
    for number, line in _decoded(file, source):
        if line.strip():
            yield number, {column: line.rstrip("\r\n")}


def _json_lines(file: Iterable[bytes], source: str, wanted: Wanted) -> Numbered:
    known = False
    for number, line in _decoded(file, source):
        if not line.strip():
            continue
        item = parse_json(line.rstrip("\r\n"), source, number)
        if not isinstance(item, dict):
            raise TaskError(
                f"{source}, line {number}: expected an object a line; found {shown(item)}."
            )
        if not known:
            need_columns(source, item, wanted)
            known = True
        yield number, item


def _csv(file: Iterable[bytes], source: str, wanted: Wanted) -> Numbered:
    """A header and one record a row; quoted values may span lines."""
    csv.field_size_limit(2**31 - 1)  # texts may be long
    reader = csv.reader((line for _, line in _decoded(file, source)), strict=True)
    header: list[str] = []
    line = 1
    while True:
        try:
            record = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise TaskError(f"{source}, line {line}: the quotes are not right: {error}.") from None
        if record and not header:
            header = record
            need_columns(source, header, wanted)
        elif record:
            if len(record) != len(header):
                raise TaskError(
                    f"{source}, line {line}: expected {len(header)} values, as in the header; "
                    f"found {len(record)}: {shown(','.join(record))}."
                )
            yield line, dict(zip(header, record, strict=True))
        line = reader.line_num + 1


def _parquet(file: IO[bytes], source: str, wanted: Wanted) -> Numbered:
    import pyarrow.parquet as pq

    def opened() -> Batches:
        parquet = pq.ParquetFile(file)
        return parquet.schema_arrow.names, parquet.iter_batches(1024)

    return _batches(opened, f"{source} cannot be read as Parquet", source, wanted)


def _arrow(file: IO[bytes], source: str, wanted: Wanted) -> Numbered:
    def opened() -> Batches:
        reader = opened_arrow(file)
        count = getattr(reader, "num_record_batches", None)  # of a stream it is not known
        batches = reader if count is None else (reader.get_batch(i) for i in range(count))
        return reader.schema.names, batches

    return _batches(opened, f"{source} cannot be read as Arrow", source, wanted)


def _batches(opened: Callable[[], Batches], failing: str, source: str, wanted: Wanted) -> Numbered:
    import pyarrow as pa

    number = 1
    try:
        names, batches = opened()
        need_columns(source, names, wanted)
        for batch in batches:
            batch.validate(full=True)  # else bytes are read that are no text
            for record in batch.to_pylist():
                yield number, record
                number += 1
    except (pa.ArrowException, UnicodeDecodeError) as error:
        raise TaskError(f"{failing}: {one_line(error)}.") from error


def _decoded(file: Iterable[bytes], source: str) -> Iterator[tuple[int, str]]:
    for number, line in enumerate(file, 1):
        try:
            yield number, line.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            raise TaskError(
                f"{source}, line {number}: not UTF-8 text: {error.reason} {line[error.start]:#04x}."
            ) from None


READERS: Mapping[str, Callable[[Any, str, Wanted], Numbered]] = {
    ".jsonl": _json_lines,
    ".csv": _csv,
    ".parquet": _parquet,
    ".arrow": _arrow,
    ".feather": _arrow,
    ".txt": _plain,
}
BATCHES = (".parquet", ".arrow", ".feather")  # which have rows and no lines
WHOLE: Mapping[str, Callable[[Path, Wanted], Table]] = {  # what cannot be read in parts
    ".json": json_table,
    ".tsv": partial(separated_table, separator="\t"),
}
FILES = (*READERS, *WHOLE)
STREAMS = [suffix.removeprefix(".") for suffix in READERS]
