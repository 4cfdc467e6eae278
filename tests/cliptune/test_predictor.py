"""Using the prompt of a run: the scores of the search itself, and what is refused."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import yaml
from safetensors.numpy import load_file, save_file

import cliptune
from cliptune.config import Config, merge
from cliptune.errors import CliptuneError, ConfigError, ModelError, RunError, TaskError
from cliptune.evaluation import CALIBRATED, ENSEMBLE, MANUAL, TUNED
from cliptune.local import LocalScorer
from cliptune.metrics import agreement
from cliptune.predictor import Predictor, load
from cliptune.record import read_run
from cliptune.rewards import log_probabilities
from cliptune.subnetwork import FULL_NETWORK, ensemble
from cliptune.task import load_task
from cliptune.types import ClassScores

MORE: dict[str, Any] = {"ensemble": {"clip_ratio": 0.4}, "search": {"budget": 8}}


def searched(weights: Path, data: Path, run: Path, **sections: Any) -> Path:
    cliptune.search(tiny.config(weights, data, run, **merge(MORE, sections)))
    return run


@pytest.fixture(scope="module")
def run(model_dir: Path, task_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return searched(model_dir, task_dir, tmp_path_factory.mktemp("predicted") / "run")


@pytest.fixture(scope="module")
def predictor(run: Path) -> Predictor:
    return load(run)


@pytest.fixture
def copy(run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(run, tmp_path / "copy"))


def scored(run: Path, split: str) -> tuple[LocalScorer, ClassScores]:
    """What a search's own scorer makes of a split: `(1 + N networks, examples, classes)`."""
    record = read_run(Config, str(run))
    scorer = LocalScorer(record.config, load_task(record.config.task))
    best = record.best
    assert best is not None
    networks = [FULL_NETWORK, *ensemble(record.config.ensemble, best.number)]
    return scorer, scorer.class_scores(best.validated[None], split, networks)[0]


@pytest.mark.parametrize(
    "sections",
    [
        {},
        {"prompt": {"layers": 2}},
        {"prompt": {"position": "front"}, "model": {"readout": "encoder"}},
    ],
    ids=["masked", "deep", "encoder"],
)
def test_probabilities_are_those_of_the_search_bit_for_bit(
    sections: dict[str, Any], model_dir: Path, task_dir: Path, tmp_path: Path
) -> None:
    run = searched(model_dir, task_dir, tmp_path / "run", **sections)
    scorer, scores = scored(run, "test")
    each = np.exp(log_probabilities(scores))
    split = scorer.task["test"]
    words = scorer.task.label_words
    one = load(run).predict(split.texts)
    many = load(run).predict(split.texts, ensemble=True)
    assert [list(p.probabilities.values()) for p in one] == each[0].tolist()
    assert [list(p.probabilities.values()) for p in many] == each[1:].mean(axis=0).tolist()
    assert [p.label for p in one] == [words[i] for i in each[0].argmax(axis=-1)]
    assert each[0].tolist() != each[1:].mean(axis=0).tolist()


def test_a_calibrated_prompt_has_its_class_biases(
    model_dir: Path, task_dir: Path, tmp_path: Path
) -> None:
    run = searched(model_dir, task_dir, tmp_path / "run", search={"calibrate": True, "budget": 8})
    best = read_run(Config, str(run)).best
    assert best is not None
    assert best.biases is not None
    biases = load_file(run / "prompt.safetensors")["biases"]
    assert np.array_equal(biases[0], best.biases)
    assert np.abs(np.diff(biases, axis=0)).max() > 0.01  # each network has its own
    scorer, scores = scored(run, "test")
    texts, labels = scorer.task["test"].texts, scorer.task["test"].labels
    expected = np.exp(log_probabilities(scores[0] + biases[0]))
    one = load(run).predict(texts)
    assert [list(p.probabilities.values()) for p in one] == expected.tolist()
    scorer, scores = scored(run, "validation")
    chosen = log_probabilities(scores[0] + biases[0])[range(6), scorer.task["validation"].labels]
    assert best.validation.loss == pytest.approx(-chosen.mean(), rel=1e-9)
    table = json.loads((run / "result.json").read_text(encoding="utf-8"))["accuracy"]
    assert list(table) == [MANUAL, CALIBRATED, TUNED, ENSEMBLE]
    for name, is_ensemble in ((TUNED, False), (ENSEMBLE, True)):
        found = load(run).predict(texts, ensemble=is_ensemble)
        right = [p.value == label for p, label in zip(found, labels, strict=True)]
        assert np.mean(right) == table[name]["test"]


