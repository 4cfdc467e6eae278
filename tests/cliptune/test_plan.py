"""The plan, held against what a LocalScorer really does, to the last token."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import families
import numpy as np
import pytest
import tiny
import torch

from cliptune import scorer as scorer_module
from cliptune.config import Config
from cliptune.errors import ConfigError
from cliptune.evaluation import calibrate, critics_of, evaluate, validate
from cliptune.local import LocalScorer
from cliptune.loop import search
from cliptune.models.load import load_structure
from cliptune.plan import MicroBatch, Plan, Work, plan
from cliptune.scorer import UnitScorer
from cliptune.subnetwork import FULL_NETWORK
from cliptune.task import load_task


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Models this small lose time with more."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


class Meter:
    """Counts what goes through a scorer's model: useful tokens, padding, rows by pass."""

    def __init__(self, scorer: LocalScorer) -> None:
        self._scorer = scorer
        self.sizes: list[int] = []  # of micro-batches, padding included
        self._tokens = self._passes = 0
        scorer.model.module.base_model.register_forward_pre_hook(self._see, with_kwargs=True)

    def _see(self, module: Any, inputs: Any, named: dict[str, torch.Tensor]) -> None:
        rows, length = named["inputs_embeds"].shape[:2]
        mask = named.get("attention_mask")  # none where no row is padded
        assert mask is None or (len(mask), mask.shape[1] >= length) == (rows, True)
        self.sizes.append(rows * length)
        self._tokens += rows * length if mask is None else int(mask[:, -length:].sum())

    def take(self) -> tuple[int, int, int]:
        """Forward passes, tokens and padding since the last time."""
        passes = self._scorer.usage.forward_passes
        found = (passes - self._passes, self._tokens, sum(self.sizes) - self._tokens)
        self._passes, self._tokens, self.sizes = passes, 0, []
        return found


def planned(scorer: LocalScorer) -> Plan:
    shared = scorer.model.shared_tokens(scorer.config.prompt.length)
    return plan(scorer.config, scorer.task, scorer.lengths, shared)


def cost(work: Work) -> tuple[int, int, int]:
    return work.forward_passes, work.tokens, work.padding


SHAPES: dict[str, dict[str, Any]] = {
    "as usual": {},
    "many candidates a unit": {"model": {"micro_batch": 64}, "search": {"population": 7}},
    "uneven units": {"model": {"micro_batch": 48}, "search": {"population": 7}},
    "a row at a time": {"model": {"micro_batch": 1}},
    "one micro-batch": {"model": {"micro_batch": 512}},
    "a long prompt": {"prompt": {"length": 20}},
    "new masks each generation": {"ensemble": {"mode": "dynamic"}},
    "the full network": {"ensemble": {"mode": "none"}},
    "nothing clipped": {"ensemble": {"clip_ratio": 0}},
    "class priors calibrated": {"search": {"calibrate": True}},
    "shortened texts": {"task": {"max_tokens": 14}},
}
CAUSAL: dict[str, Any] = {
    "task": {"template": "{text} . it was {mask}"},
    "model": {"micro_batch": 16},
}
PADDED = ("many candidates a unit", "uneven units", "one micro-batch")  # rather than left small


@pytest.mark.parametrize("name", SHAPES)
def test_a_plan_is_what_a_scorer_does_to_the_last_token(
    name: str, model_dir: Path, task_dir: Path
) -> None:
    config = tiny.config(model_dir, task_dir, **SHAPES[name])
    scorer = LocalScorer(config, load_task(config.task))
    found, meter = planned(scorer), Meter(scorer)
    latents = np.random.default_rng(0).standard_normal((config.search.population, 5))
    scorer.score(latents)
    sizes = sorted(meter.sizes)
    assert found.typical.computed in sizes
    assert sizes[0] <= found.typical.computed <= sizes[-1]
    assert cost(found.generation) == meter.take()
    validate(scorer, latents[0], calibrate(scorer, latents[0]))
    sizes += meter.sizes
    assert cost(found.validation) == meter.take()
    validate(scorer, None)
    assert cost(found.manual) == meter.take()
    networks = (FULL_NETWORK, *critics_of(config.ensemble, 3))
    evaluate(scorer, latents[0], 3, calibrate(scorer, latents[0], networks))
    sizes += meter.sizes
    assert cost(found.evaluation) == meter.take()
    assert found.largest.computed == max(sizes)
    assert (found.generation.padding > 0) == (name in PADDED)


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return families.save("Llama", tmp_path_factory.mktemp("llama"))


