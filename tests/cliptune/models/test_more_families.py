"""More families against the plain model of transformers, by ids: prompt, padding, read-out.

What is thinned is found by cliptune here; test_families.py names it by hand for some.
"""

from pathlib import Path
from typing import Any

import families
import more_families
import pytest
import tiny
import torch
from torch import Tensor

from cliptune.errors import ConfigError, ModelError
from cliptune.local import LocalScorer
from cliptune.sites import find_sites
from cliptune.subnetwork import SubnetworkSpec
from cliptune.task import load_task
from cliptune.thinning import hooked

MORE = more_families.MORE
SPEC = SubnetworkSpec(1, 5, 0.3, ("embedding", "attention-output", "ffn-hidden", "ffn-output"))
CLOSE: dict[str, float] = {"rtol": 1e-4, "atol": 1e-4}


def make(name: str, folder: Path, data: Path, without: Any = (), **prompt: Any) -> LocalScorer:
    config = tiny.config(folder, data, task={"template": MORE[name].template}, prompt=prompt)
    return LocalScorer(config, load_task(config.task), without)


def scores(scorer: LocalScorer, prompts: Tensor | None) -> Tensor:
    """Of all examples in one padded micro-batch."""
    encoded = scorer.encoded["train"]
    assert len(set(encoded.lengths)) > 1
    return scorer.model.class_scores(prompts, scorer.model.batch(encoded, range(len(encoded.ids))))


@torch.inference_mode()
def by_plain(scorer: LocalScorer, plain: Any, words: list[int]) -> Tensor:
    """By the plain model, one example at a time, these words standing where a prompt would."""
    model: Any = scorer.model
    at, encoded, found = model.prompt_offset, scorer.encoded["train"], []
    for ids, position in zip(encoded.ids, encoded.mask_positions, strict=True):
        given: dict[str, Any] = {"input_ids": torch.tensor([ids[:at] + words + ids[at:]])}
        if model.readout == "seq2seq":
            given["decoder_input_ids"] = torch.tensor([model.beginning])
            position = -1
        else:
            position += len(words)
        found.append(plain(**given).logits[0, position, model.find_label_words()])
    return torch.stack(found)


@pytest.mark.slow
@pytest.mark.parametrize("name", MORE)
def test_a_family_scores_as_the_plain_model_and_is_thinned_by_folding_as_by_hooks(
    name: str, task_dir: Path, tmp_path: Path
) -> None:
    folder = MORE[name].save(tmp_path)
    scorer = make(name, folder, task_dir)
    model: Any = scorer.model
    assert model.readout == MORE[name].readout
    plain = type(model).auto.from_pretrained(folder).eval()
    words = model.tokenizer.convert_tokens_to_ids(model.tokenizer.tokenize("joy sad film"))
    prompts = model._words[words][None]
    torch.testing.assert_close(scores(scorer, None)[0], by_plain(scorer, plain, []), **CLOSE)
    whole = scores(scorer, prompts)
    torch.testing.assert_close(whole[0], by_plain(scorer, plain, words), **CLOSE)
    clipped, deep = row(name)["clipped"], row(name)["deep prompts"]
    if clipped == "no":
        with pytest.raises(ModelError, match="cannot be thinned"):
            find_sites(model.module)
        return
    model.network_changed()
    scorer._thinner.switch(SPEC)
    thinned = scores(scorer, prompts)
    slow = make(name, folder, task_dir, without=model.changes())
    with hooked(slow.model.module, SPEC):
        torch.testing.assert_close(thinned, scores(slow, prompts), **CLOSE)
    assert (thinned - whole).abs().max() > 1e-2  # thinning is not nothing
    if deep.startswith("no"):
        with pytest.raises(ConfigError, match=r"prompt\.layers: .*Leave it at 1"):
            make(name, folder, task_dir, layers=2)
        return
    assert deep in ("yes", "the encoder's layers")
    has_deep_prompts(name, folder, task_dir, plain)


def has_deep_prompts(name: str, folder: Path, data: Path, plain: Any) -> None:
    """Checks that they are added to what enters the second block of the plain model."""
    scorer = make(name, folder, data, layers=2)
    start = scorer.model.prompt_offset
    torch.manual_seed(1)
    deeper = torch.randn(3, scorer.model.width) * 0.3
    words = scorer.model.tokenizer.tokenize("joy sad film")
    ids = scorer.model.tokenizer.convert_tokens_to_ids(words)
    prompts = torch.stack([scorer.model._words[ids], deeper])[None]

    def add(hidden: Tensor) -> Tensor:
        before, at, behind = hidden.tensor_split([start, start + 3], dim=1)
        return torch.cat([before, at + deeper, behind], dim=1)

    handle = families.changed_input(find_sites(plain).stacks[0][1], add)
    expected = by_plain(scorer, plain, ids)
    handle.remove()
    torch.testing.assert_close(scores(scorer, prompts)[0], expected, **CLOSE)


def table() -> dict[str, dict[str, str]]:
    """The rows of the docs' second table, by family."""
    text = (Path(__file__).parents[3] / "docs/models.md").read_text(encoding="utf-8")
    lines = text.split("| family |")[2].split("\n\n")[0].splitlines()
    head = ["family", *cells(lines[0])]
    return {cells(line)[0]: dict(zip(head, cells(line), strict=True)) for line in lines[2:]}


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip().strip("|").split("|")]


def row(name: str) -> dict[str, str]:
    return table()[name]


def test_the_docs_name_these_families_and_no_others() -> None:
    said = {name: (row["`model.readout`"], row["tested with"]) for name, row in table().items()}
    assert said == {
        name: (f"`{family.readout}`", f"`{family.model}`") for name, family in MORE.items()
    }
