"""Memory and speed: the computed against the real thing, the measured against something known."""

import itertools
from dataclasses import replace
from mmap import mmap
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from transformers import AutoModelForMaskedLM

from cliptune import probe
from cliptune.local import LocalScorer
from cliptune.models.load import load_structure
from cliptune.plan import MicroBatch, plan
from cliptune.scorer import Unit
from cliptune.subnetwork import FULL_NETWORK, ensemble
from cliptune.task import load_task

MIB = 2**20


def batch(split: str, examples: tuple[int, ...], candidates: int, length: int) -> MicroBatch:
    unit = Unit(FULL_NETWORK, split, (0, candidates), examples, length, reduce=True)
    return MicroBatch(unit, prompted=True, padding=0)


BATCH = batch("train", (2, 0, 1), 2, 15)


def local(model_dir: Path, task_dir: Path, **sections: Any) -> LocalScorer:
    config = tiny.config(model_dir, task_dir, **sections)
    return LocalScorer(config, load_task(config.task))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("family", ["bert", "roberta", "electra", "distilbert"])
def test_weights_take_what_the_stored_model_has(
    family: str, dtype: str, tmp_path: Path, task_dir: Path
) -> None:
    folder = tiny.save_model(tmp_path, family)
    config = tiny.config(folder, task_dir, model={"dtype": dtype})
    module = AutoModelForMaskedLM.from_pretrained(folder, dtype=getattr(torch, dtype))
    tensors = [*module.parameters(), *module.buffers()]
    expected = sum(tensor.untyped_storage().nbytes() for tensor in tensors)
    structure = load_structure(config, load_task(config.task))
    assert probe.weight_bytes(structure.module, getattr(torch, dtype)) == expected


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_second_copy_takes_what_a_thinner_keeps(
    dtype: str, model_dir: Path, task_dir: Path
) -> None:
    scorer = local(model_dir, task_dir, model={"dtype": dtype})
    scorer.score(np.zeros((1, 5)))
    kept = [tensor for _, *copies in scorer._thinner._whole for tensor in copies]
    expected = sum(tensor.nbytes for tensor in kept if tensor is not None)
    structure = load_structure(scorer.config, scorer.task)
    found = probe.thinned_bytes(structure.module, getattr(torch, dtype), scorer.config.ensemble)
    assert found == expected > 0


@pytest.mark.parametrize("section", [{"mode": "none"}, {"clip_ratio": 0}])
def test_without_clipping_there_is_no_second_copy(
    section: dict[str, Any], model_dir: Path, task_dir: Path
) -> None:
    config = tiny.config(model_dir, task_dir, ensemble=section)
    structure = load_structure(config, load_task(config.task))
    assert probe.thinned_bytes(structure.module, torch.float32, config.ensemble) == 0


def test_memory_that_was_freed_again_counts_for_the_peak() -> None:
    with probe.watched("cpu") as peak, mmap(-1, 64 * MIB) as memory:  # none that malloc had kept
        np.frombuffer(memory, np.uint8).fill(1)
    assert peak.bytes is not None
    assert 60 * MIB < peak.bytes < 140 * MIB


def test_memory_of_before_does_not_count_for_the_peak() -> None:
    before = np.ones(64 * MIB, np.uint8)
    with probe.watched("cpu") as peak:
        pass
    assert before.all()
    assert peak.bytes is not None
    assert peak.bytes < 20 * MIB


def test_the_processs_memory_holds_what_was_made() -> None:
    before = probe.resident_bytes()
    some = np.ones(1100 * MIB, np.uint8)  # more than what a scorer's allocator keeps for itself
    after = probe.resident_bytes()
    assert some.all()
    assert before is not None
    assert after is not None
    assert 1000 * MIB < after - before < 1200 * MIB


def test_a_system_that_does_not_say_is_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probe, "PROCESS", tmp_path / "none")
    with probe.watched("cpu") as peak:
        pass
    assert peak.bytes is None
    assert probe.resident_bytes() is None


def test_activations_grow_with_the_micro_batch(model_dir: Path, tmp_path: Path) -> None:
    """Attention of 64 tokens by 64 in 4 heads and float32 takes 64 KiB a row and layer."""
    scorer = local(model_dir, tiny.save_task(tmp_path / "data"), prompt={"length": 40})
    few, many = batch("test", (0,), 1, 50), batch("test", tuple(range(6)), 400, 50)
    small, large = probe.activation_bytes(scorer, few), probe.activation_bytes(scorer, many)
    assert small is not None
    assert large is not None
    assert large > small + 2400 * 50 * 64 * 4  # a feed-forward layer's activation alone


@pytest.mark.parametrize("measure", ["activations", "speed"])
def test_what_is_measured_is_a_thinned_network(
    measure: str, model_dir: Path, task_dir: Path
) -> None:
    scorer = local(model_dir, task_dir)
    assert scorer._thinner.current == FULL_NETWORK
    if measure == "speed":
        assert probe.tokens_per_second(scorer, BATCH, 0.01) > 0
    else:
        probe.activation_bytes(scorer, BATCH)
    assert scorer._thinner.current == ensemble(scorer.config.ensemble, 0)[0]


@pytest.mark.parametrize("prompted", [True, False])
def test_a_micro_batch_goes_through_the_model_as_planned(
    prompted: bool, model_dir: Path, task_dir: Path
) -> None:
    scorer = local(model_dir, task_dir)
    batch = plan(scorer.config, scorer.task, scorer.lengths).largest
    seen = []
    scorer.model.module.register_forward_pre_hook(
        lambda module, inputs, named: seen.append(named["inputs_embeds"]), with_kwargs=True
    )
    examples = batch.unit.examples
    longest = max(scorer.lengths[batch.unit.split][row] for row in examples)
    candidates = batch.unit.rows // len(examples) if prompted else 1
    shape = (candidates * len(examples), longest + 3 * prompted)
    probe._forward(scorer, replace(batch, prompted=prompted))
    assert [embedded.shape[:2] for embedded in seen] == [shape]
    assert not prompted or seen[0][..., 0].numel() == batch.computed


def test_speed_is_the_median_without_the_first_pass(
    monkeypatch: pytest.MonkeyPatch, model_dir: Path, task_dir: Path
) -> None:
    now = 0.0
    takes = itertools.chain([50.0, 0.5, 2.0, 0.25, 0.5], itertools.repeat(1000.0))

    def forward(scorer: LocalScorer, batch: MicroBatch) -> None:
        nonlocal now
        now += next(takes)

    monkeypatch.setattr(probe, "_forward", forward)
    monkeypatch.setattr(probe, "time", SimpleNamespace(perf_counter=lambda: now))
    scorer = local(model_dir, task_dir)
    assert probe.tokens_per_second(scorer, BATCH, 3.0) == 2 * 3 * 15 / 0.5
    assert now == 53.25


def test_speed_takes_one_pass_at_least(
    monkeypatch: pytest.MonkeyPatch, model_dir: Path, task_dir: Path
) -> None:
    passes = []
    monkeypatch.setattr(probe, "_forward", lambda scorer, batch: passes.append(batch))
    scorer = local(model_dir, task_dir)
    assert probe.tokens_per_second(scorer, BATCH, -1.0) > 0
    assert passes == [BATCH] * 2
