"""`cliptune predict`: the prompt of a run put to use, on texts, a file or standard input."""

import json
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from cliptune.config import Config
from cliptune.errors import CliptuneError, ConfigError, TaskError
from cliptune.formats import Wanted
from cliptune.predictor import AT_ONCE, Prediction, Predictor
from cliptune.record import RunRecord, read_run
from cliptune.streams import (
    STREAMS,
    Chunk,
    Record,
    read_chunks,
    read_lines,
    read_stream,
    texts_chunk,
)
from cliptune.task import text_columns, unlabelled
from cliptune.writers import WRITERS, Writer, partial, writing
from jobs.signals import Stopped, leave, stopping

STDIN = "standard input"
PREDICTION, WORD, PROBABILITY, AGREEMENT = "prediction", "label_word", "probability", "agreement"


def main(
    place: str,
    texts: Sequence[str],
    *,
    file: Path | None,
    kind: str | None,
    batch: int,
    out: Path | None,
    model: str | None,
    device: str | None,
    threads: int | None,
    ensemble: bool,
    as_json: bool,
) -> None:
    """Classify what is given and print it, or write it to `out`; by as many CPU threads as torch
    takes unless `threads` says how many. `kind` is the format of standard input."""
    refuse_odd(texts, file, kind, out)
    record = read_run(Config, place)
    wanted = text_columns(record.config.task)
    own = own_columns(record, ensemble)
    count = None if texts or file is None else counted(file, wanted, own)
    progress = _progress()
    written: Writer | None = None
    try:
        with stopping(at_once=lambda: False), progress:
            bar = progress.add_task("Loading the model", total=None)
            if threads is not None:
                torch.set_num_threads(threads)
            predictor = _predictor(record, model, device)
            networks = predictor.networks(ensemble=ensemble)
            with nullcontext() if out is None else writing(out) as written:
                progress.update(bar, description="Predicting", total=count)
                for chunk in chunks(texts, file, kind, wanted, batch):
                    refuse_taken(chunk, own, file or STDIN)
                    found = predictor.answer(chunk.rows, networks)
                    give(chunk, found, written, as_json=as_json)
                    progress.advance(bar, len(found))
    except Stopped as stopped:
        print(f"Stopped{_kept(written)}.", file=sys.stderr)
        leave(stopped.exit_code)
    except BrokenPipeError:  # whoever reads has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except CliptuneError as error:
        if kept := _kept(written):
            raise type(error)(f"{error}\nEnded{kept}.") from error
        raise
    else:
        if written is not None:
            print(f"{written.written:,} predictions written to {out}")


def refuse_odd(texts: Sequence[str], file: Path | None, kind: str | None, out: Path | None) -> None:
    """Refuse what cannot be meant, before anything is loaded."""
    if texts and file is not None:
        raise ConfigError("Give texts or --file FILE, not both.")
    if not texts and file is None and sys.stdin.isatty():
        raise ConfigError(
            "Nothing to predict: give texts, --file FILE, or lines on standard input."
        )
    if kind is not None and (texts or file is not None):
        raise ConfigError("--format says what standard input is; leave it out.")
    if kind is not None and kind not in STREAMS:
        raise ConfigError(f"--format must be one of {', '.join(STREAMS)}; found {kind}.")
    if out is not None and out.suffix.lower() not in WRITERS:
        raise ConfigError(f"--out must end in {', '.join(WRITERS)}; found {out}.")
    written = () if out is None else (out.resolve(), partial(out).resolve())
    if file is not None and file.resolve() in written:
        raise ConfigError(f"--out would replace what is read, {file}; give it another name.")


def own_columns(record: RunRecord[Config], ensemble: bool) -> list[str]:
    """What predictions add to the columns of an input."""
    each = [f"{PROBABILITY}_{word}" for word in record.config.task.label_words]
    return [PREDICTION, WORD, PROBABILITY, *each, *([AGREEMENT] if ensemble else [])]


def counted(file: Path, wanted: Wanted, own: Sequence[str]) -> int:
    """Rows of a file; a bad one is refused now rather than after an hour."""
    count = 0
    for chunk in read_chunks(file, wanted, AT_ONCE):
        unlabelled(chunk.rows, wanted)
        refuse_taken(chunk, own, file)
        count += len(chunk.records)
    if not count:
        raise TaskError(f"{file} is empty; expected examples.")
    return count


def refuse_taken(chunk: Chunk, own: Sequence[str], place: Path | str) -> None:
    """Refuse columns that predictions would take the place of."""
    if taken := [name for name in chunk.records[0] if name in own]:
        raise TaskError(
            f"{place} has a column {taken[0]} already, which the predictions would have; rename "
            "it, or leave it out."
        )


def chunks(
    texts: Sequence[str], file: Path | None, kind: str | None, wanted: Wanted, batch: int
) -> Iterator[Chunk]:
    """What is given, wherever it is, so many rows at a time."""
    if texts:
        each = len(wanted)
        if len(texts) % each:
            raise TaskError(
                f"An example has {' and '.join(wanted.values())}: expected two texts, one after "
                f"the other, for each; found {len(texts)} in all."
            )
        yield texts_chunk([texts[i : i + each] for i in range(0, len(texts), each)], wanted)
    elif file is not None:
        yield from read_chunks(file, wanted, batch)
    elif kind is not None:
        yield from read_stream(sys.stdin.buffer, kind, STDIN, wanted, batch)
    else:
        yield from read_lines(sys.stdin.buffer, STDIN, wanted, batch)


def give(chunk: Chunk, found: Sequence[Prediction], to: Writer | None, *, as_json: bool) -> None:
    """Write predictions beside what they are of, or print them."""
    rows = zip(chunk.records, found, strict=True)
    if to is not None:
        to.write([{**record, **as_columns(each)} for record, each in rows])
        return
    for place, (record, each) in enumerate(rows):
        if as_json:
            print(json.dumps({**record, **as_columns(each)}, ensure_ascii=False, default=str))
        else:
            print(as_line(each, [str(column[place]) for column in chunk.rows.columns.values()]))
    sys.stdout.flush()


def as_columns(found: Prediction) -> Record:
    """A prediction as values by column."""
    values: dict[str, Any] = {
        PREDICTION: found.value,
        WORD: found.label,
        PROBABILITY: found.probability,
        **{f"{PROBABILITY}_{word}": value for word, value in found.probabilities.items()},
    }
    return values if found.agreement is None else {**values, AGREEMENT: found.agreement}


def as_line(found: Prediction, texts: Sequence[str]) -> str:
    """A prediction for people, and for `cut`: fields between tabs."""
    fields = [found.label, f"{found.probability:.1%}"]
    if found.agreement is not None:
        fields.append(f"{found.agreement:.0%} agree")
    return "\t".join([*fields, *(" ".join(text.split()) for text in texts)])


def _predictor(record: RunRecord[Config], model: str | None, device: str | None) -> Predictor:
    if device not in (None, "cpu", "cuda"):
        raise ConfigError(f"--device must be cpu or cuda; found {device}.")
    predictor = Predictor(record, model, device)  # type: ignore[arg-type]
    if predictor.note:
        print(f"cliptune: {predictor.note}", file=sys.stderr)
    return predictor


def _progress() -> Progress:
    """A bar on standard error, where that is a terminal."""
    console = Console(stderr=True, highlight=False, markup=False, emoji=False)
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn()
    return Progress(
        *columns,
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not sys.stderr.isatty(),
    )


def _kept(written: Writer | None) -> str:
    if written is None or not written.written:
        return ""
    return f" after {written.written:,} predictions, which are in {written.path}"
