"""LocalScorer: the contract, and what only it can show."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from scorer_contract import ScorerContract, journal_bytes, latents

from cliptune.config import Config
from cliptune.errors import ModelError
from cliptune.local import LocalScorer
from cliptune.loop import search
from cliptune.scorer import Scorer
from cliptune.subnetwork import FULL_NETWORK, ensemble
from cliptune.task import load_task


def local(config: Config) -> LocalScorer:
    return LocalScorer(config, load_task(config.task))


class TestLocalScorer(ScorerContract):
    @classmethod
    def make(cls, config: Config) -> Scorer:
        return local(config)


def test_rewards_do_not_depend_on_the_order_of_units(model_dir: Path, task_dir: Path) -> None:
    scorer = local(tiny.config(model_dir, task_dir))
    expected = scorer.score(latents())
    run = scorer.run

    def backwards(units, latents):  # type: ignore[no-untyped-def]
        return run(units[::-1], latents)[::-1]

    scorer.run = backwards  # type: ignore[method-assign]
    assert np.array_equal(scorer.score(latents()), expected)


@pytest.mark.parametrize("micro_batch", [1, 3, 16, 512])
def test_rewards_depend_on_the_micro_batch_by_rounding_only(
    micro_batch: int, model_dir: Path, task_dir: Path
) -> None:
    expected = local(tiny.config(model_dir, task_dir)).score(latents())
    config = tiny.config(model_dir, task_dir, model={"micro_batch": micro_batch})
    np.testing.assert_allclose(local(config).score(latents()), expected, rtol=0, atol=2e-6)


def test_a_reward_that_is_not_finite_is_named(model_dir: Path, task_dir: Path) -> None:
    scorer = local(tiny.config(model_dir, task_dir))
    broken = latents()
    broken[4] = np.nan
    with pytest.raises(ModelError, match="candidate 4 on subnetwork 0 in generation 7 is nan"):
        scorer.score(broken, 7)


def test_no_clipping_is_one_full_network(model_dir: Path, task_dir: Path) -> None:
    scorer = local(tiny.config(model_dir, task_dir, ensemble={"mode": "none"}))
    assert scorer.score(latents()).shape == (6, 1)


def test_same_seed_same_journal_and_another_seed_another(
    model_dir: Path, task_dir: Path, tmp_path: Path
) -> None:
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        search(tiny.config(model_dir, task_dir, tmp_path / name, search={"seed": seed}))
    assert journal_bytes(tmp_path / "a") == journal_bytes(tmp_path / "b")
    assert journal_bytes(tmp_path / "a") != journal_bytes(tmp_path / "c")


def test_units_are_as_long_as_what_goes_through_the_model(model_dir: Path, task_dir: Path) -> None:
    """For those who share the work out by tokens."""
    scorer = local(tiny.config(model_dir, task_dir, model={"micro_batch": 12}))
    seen: list[tuple[int, ...]] = []
    scorer.model.module.register_forward_pre_hook(
        lambda module, inputs, named: seen.append(named["inputs_embeds"].shape[:2]),
        with_kwargs=True,
    )
    units = scorer.units(FULL_NETWORK, "train", 6, reduce=True)
    results = scorer.run(units, latents())
    bare = scorer.units(FULL_NETWORK, "test", None, reduce=False)
    results += scorer.run(bare, None)
    assert seen == [(unit.rows, unit.length) for unit in [*units, *bare]]
    assert [result.shape for result in results] == [unit.shape(2) for unit in [*units, *bare]]
    assert {result.dtype for result in results} == {np.dtype("float64"), np.dtype("float32")}


def test_lengths_are_those_of_the_inputs_without_the_prompt(
    model_dir: Path, task_dir: Path
) -> None:
    scorer = local(tiny.config(model_dir, task_dir))
    assert set(scorer.lengths) == {"train", "validation", "test"}
    for split, lengths in scorer.lengths.items():
        assert list(lengths) == [len(ids) for ids in scorer.encoded[split].ids]
    assert scorer.facts().tokens == {name: sum(each) for name, each in scorer.lengths.items()}


def test_units_alone_give_what_they_give_among_others(model_dir: Path, task_dir: Path) -> None:
    """To the bit: which units are sent to an actor together is nobody's business."""
    scorer = local(tiny.config(model_dir, task_dir))
    networks = ensemble(scorer.config.ensemble, 0)
    units = [u for network in networks for u in scorer.units(network, "train", 6, reduce=True)]
    together = scorer.run(units, latents())
    order = np.random.default_rng(0).permutation(len(units)).tolist()
    alone = {i: scorer.run([units[i]], latents())[0] for i in order}
    assert [each.tolist() for each in together] == [alone[i].tolist() for i in range(len(units))]


# The canary


def canary(folder: Path, task_dir: Path, **sections: Any) -> str:
    return local(tiny.config(folder, task_dir, **sections)).canary()


def test_the_canary_of_equal_scorers_is_the_same(model_dir: Path, task_dir: Path) -> None:
    scorer = local(tiny.config(model_dir, task_dir))
    first = scorer.canary()
    scorer.score(latents())
    assert scorer.canary() == first == canary(model_dir, task_dir)


def test_the_canary_tells_other_arithmetic(model_dir: Path, task_dir: Path) -> None:
    found = [
        canary(model_dir, task_dir, model={"dtype": dtype}) for dtype in ("float32", "bfloat16")
    ]
    assert found[0] != found[1]


@pytest.mark.parametrize("loss", ["cross-entropy", "accuracy"])
def test_the_canary_tells_a_weight_that_differs_in_a_bit(
    loss: str, model_dir: Path, task_dir: Path
) -> None:
    """Also where a reward is only right or wrong."""
    scorer = local(tiny.config(model_dir, task_dir, search={"loss": loss}))
    whole = scorer.canary()
    weight = scorer.model.module.get_input_embeddings().weight.data
    row = scorer.encoded["train"].ids[0][0]  # of the token that begins every input
    weight.view(torch.int32)[row, 0] ^= 1 << 20
    assert scorer.canary() != whole


def test_the_canary_is_not_counted(model_dir: Path, task_dir: Path) -> None:
    scorer = local(tiny.config(model_dir, task_dir))
    before = replace(scorer.usage)
    scorer.canary()
    assert scorer.usage == before


def test_a_prompt_of_one_vector_has_both_axes(model_dir: Path, task_dir: Path) -> None:
    scorer = local(tiny.config(model_dir, task_dir, prompt={"length": 1}))
    assert scorer.prompt(latents()[0]).shape == (1, 32)
    assert len(scorer.nearest(latents()[0])) == 1


def test_of_a_deep_prompt_the_first_layer_has_nearest_tokens(
    model_dir: Path, task_dir: Path
) -> None:
    scorer = local(tiny.config(model_dir, task_dir, prompt={"layers": 2}))
    found = scorer.nearest(np.zeros(10))
    assert [row[0][1] for row in found] == [1.0, 1.0, 1.0]
