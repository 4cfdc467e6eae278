"""The benchmark runs without what a search needs, and its report is complete; no time is judged."""

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch

from cliptune.benchmark import Options, main, measure, parser
from cliptune.comparison import CONTENDERS, RATIOS, lines, tables
from cliptune.errors import CliptuneError
from cliptune.specimen import read_task

BLOCKED = ("pydantic", "ray", "cma", "pyarrow", "datasets", "typer", "rich", "pandas")
SMALL = "--population 3 --subnetworks 2 --prompt-length 3 --rounds 1 --dtype float32 --device cpu"

ALONE = f"""
import sys
sys.modules.update(dict.fromkeys({BLOCKED}))  # as if they were not installed
from cliptune.benchmark import main
main(sys.argv[1:])
"""


@pytest.fixture(scope="module")
def examples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.save_task(tmp_path_factory.mktemp("few"), examples=4) / "train.jsonl"


@pytest.fixture(scope="module")
def report(model_dir: Path, examples: Path) -> dict[str, Any]:
    return measure(small(model_dir, task=str(examples)))


def small(model_dir: Path, **more: Any) -> Options:
    sizes: dict[str, Any] = {"population": 3, "subnetworks": 2, "prompt_length": 3, "rounds": 1}
    usual: dict[str, Any] = {"model": str(model_dir), "dtype": "float32", "device": "cpu", **sizes}
    return Options(**{**usual, **more})


def test_it_needs_nothing_but_torch_and_transformers(
    model_dir: Path, examples: Path, tmp_path: Path
) -> None:
    file = tmp_path / "report.json"
    words = [*SMALL.split(), "--model", str(model_dir), "--json", str(file)]
    words += ["--contenders", "naive,population,scorer,inference", "--task", str(examples)]
    ran = subprocess.run(
        [sys.executable, "-c", ALONE, *words], capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stderr
    found = json.loads(file.read_text(encoding="utf-8"))
    assert set(found) >= {"machine", "settings", "contenders", *RATIOS}
    assert found["ceiling_fraction"] is None
    assert all(name in ran.stdout for name in ("prompts/s", "naive_ratio", "inference_ratio"))


def test_every_ratio_is_a_positive_number(report: dict[str, Any]) -> None:
    for name in RATIOS[:-1]:
        assert report[name] > 0, name
        assert math.isfinite(report[name]), name
    assert list(report["contenders"]) == list(CONTENDERS)
    for name, speed in report["contenders"].items():
        if name != "ceiling":
            assert speed["seconds"] > 0
            assert speed["prompts_per_second"] == pytest.approx(3 / speed["seconds"])


def test_the_scorer_ranks_as_the_naive_loop_does_in_float32(report: dict[str, Any]) -> None:
    """Both read the same prompts through the same subnetwork out of the same model."""
    assert report["spearman"] == pytest.approx(1)
    assert report["spearman_candidates"] == 3


def test_tokens_are_counted_without_padding(report: dict[str, Any], examples: Path) -> None:
    """3 candidates, 2 subnetworks; the tiny tokenizer makes a token of each of the words."""
    texts = read_task(examples)["train"].texts
    each = [
        min(64, len(text.split()) + len("[CLS] . it was [MASK] . [SEP]".split()) + 3)
        for text in texts
    ]
    speed = report["contenders"]["scorer"]
    assert speed["tokens_per_second"] * speed["seconds"] == pytest.approx(3 * 2 * sum(each))


def test_a_contender_that_is_left_out_leaves_its_ratio_out(model_dir: Path, examples: Path) -> None:
    found = measure(small(model_dir, task=str(examples), contenders=("scorer", "inference")))
    assert list(found["contenders"]) == ["scorer", "inference"]
    assert found["inference_ratio"] > 0
    assert {found[name] for name in ("naive_ratio", "ceiling_fraction", "spearman")} == {None}
    assert not any("naive_ratio" in line for line in lines(found))


def test_the_table_says_what_was_scaled(report: dict[str, Any]) -> None:
    notes = {name: note for name, *_, note in tables(report)[0][1]}
    assert "from 3 of 3 candidates on 1 of 2 subnetworks a round" in notes["naive"]
    assert "4 rows a batch" in notes["naive"]
    assert "12 rows a batch" in notes["population"]


def test_examples_come_from_a_file_too(model_dir: Path, tmp_path: Path) -> None:
    file = tmp_path / "mine.jsonl"
    file.write_text('{"text": "a good film", "label": 1}\n{"text": "bad", "label": 2}\n')
    found = measure(small(model_dir, task=str(file), contenders=("scorer",)))
    assert found["settings"]["task"] == str(file)
    assert found["contenders"]["scorer"]["prompts_per_second"] > 0


def test_threads_are_put_back(model_dir: Path, examples: Path) -> None:
    before = torch.get_num_threads()
    few = {"task": str(examples), "contenders": ("scorer",)}
    found = measure(small(model_dir, **few, threads=before + 1, clock="cpu"))
    assert found["machine"]["threads"] == before + 1
    assert torch.get_num_threads() == before


def test_the_options_have_the_defaults_of_the_benchmark() -> None:
    given = vars(parser().parse_args([]))
    assert given.pop("json") is None
    assert Options(**given) == Options()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"population": 0}, "--population must be at least 1; found 0."),
        ({"micro_batch": 0}, "--micro-batch must be at least 1; found 0."),
        ({"prompt_length": -1}, "--prompt-length must be at least 1; found -1."),
        ({"clip_ratio": 1.0}, "--clip-ratio must be from 0 to below 1; found 1.0."),
        ({"sites": ("ffn",)}, "--sites knows embedding, attention-output, "),
        ({"contenders": ("me",)}, "--contenders knows naive, population, "),
        ({"naive_head": "no"}, "--naive-head knows mask, all; found no."),
        ({"clock": "cpu"}, "--clock cpu goes with --device cpu; found auto."),
        ({"device": "tpu"}, "--device knows auto, cpu, cuda; found tpu."),
    ],
)
def test_bad_options_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(CliptuneError) as caught:
        Options(**options)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--model", "no/such/model"], "model.name: no/such/model cannot be loaded"),
        (["--task", "no.jsonl"], "--task: no.jsonl must be a file with "),
        (["--json", "no/folder/report.json"], "--json: no/folder/report.json cannot be written: "),
        (["--rounds", "0"], "--rounds must be at least 1; found 0."),
    ],
)
def test_bad_input_is_one_sentence_and_exit_code_2(
    words: list[str], message: str, model_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        main([*SMALL.split(), "--model", str(model_dir), *words])
    assert end.value.code == 2
    said = capsys.readouterr().err.strip().splitlines()
    assert said[-1].startswith(f"cliptune.benchmark: {message}")
