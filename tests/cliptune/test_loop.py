"""The search: what is chosen, counted, written down and told, with plain and with real scorers."""

import json
import uuid
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import yaml
from runs import Listener, plain, run
from runs import rows as journal
from safetensors.numpy import load_file

from cliptune.config import Config
from cliptune.errors import ConfigError, ModelError, RunError, ScorerError
from cliptune.evaluation import evaluate, validate
from cliptune.journal import Validation
from cliptune.local import LocalScorer
from cliptune.loop import search
from cliptune.observer import Observer, Progress
from cliptune.record import read_run
from cliptune.rewards import MIXERS
from cliptune.strategy import make_strategy, replay
from cliptune.subnetwork import FULL_NETWORK
from cliptune.task import load_task


def test_a_scorer_without_torch_can_be_searched(tmp_path: Path) -> None:
    listener = Listener()
    scorer = plain(tmp_path / "run")
    result = run(scorer, listener)
    fitness = [progress.generation.fitness.max() for progress in listener.progress]
    start = scorer.score(np.zeros((1, 5))).mean()
    assert max(fitness[-3:]) > fitness[0]
    assert scorer.score(result.latent[None]).mean() > start / 4  # less than half as far away


@pytest.mark.parametrize("selection", ["loss", "accuracy", "macro-f1"])
def test_the_result_is_the_best_validated_candidate_of_the_journal(
    selection: str, tmp_path: Path
) -> None:
    result = run(plain(tmp_path / "run", search={"selection": selection}))
    names = ("validation", "validation_loss", "validation_f1", "validation_score")
    validated = {
        Validation(*(row[name] for name in names)): row
        for generation in journal(result.run_dir)
        for row in generation
        if row["validation"] is not None
    }
    assert len(validated) == 20
    best = max(validated, key=lambda validation: validation.order)
    assert result.validation == best
    assert result.generation == validated[best]["generation"]
    assert result.candidate == validated[best]["candidate"]
    assert result.latent.tolist() == validated[best]["latent"]


LEADS = [  # of the right class over the wrong one, by example; the classes are 0, 1, 0, 1, 0, 1
    [0.1, 0.1, 0.1, 0.1, 0.1, -0.1],
    [0.5, 0.5, 0.5, 0.5, 0.5, -0.1],  # as accurate as the one before, at less loss
    [9.0, -0.1, 9.0, 9.0, 9.0, -0.1],  # of least loss; class 1 is often missed
    [0.4, 0.4, -0.1, 0.4, 0.4, -0.1],  # as accurate, and fair to both classes
    [0.5, 0.5, 0.5, 0.5, 0.5, -0.1],  # as good in all as the second
    [-9, 0.1, -9, -9, -9, 0.1],  # hardly ever right
]


class Scripted(tiny.PlainScorer):
    """Its prompts have the leads above on validation, a generation each."""

    generations = 0

    def class_scores(self, latents: Any, split: str, subnetworks: Any) -> Any:
        scores = super().class_scores(latents, split, subnetworks)
        if split == "validation" and latents is not None and self.generations < len(LEADS):
            scores[..., np.arange(6), self.task[split].labels] = LEADS[self.generations]
            self.generations += 1
        return scores


