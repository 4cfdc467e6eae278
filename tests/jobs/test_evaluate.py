"""`cliptune evaluate`: the run's own numbers again, and those on other examples."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import runs
import tiny
from no_ray import without_ray
from safetensors.numpy import load_file, save_file

from cliptune.config import validate
from cliptune.errors import CliptuneError, ConfigError, ModelError, RunError, TaskError
from cliptune.evaluation import ENSEMBLE, MANUAL, TUNED
from cliptune.observer import Observer
from cliptune.scorer import ModelFacts
from cliptune.task import SPLITS, Task, load_task
from cluster.config import ClusterSearch
from cluster.session import search
from jobs.display import Display
from jobs.evaluate import main

Evaluated = Callable[..., str]


@pytest.fixture(scope="module")
def place(model_dir: Path, task_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A finished run of a tiny model."""
    folder = tmp_path_factory.mktemp("evaluated") / "run"
    more = {"cluster": {"actors": 1}, "ensemble": {"clip_ratio": 0.4}}
    with without_ray():
        search(validate(ClusterSearch, tiny.tree(model_dir, task_dir, folder, **more)))
    return str(folder)


@pytest.fixture
def evaluated(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Evaluated:
    monkeypatch.setenv("COLUMNS", "80")

    def evaluated(
        place: str, *words: str, data: str | None = None, split: str = "test", as_json: bool = False
    ) -> str:
        capsys.readouterr()
        main(place, words, data=data, split=split, display=Display(), as_json=as_json)
        return capsys.readouterr().out

    return evaluated


# With a model


def test_actors_find_what_is_found_in_this_process(
    place: str, evaluated: Evaluated, one_ray: None
) -> None:
    by_actors = evaluated(place, as_json=True)
    with without_ray():
        assert evaluated(place, as_json=True) == by_actors


@pytest.mark.usefixtures("no_ray")
def test_what_the_run_wrote_comes_out_again_exactly(place: str, evaluated: Evaluated) -> None:
    result = json.loads(Path(place, "result.json").read_text(encoding="utf-8"))
    table, selected = result["accuracy"], result["selected"]
    again: dict[str, dict[str, float]] = {name: {} for name in table}
    for split in SPLITS:
        found = json.loads(evaluated(place, split=split, as_json=True))
        assert found["split"] == split
        for name, row in found["prompts"].items():
            again[name][split] = row["accuracy"]
        if split == "validation":
            measures = found["prompts"][TUNED]
            for measure in ("accuracy", "macro_f1", "loss"):
                assert measures[measure] == selected[f"validation_{measure}"]
    assert again == table
    assert len({str(row) for row in table.values()}) == 3  # or the test could not fail


@pytest.mark.usefixtures("no_ray")
def test_a_whole_file_can_be_what_is_evaluated_on(
    place: str, evaluated: Evaluated, task_dir: Path, tmp_path: Path
) -> None:
    """The lines of the test set three times over give the accuracies of once."""
    file = tmp_path / "other.jsonl"
    file.write_text((task_dir / "test.jsonl").read_text(encoding="utf-8") * 3, encoding="utf-8")
    found = json.loads(evaluated(place, data=str(file), as_json=True))
    assert (found["examples"], found["source"]) == (18, str(file))
    table = json.loads(Path(place, "result.json").read_text(encoding="utf-8"))["accuracy"]
    for name in (MANUAL, TUNED, ENSEMBLE):
        row = found["prompts"][name]
        assert row["accuracy"] == table[name]["test"]
        assert np.sum(row["confusion"]) == 18
        assert (np.array(row["confusion"]) % 3 == 0).all()


# With a scorer that takes no time


@pytest.fixture
def plain(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, task_dir: Path) -> Path:
    """A finished run of a scorer without a model, which is evaluated by one, too."""
    monkeypatch.chdir(tmp_path)

    class PlainScorer(tiny.PlainScorer):
        def __init__(self, config: Any, task: Task) -> None:
            super().__init__(config)
            self.task = task

    @contextmanager
    def scoring(config: Any, task: Task, observer: Observer) -> Iterator[PlainScorer]:
        observer.phase(f"Loading {config.model.name}")
        yield PlainScorer(config, task)

    monkeypatch.setattr("jobs.evaluate.scoring", scoring)
    config = tiny.config(Path("model"), task_dir, Path("run"))
    runs.run(PlainScorer(config, load_task(config.task)))
    return Path("run")


def refusal(kind: type[CliptuneError], evaluated: Evaluated, *words: str, **options: Any) -> str:
    with pytest.raises(kind) as caught:
        evaluated("run", *words, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_people_are_shown_measures_agreement_and_confusions(
    plain: Path, evaluated: Evaluated, task_dir: Path
) -> None:
    found = json.loads(evaluated("run", as_json=True))
    lines = evaluated("run").splitlines()
    assert lines[0] == f"run: prompt of generation {found['generation'] + 1}"
    assert lines[1] == f"test: 6 examples of {task_dir / 'test.jsonl'}"
    for name, row in found["prompts"].items():
        (line,) = [line for line in lines if f"│ {name}" in line]
        cells = [cell.strip() for cell in line.strip("│ ").split("│")][1:]
        assert cells == [
            f"{row['accuracy']:.1%}",
            f"{row['macro_f1']:.1%}",
            f"{row['loss']:.3f}",
        ]
    text = " ".join(" ".join(lines).split())
    each = ", ".join(f"{one['accuracy']:.1%}" for one in found["subnetworks"])
    assert f"accuracy of each thinned subnetwork alone: {each}; two of them agree on " in text
    assert f"on {found['agreement']:.1%} of the examples" in text
    assert lines[-4].startswith("tuned prompt: right classes down")
    assert [line.split()[1] for line in lines[-2:]] == ["bad", "great"]


def test_json_holds_all_of_it(plain: Path, evaluated: Evaluated) -> None:
    (line,) = evaluated("run", split="validation", as_json=True).splitlines()
    found = json.loads(line)
    assert (found["run_dir"], found["finished"], found["examples"]) == ("run", True, 6)
    assert found["label_words"] == ["bad", "great"]
    assert set(found["prompts"]) == {MANUAL, TUNED, ENSEMBLE}
    assert all(np.sum(row["confusion"]) == 6 for row in found["prompts"].values())
    assert len(found["subnetworks"]) == 3
    assert 0 <= found["agreement"] <= 1


def test_a_run_without_clipping_has_no_subnetworks_to_show(
    plain: Path, evaluated: Evaluated, task_dir: Path
) -> None:
    config = tiny.config(Path("model"), task_dir, Path("bare"), ensemble={"mode": "none"})
    runs.run(tiny.PlainScorer(config))
    text = evaluated("bare", data=str(task_dir))
    assert "subnetwork" not in text
    assert ENSEMBLE not in text


def test_an_unfinished_run_is_evaluated_with_its_best_prompt_so_far(
    plain: Path, evaluated: Evaluated
) -> None:
    for name in ("result.json", "prompt.safetensors", "journal/000002.arrow"):
        (plain / name).unlink()
    found = json.loads(evaluated("run", as_json=True))
    assert found["finished"] is False
    assert found["generation"] < 2
    assert "the best one of an unfinished run" in evaluated("run").splitlines()[0]


def test_a_run_without_a_generation_has_no_prompt(plain: Path, evaluated: Evaluated) -> None:
    for file in (plain / "journal").iterdir():
        file.unlink()
    assert "run has no prompt yet" in refusal(RunError, evaluated)


def test_a_prompt_file_that_was_changed_is_refused(plain: Path, evaluated: Evaluated) -> None:
    prompt = load_file(plain / "prompt.safetensors")["prompt"].copy()
    prompt[1, 2] += 0.01
    save_file({"prompt": prompt}, plain / "prompt.safetensors")
    assert refusal(RunError, evaluated).startswith(
        "run/prompt.safetensors is not the prompt that the run's journal leads to (generation "
    )


def test_a_prompt_that_was_rounded_elsewhere_is_the_same_prompt(
    plain: Path, evaluated: Evaluated
) -> None:
    prompt = load_file(plain / "prompt.safetensors")["prompt"]
    save_file({"prompt": np.nextafter(prompt, np.float32(9))}, plain / "prompt.safetensors")
    assert evaluated("run")


@pytest.mark.parametrize(
    "content", [{"prompt": np.zeros((2, 4), np.float32)}, {"other": np.zeros(3, np.float32)}, None]
)
def test_a_prompt_file_that_is_none_is_refused(
    content: Any, plain: Path, evaluated: Evaluated
) -> None:
    if content is None:
        (plain / "prompt.safetensors").write_bytes(b"nothing of the kind")
    else:
        save_file(content, plain / "prompt.safetensors")
    assert refusal(RunError, evaluated).startswith("run/prompt.safetensors is ")


def test_examples_that_have_changed_are_refused_but_not_as_other_examples(
    plain: Path, evaluated: Evaluated, tmp_path: Path
) -> None:
    tiny.save_task(tmp_path / "changed", examples=8)
    words = f"task.data={tmp_path / 'changed'}"
    message = refusal(TaskError, evaluated, words)
    assert "task.data has other test examples than the run at run had" in message
    assert "--data" in message
    assert "test: 8 examples of" in evaluated("run", data=str(tmp_path / "changed"))


def test_the_same_examples_may_lie_elsewhere(
    plain: Path, evaluated: Evaluated, tmp_path: Path
) -> None:
    tiny.save_task(tmp_path / "moved")
    assert "test: 6 examples of" in evaluated("run", f"task.data={tmp_path / 'moved'}")


def test_other_examples_may_have_columns_and_labels_of_their_own(
    plain: Path, evaluated: Evaluated, tmp_path: Path
) -> None:
    (tmp_path / "o.csv").write_text("body,mood\na good film,+\na sad film,-\n", encoding="utf-8")
    words = ["task.columns={text: body, label: mood}", "task.labels=['-', '+']"]
    found = json.loads(evaluated("run", *words, data="o.csv", as_json=True))
    assert found["examples"] == 2
    assert np.sum(found["prompts"][TUNED]["confusion"], axis=1).tolist() == [1, 1]


def test_other_examples_that_cannot_be_read_are_refused(plain: Path, evaluated: Evaluated) -> None:
    assert "nowhere.csv" in refusal(TaskError, evaluated, data="nowhere.csv")


@pytest.mark.parametrize(
    "word", ["search.seed=1", "prompt.length=4", "task.template={text} {mask}"]
)
def test_what_belongs_to_the_search_cannot_be_changed(
    word: str, plain: Path, evaluated: Evaluated
) -> None:
    message = refusal(ConfigError, evaluated, word)
    assert message.startswith(f"{word.partition('=')[0]} belongs to the search of run")


@pytest.mark.parametrize("word", ["cluster.actors=3", "model.dtype=bfloat16", "search.budget=16"])
def test_what_changes_no_result_or_only_its_rounding_may_differ(
    word: str, plain: Path, evaluated: Evaluated
) -> None:
    assert evaluated("run", word) == evaluated("run")


def test_a_split_that_is_none_is_refused(plain: Path, evaluated: Evaluated) -> None:
    assert refusal(ConfigError, evaluated, split="dev") == (
        "--split must be one of train, validation, test; found dev."
    )


def test_other_weights_are_refused_before_anything_is_scored(
    plain: Path, evaluated: Evaluated, monkeypatch: pytest.MonkeyPatch
) -> None:
    facts = ModelFacts("other", "1" * 64, 4, 0, {}, {})
    monkeypatch.setattr(tiny.PlainScorer, "facts", lambda self: facts)
    monkeypatch.setattr(tiny.PlainScorer, "class_scores", None)
    assert refusal(ModelError, evaluated) == (
        "model.name: other has other weights than the model of run: expected SHA-256 "
        "000000000000..., found 111111111111.... Say where those of the run are: model.name=PATH."
    )
