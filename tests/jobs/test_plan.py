"""The verb: what it prints, what it takes for a record, what it refuses."""

import json
import re
from pathlib import Path
from typing import Any

import families
import pytest
import ray
import tiny
import torch
import yaml
from command import cliptune_here
from provider_here import listening, provider_of

from cliptune import probe
from cliptune.errors import ConfigError
from cliptune.local import LocalScorer
from cliptune.loop import search
from cliptune.subnetwork import FULL_NETWORK
from cliptune.task import load_task
from jobs.config import read
from jobs.plan import main, read_record

Printed = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")


@pytest.fixture(scope="module")
def file(model_dir: Path, task_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("plan") / "tiny.yaml"
    path.write_text(yaml.safe_dump(tiny.tree(model_dir, task_dir)), encoding="utf-8")
    return path


@pytest.fixture
def record(tmp_path: Path) -> Path:
    path = tmp_path / "record.json"
    path.write_text('{"tokens_per_second": 500}', encoding="utf-8")
    return path


def run(*words: str | Path, record: Path | None = None, measure: bool = True, **more: Any) -> None:
    settings = read([*map(str, words), "cluster.actors=2"])
    more = {"seconds": 0.05, "as_json": False, **more}
    main(settings, record=record, measure=measure, **more)


def tree(out: Printed, *words: str | Path, **more: Any) -> dict[str, Any]:
    """What --json prints."""
    run(*words, **more, as_json=True)
    value = json.loads(out.readouterr().out)
    assert isinstance(value, dict)
    return value


def tables(out: Printed, *words: str | Path, **more: Any) -> list[dict[str, list[str]]]:
    """The lines of each part of what is printed, by their first cell."""
    run(*words, **more)
    parts = [part.splitlines() for part in out.readouterr().out.split("\n\n")]
    cells = [[re.split(r" {2,}", line.strip()) for line in lines] for lines in parts]
    return [{first: rest for first, *rest in lines if rest} for lines in cells]


def test_a_plan_of_a_tiny_search_is_complete(file: Path, record: Path, capsys: Printed) -> None:
    """12 prompts in generations of 4, on 3 subnetworks, with 6 examples in every split."""
    found = tree(capsys, file, record=record)
    assert found["splits"]["train"]["examples"] == 6
    assert (found["generations"], found["prompts"], found["units_a_generation"]) == (3, 12, 3 * 5)
    passes = {name: part["forward_passes"] for name, part in found["parts"].items()}
    assert passes == {
        "generation": 72,
        "generation_validation": 6,
        "search": 216,
        "validation": 24,
        "evaluation": 90,
        "total": 330,
    }
    assert found["memory_bytes"]["weights"] > found["memory_bytes"]["thinned_copy"] > 0
    assert found["tokens_per_second"] == 500
    computed = {name: part["tokens"] + part["padding"] for name, part in found["parts"].items()}
    seconds = {name: part["seconds"] for name, part in found["parts"].items()}
    share = seconds["generation"] * 500 / computed["generation"]
    assert 1 / 2 <= share < 1 / 2 + 1 / 15  # of 2 actors' busier one, cut between two of 15 units
    share = seconds["generation_validation"] * 500 / computed["generation_validation"]
    assert 1 / 2 <= share < 1  # of units of one candidate, few
    total = seconds["search"] + seconds["validation"] + seconds["evaluation"]
    assert seconds["total"] == pytest.approx(total)


def test_the_splits_are_as_the_model_reads_them(file: Path, capsys: Printed) -> None:
    config = read([str(file), "task.max_tokens=14"])
    scorer = LocalScorer(config, load_task(config.task))
    found = tree(capsys, file, "task.max_tokens=14", measure=False)["splits"]
    for name, encoded in scorer.encoded.items():
        assert found[name] == {
            "examples": 6,
            "tokens": sum(encoded.lengths),
            "longest": max(encoded.lengths),
            "shortened": encoded.truncated,
        }
    assert found["train"]["shortened"] > 0


def test_the_tables_say_the_same_as_the_json(file: Path, record: Path, capsys: Printed) -> None:
    _, splits, parts, _, memory = tables(capsys, file, record=record)
    found = tree(capsys, file, record=record)
    for name, split in found["splits"].items():
        assert splits[name] == [f"{number:,}" for number in split.values()]
    for name, line in {"a generation": "generation", "total": "total"}.items():
        part = found["parts"][line]
        expected = [f"{part[key]:,}" for key in ("forward_passes", "tokens", "padding")]
        assert parts[name] == [*expected, f"{part['seconds']:.1f} s"]
    assert memory["weights"][1] == "computed"


def test_the_text_fits_80_columns(
    file: Path, record: Path, capsys: Printed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(record.parent)
    for more in ({"record": Path(record.name)}, {"measure": False}, {}):
        run(file, "search.budget=80000000", "search.patience=5", **more)
        text = capsys.readouterr().out
        assert max(map(len, text.splitlines())) <= 80
        assert "…" not in text


def test_long_times_are_said_in_minutes_and_hours(
    file: Path, record: Path, capsys: Printed
) -> None:
    record.write_text('{"tokens_per_second": 0.1}', encoding="utf-8")
    _, _, parts, *_ = tables(capsys, file, record=record)
    found = tree(capsys, file, record=record)
    seconds = int(found["parts"]["total"]["seconds"])
    assert parts["total"][-1] == f"{seconds // 3600}:{seconds // 60 % 60:02d}:{seconds % 60:02d}"


def test_without_measuring_nothing_runs_and_there_is_no_time(
    file: Path, capsys: Printed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jobs.planhere.LocalScorer", None)
    _, _, parts, _, memory = tables(capsys, file, measure=False)
    assert "time" not in parts["part"]
    assert memory["activations of the largest micro-batch"] == ["not measured"]
    found = tree(capsys, file, measure=False)
    assert found["tokens_per_second"] is None
    assert {part["seconds"] for part in found["parts"].values()} == {None}
    assert (found["memory_bytes"]["activations"], found["memory_bytes"]["process"]) == (None, None)


def test_what_is_measured_is_printed_and_is_a_record(
    file: Path, capsys: Printed, tmp_path: Path
) -> None:
    measured = tree(capsys, file)
    assert measured["tokens_per_second"] > 0
    assert measured["memory_bytes"]["activations"] is not None
    assert measured["memory_bytes"]["process"] > 100 * 2**20
    path = tmp_path / "mine.json"
    path.write_text(json.dumps(measured), encoding="utf-8")
    again = tree(capsys, file, record=path)
    assert again["parts"] == measured["parts"]
    run(file, record=path)
    text = " ".join(capsys.readouterr().out.split())
    assert "padding included, from" in text
    assert "another" not in text


def test_measuring_takes_the_threads_of_an_actor_and_the_seconds_given(
    file: Path, capsys: Printed, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    def speed(scorer: LocalScorer, batch: Any, seconds: float) -> float:
        seen.append((torch.get_num_threads(), seconds, scorer.config.model.device))
        return 1000.0

    monkeypatch.setattr(probe, "tokens_per_second", speed)
    before = torch.get_num_threads()
    found = tree(capsys, file, "cluster.threads_per_actor=3", seconds=7.5)
    torch.set_num_threads(before)
    assert seen == [(3, 7.5, "cpu")]
    assert (found["tokens_per_second"], found["threads_per_actor"]) == (1000.0, 3)


def test_a_record_of_something_else_is_used_and_named(
    file: Path, record: Path, capsys: Printed
) -> None:
    other = {"tokens_per_second": 9, "model": "bert", "device": "cuda", "dtype": "float32"}
    record.write_text(json.dumps({**other, "threads_per_actor": 1}), encoding="utf-8")
    run(file, record=record)
    text = " ".join(capsys.readouterr().out.split())
    assert "measured with another model bert and device cuda" in text
    assert "dtype" not in text
    assert "threads_per_actor" not in text


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "is not one JSON value"),
        ("{", "is not one JSON value"),
        ('{"generation": 1}\n{"generation": 2}', "is not one JSON value"),
        ("[" * 100_000, "is not one JSON value"),
        ("\xff", "is not one JSON value"),
        ("[1]", "must be a JSON object"),
        ("12", "must be a JSON object"),
        ("{}", "found None"),
        ('{"tokens_per_second": null}', "found None"),
        ('{"tokens_per_second": true}', "found True"),
        ('{"tokens_per_second": "12"}', "found '12'"),
        ('{"tokens_per_second": 0}', "found 0.0"),
        ('{"tokens_per_second": -3}', "found -3.0"),
        ('{"tokens_per_second": NaN}', "found nan"),
        ('{"tokens_per_second": 1e999}', "found inf"),
        ('{"tokens_per_second": 1' + "0" * 5000 + "}", "found inf"),
    ],
)
def test_a_file_that_is_no_record_is_refused(content: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "foreign.json"
    path.write_text(content, encoding="latin-1")
    with pytest.raises(ConfigError) as caught:
        read_record(path)
    assert str(caught.value).startswith(f"--record: {path} ")
    assert message in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_a_record_that_is_not_there_is_named(tmp_path: Path) -> None:
    for path, reason in ((tmp_path / "no", "No such file"), (tmp_path, "Is a directory")):
        with pytest.raises(ConfigError, match=f"^--record: {path} cannot be read: {reason}"):
            read_record(path)


def test_a_record_and_no_measure_are_one_too_many(file: Path, record: Path) -> None:
    with pytest.raises(ConfigError, match="cannot go together"):
        run(file, record=record, measure=False)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_a_gpu_that_is_elsewhere_cannot_be_measured_but_planned_for(
    file: Path, record: Path, capsys: Printed
) -> None:
    words = (file, "model.device=cuda", "model.micro_batch=auto")
    with pytest.raises(ConfigError, match="--record FILE, or --no-measure"):
        run(*words)
    found = tree(capsys, *words, record=record)
    assert (found["device"], found["micro_batch"], found["gpus_per_actor"]) == ("cuda", 124, 1)


def test_a_search_limited_by_time_alone(file: Path, record: Path, capsys: Printed) -> None:
    words = (file, "search.budget=null", "search.max_seconds=60")
    timed = tree(capsys, *words, record=record)
    parts = timed["parts"]
    each = parts["generation"]["seconds"] + parts["generation_validation"]["seconds"]
    assert timed["generations"] == pytest.approx(60 / each, abs=1)
    open_ended = tree(capsys, *words, measure=False)
    assert open_ended["generations"] is open_ended["prompts"] is None
    assert "total" not in open_ended["parts"]
    run(*words, measure=False)
    assert "as many generations of 4 prompts as there is time for" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("search.selection=nothing.py:score", "nothing"),
        ("task.data=nowhere", "nowhere"),
        ("model.name=./nothing", "./nothing"),
        ("prompt.length=64", "prompt.length"),
        ("search.max_forward_passes=3", "search.max_forward_passes"),
    ],
)
def test_what_a_search_would_refuse_is_refused(word: str, message: str, file: Path) -> None:
    with pytest.raises(Exception, match=re.escape(message)) as caught:
        run(file, word, measure=False)
    assert getattr(caught.value, "exit_code", None) == 2


