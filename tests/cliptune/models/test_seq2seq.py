"""Encoder-decoders: label words as the first word that the decoder would write.

Beside test_families.py, which compares each family with the plain model.
"""

import json
from pathlib import Path
from typing import Any

import families
import pytest
import tiny
import torch

from cliptune.errors import ConfigError, ModelError
from cliptune.models import FrozenModel, load_model
from cliptune.task import load_task


@pytest.fixture(scope="module", params=["T5", "BART"])
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def folder(name: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return families.save(name, tmp_path_factory.mktemp("model"))


def build(folder: Path, data: Path, template: str, **sections: Any) -> FrozenModel:
    config = tiny.config(folder, data, task={"template": template}, **sections)
    return load_model(config, load_task(config.task))


@pytest.mark.parametrize("template", ["{text} . it was {mask} .", "{text} . it was"])
def test_the_decoder_is_given_what_stands_before_its_first_word(
    name: str, folder: Path, template: str, task_dir: Path
) -> None:
    """T5's mask is a sentinel, and what it stands for is written behind it."""
    model = build(folder, task_dir, template)
    masked = "{mask}" in template
    start = {"T5": [0, 3] if masked else [0], "BART": [2, 0]}[name]
    encoded = model.encode(model.task["train"], 0)
    found = model.class_scores(None, model.batch(encoded, range(6)))[0]
    plain = families.plain(name, folder)
    labels = model.tokenizer.convert_tokens_to_ids(families.label_tokens(name))
    for row, ids in enumerate(encoded.ids):
        with torch.inference_mode():
            logits = plain(
                input_ids=torch.tensor([ids]), decoder_input_ids=torch.tensor([start])
            ).logits
        torch.testing.assert_close(found[row], logits[0, -1, labels], rtol=1e-5, atol=1e-5)
    stands = {"T5": "<extra_id_0>", "BART": "<mask>"}[name]
    tokens = model.tokenizer.convert_ids_to_tokens(encoded.ids[0])
    assert (tokens[encoded.mask_positions[0]] == stands) == masked


def test_a_model_that_does_not_say_where_its_decoder_starts_is_refused(
    tmp_path: Path, task_dir: Path
) -> None:
    folder = families.save("T5", tmp_path)
    settings = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    settings["decoder_start_token_id"] = None
    (folder / "config.json").write_text(json.dumps(settings), encoding="utf-8")
    with pytest.raises(ModelError, match="names no decoder_start_token_id"):
        build(folder, task_dir, "{text}")


def test_deep_prompts_are_the_encoders(folder: Path, task_dir: Path) -> None:
    """It has two layers, its decoder three."""
    config = tiny.config(folder, task_dir, task={"template": "{text}"}, prompt={"layers": 3})
    model = load_model(config, load_task(config.task))
    with pytest.raises(ConfigError, match="the model has 2 layers, found 3"):
        model.soft_prompt(config.prompt, 1.0)


def test_label_words_alone_are_computed(folder: Path, task_dir: Path) -> None:
    model = build(folder, task_dir, "{text}")
    assert model.as_it_was.keys() <= {"attention", "gelu"}
    assert model.module.get_output_embeddings().weight.shape[0] == 2


def test_a_long_text_is_cut_where_positions_are_learnt_and_where_they_are_not(
    name: str, folder: Path, task_dir: Path
) -> None:
    model = build(folder, task_dir, "{text}")
    assert model.max_input == 60  # the tokenizer's
    model.tokenizer.model_max_length = 1000
    assert model.max_input == {"T5": 1000, "BART": 66}[name]
