"""Faster models score as the ones they were made of, or stay as they were and say why."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from torch import Tensor
from transformers import (
    AutoConfig,
    AutoModelForMaskedLM,
    RobertaPreLayerNormConfig,
    RobertaPreLayerNormForMaskedLM,
)
from transformers.masking_utils import bidirectional_mask_function, causal_mask_function
from transformers.pytorch_utils import Conv1D

from cliptune.local import LocalScorer
from cliptune.models import attention, fast
from cliptune.models.load import load_model
from cliptune.models.masked_lm import MaskedLM
from cliptune.subnetwork import FULL_NETWORK, SubnetworkSpec
from cliptune.task import load_task
from cliptune.thinning import hooked

FAMILIES = ["bert", "roberta", "electra", "distilbert"]
SPEC = SubnetworkSpec(1, 5, 0.3, ("embedding", "attention-output", "ffn-hidden", "ffn-output"))


@pytest.fixture(scope="module", params=FAMILIES)
def loaded(
    request: pytest.FixtureRequest, task_dir: Path, tmp_path_factory: pytest.TempPathFactory
) -> LocalScorer:
    folder = tiny.save_model(tmp_path_factory.mktemp("model"), request.param, std=0.1)
    config = tiny.config(folder, task_dir)
    return LocalScorer(config, load_task(config.task))


@pytest.fixture
def scorer(loaded: LocalScorer) -> LocalScorer:
    """Of the whole network, whichever an earlier test left."""
    loaded._thinner.switch(FULL_NETWORK)
    return loaded


def plain_scores(scorer: LocalScorer, prompts: Tensor, rows: list[int]) -> Tensor:
    """By transformers alone, with the masks as hooks: `(candidates, examples, classes)`."""
    module = AutoModelForMaskedLM.from_pretrained(scorer.config.model.name).eval()
    encoded = scorer.encoded["train"]
    embed = module.get_input_embeddings()
    found = []
    with torch.inference_mode(), hooked(module, SPEC):
        for prompt in prompts:
            for row in rows:
                words = embed(torch.tensor(encoded.ids[row]))
                joined = torch.cat([words[:1], prompt, words[1:]])[None]
                logits = module(inputs_embeds=joined).logits[0]
                found.append(logits[encoded.mask_positions[row] + len(prompt)])
    ids = scorer.model.tokenizer.convert_tokens_to_ids(["bad", "great"])
    return torch.stack(found)[:, ids].view(len(prompts), len(rows), 2)


def test_scores_are_the_oracles_with_and_without_padding(scorer: LocalScorer) -> None:
    assert scorer.model.as_it_was == {}
    torch.manual_seed(0)
    prompts = torch.randn(2, 3, scorer.model.width)
    scorer._thinner.switch(SPEC)
    for rows in ([0], [0, 1, 2, 3, 4, 5]):
        batch = scorer.model.batch(scorer.encoded["train"], rows)
        found = scorer.model.class_scores(prompts, batch)
        expected = plain_scores(scorer, prompts, rows)
        off = (found - found.mean(-1, keepdim=True)) - (expected - expected.mean(-1, keepdim=True))
        assert off.abs().max() <= 1e-5 * expected.abs().max()


def both_ways(
    query: Tensor, key: Tensor, value: Tensor, hidden: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Ours, and the definition."""
    mask = None if hidden is None else ~hidden
    found, _ = attention.attend(torch.nn.Module(), query, key, value, mask)
    scores = query @ key.transpose(-1, -2) / query.shape[-1] ** 0.5
    if hidden is not None:
        scores = scores.masked_fill(hidden, -torch.inf)
    return found, (torch.softmax(scores, -1) @ value).transpose(1, 2)


@pytest.mark.parametrize("size", [1.0, 40.0])
def test_attention_is_exact_however_large_its_scores_are(size: float) -> None:
    """Where exponentials would leave their range, another way is taken."""
    torch.manual_seed(0)
    query, key, value = torch.randn(3, 2, 4, 9, 8, dtype=torch.float64)
    torch.testing.assert_close(*both_ways(query * size, key * size, value))