def test_of_an_unfinished_search_the_biases_of_the_full_network_are_known(
    model_dir: Path, task_dir: Path, tmp_path: Path
) -> None:
    run = searched(model_dir, task_dir, tmp_path / "run", search={"calibrate": True, "budget": 8})
    whole = load(run).predict(["a film"])
    (run / "result.json").unlink()
    with pytest.warns(UserWarning, match="has not ended"):
        half = load(run)
    assert half.predict(["a film"]) == whole
    with pytest.raises(ConfigError, match="not ended, so the class biases of its thinned networks"):
        half.predict(["a film"], ensemble=True)


def test_biases_of_another_run_are_refused(model_dir: Path, task_dir: Path, tmp_path: Path) -> None:
    run = searched(model_dir, task_dir, tmp_path / "run", search={"calibrate": True, "budget": 8})
    tensors = load_file(run / "prompt.safetensors")
    for biases in (tensors["biases"] + 1, tensors["biases"][:2]):
        save_file({**tensors, "biases": biases}, run / "prompt.safetensors")
        with pytest.raises(RunError, match="has other class biases than the run's journal"):
            load(run)
    save_file({"prompt": tensors["prompt"]}, run / "prompt.safetensors")
    with pytest.raises(RunError, match="is damaged: 'biases'"):
        load(run)


def test_accuracies_are_those_of_the_table(run: Path, predictor: Predictor) -> None:
    scorer, _ = scored(run, "test")
    table = json.loads((run / "result.json").read_text(encoding="utf-8"))["accuracy"]
    split = scorer.task["test"]
    for name, is_ensemble in ((TUNED, False), (ENSEMBLE, True)):
        found = predictor.predict(split.texts, ensemble=is_ensemble)
        right = [p.value == label for p, label in zip(found, split.labels, strict=True)]
        assert np.mean(right) == table[name]["test"]


def test_agreement_is_the_share_of_networks_that_say_the_same(
    run: Path, predictor: Predictor
) -> None:
    scorer, scores = scored(run, "test")
    votes = scores[1:].argmax(axis=-1)
    found = predictor.predict(scorer.task["test"].texts, ensemble=True)
    chosen = [predictor.label_words.index(p.label) for p in found]
    assert [p.agreement for p in found] == (votes == chosen).mean(axis=0).tolist()
    assert agreement(votes) < 1  # or the test could not fail
    assert {p.agreement for p in predictor.predict(["a film"])} == {None}


def test_answers_come_in_the_order_of_the_examples_however_many_are_held_at_once(
    predictor: Predictor,
) -> None:
    rng = np.random.default_rng(3)
    texts = [tiny.sentence(rng, i % 2) for i in range(23)]
    whole = predictor.predict(texts)
    parts = list(predictor.stream(iter(texts), at_once=4))
    alone = [predictor.predict([text])[0] for text in texts]
    for found in (parts, alone):
        assert [p.label for p in found] == [p.label for p in whole]
        for one, other in zip(found, whole, strict=True):
            assert one.probabilities == pytest.approx(other.probabilities, abs=1e-5)


def test_a_stream_reads_no_further_than_it_has_to(predictor: Predictor) -> None:
    taken: list[int] = []

    def endless() -> Any:
        while True:
            taken.append(1)
            yield "a good film"

    found = predictor.stream(endless(), at_once=3)
    assert [next(found).label for _ in range(3)]
    assert len(taken) == 3
    next(found)
    assert len(taken) == 6


def test_probabilities_add_up_to_one(predictor: Predictor) -> None:
    (found,) = predictor.predict(["a good film"])
    assert sum(found.probabilities.values()) == pytest.approx(1)
    assert found.probability == max(found.probabilities.values())
    assert found.probabilities[found.label] == found.probability
    assert list(found.probabilities) == ["bad", "great"]
    assert predictor.predict([]) == []