@pytest.mark.parametrize(
    ("selection", "chosen"),
    [("loss", 2), ("accuracy", 1), ("macro-f1", 1), ("{place}:fair", 3), ("{place}:worst", 5)],
)
def test_selection_decides_what_the_best_is(
    selection: str, chosen: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    name = f"own_{uuid.uuid4().hex}"  # the module of no other test
    (tmp_path / f"{name}.py").write_text(
        "def fair(p, labels):\n"
        "    right = p.argmax(axis=1) == labels\n"
        "    return -abs(right[labels == 0].mean() - right[labels == 1].mean())\n"
        "def worst(p, labels): return -(p.argmax(axis=1) == labels).mean()\n"
    )
    settings = {"budget": 48, "selection": selection.format(place=f"{name}.py")}
    result = run(Scripted(plain(tmp_path / "run", search=settings).config))
    assert result.generation == chosen


def test_a_metric_of_the_users_own_that_breaks_later_leaves_whole_generations(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    name = f"own_{uuid.uuid4().hex}"
    (tmp_path / f"{name}.py").write_text(
        "calls = []\ndef f(p, labels):\n    calls.append(1)\n    return 1 / (4 - len(calls))\n"
    )
    scorer = plain(tmp_path / "run", search={"selection": f"{name}.py:f"})
    with pytest.raises(ConfigError, match=rf"{name}\.py:f failed on .*: ZeroDivisionError"):
        run(scorer)
    assert len(journal(tmp_path / "run")) == 2  # after the manual prompt's


@pytest.mark.parametrize("layers", [1, 2])
def test_the_mean_of_the_distribution_may_stand_for_its_generation(
    layers: int, tmp_path: Path
) -> None:
    scorer = plain(tmp_path / "run", search={"candidate": "mean"}, prompt={"layers": layers})
    result = run(scorer)
    record = read_run(Config, str(tmp_path / "run"))
    strategy = make_strategy(scorer.config, scorer.task)
    for generation in record.generations:
        assert np.array_equal(generation.validated, strategy.mean)
        assert generation.validation == validate(scorer, generation.validated)
        replay(strategy, generation.latents, generation.fitness)
    assert record.best is not None
    assert np.array_equal(result.latent, record.best.validated)
    assert result.candidate is None
    assert json.loads((tmp_path / "run/result.json").read_text())["selected"]["candidate"] is None
    prompt = load_file(tmp_path / "run/prompt.safetensors")["prompt"]
    assert np.array_equal(prompt, scorer.prompt(result.latent))


def test_the_first_of_equals_is_chosen(tmp_path: Path) -> None:
    class Indifferent(tiny.PlainScorer):
        def class_scores(self, latents: Any, split: str, subnetworks: Any) -> Any:
            return np.zeros_like(super().class_scores(latents, split, subnetworks))

    assert run(Indifferent(plain(tmp_path / "run").config)).generation == 0


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("value", [np.inf, np.nan])
@pytest.mark.parametrize("where", ["train", "validation"])
def test_scores_that_are_no_numbers_end_the_search(
    where: str, value: float, tmp_path: Path
) -> None:
    """They would else be the best ones for good."""

    class Overflows(tiny.PlainScorer):
        def class_scores(self, latents: Any, split: str, subnetworks: Any) -> Any:
            scores = super().class_scores(latents, split, subnetworks)
            if split == where and latents is not None:
                scores[..., 0, 0] = value
            return scores

    settings = {"calibrate": True, "budget": 8}
    scorer = Overflows(tiny.config(Path("model"), Path("data"), tmp_path / "run", search=settings))
    with pytest.raises(ModelError, match="the validation set, are not all finite numbers"):
        search(scorer.config, scorer)


@pytest.mark.parametrize("mixer", ["mean", "median", "min", "rank-mean", "weighted"])
def test_the_journal_holds_what_was_asked_scored_and_mixed(mixer: str, tmp_path: Path) -> None:
    weights = [1, 2, 3] if mixer == "weighted" else None
    scorer = plain(tmp_path / "run", ensemble={"mixer": mixer, "weights": weights})
    result = run(scorer)
    for number, rows in enumerate(journal(result.run_dir)):
        rewards = np.array([row["rewards"] for row in rows])
        fitness = np.array([row["fitness"] for row in rows])
        latents = np.array([row["latent"] for row in rows])
        assert {row["generation"] for row in rows} == {number}
        assert np.array_equal(rewards, scorer.score(latents))
        assert np.array_equal(fitness, MIXERS[mixer](rewards, weights))
        validated = [i for i, row in enumerate(rows) if row["validation"] is not None]
        assert validated == [int(fitness.argmax())]


def test_the_step_size_is_the_one_that_the_latents_were_drawn_with(tmp_path: Path) -> None:
    rows = journal(run(plain(tmp_path / "run", search={"sigma": 0.7})).run_dir)
    assert rows[0][0]["step_size"] == 0.7
    assert rows[1][0]["step_size"] != 0.7


@pytest.mark.parametrize(("budget", "generations"), [(8, 1), (24, 3), (31, 3)])
def test_the_budget_counts_prompts_and_only_whole_generations(
    budget: int, generations: int, tmp_path: Path
) -> None:
    listener = Listener()
    result = run(plain(tmp_path / "run", search={"budget": budget}), listener)
    assert len(journal(result.run_dir)) == generations
    assert result.cost.prompts_scored == 8 * generations
    assert [p.prompts_scored for p in listener.progress] == [
        8 * (i + 1) for i in range(generations)
    ]


def test_forward_passes_are_counted_by_purpose(tmp_path: Path) -> None:
    scorer = plain(tmp_path / "run", search={"budget": 24})
    cost = run(scorer).cost
    assert cost.search_passes == 24 * 3 * 6
    assert cost.validation_passes == (3 + 1) * 6  # of each generation and without a prompt
    assert cost.evaluation_passes == 3 * 6 * (1 + 4)  # bare, tuned and three critics
    spent = cost.search_passes + cost.validation_passes + cost.evaluation_passes
    assert spent == scorer.usage.forward_passes


def test_without_clipping_one_network_is_counted(tmp_path: Path) -> None:
    scorer = plain(tmp_path / "run", search={"budget": 24}, ensemble={"mode": "none"})
    result = run(scorer)
    assert result.cost.search_passes == 24 * 6
    assert [row.name for row in result.table] == ["manual prompt", "tuned prompt"]


def test_telemetry_has_a_file_a_generation(tmp_path: Path) -> None:
    result = run(plain(tmp_path / "run", search={"budget": 24}))
    files = sorted((Path(result.run_dir) / "telemetry").iterdir())
    rows = [row for generation in journal(result.run_dir, "telemetry") for row in generation]
    assert [file.name for file in files] == ["000000.arrow", "000001.arrow", "000002.arrow"]
    assert [row["generation"] for row in rows] == [0, 1, 2]
    assert [row["forward_passes"] for row in rows] == [8 * 3 * 6 + 6] * 3
    assert {row["workers"] for row in rows} == {1}


def test_an_observer_sees_every_generation_and_the_best_so_far(tmp_path: Path) -> None:
    listener = Listener()
    result = run(plain(tmp_path / "run"), listener)
    losses = [progress.generation.validation.loss for progress in listener.progress]
    assert [p.generation.number for p in listener.progress] == list(range(20))
    assert {p.generations for p in listener.progress} == {20}
    best = [progress.best.validation.loss for progress in listener.progress]
    assert best == [min(losses[: i + 1]) for i in range(20)]
    assert best != losses
    assert listener.progress[-1].best.number == result.generation
    assert listener.phases == ["Evaluating the prompt on all splits"]


def test_a_generation_is_written_down_before_it_is_told(tmp_path: Path) -> None:
    class Checking(Observer):
        seen = 0

        def generation(self, progress: Progress) -> None:
            self.seen += 1
            assert len(journal(tmp_path / "run")) == self.seen
            assert len(list((tmp_path / "run" / "telemetry").iterdir())) == self.seen

    observer = Checking()
    run(plain(tmp_path / "run", search={"budget": 24}), observer)
    assert observer.seen == 3


def test_progress_compares_with_the_manual_prompt(tmp_path: Path) -> None:
    listener = Listener()
    scorer = plain(tmp_path / "run", search={"budget": 8})
    result = run(scorer, listener)
    bare = scorer.class_scores(None, "validation", [FULL_NETWORK])[0, 0]
    accuracy = (bare.argmax(axis=-1) == scorer.task["validation"].labels).mean()
    assert listener.progress[0].manual.accuracy == accuracy
    assert result.table[0].accuracy["validation"] == accuracy


def test_random_search_runs_with_the_same_critics_and_selection(tmp_path: Path) -> None:
    result = run(plain(tmp_path / "run", search={"method": "random", "sigma": 2.0}))
    rows = journal(result.run_dir)
    drawn = np.array([[row["latent"] for row in generation] for generation in rows])
    assert drawn.shape == (20, 8, 5)
    assert drawn.std() == pytest.approx(2.0, rel=0.1)
    assert {row["step_size"] for generation in rows for row in generation} == {2.0}
    losses = [row["validation_loss"] for generation in rows for row in generation]
    assert result.validation.loss == min(loss for loss in losses if loss is not None)


def test_the_generation_is_passed_to_the_scorer(tmp_path: Path) -> None:
    asked = []

    class Noting(tiny.PlainScorer):
        def score(self, latents: Any, generation: int = 0) -> Any:
            asked.append(generation)
            return super().score(latents, generation)

    run(Noting(plain(tmp_path / "run", search={"budget": 24}).config))
    assert asked == [0, 1, 2]


def test_a_generation_that_fails_leaves_only_whole_ones_behind(tmp_path: Path) -> None:
    class Failing(tiny.PlainScorer):
        def score(self, latents: Any, generation: int = 0) -> Any:
            if generation == 2:
                raise ScorerError("The third generation fails.")
            return super().score(latents, generation)

    with pytest.raises(ScorerError, match="third generation"):
        run(Failing(plain(tmp_path / "run").config))
    assert len(journal(tmp_path / "run")) == 2
    assert not (tmp_path / "run" / "result.json").exists()


def test_a_run_directory_in_use_is_refused_before_anything_is_scored(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    scorer = plain(tmp_path)
    with pytest.raises(RunError, match="is not empty"):
        run(scorer)
    assert scorer.usage.forward_passes == 0


def test_a_model_is_searched_in_this_process_unless_a_scorer_is_given(
    model_dir: Path, task_dir: Path, tmp_path: Path
) -> None:
    listener = Listener()
    auto = {"dtype": "auto", "device": "auto", "micro_batch": "auto"}
    given = tiny.config(model_dir, task_dir, tmp_path / "run", model=auto)
    result = search(given, observer=listener)

    tree = yaml.safe_load((Path(result.run_dir) / "config.yaml").read_text())
    assert "auto" not in {tree["model"][name] for name in auto}
    assert listener.phases[0] == f"Loading {model_dir}"

    resolved = given.model_copy(update={"model": given.model.model_copy(update=tree["model"])})
    again = LocalScorer(resolved, load_task(resolved.task))
    saved = load_file(Path(result.run_dir) / "prompt.safetensors")["prompt"]
    assert np.array_equal(saved, again.prompt(result.latent))
    assert evaluate(again, result.latent, result.generation) == result.table
    written = json.loads((Path(result.run_dir) / "result.json").read_text())
    assert written["accuracy"] == {row.name: row.accuracy for row in result.table}
    assert written["selected"]["latent"] == result.latent.tolist()