@pytest.mark.parametrize("one_for_all", [True, False])
def test_attention_leaves_out_what_the_mask_hides(
    one_for_all: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Padding, and keys that are hidden from some queries, whatever lies there."""
    torch.manual_seed(0)
    query, key, value = torch.randn(3, 3, 4, 9, 8, dtype=torch.float64)
    hidden = torch.zeros(3, 1, 1, 9, dtype=torch.bool)
    hidden[1, ..., 5:] = True
    hidden[2, ..., 7:] = True
    key[1, :, 5:] = 1e6
    if one_for_all:
        monkeypatch.delattr(attention.F, "scaled_dot_product_attention")
        key[1, :, 5:] = 9.0
    else:
        hidden = hidden.repeat(1, 1, 9, 1)
        hidden[0, 0, 0, 1:] = True
    given = value.clone()
    torch.testing.assert_close(*both_ways(query, key, value, hidden))
    assert torch.equal(value, given)


def test_only_a_mask_of_padding_is_the_same_for_all_queries() -> None:
    seen = torch.tensor([[1, 1, 1], [1, 1, 0]])
    sizes = {"batch_size": 2, "q_length": 3, "kv_length": 3, "attention_mask": seen}
    padding = attention.visible_keys(mask_function=bidirectional_mask_function, **sizes)
    assert padding is not None
    assert torch.equal(padding, seen.bool()[:, None, None])
    causal = attention.visible_keys(mask_function=causal_mask_function, **sizes)
    assert causal is not None
    assert torch.equal(causal, torch.ones(3, 3).tril().bool() & padding)


def test_the_last_block_makes_no_keys_and_values(scorer: LocalScorer) -> None:
    """Those of all positions; a model that is run otherwise makes them as ever."""
    block = fast.sites_of(scorer.model.module).blocks[-1]
    made: list[int] = []
    unprojected = [m for m in block.modules() if isinstance(m, attention.Unprojected)]
    hooks = [m.linear.register_forward_hook(lambda *_: made.append(1)) for m in unprojected]
    batch = scorer.model.batch(scorer.encoded["train"], [0, 1])
    scorer.model.class_scores(torch.zeros(1, 3, scorer.model.width), batch)
    assert (len(unprojected), len(made)) == (2, 0)
    with torch.inference_mode():
        scorer.model.module(inputs_embeds=torch.zeros(1, 4, scorer.model.width))
    assert len(made) == 2
    for hook in hooks:
        hook.remove()


def test_gpt_2s_turned_weights_become_linear_layers() -> None:
    torch.manual_seed(0)
    turned = Conv1D(16, 8)
    torch.nn.init.normal_(turned.bias)
    holder = torch.nn.Sequential(turned)
    hidden = torch.randn(2, 3, 8)
    expected = holder(hidden)
    fast.with_linear_layers(holder)
    assert type(holder[0]) is torch.nn.Linear
    torch.testing.assert_close(holder(hidden), expected)


@pytest.mark.parametrize("activation", ["none", "gelu"])
@pytest.mark.parametrize("bias", [True, False])
def test_products_are_linear_layers(activation: str, bias: bool) -> None:
    torch.manual_seed(0)
    linear = torch.nn.Linear(8, 16, bias=bias)
    product = fast.Product(linear, activation)
    hidden = torch.randn(2, 3, 8)
    expected = linear(hidden)
    if activation == "gelu":
        expected = torch.nn.functional.gelu(expected)
    with torch.inference_mode():
        torch.testing.assert_close(product(hidden), expected)


def test_the_head_computes_the_label_words_alone(scorer: LocalScorer) -> None:
    head = scorer.model.module.get_output_embeddings()
    assert head.weight.shape[0] == 2
    assert head(torch.zeros(4, head.weight.shape[1])).shape == (4, 2)


def test_a_model_that_cannot_be_changed_stays_as_it_was_and_says_why(
    task_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another activation; another way to attend; a last block that cannot be narrowed."""
    folder = tiny.save_model(tmp_path, std=0.1)
    config = tiny.config(folder, task_dir)
    task = load_task(config.task)
    file = folder / "config.json"
    file.write_text(file.read_text().replace('"hidden_act": "gelu"', '"hidden_act": "relu"'))
    monkeypatch.setattr(attention, "PROJECTIONS", ())
    model = load_model(config, task)
    assert "another activation" in model.as_it_was["gelu"]
    assert "keys and values were not found" in model.as_it_was["last block"]
    batch = model.batch(model.encode(task["train"], 3), [0, 1])
    assert model.class_scores(torch.zeros(1, 3, 32), batch).isfinite().all()


def test_attention_of_another_kind_is_declined() -> None:
    inputs = torch.randn(3, 2, 4, 9, 8)
    causal = torch.nn.Module()
    causal.is_causal = True  # type: ignore[assignment]
    with pytest.raises(fast.UnsuitedError, match="causal"):
        attention.attend(causal, *inputs, None)
    with pytest.raises(fast.UnsuitedError, match="is given softcap"):
        attention.attend(torch.nn.Module(), *inputs, None, softcap=30.0)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_block_that_normalises_before_its_projections_is_not_narrowed(
    dtype: str, task_dir: Path, tmp_path: Path
) -> None:
    """Whatever the precision: its keys are not made of what enters the block."""
    folder = tiny.save_model(tmp_path, "roberta", std=0.02)
    shape = RobertaPreLayerNormConfig(**AutoConfig.from_pretrained(folder).to_diff_dict())
    RobertaPreLayerNormForMaskedLM(shape).save_pretrained(folder)
    config = tiny.config(folder, task_dir, model={"dtype": dtype})
    model = load_model(config, load_task(config.task))
    assert "the block's own input" in model.as_it_was["last block"]


def test_nothing_of_a_micro_batch_is_kept(scorer: LocalScorer) -> None:
    batch = scorer.model.batch(scorer.encoded["train"], [0, 1])
    scorer.model.class_scores(torch.zeros(1, 3, scorer.model.width), batch)
    assert isinstance(scorer.model, MaskedLM)
    narrowed = scorer.model._narrowed
    assert narrowed is not None
    assert (narrowed.read_at, narrowed.hidden, narrowed.read) == (None, None, None)


def test_a_change_that_moves_the_scores_is_taken_back() -> None:
    state = {"factor": 1.0}

    def change() -> fast.Undo:
        state["factor"] = 1.5
        return lambda: state.update(factor=1.0)

    def scores() -> Tensor:
        return torch.ones(3) * state["factor"]

    said = fast.try_out(change, scores, torch.float32)
    assert said == "its scores would change, by 5.0e-01 of their norm"
    assert state["factor"] == 1.0


def test_a_change_that_fails_is_taken_back() -> None:
    state: dict[str, Any] = {"fails": False}

    def change() -> fast.Undo:
        state["fails"] = True
        return lambda: state.update(fails=False)

    def scores() -> Tensor:
        if state["fails"]:
            raise RuntimeError("shapes do not match")
        return torch.ones(3)

    assert "RuntimeError: shapes do not match" in str(fast.try_out(change, scores, torch.float32))
    assert not state["fails"]


def test_gathered_hidden_units_are_fewer(scorer: LocalScorer) -> None:
    spec = replace(SPEC, clip_ratio=0.6, sites=("ffn-hidden",))
    sites = fast.sites_of(scorer.model.module)
    before = [layer.weight.shape for layer in sites.ffn_outputs]
    scorer._thinner.switch(spec)
    assert [layer.weight.shape for layer in sites.ffn_outputs] == [(32, 32)] * 2
    scorer._thinner.switch(replace(spec, clip_ratio=0.0))
    assert [layer.weight.shape for layer in sites.ffn_outputs] == before == [(32, 64)] * 2
