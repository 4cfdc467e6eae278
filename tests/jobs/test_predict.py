"""`cliptune predict`: texts, files and standard input; what it prints, writes and refuses."""

import io
import json
import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tiny
import torch
from command import cliptune_here

import cliptune as library
from cliptune.errors import CliptuneError, ConfigError, TaskError
from cliptune.predictor import Predictor, load
from cliptune.streams import read_chunks
from cliptune.writers import partial
from jobs.predict import main

Predicted = Callable[..., tuple[str, str]]
TEXTS = ["a good film", "an awful story . it was dull"]
WANTED = {"text": "text"}


@pytest.fixture(scope="module")
def run(model_dir: Path, task_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("predicted") / "run"
    library.search(tiny.config(model_dir, task_dir, folder, ensemble={"clip_ratio": 0.4}))
    return folder


@pytest.fixture(scope="module")
def predictor(run: Path) -> Predictor:
    """The same from within Python."""
    return load(run)


@pytest.fixture
def predicted(
    run: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Predicted:
    """What the command prints to its two outputs."""

    def predicted(*texts: str, stdin: bytes = b"", **options: Any) -> tuple[str, str]:
        monkeypatch.setattr(
            sys, "stdin", SimpleNamespace(buffer=io.BytesIO(stdin), isatty=lambda: False)
        )
        defaults = dict.fromkeys(("file", "kind", "out", "model", "device", "threads"))
        flags = {"batch": 512, "ensemble": False, "as_json": False}
        main(str(run), texts, **{**defaults, **flags, **options})
        found = capsys.readouterr()
        return found.out, found.err

    return predicted


def test_texts_are_classified_a_line_each(predictor: Predictor, predicted: Predicted) -> None:
    out, err = predicted(*TEXTS)
    found = predictor.predict(TEXTS)
    expected = [
        f"{each.label}\t{each.probability:.1%}\t{text}"
        for each, text in zip(found, TEXTS, strict=True)
    ]
    assert (out.splitlines(), err) == (expected, "")


@pytest.mark.parametrize(
    "lines", ["\n".join(TEXTS), "\n".join(json.dumps({"text": text}) for text in TEXTS)]
)
def test_standard_input_is_lines_of_text_or_of_json(lines: str, predicted: Predicted) -> None:
    assert predicted(stdin=lines.encode()) == predicted(*TEXTS)


def test_standard_input_may_be_what_a_file_would_be(predicted: Predicted, tmp_path: Path) -> None:
    with_quotes = 'id,text\n1,"a good\nfilm"\n2,an awful story . it was dull\n'
    out, _ = predicted(stdin=with_quotes.encode(), kind="csv", as_json=True)
    found = [json.loads(line) for line in out.splitlines()]
    assert [(row["id"], row["text"]) for row in found] == [("1", "a good\nfilm"), ("2", TEXTS[1])]
    table = tmp_path / "in.parquet"
    pq.write_table(pa.table({"text": TEXTS}), table)
    assert predicted(stdin=table.read_bytes(), kind="parquet") == predicted(*TEXTS)


def test_a_line_is_answered_before_the_next_one_is_written(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    said: list[str] = []

    def lines() -> Iterator[bytes]:
        for text in TEXTS:
            yield f"{text}\n".encode()
            said.append(capsys.readouterr().out)

    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=lines(), isatty=lambda: False))
    nothing = dict.fromkeys(("file", "kind", "out", "model", "device", "threads"))
    main(str(run), [], **nothing, batch=1, ensemble=False, as_json=False)
    assert [line.rpartition("\t")[2] for line in said] == [f"{text}\n" for text in TEXTS]


def test_json_has_the_input_and_every_class(predictor: Predictor, predicted: Predicted) -> None:
    line = json.dumps({"id": 7, "text": TEXTS[0]})
    out, _ = predicted(stdin=line.encode(), as_json=True, ensemble=True)
    (found,) = predictor.predict(TEXTS[:1], ensemble=True)
    assert json.loads(out) == {
        "id": 7,
        "text": TEXTS[0],
        "prediction": found.value,
        "label_word": found.label,
        "probability": found.probability,
        "probability_bad": found.probabilities["bad"],
        "probability_great": found.probabilities["great"],
        "agreement": found.agreement,
    }


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_a_file_becomes_a_file_with_the_predictions(
    suffix: str, predictor: Predictor, task_dir: Path, tmp_path: Path, predicted: Predicted
) -> None:
    out = tmp_path / f"out{suffix}"
    said, _ = predicted(file=task_dir / "test.jsonl", out=out)
    assert said == f"6 predictions written to {out}\n"
    (given,) = read_chunks(task_dir / "test.jsonl", WANTED, 99)
    (written,) = read_chunks(out, WANTED, 99)
    found = predictor.predict(given.rows.columns["text"])
    for before, after, each in zip(given.records, written.records, found, strict=True):
        assert str(after["label"]) == str(before["label"])
        assert (str(after["prediction"]), after["label_word"]) == (str(each.value), each.label)
        assert float(after["probability"]) == each.probability
    again = tmp_path / "again.csv"
    with pytest.raises(TaskError, match="has a column prediction already"):
        predicted(file=out, out=again)
    assert not again.exists()


@pytest.mark.parametrize(
    ("values", "labels"), [((0, 1), None), (("bad", "great"), None), ((7, "yes"), [7, "yes"])]
)
def test_predictions_are_values_of_the_label_column(
    values: tuple[Any, ...],
    labels: list[Any] | None,
    model_dir: Path,
    task_dir: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    data = tmp_path / "data"
    data.mkdir()
    for file in task_dir.glob("*.jsonl"):
        rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
        named = [{**row, "label": values[row["label"]]} for row in rows]
        (data / file.name).write_text("\n".join(map(json.dumps, named)), encoding="utf-8")
    task = {"labels": labels}
    found = library.search(tiny.config(model_dir, data, tmp_path / "run", task=task))
    nothing = dict.fromkeys(("file", "kind", "out", "model", "device", "threads"))
    main(found.run_dir, TEXTS, **nothing, batch=512, ensemble=False, as_json=True)
    for line in capsys.readouterr().out.splitlines():
        each = json.loads(line)
        assert each["prediction"] == values[("bad", "great").index(each["label_word"])]


def test_threads_are_as_many_as_asked_for(predicted: Predicted) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        predicted(*TEXTS, threads=1)
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)


def test_ctrl_c_leaves_what_was_written(
    run: Path, tmp_path: Path, predicted: Predicted, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = Predictor.answer
    calls: list[int] = []

    def interrupted(self: Predictor, *arguments: Any) -> Any:
        calls.append(1)
        if len(calls) == 3:
            os.kill(os.getpid(), signal.SIGINT)
        return answer(self, *arguments)

    def leave(code: int) -> None:
        raise SystemExit(code)

    monkeypatch.setattr(Predictor, "answer", interrupted)
    monkeypatch.setattr("jobs.predict.leave", leave)
    out = tmp_path / "out.parquet"
    with pytest.raises(SystemExit, match="130"):
        predicted(stdin=b"a film\n" * 9, batch=2, out=out)
    assert not out.exists()
    (written,) = read_chunks(partial(out), WANTED, 99)
    assert len(written.records) == 4


def test_a_broken_line_of_a_file_is_refused_before_anything_is_computed(
    tmp_path: Path, predicted: Predicted, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jobs.predict.Predictor", None)
    file = tmp_path / "in.jsonl"
    file.write_text('{"text": "a film"}\n{"text": ""}\n', encoding="utf-8")
    with pytest.raises(
        TaskError, match=r"in\.jsonl, line 2: text must be a text that is not empty"
    ):
        predicted(file=file)


def test_a_column_that_predictions_would_have_is_refused_wherever_it_is(
    tmp_path: Path, predicted: Predicted
) -> None:
    line = '{"text": "a film", "prediction": 1}\n'
    (tmp_path / "in.jsonl").write_text(line)
    for source in ({"file": tmp_path / "in.jsonl"}, {"stdin": line.encode()}):
        with pytest.raises(TaskError, match="has a column prediction already"):
            predicted(**source)


def test_a_broken_line_of_a_stream_ends_it_and_what_was_written_stays(
    tmp_path: Path, predicted: Predicted
) -> None:
    lines = b'{"text": "a"}\n' * 4 + b'{"text"'
    with pytest.raises(TaskError, match=r"line 5: not JSON(.|\n)*after 4 predictions, which are"):
        predicted(stdin=lines, batch=2, out=tmp_path / "out.csv")
    (written,) = read_chunks(tmp_path / "out.partial.csv", WANTED, 99)
    assert len(written.records) == 4


@pytest.mark.parametrize(
    ("texts", "options", "complaint"),
    [
        (["a"], {"file": Path("a.csv")}, "Give texts or --file FILE, not both"),
        (
            ["a"],
            {"out": Path("a.xlsx")},
            "--out must end in .jsonl, .csv, .tsv, .parquet, .arrow, .feather; found",
        ),
        ([], {"file": Path("a.csv"), "out": Path("./a.csv")}, "would replace what is read"),
        ([], {"file": Path("a.partial.csv"), "out": Path("a.csv")}, "would replace what is read"),
        (["a"], {"device": "tpu"}, "--device must be cpu or cuda; found tpu"),
        (["a"], {"kind": "csv"}, "--format says what standard input is"),
        ([], {"kind": "json"}, "--format must be one of jsonl, csv, .*; found json"),
        ([" "], {}, "what was typed, text 1: text must be a text that is not empty"),
        ([], {"file": Path("none.csv")}, "none.csv cannot be read"),
    ],
)
def test_what_cannot_be_meant_is_refused(
    texts: list[str], options: dict[str, Any], complaint: str, predicted: Predicted
) -> None:
    with pytest.raises(CliptuneError, match=complaint):
        predicted(*texts, **options)


def test_a_terminal_is_not_waited_for(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(isatty=lambda: True))
    with pytest.raises(ConfigError, match="Nothing to predict: give texts"):
        nothing = dict.fromkeys(("file", "kind", "out", "model", "device", "threads"))
        main(str(run), [], **nothing, batch=1, ensemble=False, as_json=False)


def test_the_command_predicts(run: Path) -> None:
    done = cliptune_here("predict", str(run), *TEXTS, "--json")
    assert (done.returncode, done.stderr) == (0, "")
    assert [json.loads(line)["text"] for line in done.stdout.splitlines()] == TEXTS
