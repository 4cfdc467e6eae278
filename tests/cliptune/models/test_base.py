"""What every model does alike: candidates by examples, truncation, limits.

That a prompt is like real tokens, test_families.py compares for each family.
"""

from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from transformers import AutoModelForMaskedLM

from cliptune.errors import ConfigError, TaskError
from cliptune.models import FrozenModel, load_model
from cliptune.task import load_task


def build(folder: Path, data: Path, position: str = "after-first", **task: Any) -> FrozenModel:
    config = tiny.config(folder, data, prompt={"position": position}, task=task)
    return load_model(config, load_task(config.task))


def test_every_candidate_meets_every_example(model_dir: Path, task_dir: Path) -> None:
    model = build(model_dir, task_dir)
    torch.manual_seed(0)
    prompts = torch.randn(4, 3, model.width)
    encoded = model.encode(model.task["train"], 3)
    together = model.class_scores(prompts, model.batch(encoded, range(6)))
    assert together.shape == (4, 6, 2)
    for candidate in range(4):
        for row in range(6):
            alone = model.class_scores(
                prompts[candidate : candidate + 1], model.batch(encoded, [row])
            )
            torch.testing.assert_close(together[candidate, row], alone[0, 0], rtol=1e-4, atol=1e-4)


def test_no_prompt_is_the_plain_model(model_dir: Path, task_dir: Path) -> None:
    model = build(model_dir, task_dir)
    encoded = model.encode(model.task["test"], 0)
    found = model.class_scores(None, model.batch(encoded, [2]))
    plain = AutoModelForMaskedLM.from_pretrained(model_dir).eval()
    with torch.inference_mode():
        logits = plain(input_ids=torch.tensor([encoded.ids[2]])).logits
    labels = model.tokenizer.convert_tokens_to_ids(["bad", "great"])
    expected = logits[0, encoded.mask_positions[2], labels]
    torch.testing.assert_close(found[0, 0], expected, rtol=1e-5, atol=1e-5)


def test_inputs_are_cut_to_the_positions_that_the_prompt_leaves(
    model_dir: Path, tmp_path: Path
) -> None:
    long = "the film was very very long and slow and not fun at all . " * 8
    (tmp_path / "train.jsonl").write_text(
        "".join(f'{{"text": "{long}", "label": {i % 2}}}\n' for i in range(6)), encoding="utf-8"
    )
    for split in ("validation", "test"):
        (tmp_path / f"{split}.jsonl").write_bytes((tmp_path / "train.jsonl").read_bytes())
    model = build(model_dir, tmp_path)
    encoded = model.encode(model.task["train"], prompt_length=10)
    assert encoded.lengths == [54] * 6  # of 64 positions
    assert encoded.truncated == 6
    prompts = torch.zeros(1, 10, model.width)
    assert model.class_scores(prompts, model.batch(encoded, [0])).isfinite().all()


@pytest.mark.parametrize(("family", "positions"), [("bert", 64), ("roberta", 65)])
def test_position_embeddings_kept_for_padding_are_not_counted(
    family: str, positions: int, tmp_path: Path, task_dir: Path
) -> None:
    """RoBERTa counts from the position after its padding index, here 0: 65 of 66 are of use."""
    model = build(tiny.save_model(tmp_path, family), task_dir)
    model.tokenizer.model_max_length = 10_000
    assert model.max_positions == positions


def test_a_task_limit_is_kept(model_dir: Path, task_dir: Path) -> None:
    model = build(model_dir, task_dir, max_tokens=14)
    encoded = model.encode(model.task["train"], prompt_length=3)
    assert max(encoded.lengths) == 11
    assert encoded.truncated > 0


def test_a_prompt_that_leaves_no_room_is_refused(model_dir: Path, task_dir: Path) -> None:
    model = build(model_dir, task_dir)
    with pytest.raises(
        ConfigError, match=r"prompt.length 64 leaves no room .*at most 64 positions"
    ):
        model.encode(model.task["train"], prompt_length=64)
    limited = build(model_dir, task_dir, max_tokens=14)
    with pytest.raises(ConfigError, match=r"at most 14 .*\(the model 64, task.max_tokens 14\)"):
        limited.encode(limited.task["train"], prompt_length=20)
    with pytest.raises(
        TaskError,
        match=r"cannot be cut to the 1 that the prompt leaves: the template alone takes 7",
    ):
        model.encode(model.task["train"], prompt_length=63)
