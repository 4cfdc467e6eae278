"""Every family against the plain model of transformers: prompt, padding, read-out, thinning."""

from pathlib import Path
from typing import Any

import families
import pytest
import tiny
import torch
from torch import Tensor

from cliptune.config import ModelConfig
from cliptune.local import LocalScorer
from cliptune.models import fast, load
from cliptune.models.base import FrozenModel
from cliptune.models.load import load_structure
from cliptune.sites import find_sites
from cliptune.subnetwork import FULL_NETWORK, SubnetworkSpec
from cliptune.task import load_task
from cliptune.thinning import hooked

NAMES = list(families.FAMILIES)
SPEC = SubnetworkSpec(1, 5, 0.3, ("embedding", "attention-output", "ffn-hidden", "ffn-output"))
WORDS = ["joy", "sad", "film"]  # a prompt, as real tokens
CLOSE: dict[str, float] = {"rtol": 1e-5, "atol": 1e-5}


@pytest.fixture(scope="module", params=NAMES)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def folder(name: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return families.save(name, tmp_path_factory.mktemp("family"))


@pytest.fixture(scope="module")
def plain(name: str, folder: Path) -> Any:
    return families.plain(name, folder)


def make(name: str, folder: Path, data: Path, without: Any = (), **prompt: Any) -> LocalScorer:
    template = families.FAMILIES[name].template
    config = tiny.config(folder, data, task={"template": template}, prompt=prompt)
    return LocalScorer(config, load_task(config.task), without)


@pytest.fixture(scope="module")
def loaded(name: str, folder: Path, task_dir: Path) -> LocalScorer:
    return make(name, folder, task_dir)


@pytest.fixture
def scorer(loaded: LocalScorer) -> LocalScorer:
    """Of the whole network, whichever an earlier test left."""
    loaded.model.network_changed()
    loaded._thinner.switch(FULL_NETWORK)
    return loaded


def scores(model: FrozenModel, encoded: Any, prompts: Tensor | None) -> Tensor:
    """Of all examples in one padded micro-batch."""
    rows = range(len(encoded.ids))
    assert len(set(encoded.lengths)) > 1  # else nothing is padded
    return model.class_scores(prompts, model.batch(encoded, rows))


def expected(
    name: str, plain: Any, scorer: LocalScorer, prompts: Tensor, at: int | None = None
) -> Tensor:
    """By the plain model: `(candidates, examples, classes)`."""
    encoded, embed = scorer.encoded["train"], plain.get_input_embeddings()
    found = []
    for prompt in prompts:
        for ids, position in zip(encoded.ids, encoded.mask_positions, strict=True):
            with torch.inference_mode():
                words = embed(torch.tensor(ids))
            start = scorer.model.prompt_offset if at is None else at
            joined = torch.cat([words[:start], prompt, words[start:]])[None]
            one = families.plain_scores(name, plain, scorer.model.tokenizer, inputs_embeds=joined)
            found.append(one[position + len(prompt)] if one.dim() == 2 else one)
    return torch.stack(found).view(len(prompts), len(encoded.ids), 2)


def random_prompts(model: FrozenModel) -> Tensor:
    torch.manual_seed(0)
    return torch.randn(2, 3, model.width) * 0.3


def test_its_architecture_has_its_read_out(name: str, folder: Path) -> None:
    assert load._family(str(folder), ModelConfig()).readout == families.FAMILIES[name].readout


@pytest.mark.parametrize("position", ["after-first", "front"])
def test_a_prompt_of_words_scores_as_the_words_do(
    name: str, folder: Path, plain: Any, task_dir: Path, scorer: LocalScorer, position: str
) -> None:
    if position != scorer.config.prompt.position:
        scorer = make(name, folder, task_dir, position=position)
    model = scorer.model
    tokens = families.FAMILIES[name].tokenizer().tokenize(" ".join(WORDS))
    ids = model.tokenizer.convert_tokens_to_ids(tokens)
    prompt = model._words[ids]
    encoded = model.encode(model.task["train"], len(ids))
    found = scores(model, encoded, prompt[None])[0]
    first = encoded.ids[0][0] in model.tokenizer.all_special_ids
    at = int(first and position == "after-first")
    for row, whole in enumerate(encoded.ids):
        tokens = torch.tensor([whole[:at] + ids + whole[at:]])
        one = families.plain_scores(name, plain, model.tokenizer, input_ids=tokens)
        if one.dim() == 2:
            one = one[encoded.mask_positions[row] + len(ids)]
        torch.testing.assert_close(found[row], one, **CLOSE)


def test_scores_are_the_plain_models_thinned_by_hand(
    name: str, plain: Any, scorer: LocalScorer
) -> None:
    prompts = random_prompts(scorer.model)
    encoded = scorer.encoded["train"]
    whole = scores(scorer.model, encoded, prompts)
    torch.testing.assert_close(whole, expected(name, plain, scorer, prompts), **CLOSE)
    scorer.model.network_changed()
    scorer._thinner.switch(SPEC)
    found = scores(scorer.model, encoded, prompts)
    with families.thinned(name, plain, SPEC):
        by_hand = expected(name, plain, scorer, prompts)
    torch.testing.assert_close(found, by_hand, **CLOSE)
    assert (found - whole).abs().max() > 1e-2  # thinning is not nothing
    scorer.model.network_changed()
    scorer._thinner.switch(FULL_NETWORK)
    assert torch.equal(scores(scorer.model, encoded, prompts), whole)


def test_without_a_prompt_it_is_the_plain_model(name: str, plain: Any, scorer: LocalScorer) -> None:
    found = scores(scorer.model, scorer.encoded["train"], None)
    none = torch.empty(1, 0, scorer.model.width)
    torch.testing.assert_close(found, expected(name, plain, scorer, none), **CLOSE)


def test_a_deep_prompt_is_added_to_what_enters_its_layer(
    name: str, folder: Path, plain: Any, task_dir: Path
) -> None:
    if not families.FAMILIES[name].deep:
        pytest.skip("refused: its word embeddings are narrower than its layers (test_deep.py)")
    scorer = make(name, folder, task_dir, layers=2)
    torch.manual_seed(1)
    prompts = torch.randn(2, 2, 3, scorer.model.width) * 0.3
    scorer.model.network_changed()
    scorer._thinner.switch(SPEC)
    found = scores(scorer.model, scorer.encoded["train"], prompts)
    start = scorer.model.prompt_offset
    second = families.blocks(name, plain)[0][1]
    for candidate, (first, deeper) in enumerate(prompts):

        def add(hidden: Tensor, deeper: Tensor = deeper) -> Tensor:
            before, at, behind = hidden.tensor_split([start, start + 3], dim=1)
            return torch.cat([before, at + deeper, behind], dim=1)

        handle = families.changed_input(second, add)
        with families.thinned(name, plain, SPEC):
            by_hand = expected(name, plain, scorer, first[None])
        handle.remove()
        torch.testing.assert_close(found[candidate], by_hand[0], **CLOSE)


def test_the_sites_found_are_those_named_by_hand(name: str, plain: Any) -> None:
    fast.with_linear_layers(plain)
    sites, family = find_sites(plain), families.FAMILIES[name]
    stacks = families.blocks(name, plain)
    assert [list(stack) for stack in sites.stacks] == stacks
    pairs = [(n, block) for n, stack in enumerate(stacks) for block in stack]
    outputs = [b.get_submodule(p) for n, b in pairs for p in family.attention[n].split("+")]
    assert list(sites.attention_outputs) == outputs
    assert list(sites.ffn_outputs) == [b.get_submodule(family.ffn[n]) for n, b in pairs]


def test_a_faster_model_scores_as_the_plain_one(
    name: str, folder: Path, task_dir: Path, scorer: LocalScorer
) -> None:
    everything = scorer.model.changes()
    slow = make(name, folder, task_dir, without=everything)
    assert set(slow.model.as_it_was) == set(everything)
    prompts = random_prompts(scorer.model)
    with hooked(slow.model.module, SPEC):
        oracle = scores(slow.model, slow.encoded["train"], prompts)
    scorer.model.network_changed()
    scorer._thinner.switch(SPEC)
    found = scores(scorer.model, scorer.encoded["train"], prompts)
    torch.testing.assert_close(found, oracle, **CLOSE)
    assert {"linear layers", "head"}.isdisjoint(scorer.model.as_it_was)


def test_a_model_without_its_weights_tokenises_like_the_whole_one(
    scorer: LocalScorer, monkeypatch: pytest.MonkeyPatch
) -> None:
    structure = load_structure(scorer.config, scorer.task)
    assert type(structure) is type(scorer.model)
    for model in (scorer.model, structure):  # so that the model's own positions are the limit
        monkeypatch.setattr(model.tokenizer, "model_max_length", 10_000)
    for what in ("width", "max_positions", "max_input", "prompt_offset", "shows_mask"):
        assert getattr(structure, what) == getattr(scorer.model, what)
    assert structure.encode(scorer.task["train"], 3) == scorer.encoded["train"]


def table() -> dict[str, list[str]]:
    """The rows of the docs' table, by family."""
    text = (Path(__file__).parents[3] / "docs/models.md").read_text(encoding="utf-8")
    _, _, below = text.partition("| family |")
    rows = [line.strip("|").split("|") for line in below.split("\n\n")[0].splitlines()[2:]]
    return {row[0].strip(): [cell.strip() for cell in row] for row in rows}


def test_the_docs_name_the_families_that_are_tested() -> None:
    assert list(table()) == NAMES
    for name, family in families.FAMILIES.items():
        assert f"`{family.readout}`" in table()[name][1]
        assert table()[name][3].startswith("no") != family.deep


def test_the_docs_say_what_a_family_is_tested_with(name: str, plain: Any) -> None:
    assert table()[name][5].startswith(f"`{type(plain).__name__}`")


@pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="needs oneDNN")
def test_the_docs_say_what_is_not_made_faster(name: str, scorer: LocalScorer) -> None:
    said = table()[name][4].lower()
    assert set(filter(None, said.split(", "))) == set(scorer.model.as_it_was)
