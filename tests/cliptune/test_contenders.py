"""The contenders compute what they are said to, on a model of their own."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from transformers import AutoModelForMaskedLM

from cliptune.benchmark import Options, settings
from cliptune.contenders import BATCH_ROWS, Ceiling, Inference, Naive, Work
from cliptune.local import LocalScorer
from cliptune.specimen import read_task
from cliptune.subnetwork import ensemble


@pytest.fixture(scope="module")
def work(model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Work:
    few = tiny.save_task(tmp_path_factory.mktemp("few"), examples=4) / "train.jsonl"
    options = Options(subnetworks=2, prompt_length=3, dtype="float32", device="cpu")
    scorer = LocalScorer(settings(options, str(model_dir)), read_task(few))
    latents = np.random.default_rng(0).standard_normal((4, 500))
    return Work(scorer, latents, ensemble(scorer.config.ensemble, 0))


@pytest.fixture
def module(model_dir: Path) -> Any:
    return AutoModelForMaskedLM.from_pretrained(model_dir, use_safetensors=True).eval()


@pytest.mark.parametrize("together", [False, True])
@pytest.mark.parametrize("head", ["mask", "all"])
def test_naive_rewards_are_those_of_the_scorer(
    work: Work, module: Any, together: bool, head: str
) -> None:
    naive = Naive(module, work, part=2, together=together, head=head)
    naive.round()
    assert sorted(naive.rewards) == [0, 1]
    naive.round()
    expected = work.scorer.score(work.latents)[:, 0]
    assert [naive.rewards[i] for i in range(4)] == pytest.approx(expected.tolist(), rel=1e-4)


def test_a_batch_that_does_not_fit_is_halved(
    work: Work, module: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    naive = Naive(module, work, part=4, together=True, head="mask")
    forward, sizes = naive._forward, []

    def short_of_memory(prompts: torch.Tensor) -> torch.Tensor:
        sizes.append(len(prompts))
        if len(prompts) > 1:
            raise torch.OutOfMemoryError
        return forward(prompts)

    monkeypatch.setattr(naive, "_forward", short_of_memory)
    naive.round()
    assert sizes == [4, 2, 1, 1, 1, 1]
    assert naive.remarks()["batch"] == len(work.lengths)


def test_pure_inference_runs_all_tokens_of_one_subnetwork(work: Work, module: Any) -> None:
    inference = Inference(module, work)
    assert inference.rows in BATCH_ROWS["cpu"]
    tokens = rows = 0
    for ids, mask in inference._cut(inference.rows):
        rows += len(ids)
        tokens += ids.numel() if mask is None else int(mask.sum())
    assert rows == len(work.latents) * len(work.lengths)
    assert tokens == len(work.latents) * sum(work.lengths)
    assert inference.round() > 0


def test_the_ceiling_multiplies_the_linear_layers_of_a_block(work: Work, module: Any) -> None:
    ceiling = Ceiling(module, work, 1)
    assert ceiling.round() > 0
    assert ceiling.remarks()["products"] == [[32, 32]] * 4 + [[64, 32], [32, 64]]
    assert ceiling.remarks()["dtype"] == "float32"