def test_the_label_has_the_value_that_the_users_own_column_has(
    model_dir: Path, task_dir: Path, tmp_path: Path
) -> None:
    data = tmp_path / "data"
    data.mkdir()
    for name in ("train", "validation", "test"):
        lines = (task_dir / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
        rows = [json.loads(line) for line in lines]
        named = [{"review": r["text"], "stars": ("one", "five")[r["label"]]} for r in rows]
        (data / f"{name}.jsonl").write_text("\n".join(map(json.dumps, named)), encoding="utf-8")
    own = {"labels": ["one", "five"], "columns": {"text": "review", "label": "stars"}}
    run = searched(model_dir, data, tmp_path / "run", task=own)
    shutil.rmtree(data)  # the examples of the search are not needed
    predictor = load(run)
    (found,) = predictor.predict([{"review": "a good film", "stars": "five", "id": 3}])
    assert found == predictor.predict(["a good film"])[0]
    assert found.value == dict(zip(("bad", "great"), ("one", "five"), strict=True))[found.label]
    with pytest.raises(TaskError, match="example 1: review must be a text"):
        predictor.predict([{"text": "a good film"}])


def test_pairs_are_two_texts(model_dir: Path, tmp_path: Path) -> None:
    data = tiny.save_task(tmp_path / "pairs", pair=True)
    task = {"template": "{text} ? {mask} , {text_pair}"}
    run = searched(model_dir, data, tmp_path / "run", task=task)
    predictor = load(run)
    texts = ("a good film", "the story was dull")
    (found,) = predictor.predict([texts])
    assert [found] == predictor.predict([dict(zip(("text", "text_pair"), texts, strict=True))])
    assert found != predictor.predict([texts[::-1]])[0]
    with pytest.raises(TaskError, match="Example 2: expected text and text_pair"):
        predictor.predict([texts, "a good film"])


@pytest.mark.parametrize(
    ("examples", "complaint"),
    [
        (["a film", " "], "example 2: text must be a text that is not empty; found ' '"),
        (["a film", None], "example 2: text must be a text"),
        (["a film", 3], "example 2: text must be a text that is not empty; found 3"),
        ([("a", "b")], "Example 1: expected text, 1 of them; found"),
        ("a film", "found a single one, 'a film'. Put it in brackets"),
        ({"text": "a film"}, "Put it in brackets"),
        ([{"txt": "a film"}], "example 1: text must be a text"),
        (["\ud800 half"], "half a surrogate"),
    ],
)
def test_what_is_no_example_is_refused_by_its_number(
    examples: Any, complaint: str, predictor: Predictor
) -> None:
    with pytest.raises(TaskError, match=complaint):
        predictor.predict(examples)


def test_an_unfinished_run_gives_its_best_prompt_so_far_and_says_so(copy: Path) -> None:
    (copy / "result.json").unlink()
    with pytest.warns(UserWarning, match="has not ended: this is its best prompt so far, of gen"):
        predictor = load(copy)
    assert len(predictor.predict(["a good film"])) == 1


def test_functions_of_ones_own_that_searched_are_not_needed_to_predict(copy: Path) -> None:
    """They were registered in another process."""
    settings = yaml.safe_load((copy / "config.yaml").read_text(encoding="utf-8"))
    settings["ensemble"]["mixer"] = "trimmed-elsewhere"
    (copy / "config.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")
    assert len(load(copy).predict(["a good film"])) == 1


def test_a_run_of_the_cluster_is_loaded_without_it(copy: Path, predictor: Predictor) -> None:
    settings = yaml.safe_load((copy / "config.yaml").read_text(encoding="utf-8"))
    settings["cluster"] = {"actors": 2}
    (copy / "config.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")
    assert load(copy).predict(["a film"]) == predictor.predict(["a film"])


def test_the_model_may_lie_elsewhere_but_must_be_the_runs(
    copy: Path, model_dir: Path, tmp_path: Path, predictor: Predictor
) -> None:
    moved = shutil.copytree(model_dir, tmp_path / "moved")
    assert load(copy, model=moved).predict(["a film"]) == predictor.predict(["a film"])
    another = tiny.save_model(tmp_path / "another", seed=1)
    with pytest.raises(ModelError, match=r"other weights .* model=PATH, or --model PATH"):
        load(copy, model=another)


def test_a_changed_prompt_file_is_refused(copy: Path) -> None:
    prompt = load_file(copy / "prompt.safetensors")["prompt"]
    save_file({"prompt": prompt + 1}, copy / "prompt.safetensors")
    with pytest.raises(RunError, match="is not the prompt that the run's journal leads to"):
        load(copy)


def test_the_prompt_file_and_the_latent_are_one_prompt(run: Path) -> None:
    record = read_run(Config, str(run))
    scorer, _ = scored(run, "test")
    assert record.result is not None
    latent = np.asarray(record.result["selected"]["latent"])
    written = load_file(run / "prompt.safetensors")["prompt"]
    assert scorer.prompt(latent).tolist() == written.tolist()


@pytest.mark.parametrize(
    ("spoil", "error", "complaint"),
    [
        (lambda run: shutil.rmtree(run / "journal"), RunError, "has no prompt yet"),
        (lambda run: (run / "config.yaml").unlink(), RunError, "is no run directory"),
    ],
)
def test_what_is_no_run_is_refused(
    spoil: Any, error: type[CliptuneError], complaint: str, copy: Path
) -> None:
    spoil(copy)
    with pytest.raises(error, match=complaint):
        load(copy)


def test_a_run_without_thinned_networks_has_no_ensemble(
    model_dir: Path, task_dir: Path, tmp_path: Path
) -> None:
    run = searched(model_dir, task_dir, tmp_path / "run", ensemble={"mode": "none"})
    predictor = load(run)
    with pytest.raises(ConfigError, match=r"ensemble.mode is none"):
        predictor.stream(["a film"], ensemble=True)


def test_other_settings_are_checked(copy: Path) -> None:
    with pytest.raises(ConfigError, match=r"model.micro_batch"):
        load(copy, micro_batch=0)
