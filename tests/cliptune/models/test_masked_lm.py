"""Masked language models: the label words' logits at the mask, and nothing else computed."""

from pathlib import Path

import more_families
import pytest
import tiny
import torch

from cliptune.errors import TaskError
from cliptune.models import load_model
from cliptune.models.load import load_plain, prepared
from cliptune.task import load_task


def test_the_head_sees_one_position_a_row(model_dir: Path, task_dir: Path) -> None:
    config = tiny.config(model_dir, task_dir)
    model = load_model(config, load_task(config.task))
    shapes = []
    model.module.cls.register_forward_hook(lambda m, i, output: shapes.append(output.shape))
    encoded = model.encode(model.task["train"], 3)
    model.class_scores(torch.zeros(2, 3, model.width), model.batch(encoded, range(5)))
    assert [tuple(shape[:2]) for shape in shapes] == [(10, 1)]


def test_the_module_itself_is_left_as_it_was(model_dir: Path, task_dir: Path) -> None:
    config = tiny.config(model_dir, task_dir)
    model = load_model(config, load_task(config.task))
    encoded = model.encode(model.task["train"], 0)
    model.class_scores(None, model.batch(encoded, [0]))
    assert model.module(input_ids=torch.tensor([encoded.ids[0]])).logits.shape[1] > 1


def test_a_template_without_a_mask_is_refused(model_dir: Path, task_dir: Path) -> None:
    config = tiny.config(model_dir, task_dir, task={"template": "{text}"})
    with pytest.raises(TaskError, match=r"\{mask\}, which task.template lacks"):
        load_model(config, load_task(config.task))


def test_the_first_token_of_a_label_word_is_read_where_that_is_asked_for(
    model_dir: Path, task_dir: Path
) -> None:
    words = {"label_words": ["bad", "great fun"]}
    config = tiny.config(model_dir, task_dir, task=words)
    with pytest.raises(TaskError, match="'great fun' is"):
        load_model(config, load_task(config.task))
    plain = tiny.config(model_dir, task_dir)
    first = tiny.config(model_dir, task_dir, task={**words, "label_tokens": "first"})
    scores = []
    for one in (plain, first):
        model = load_model(one, load_task(one.task))
        batch = model.batch(model.encode(model.task["train"], 0), range(6))
        scores.append(model.class_scores(None, batch))
    assert torch.equal(*scores)


def test_a_head_that_cannot_be_cut_to_the_label_words_is_put_back_as_it_was(
    task_dir: Path, tmp_path: Path
) -> None:
    """DeBERTa's newer head calls another layer its output layer, and sets a bias with it."""
    more_families.MORE["DeBERTa-v2, legacy=false"].save(tmp_path)
    config = tiny.config(tmp_path, task_dir)
    loaded = load_plain(config.model)
    parts = [*loaded.module.named_modules(), *loaded.module.named_parameters()]
    before = {name: part for name, part in parts if name.startswith("lm_head")}
    model = prepared(loaded, config, load_task(config.task))
    assert "head" in model.as_it_was
    after = [*model.module.named_modules(), *model.module.named_parameters()]
    assert {name: part for name, part in after if name.startswith("lm_head")} == before
