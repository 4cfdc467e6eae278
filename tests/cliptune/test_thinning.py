"""A thinned subnetwork is a network: the same units gone everywhere, on every machine."""

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from torch import Tensor, nn
from transformers import AutoModelForMaskedLM, BertForMaskedLM

from cliptune.config import Site
from cliptune.sites import find_sites
from cliptune.subnetwork import FULL_NETWORK, SubnetworkSpec
from cliptune.thinning import Thinner, hooked, keep_mask, unit_scale

SITES: tuple[Site, ...] = ("embedding", "attention-output", "ffn-hidden", "ffn-output")
SPEC = SubnetworkSpec(index=2, seed=7, clip_ratio=0.3, sites=SITES)
FAMILIES = ["bert", "roberta", "electra", "distilbert"]


def load(folder: Path) -> Any:
    return AutoModelForMaskedLM.from_pretrained(folder).eval()


@pytest.fixture(scope="module", params=FAMILIES)
def loaded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    return load(tiny.save_model(tmp_path_factory.mktemp("model"), request.param))


@pytest.fixture
def model(loaded: Any) -> Any:
    """A copy, to be changed."""
    return copy.deepcopy(loaded)


def inputs() -> dict[str, Tensor]:
    torch.manual_seed(1)
    mask = torch.ones(3, 9, dtype=torch.long)
    mask[1, 6:] = 0
    return {"input_ids": torch.randint(5, 40, (3, 9)), "attention_mask": mask}


@torch.inference_mode()
def logits(model: Any) -> Tensor:
    found: Tensor = model(**inputs()).logits
    return found


def test_the_first_bits_of_masks_are_pinned() -> None:
    """Constants: if they change, no journal of an older version can be continued."""
    assert bits(SPEC, "ffn-output/0") == "011011001111111101111110"
    assert bits(SPEC, "ffn-output/1") == "010111111101011110111110"
    assert bits(replace(SPEC, index=0), "embedding/0") == "110111100111011111110101"
    assert bits(replace(SPEC, generation=0), "ffn-output/0") == "011101111101111111110011"


def bits(spec: SubnetworkSpec, site: str) -> str:
    return "".join(str(int(bit)) for bit in keep_mask(spec, site, 24))


@pytest.mark.parametrize(
    "other",
    [
        replace(SPEC, index=3),
        replace(SPEC, seed=8),
        replace(SPEC, generation=0),
        replace(SPEC, generation=1),
    ],
)
def test_another_identity_has_another_mask(other: SubnetworkSpec) -> None:
    mine, its = (keep_mask(spec, "ffn-output/0", 4096) for spec in (SPEC, other))
    # independent draws with p = 0.3 agree on 0.58 of the units
    assert 0.5 < (mine == its).mean() < 0.66


def test_sites_and_blocks_have_masks_of_their_own() -> None:
    masks = [keep_mask(SPEC, f"{site}/{block}", 256) for site in SITES for block in range(3)]
    assert len({mask.tobytes() for mask in masks}) == len(masks)


def test_a_mask_does_not_depend_on_its_length() -> None:
    assert np.array_equal(
        keep_mask(SPEC, "embedding/0", 50), keep_mask(SPEC, "embedding/0", 90)[:50]
    )


@pytest.mark.parametrize("ratio", [0.1, 0.5, 0.9])
def test_the_clip_ratio_is_the_share_of_units_dropped(ratio: float) -> None:
    kept = keep_mask(replace(SPEC, clip_ratio=ratio), "embedding/0", 100_000)
    assert abs((1 - kept.mean()) - ratio) < 0.01


def test_a_larger_clip_ratio_drops_more_of_the_same_units() -> None:
    few, many = (keep_mask(replace(SPEC, clip_ratio=p), "embedding/0", 999) for p in (0.2, 0.4))
    assert (few | ~many).all()


def test_survivors_are_divided_by_one_minus_p() -> None:
    scale = unit_scale(SPEC, "embedding/0", 64)
    assert set(scale.tolist()) == {0.0, float(np.float32(1) / np.float32(0.7))}


class Tap:
    """Records what flows through a module, after the hooks that were there before."""

    def __init__(self, module: nn.Module, *, before: bool) -> None:
        self.seen: Tensor | None = None
        if before:
            module.register_forward_pre_hook(self._input, with_kwargs=True)
        else:
            module.register_forward_hook(self._output)

    def _input(self, module: nn.Module, inputs: Any, named: Any) -> None:
        self.seen = (inputs[0] if inputs else named["hidden_states"]).clone()

    def _output(self, module: nn.Module, inputs: Any, output: Tensor) -> None:
        self.seen = output.clone()


@pytest.mark.parametrize("site", SITES)
def test_the_oracle_zeroes_units_for_every_token_and_scales_survivors_exactly(
    model: Any, site: Site
) -> None:
    spec = replace(SPEC, sites=(site,))
    sites = find_sites(model)
    module = {
        "embedding": sites.blocks[0],
        "attention-output": sites.attention_outputs[0],
        "ffn-hidden": sites.ffn_outputs[0],
        "ffn-output": sites.ffn_outputs[0],
    }[site]
    before = site in ("embedding", "ffn-hidden")
    plain = Tap(module, before=before)
    logits(model)
    assert plain.seen is not None
    expected = plain.seen
    with hooked(model, spec):
        thinned = Tap(module, before=before)
        logits(model)
    assert thinned.seen is not None
    kept = torch.from_numpy(keep_mask(spec, f"{site}/0", expected.shape[-1]))
    assert 0 < kept.sum() < len(kept)
    assert (thinned.seen[..., ~kept] == 0).all()
    survivor = float(np.float32(1) / np.float32(1 - spec.clip_ratio))
    assert torch.equal(thinned.seen[..., kept], expected[..., kept] * survivor)