def test_of_a_causal_model_the_prompt_is_counted_once_a_candidate_and_network(
    llama: Path, task_dir: Path
) -> None:
    """<s> and the three vectors of four candidates, on each of three networks."""
    config = tiny.config(llama, task_dir, **CAUSAL)
    scorer = LocalScorer(config, load_task(config.task))
    found, meter = planned(scorer), Meter(scorer)
    latents = np.random.default_rng(0).standard_normal((config.search.population, 5))
    scorer.score(latents)
    assert cost(found.generation) == meter.take()
    assert sum(batch.first for call in found.generation.calls for batch in call) == 3
    apart = plan(config, scorer.task, scorer.lengths)
    rows = found.generation.forward_passes
    assert apart.generation.tokens - found.generation.tokens == 4 * rows - 3 * 4 * 4
    assert found.generation.padding == apart.generation.padding > 0
    for work, act in (
        (found.validation, lambda: validate(scorer, latents[0])),
        (found.manual, lambda: validate(scorer, None)),
        (found.evaluation, lambda: evaluate(scorer, latents[0], 3)),
    ):
        scorer.model.network_changed()  # as between two prompts
        act()
        assert cost(work) == meter.take()


def test_what_a_causal_model_shares_is_known_without_its_weights(
    llama: Path, task_dir: Path, tmp_path: Path
) -> None:
    config = tiny.config(llama, task_dir, **CAUSAL)
    task = load_task(config.task)
    assert load_structure(config, task).shared_tokens(3) == 4
    assert LocalScorer(config, task).model.shared_tokens(3) == 4
    assert LocalScorer(config, task, without=["shared prefix"]).model.shared_tokens(3) == 0
    moving = shutil.copytree(llama, tmp_path / "moving")
    settings = json.loads((moving / "config.json").read_text(encoding="utf-8"))
    settings["rope_parameters"] = {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 10000.0}
    (moving / "config.json").write_text(json.dumps(settings), encoding="utf-8")
    config = tiny.config(moving, task_dir, **CAUSAL)
    assert load_structure(config, task).shared_tokens(3) == 0
    assert LocalScorer(config, task).model.shared_tokens(3) == 0


@pytest.mark.parametrize(
    "limits",
    [
        {"budget": 12},
        {"budget": 11, "population": 5},
        {"budget": None, "max_forward_passes": 150},
        {"budget": 400, "max_forward_passes": 2 * 4 * 3 * 6},
    ],
)
def test_a_whole_search_costs_what_was_planned(
    limits: dict[str, Any], model_dir: Path, task_dir: Path, tmp_path: Path
) -> None:
    config = tiny.config(model_dir, task_dir, tmp_path / "run", search=limits)
    scorer = LocalScorer(config, load_task(config.task))
    found, meter = planned(scorer), Meter(scorer)
    scorer.canary()
    canary = meter.take()
    result = search(config, scorer)
    count = found.generations
    assert count is not None
    assert count >= 2
    assert result.cost.prompts_scored == count * config.search.population
    assert result.cost.search_passes == count * found.generation.forward_passes
    validations = found.manual.forward_passes + count * found.validation.forward_passes
    assert result.cost.validation_passes == validations
    assert result.cost.evaluation_passes == found.evaluation.forward_passes
    each = np.add(cost(found.generation), cost(found.validation))
    once = np.add(cost(found.manual), cost(found.evaluation))
    assert meter.take() == tuple(count * each + once + canary)


def by_hand(**sections: Any) -> Plan:
    """Six examples a split, which have these tokens; a prompt of three vectors."""
    config = tiny.config(Path("model"), Path("data"), **sections)
    lengths = {"train": [5, 9, 4, 9, 4, 6], "validation": [4] * 6, "test": [7, 7, 7, 7, 7, 8]}
    return plan(config, tiny.task(), lengths)


def sizes(call: tuple[MicroBatch, ...]) -> list[tuple[int, int, int]]:
    """Rows, tokens that count and padding of each unit of a call."""
    return [(batch.unit.rows, batch.tokens, batch.padding) for batch in call]


