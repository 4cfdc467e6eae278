"""The verb prints and writes what the benchmark finds; the engine's share comes from a real Ray."""

import inspect
import json
import re
from pathlib import Path

import pytest
import tiny
from command import cliptune_here

from cliptune.benchmark import Options
from cliptune.record import Telemetry
from jobs.benchmark import engine_share, idle, parsed
from jobs.cli.here import benchmark

SMALL = "--population 3 --subnetworks 2 --prompt-length 3 --rounds 1 --dtype float32 --device cpu"


@pytest.fixture(scope="module")
def examples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.save_task(tmp_path_factory.mktemp("few"), examples=4) / "train.jsonl"


def test_the_verb_prints_a_table_and_writes_the_report(
    model_dir: Path, examples: Path, tmp_path: Path
) -> None:
    file = tmp_path / "report.json"
    ran = cliptune_here(
        "benchmark",
        *SMALL.split(),
        "--model",
        str(model_dir),
        "--json",
        str(file),
        "--contenders",
        "naive,scorer,inference",
        "--clip-table",
        "--changes",
        "--task",
        str(examples),
    )
    assert ran.returncode == 0, ran.stderr
    report = json.loads(file.read_text(encoding="utf-8"))
    assert list(report["contenders"]) == ["naive", "scorer", "inference"]
    assert "engine_share" not in report
    said = {line.split()[0]: line for line in ran.stdout.splitlines() if line.split()}
    assert f"{report['contenders']['scorer']['prompts_per_second']:.3f}" in said["scorer"]
    assert said["naive_ratio"] == f"naive_ratio {report['naive_ratio']:.3f}"
    assert re.search(r"^ffn-hidden +0\.5 ", ran.stdout, re.MULTILINE)
    assert re.search(r"^everything +\d", ran.stdout, re.MULTILINE)


def test_the_verb_has_the_options_and_defaults_of_the_benchmark() -> None:
    given = {name: p.default for name, p in inspect.signature(benchmark).parameters.items()}
    assert (given.pop("actors"), given.pop("json")) == (0, None)
    assert parsed(given) == Options()


@pytest.mark.parametrize(
    "words", [["--micro-batch", "many"], ["--sites", "x"], ["--model", "no/model"]]
)
def test_bad_options_are_one_sentence_and_exit_code_2(words: list[str]) -> None:
    ran = cliptune_here("benchmark", *words)
    assert ran.returncode == 2
    assert ran.stderr.strip().splitlines()[-1].startswith("cliptune: ")
    assert "Traceback" not in ran.stderr


def test_idle_is_what_the_actors_do_not_compute() -> None:
    telemetry = Telemetry(
        generation=1, seconds=10.0, device_seconds=18.0, forward_passes=1, workers=2, retries=0
    )
    assert idle(telemetry) == pytest.approx(0.1)


def test_the_engines_share_is_read_off_a_search_on_ray(
    model_dir: Path, examples: Path, one_ray: None
) -> None:
    sizes = {"population": 4, "subnetworks": 1, "prompt_length": 3}
    options = Options(model=str(model_dir), task=str(examples), device="cpu", **sizes)
    assert 0 < engine_share(options, 1) < 1
