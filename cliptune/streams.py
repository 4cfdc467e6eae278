"""Rows of a file some at a time, with all of their columns, and writing them again.

What trains a prompt is small and read whole (formats.py); what it is used on may not fit memory.
"""

import csv
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import IO, Any

from cliptune.errors import RunError, TaskError
from cliptune.formats import Rows, Wanted, need_columns, parse_json
from cliptune.wording import one_line, shown

Record = dict[str, Any]  # a row: values by column
Numbered = Iterator[tuple[int, Record]]  # with the lines that rows begin on, from 1


@dataclass(frozen=True)
class Chunk:
    """Some rows that follow each other."""

    records: list[Record]
    rows: Rows  # the wanted columns of them


def read_chunks(path: Path, wanted: Wanted, size: int) -> Iterator[Chunk]:
    """Rows of a file, `size` at a time; its name says the format.

    Raises TaskError, with the line, for what cannot be read and for columns that are not there.
    """
    reader = READERS.get(path.suffix.lower())
    if reader is None:
        raise TaskError(
            f"{path} is in no format that can be read in parts; expected {', '.join(READERS)}."
        )
    try:
        with path.open("rb") as file:
            yield from _chunks(reader(file, str(path), wanted), str(path), wanted, size)
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


def texts_chunk(texts: Sequence[Sequence[str]], wanted: Wanted) -> Chunk:
    """Texts that were typed, each as many as an example has."""
    columns = list(wanted.values())
    records = [dict(zip(columns, each, strict=True)) for each in texts]
    return _chunk(list(enumerate(records, 1)), "what was typed", wanted, "text")


def _chunks(numbered: Numbered, source: str, wanted: Wanted, size: int) -> Iterator[Chunk]:
    unit = "row" if source.endswith(".parquet") else "line"
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
    import pyarrow as pa
    import pyarrow.parquet as pq

    number = 1
    try:
        parquet = pq.ParquetFile(file)
        need_columns(source, parquet.schema_arrow.names, wanted)
        for batch in parquet.iter_batches(1024):
            batch.validate(full=True)  # else bytes are read that are no text
            for record in batch.to_pylist():
                yield number, record
                number += 1
    except (pa.ArrowException, UnicodeDecodeError) as error:
        raise TaskError(f"{source} cannot be read as Parquet: {one_line(error)}.") from error


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
    ".txt": _plain,
}


class Writer(ABC):
    """A file that rows are added to."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.written = 0  # rows

    def write(self, records: Sequence[Record]) -> None:
        """Add rows, which have the columns that the first ones have."""
        if records:
            self._write(records)
            self.written += len(records)

    @abstractmethod
    def _write(self, records: Sequence[Record]) -> None: ...

    @abstractmethod
    def close(self) -> None:
        """Leave a whole file, however many rows there are."""

    def _refuse(self, why: str) -> RunError:
        return RunError(
            f"{self.path}: a row does not fit the columns that the first ones have: {why}. Write "
            "to a name that ends in .jsonl."
        )


class _JsonLines(Writer):
    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._file = path.open("w", encoding="utf-8")

    def _write(self, records: Sequence[Record]) -> None:
        self._file.writelines(
            json.dumps(record, ensure_ascii=False, default=str) + "\n" for record in records
        )
        self._file.flush()

    def close(self) -> None:
        self._file.close()


class _Csv(Writer):
    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._file = path.open("w", encoding="utf-8", newline="")
        self._rows: csv.DictWriter[str] | None = None

    def _write(self, records: Sequence[Record]) -> None:
        if self._rows is None:
            self._rows = csv.DictWriter(self._file, list(records[0]), lineterminator="\n")
            self._rows.writeheader()
        try:
            self._rows.writerows(records)
        except ValueError as error:
            raise self._refuse(one_line(error)) from None
        self._file.flush()

    def close(self) -> None:
        self._file.close()


class _Parquet(Writer):
    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._file = path.open("wb")
        self._table: Any = None

    def _write(self, records: Sequence[Record]) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            if self._table is None:
                schema = pa.Table.from_pylist(list(records)).schema
                self._table = pq.ParquetWriter(self._file, schema)
            schema = self._table.schema
            if new := next((name for r in records for name in r if name not in schema.names), None):
                raise self._refuse(f"it has {new} besides")
            self._table.write_table(pa.Table.from_pylist(list(records), schema))
        except (pa.ArrowException, TypeError, ValueError) as error:
            raise self._refuse(one_line(error)) from None

    def close(self) -> None:
        if self._table is not None:
            self._table.close()
        self._file.close()


WRITERS: Mapping[str, Callable[[Path], Writer]] = {
    ".jsonl": _JsonLines,
    ".csv": _Csv,
    ".parquet": _Parquet,
}


def partial(path: Path) -> Path:
    """What a file is called until all of it is there."""
    return path.with_name(f"{path.stem}.partial{path.suffix}")


@contextmanager
def writing(path: Path) -> Iterator[Writer]:
    """A writer of `path`, which is there once it is whole; its name says the format.

    Where something goes wrong before, what was written is left as `partial(path)`, a file that can
    be read.
    """
    kind = WRITERS.get(path.suffix.lower())
    if kind is None:
        raise RunError(f"{path} must end in {', '.join(WRITERS)}, which say how it is written.")
    if path.is_dir():
        raise RunError(f"{path} is a folder; expected the name of a file.")
    try:
        writer = kind(partial(path))
        try:
            yield writer
        finally:
            writer.close()
            if not writer.written:
                writer.path.unlink()
        if writer.written:
            writer.path.replace(path)
    except OSError as error:
        raise RunError(f"{path} cannot be written: {error.strerror or error}.") from error