def test_padding_is_up_to_the_longest_of_its_micro_batch() -> None:
    """Three candidates: 4 4, 5 6, 9 9, two rows each at least; one candidate: 4 4 5 6, 9 9."""
    found = by_hand(model={"micro_batch": 8}, search={"population": 3})
    training = [(6, 3 * (8 + 6), 0), (6, 3 * (11 + 6), 3), (6, 3 * (18 + 6), 0)]
    assert list(map(sizes, found.generation.calls)) == [training * 3]  # on three subnetworks
    assert list(map(sizes, found.validation.calls)) == [[(6, 24 + 6 * 3, 0)]]
    assert list(map(sizes, found.manual.calls)) == [[(6, 24, 0)]]
    bare, prompted = [(4, 19, 5), (2, 18, 0)], [(4, 19 + 12, 5), (2, 18 + 6, 0)]
    assert list(map(sizes, found.evaluation.calls[:2])) == [bare, prompted * 4]
    bare, prompted = [(5, 35, 0), (1, 8, 0)], [(5, 35 + 15, 0), (1, 8 + 3, 0)]
    assert list(map(sizes, found.evaluation.calls[4:])) == [bare, prompted * 4]
    assert found.largest.computed == 3 * 2 * (9 + 3)
    assert (found.largest.unit.split, found.largest.prompted) == ("train", True)


def test_calls_wait_for_each_other_and_units_do_not() -> None:
    """Three spans of candidates, in micro-batches of 8 rows at most; six examples of one."""
    found = by_hand(model={"micro_batch": 8}, search={"population": 12})
    assert [len(call) for call in found.generation.calls] == [3 * 3 * 4]
    assert [len(call) for call in found.validation.calls] == [1]
    assert [len(call) for call in found.evaluation.calls] == [2, 8, 1, 4, 2, 8]


def test_the_typical_micro_batch_is_the_median_one() -> None:
    found = by_hand(model={"micro_batch": 2})  # two candidates; 4, 4, 5, 6, 9, 9
    assert (found.typical.unit.split, found.typical.unit.examples) == ("train", (5,))
    assert (found.typical.unit.rows, found.typical.tokens, found.typical.padding) == (2, 18, 0)


def test_a_budget_that_holds_no_generation_is_refused() -> None:
    with pytest.raises(ConfigError, match="max_forward_passes must hold at least one generation"):
        by_hand(search={"max_forward_passes": 71})
    assert by_hand(search={"max_forward_passes": 72}).generations == 1


def test_without_a_budget_the_number_of_generations_is_open() -> None:
    found = by_hand(search={"budget": None, "max_seconds": 60})
    assert found.generations is None
    assert found.generations_in(60, manual=1, each=10) == 6
    assert found.generations_in(61, manual=1, each=10) == 6
    assert found.generations_in(62, manual=1, each=10) == 7
    assert found.generations_in(0.5, manual=1, each=10) == 1


def test_a_budget_may_be_spent_before_the_time() -> None:
    found = by_hand(search={"max_seconds": 60})
    assert found.generations == 3
    assert found.generations_in(60, manual=1, each=10) == 3
    assert found.generations_in(15, manual=1, each=10) == 2


@pytest.mark.parametrize("setting", ["selection", "loss"])
@pytest.mark.parametrize("calibrate", [False, True])
def test_a_function_of_the_users_own_is_not_called(setting: str, calibrate: bool) -> None:
    search: dict[str, Any] = {"calibrate": calibrate}
    assert by_hand(search={**search, setting: "no_such_module:mine"}) == by_hand(search=search)


def test_equal_spans_are_cut_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """All spans of a large population, on all subnetworks, have the same micro-batches."""
    seen = []
    count = scorer_module.micro_batches

    def counting(*arguments: Any) -> Any:
        seen.append(arguments)
        return count(*arguments)

    monkeypatch.setattr(scorer_module, "micro_batches", counting)
    sections = {"population": 40, "budget": 4000}
    by_hand(search=sections, ensemble={"subnetworks": 20})
    assert len(seen) == 3 + 1  # splits for one candidate, and the training set for five


def test_a_plan_needs_no_model(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: Any) -> None:
        raise AssertionError("a model was run")

    monkeypatch.setattr(torch.nn.Module, "__call__", refuse)
    assert by_hand().generation.forward_passes == 4 * 3 * 6


def test_a_counting_scorer_is_a_unit_scorer_like_others(task_dir: Path) -> None:
    """What it counts are forward passes as Usage has them."""
    from cliptune.plan import CountingScorer

    config: Config = tiny.config(Path("model"), task_dir)
    counter = CountingScorer(config, tiny.task(), {"train": [4] * 6})
    assert isinstance(counter, UnitScorer)
    assert counter.score(np.zeros((4, 5))).tolist() == [[0.0] * 3] * 4
    assert counter.usage.forward_passes == counter.take().forward_passes == 72
    assert counter.take() == Work(())