@pytest.mark.parametrize("sites", [*[(site,) for site in SITES], SITES])
def test_folded_weights_equal_the_oracle(model: Any, sites: tuple[Site, ...]) -> None:
    spec = replace(SPEC, sites=sites)
    model = model.double()  # so that nothing but a wrong mask can make a difference
    with hooked(model, spec):
        expected = logits(model)
    assert not torch.allclose(expected, logits(model), atol=1e-2)  # thinning is not nothing
    Thinner(model).switch(spec)
    assert (logits(model) - expected).abs().max() <= 1e-13 * expected.abs().max()


def test_folded_weights_equal_the_oracle_in_single_precision(tmp_path: Path) -> None:
    model = load(tiny.save_model(tmp_path, std=0.1))
    with hooked(model, SPEC):
        expected = logits(model)
    Thinner(model).switch(SPEC)
    assert (logits(model) - expected).abs().max() <= 1e-6


def test_a_copy_with_masked_weights_is_the_same_network(tmp_path: Path) -> None:
    """By hand, for BERT, from the masks alone: nothing of the thinning code takes part."""
    model = load(tiny.save_model(tmp_path))
    copied = copy.deepcopy(model)
    with torch.no_grad():
        norm = copied.bert.embeddings.LayerNorm  # the last thing before the first block
        for parameter in (norm.weight, norm.bias):
            parameter *= by_hand("embedding/0", 32)
        for block, layer in enumerate(copied.bert.encoder.layer):
            rows = by_hand(f"attention-output/{block}", 32)
            layer.attention.output.dense.weight *= rows[:, None]
            layer.attention.output.dense.bias *= rows
            rows, columns = by_hand(f"ffn-output/{block}", 32), by_hand(f"ffn-hidden/{block}", 64)
            layer.output.dense.weight *= rows[:, None] * columns
            layer.output.dense.bias *= rows
    expected = logits(copied)
    Thinner(model).switch(SPEC)
    assert (logits(model) - expected).abs().max() <= 1e-6 * expected.abs().max()


def by_hand(site: str, units: int) -> Tensor:
    return torch.from_numpy(keep_mask(SPEC, site, units) / 0.7).float()


def test_switching_leaves_no_trace(model: Any) -> None:
    whole = logits(model)
    thinner = Thinner(model)
    thinner.switch(SPEC)
    first = logits(model)
    thinner.switch(replace(SPEC, index=0, sites=("ffn-hidden",)))
    thinner.switch(FULL_NETWORK)
    assert torch.equal(logits(model), whole)
    thinner.switch(SPEC)
    assert torch.equal(logits(model), first)


def test_the_oracle_leaves_no_trace(model: Any) -> None:
    whole = logits(model)
    with hooked(model, SPEC):
        logits(model)
    assert torch.equal(logits(model), whole)


def test_clip_ratio_zero_is_the_whole_network(model: Any) -> None:
    whole = logits(model)
    with hooked(model, replace(SPEC, clip_ratio=0.0)):
        assert torch.equal(logits(model), whole)
    Thinner(model).switch(replace(SPEC, clip_ratio=0.0))
    assert torch.equal(logits(model), whole)


class Eighths(nn.Linear):
    """A linear layer whose weights are whole numbers of eighths, as quantised layers have them."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__(linear.in_features, linear.out_features, device="meta")
        eighths = (linear.weight * 8).round().to(torch.int8)
        self.weight = nn.Parameter(eighths, requires_grad=False)
        self.bias = linear.bias

    def forward(self, input: Tensor) -> Tensor:
        return nn.functional.linear(input, self.weight.to(input) / 8, self.bias)


def test_quantised_weights_are_left_alone_and_their_tensors_masked(model: Any) -> None:
    for parent in [*find_sites(model).blocks[0].modules()]:
        for name, layer in list(parent.named_children()):
            if isinstance(layer, nn.Linear):
                setattr(parent, name, Eighths(layer))
    whole = logits(model)
    with hooked(model, SPEC):
        expected = logits(model)
    thinner = Thinner(model)
    thinner.switch(SPEC)
    assert torch.equal(logits(model), expected)
    thinner.switch(FULL_NETWORK)
    assert torch.equal(logits(model), whole)
    assert not torch.allclose(whole, expected, atol=1e-2)


def test_thinning_works_in_half_precision(tmp_path: Path) -> None:
    model = load(tiny.save_model(tmp_path))
    with hooked(model, SPEC):
        expected = logits(model)
    half = BertForMaskedLM.from_pretrained(tmp_path, dtype=torch.bfloat16).eval()
    Thinner(half).switch(SPEC)
    found = logits(half).float()
    assert (found - expected).abs().max() < 0.1 * expected.abs().max()
