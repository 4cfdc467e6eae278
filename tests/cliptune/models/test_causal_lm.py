"""Causal language models: label words as the next token, a prompt computed once a candidate.

Beside test_families.py, which compares each family with the plain model.
"""

from pathlib import Path
from typing import Any

import families
import numpy as np
import pytest
import tiny
import torch

from cliptune.errors import TaskError
from cliptune.local import LocalScorer
from cliptune.models.causal_lm import CausalLM
from cliptune.models.load import load_structure
from cliptune.subnetwork import ensemble
from cliptune.task import load_task

TEMPLATE = "{text} . it was {mask}"


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return families.save("Llama", tmp_path_factory.mktemp("llama"))


def make(folder: Path, data: Path, **sections: Any) -> LocalScorer:
    task = {"template": TEMPLATE, **sections.pop("task", {})}
    config = tiny.config(folder, data, task=task, **sections)
    return LocalScorer(config, load_task(config.task))


def test_a_candidates_prompt_is_computed_once_for_all_of_its_examples(
    llama: Path, task_dir: Path
) -> None:
    """Of one network: for the first of the micro-batches with the same candidates."""
    scorer = make(llama, task_dir, ensemble={"subnetworks": 2})
    shapes: list[tuple[int, ...]] = []
    scorer.model.module.base_model.register_forward_pre_hook(
        lambda m, i, named: shapes.append(tuple(named["inputs_embeds"].shape)), with_kwargs=True
    )
    scorer.score(np.random.default_rng(0).standard_normal((4, 5)))
    networks = ensemble(scorer.config.ensemble, 0)
    units = [unit for each in networks for unit in scorer.units(each, "train", 4, reduce=True)]
    prefix = (4, 1 + 3, 32)  # four candidates: <s> and three prompt vectors
    assert shapes.count(prefix) == len(networks) < len(units)
    assert [shape[0] for shape in shapes if shape != prefix] == [unit.rows for unit in units]
    assert max(shape[1] for shape in shapes) == max(unit.length for unit in units) - 4


def test_other_latents_have_other_prompts(llama: Path, task_dir: Path) -> None:
    scorer = make(llama, task_dir)
    rng = np.random.default_rng(0)
    first, second = rng.standard_normal((2, 4, 5))
    before = scorer.score(first)
    other = scorer.score(second)
    assert np.abs(before - other).min() > 0
    np.testing.assert_array_equal(scorer.score(first), before)


def test_a_deeper_layers_prompt_alone_makes_another_prefix(llama: Path, task_dir: Path) -> None:
    scorer = make(llama, task_dir, prompt={"layers": 2})
    latents = np.random.default_rng(0).standard_normal((4, 10))
    before = scorer.score(latents)
    latents[:, 5:] += 1
    assert np.abs(scorer.score(latents) - before).max() > 1e-3


def test_in_half_precision_prompts_are_shared_too(llama: Path, task_dir: Path) -> None:
    wide, half = (make(llama, task_dir, model={"dtype": d}) for d in ("float32", "bfloat16"))
    assert "shared prefix" not in half.model.as_it_was
    latents = np.random.default_rng(0).standard_normal((4, 5))
    np.testing.assert_allclose(half.score(latents), wide.score(latents), atol=0.15)


def test_rotary_positions_that_depend_on_the_inputs_length_are_not_shared(
    tmp_path: Path, task_dir: Path
) -> None:
    folder = families.save("Llama", tmp_path)
    file = folder / "config.json"
    text = file.read_text(encoding="utf-8").replace('"default"', '"dynamic", "factor": 2.0')
    file.write_text(text, encoding="utf-8")
    said = make(folder, task_dir).model.as_it_was["shared prefix"]
    assert said == "its rotary positions (dynamic) depend on an input's length"


@pytest.mark.parametrize(
    ("template", "example"),
    [
        ("{text} . it was {mask} .", "{text} . it was {mask}"),
        ("{mask} News: {text}", "{text} Answer: {mask}"),
        ("{text}", "{text} Answer: {mask}"),
        ("{text} ? {mask} , {text_pair}", "{text} {text_pair} Answer: {mask}"),
    ],
)
def test_a_template_that_does_not_end_with_the_mask_is_refused_with_one_that_does(
    template: str, example: str, llama: Path, tmp_path: Path
) -> None:
    data = tiny.save_task(tmp_path, pair=True)
    config = tiny.config(llama, data, task={"template": template})
    with pytest.raises(TaskError, match=r"must end with \{mask\}") as refused:
        load_structure(config, load_task(config.task))
    assert str(refused.value).endswith(f"for instance task.template={example!r}.")


def test_label_words_behind_other_tokens_are_refused(llama: Path, task_dir: Path) -> None:
    """A word that the tokenizer splits from its space is read one token later."""
    config = tiny.config(
        llama,
        task_dir,
        task={"template": TEMPLATE, "label_words": ["bad", "@"], "label_tokens": "first"},
    )
    with pytest.raises(TaskError, match=r"must follow the same tokens; before 'bad' stand .*'@'"):
        load_structure(config, load_task(config.task))


def test_an_input_ends_before_the_label_word_whatever_stands_there(
    llama: Path, task_dir: Path
) -> None:
    for template, end in [("{text} it was {mask}", "Ġwas"), ("{text}\n:{mask}", ":")]:
        model = make(llama, task_dir, task={"template": template}).model
        assert isinstance(model, CausalLM)
        encoded = model.encode(model.task["train"], 3)
        for ids, position in zip(encoded.ids, encoded.mask_positions, strict=True):
            assert model.tokenizer.convert_ids_to_tokens(ids)[-1] == end
            assert position == len(ids) - 1


def test_the_head_sees_one_position_a_row(llama: Path, task_dir: Path) -> None:
    model = make(llama, task_dir).model
    shapes: list[Any] = []
    model.module.lm_head.register_forward_hook(lambda m, i, output: shapes.append(output.shape))
    encoded = model.encode(model.task["train"], 3)
    model.class_scores(torch.zeros(2, 3, model.width), model.batch(encoded, range(5)))
    assert [tuple(shape) for shape in shapes] == [(10, 1, 2)]
