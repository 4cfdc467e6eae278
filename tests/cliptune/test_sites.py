"""Sites are found by their shape and place; a model where that fails is refused.

That they are the right ones in each family, tests/cliptune/models/test_families.py compares.
"""

from typing import Any

import families
import pytest
import tiny
from torch import nn
from transformers import (
    AlbertConfig,
    AlbertModel,
    BertConfig,
    MambaConfig,
    MambaForCausalLM,
    MixtralConfig,
    MixtralForCausalLM,
    Qwen2MoeConfig,
    Qwen2MoeForCausalLM,
    RwkvConfig,
    RwkvForCausalLM,
)

from cliptune.errors import ModelError
from cliptune.sites import find_sites

SMALL = {"vocab_size": 50, "pad_token_id": 0}


@pytest.mark.parametrize("family", ["BERT", "DistilBERT"])
def test_a_block_has_an_attention_and_a_feed_forward_output(family: str) -> None:
    sites = find_sites(families.FAMILIES[family].build(SMALL))
    assert len(sites.blocks) == len(sites.attention_outputs) == len(sites.ffn_outputs) == 2
    assert all(m.in_features == m.out_features == 32 for m in sites.attention_outputs)
    assert all((m.in_features, m.out_features) == (64, 32) for m in sites.ffn_outputs)
    assert sites.ffn_inputs is not None


@pytest.mark.parametrize("family", ["T5", "BART"])
def test_a_decoders_block_has_two_attention_outputs(family: str) -> None:
    sites = find_sites(families.FAMILIES[family].build(SMALL))
    assert [len(stack) for stack in sites.stacks] == [2, 3]
    assert len(sites.attention_outputs) == 2 + 2 * 3
    assert len(sites.ffn_outputs) == len(sites.blocks) == 2 + 3


def test_a_gated_feed_forward_part_has_no_single_layer_that_makes_its_hidden_units() -> None:
    assert find_sites(families.FAMILIES["Llama"].build(SMALL)).ffn_inputs is None


def test_a_model_without_blocks_is_refused() -> None:
    class Odd(nn.Module):
        config = BertConfig(**tiny.SHAPE)

    with pytest.raises(ModelError, match=r"Odd cannot be thinned.*ensemble.mode to none"):
        find_sites(Odd())


def test_recurrent_layers_are_refused_whatever_they_are_called() -> None:
    """RWKV calls its own attention, but has no heads."""
    config = RwkvConfig(vocab_size=50, hidden_size=32, num_hidden_layers=2, intermediate_size=64)
    with pytest.raises(ModelError, match="cannot be thinned"):
        find_sites(RwkvForCausalLM(config))


def test_shared_layers_are_refused() -> None:
    """ALBERT runs one block many times; a mask a block cannot be told from it."""
    with pytest.raises(ModelError, match="cannot be thinned"):
        find_sites(AlbertModel(AlbertConfig(vocab_size=50, embedding_size=16, **tiny.SHAPE)))


@pytest.mark.parametrize(
    ("model", "config", "shape"),
    [
        (MixtralForCausalLM, MixtralConfig, {"num_local_experts": 2}),
        (
            Qwen2MoeForCausalLM,
            Qwen2MoeConfig,
            {
                "num_experts": 2,
                "moe_intermediate_size": 64,
                "shared_expert_intermediate_size": 64,
                "num_experts_per_tok": 1,
            },
        ),
    ],
)
def test_a_mixture_of_experts_is_refused(model: Any, config: Any, shape: dict[str, Any]) -> None:
    with pytest.raises(ModelError, match="cannot be thinned"):
        find_sites(model(config(**families.ROTARY, **SMALL, **shape)))


def test_a_model_without_attention_is_refused() -> None:
    shape = {"hidden_size": 32, "num_hidden_layers": 2, "state_size": 4, **SMALL}
    with pytest.raises(ModelError, match="cannot be thinned"):
        find_sites(MambaForCausalLM(MambaConfig(**shape)))
