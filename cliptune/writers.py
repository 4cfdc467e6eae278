"""Writing rows as they come, with all of their columns, so that an interruption leaves a file."""

import csv
import functools
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cliptune.errors import RunError
from cliptune.streams import Record
from cliptune.wording import one_line


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
    def __init__(self, path: Path, separator: str = ",") -> None:
        super().__init__(path)
        self._separator = separator
        self._file = path.open("w", encoding="utf-8", newline="")
        self._rows: csv.DictWriter[str] | None = None

    def _write(self, records: Sequence[Record]) -> None:
        if self._rows is None:
            self._rows = csv.DictWriter(
                self._file, list(records[0]), delimiter=self._separator, lineterminator="\n"
            )
            self._rows.writeheader()
        try:
            self._rows.writerows(records)
        except ValueError as error:
            raise self._refuse(one_line(error)) from None
        self._file.flush()

    def close(self) -> None:
        self._file.close()


class _Arrow(Writer):
    """Columns with the types of the first rows."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._file = path.open("wb")
        self._table: Any = None
        self._schema: Any = None

    def _open(self, schema: Any) -> Any:
        import pyarrow as pa

        return pa.ipc.new_file(self._file, schema)

    def _write(self, records: Sequence[Record]) -> None:
        import pyarrow as pa

        try:
            if self._table is None:
                self._schema = pa.Table.from_pylist(list(records)).schema
                self._table = self._open(self._schema)
            schema = self._schema
            if new := next((name for r in records for name in r if name not in schema.names), None):
                raise self._refuse(f"it has {new} besides")
            self._table.write_table(pa.Table.from_pylist(list(records), schema))
        except (pa.ArrowException, TypeError, ValueError) as error:
            raise self._refuse(one_line(error)) from None

    def close(self) -> None:
        if self._table is not None:
            self._table.close()
        self._file.close()


class _Parquet(_Arrow):
    def _open(self, schema: Any) -> Any:
        import pyarrow.parquet as pq

        return pq.ParquetWriter(self._file, schema)


WRITERS: Mapping[str, Callable[[Path], Writer]] = {
    ".jsonl": _JsonLines,
    ".csv": _Csv,
    ".tsv": functools.partial(_Csv, separator="\t"),
    ".parquet": _Parquet,
    ".arrow": _Arrow,
    ".feather": _Arrow,
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