def test_quantised_weights_are_counted_as_such(file: Path, record: Path, capsys: Printed) -> None:
    record.write_text('{"tokens_per_second": 500, "quantize": null}', encoding="utf-8")
    whole = tree(capsys, file, measure=False)["memory_bytes"]
    words = (file, "model.quantize=4bit")
    found = tree(capsys, *words, measure=False)
    assert found["memory_bytes"]["weights"] < whole["weights"]
    assert found["memory_bytes"]["thinned_copy"] == 0 < whole["thinned_copy"]
    run(*words, record=record)
    text = " ".join(capsys.readouterr().out.split())
    assert "in float32 with 4bit weights" in text
    assert "measured with another quantize None" in text


def test_what_a_causal_models_candidates_share_is_said(
    task_dir: Path, tmp_path: Path, capsys: Printed
) -> None:
    folder = families.save("Qwen2", tmp_path / "model")  # which begins with no special token
    task = {"template": "{text} . it was {mask}"}
    path = tmp_path / "causal.yaml"
    path.write_text(yaml.safe_dump(tiny.tree(folder, task_dir, task=task)), encoding="utf-8")
    counted, timed = tree(capsys, path, measure=False), tree(capsys, path)
    assert counted["shared_tokens"] == timed["shared_tokens"] == 3
    assert counted["parts"]["total"]["tokens"] == timed["parts"]["total"]["tokens"]
    run(path, measure=False)
    text = " ".join(capsys.readouterr().out.split())
    assert "The first 3 of an input are computed once a candidate and network." in text


