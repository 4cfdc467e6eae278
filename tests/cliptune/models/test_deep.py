"""Deep prompts: what the model computes with them, seen from outside."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from transformers import AutoModelForMaskedLM

from cliptune.errors import ConfigError
from cliptune.local import LocalScorer
from cliptune.sites import find_sites
from cliptune.subnetwork import FULL_NETWORK, ensemble
from cliptune.task import load_task
from cliptune.thinning import hooked

DEEP = {"length": 3, "dimension": 5, "layers": 2}


def make(folder: Path, data: Path, **sections: Any) -> LocalScorer:
    config = tiny.config(folder, data, **{"prompt": DEEP, **sections})
    return LocalScorer(config, load_task(config.task))


def latents(population: int = 4) -> np.ndarray[Any, Any]:
    return np.random.default_rng(0).standard_normal((population, 10))


@pytest.fixture(scope="module", params=["bert", "roberta", "distilbert"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.save_model(tmp_path_factory.mktemp("model") / request.param, request.param)


@torch.inference_mode()
def by_hand(scorer: LocalScorer, latent: Any, subnetwork: Any) -> Any:
    """Class scores `(examples, classes)`, an example a pass, the second block's input taken by
    hand between two runs of the plain model."""
    plain = AutoModelForMaskedLM.from_pretrained(scorer.config.model.name).eval()
    first, second = torch.from_numpy(scorer.prompt(latent))
    encoded = scorer.encoded["train"]
    words = scorer.model.tokenizer.convert_tokens_to_ids(list(scorer.task.label_words))
    rows = []
    for ids, mask_position in zip(encoded.ids, encoded.mask_positions, strict=True):
        embedded = plain.get_input_embeddings()(torch.tensor([ids]))
        embedded = torch.cat([embedded[:, :1], first[None], embedded[:, 1:]], dim=1)
        seen: list[torch.Tensor] = []

        def keep(block: Any, inputs: Any, named: Any, seen: list[torch.Tensor] = seen) -> Any:
            hidden = (inputs[0] if inputs else named["hidden_states"]).clone()
            hidden[:, 1:4] += second
            seen.append(hidden)
            return (
                ((hidden, *inputs[1:]), named)
                if inputs
                else ((), {**named, "hidden_states": hidden})
            )

        handle = find_sites(plain).blocks[1].register_forward_pre_hook(keep, with_kwargs=True)
        with hooked(plain, subnetwork):
            logits = plain(inputs_embeds=embedded).logits
        handle.remove()
        assert len(seen) == 1
        rows.append(logits[0, mask_position + 3, words].numpy())
    return np.stack(rows)


def test_scores_are_those_of_a_model_whose_second_block_is_given_more(
    folder: Path, task_dir: Path
) -> None:
    scorer = make(folder, task_dir)
    networks = [FULL_NETWORK, *ensemble(scorer.config.ensemble, 0)[:1]]
    found = scorer.class_scores(latents(2), "train", networks)
    for candidate, latent in enumerate(latents(2)):
        for n, network in enumerate(networks):
            expected = by_hand(scorer, latent, network)
            off = found[candidate, n] - expected
            np.testing.assert_allclose(off - off[:, :1], 0, atol=2e-4)  # up to a constant a row


def test_a_second_layer_that_adds_nothing_changes_nothing(folder: Path, task_dir: Path) -> None:
    deep, shallow = make(folder, task_dir), make(folder, task_dir, prompt={**DEEP, "layers": 1})
    some = latents()
    some[:, 5:] = 0
    np.testing.assert_allclose(deep.score(some), shallow.score(some[:, :5]), rtol=0, atol=1e-6)
    assert np.abs(deep.score(latents()) - deep.score(some)).max() > 1e-2


def test_the_manual_prompt_has_no_deeper_ones(folder: Path, task_dir: Path) -> None:
    deep, shallow = make(folder, task_dir), make(folder, task_dir, prompt={**DEEP, "layers": 1})
    deep.score(latents())
    bare = [one.class_scores(None, "test", [FULL_NETWORK]) for one in (deep, shallow)]
    np.testing.assert_allclose(*bare, rtol=0, atol=1e-6)


def test_label_texts_of_an_encoder_carry_no_deep_prompt(model_dir: Path, task_dir: Path) -> None:
    model = {"readout": "encoder"}
    deep = make(model_dir, task_dir, model=model)
    before = deep.class_scores(None, "train", [FULL_NETWORK])
    deep.model.network_changed()
    deep.score(latents())
    np.testing.assert_array_equal(deep.class_scores(None, "train", [FULL_NETWORK]), before)


def test_the_prompt_of_a_latent_has_its_layers(model_dir: Path, task_dir: Path) -> None:
    assert make(model_dir, task_dir).prompt(latents()[0]).shape == (2, 3, 32)


def test_more_layers_than_the_model_has_are_refused(model_dir: Path, task_dir: Path) -> None:
    with pytest.raises(ConfigError, match="the model has 2 layers, found 3"):
        make(model_dir, task_dir, prompt={**DEEP, "layers": 3})


def test_a_model_with_narrow_word_embeddings_is_refused(tmp_path: Path, task_dir: Path) -> None:
    folder = tiny.save_model(tmp_path / "electra", "electra")
    with pytest.raises(ConfigError, match="embeds words in 16 and computes in 32"):
        make(folder, task_dir)
