"""Encoders as zero-shot classifiers, against the formula written out by hand."""

from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
import torch.nn.functional as F
from torch import Tensor

from cliptune.local import LocalScorer
from cliptune.models import FrozenModel, load_model
from cliptune.subnetwork import FULL_NETWORK, SubnetworkSpec
from cliptune.task import load_task
from cliptune.thinning import hooked

TASK = {"template": "{text} !", "label_words": ["an awful film", "good fun"]}


def build(folder: Path, data: Path, position: str = "after-first", **model: Any) -> FrozenModel:
    config = tiny.config(
        folder,
        data,
        task=TASK,
        prompt={"position": position},
        model={"readout": "encoder", "temperature": 0.1, **model},
    )
    return load_model(config, load_task(config.task))


@torch.inference_mode()
def embed(model: FrozenModel, text: str, prompt: Tensor, at: int, pooling: str) -> Tensor:
    """One text, no padding: pooled over its own tokens alone."""
    ids = torch.tensor([model.tokenizer(text)["input_ids"]])
    words = model.module.get_input_embeddings()(ids)[0]
    joined = torch.cat([words[:at], prompt, words[at:]])
    hidden = model.module(inputs_embeds=joined[None]).last_hidden_state[0]
    own = torch.cat([hidden[:at], hidden[at + len(prompt) :]])
    return F.normalize(own[0] if pooling == "cls" else own.mean(0), dim=0)


@pytest.mark.parametrize("pooling", ["mean", "cls"])
@pytest.mark.parametrize("position", ["after-first", "front"])
def test_scores_are_cosines_over_the_temperature(
    position: str, pooling: str, model_dir: Path, task_dir: Path
) -> None:
    model = build(model_dir, task_dir, position, pooling=pooling)
    torch.manual_seed(0)
    prompts = torch.randn(2, 3, model.width) * 0.2
    encoded = model.encode(model.task["train"], 3)
    found = model.class_scores(prompts, model.batch(encoded, range(6)))
    none = prompts.new_zeros(0, model.width)
    labels = [embed(model, word, none, 0, pooling) for word in TASK["label_words"]]
    at = 0 if position == "front" else 1
    for candidate, prompt in enumerate(prompts):
        for row, text in enumerate(model.task["train"].texts):
            vector = embed(model, f"{text} !", prompt, at, pooling)
            expected = torch.stack([vector @ label for label in labels]) / 0.1
            torch.testing.assert_close(found[candidate, row], expected, rtol=1e-4, atol=1e-4)


def test_label_texts_are_embedded_by_the_same_thinned_network(
    model_dir: Path, task_dir: Path
) -> None:
    config = tiny.config(model_dir, task_dir, task=TASK, model={"readout": "encoder"})
    scorer = LocalScorer(config, load_task(config.task))
    spec = SubnetworkSpec(1, 5, 0.3, config.ensemble.sites)
    found = scorer.class_scores(None, "train", [FULL_NETWORK, spec])[0, 1]

    plain = build(model_dir, task_dir, temperature=config.model.temperature)
    encoded = plain.encode(plain.task["train"], 0)
    with hooked(plain.module, spec):
        expected = plain.class_scores(None, plain.batch(encoded, range(6)))[0]
    torch.testing.assert_close(torch.from_numpy(found), expected, rtol=1e-5, atol=1e-4)


def test_padding_does_not_move_an_embedding(model_dir: Path, task_dir: Path) -> None:
    model = build(model_dir, task_dir)
    encoded = model.encode(model.task["train"], 0)
    order = sorted(range(6), key=lambda row: encoded.lengths[row])
    together = model.class_scores(None, model.batch(encoded, [order[0], order[-1]]))
    alone = model.class_scores(None, model.batch(encoded, [order[0]]))
    torch.testing.assert_close(together[0, 0], alone[0, 0], rtol=1e-4, atol=1e-4)