def test_of_a_model_behind_an_api_the_tokens_are_those_of_its_bill(
    file: Path, model_dir: Path, record: Path, capsys: Printed, tmp_path: Path
) -> None:
    """But for the canary's, which is a generation's first micro-batch, twice."""
    with listening(provider_of(model_dir)) as here:
        words = (file, f"scorer.url={here.url}", "model.name=no/such/model")
        found = tree(capsys, *words)
        assert here.paths == ["/v1/sessions"]
        run(*words, record=record)
        config = read([*map(str, words), f"run_dir={tmp_path / 'run'}"])
        result = search(config)
    bill = json.loads((Path(result.run_dir) / "result.json").read_text(encoding="utf-8"))["bill"]
    total = found["parts"]["total"]
    scorer = LocalScorer(read([str(file)]), load_task(config.task))
    canary, *_ = scorer.units(FULL_NETWORK, "train", 4, reduce=True)
    assert bill["tokens"] == total["tokens"] + total["padding"] + 2 * canary.tokens
    assert found["model"] == model_dir.name
    assert found["actors"] is found["memory_bytes"] is total["seconds"] is None
    text = " ".join(capsys.readouterr().out.split())
    assert f"The model is behind {here.url}: no actor is started here" in text
    assert "500 tokens/s the provider" in text
    assert "memory" not in text


def test_ray_is_not_started(file: Path, capsys: Printed) -> None:
    run(file, measure=False)
    assert not ray.is_initialized()


def test_the_verb_measures_and_prints_json_alone(file: Path) -> None:
    done = cliptune_here("plan", str(file), "--seconds", "0.1", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["tokens_per_second"] > 0
    assert not (file.parent / "runs").exists()


def test_the_verb_refuses_a_foreign_record_with_one_sentence(file: Path) -> None:
    done = cliptune_here("plan", str(file), "--record", str(file))
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"cliptune: --record: {file} is not one JSON value;")
    assert len(done.stderr.splitlines()) == 1
