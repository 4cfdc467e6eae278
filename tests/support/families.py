"""Each model family, tiny and with random weights; and the plain model of each as the oracle.

The oracle is transformers alone: one example at a time, without padding, its modules named here by
hand and never by what the project finds.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tiny
import torch
import transformers as hf
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from torch import Tensor, nn

from cliptune.models import load
from cliptune.subnetwork import SubnetworkSpec
from cliptune.thinning import unit_scale

SHAPE = {**tiny.SHAPE, "max_position_embeddings": 66}
ROTARY = {**SHAPE, "num_key_value_heads": 2}
DEBERTA = {
    "relative_attention": True,
    "pos_att_type": ["p2c", "c2p"],
    "position_buckets": 8,
    "norm_rel_ebd": "layer_norm",
    "share_att_key": True,
    "position_biased_input": False,
}
T5 = {"d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_decoder_layers": 3}
BART = {
    "d_model": 32,
    **dict.fromkeys(("encoder_attention_heads", "decoder_attention_heads"), 4),
    **dict.fromkeys(("encoder_ffn_dim", "decoder_ffn_dim"), 64),
    **{"encoder_layers": 2, "decoder_layers": 3, "max_position_embeddings": 66},
}


@dataclass(frozen=True)
class Family:
    """How a family is made, and where in it lies what can be thinned."""

    readout: str
    build: Callable[[dict[str, Any]], Any]
    tokenizer: Callable[[], Any]
    stacks: tuple[str, ...]  # lists of blocks
    attention: tuple[str, ...]  # its output, in a block of each stack; + joins several
    ffn: tuple[str, ...]  # the feed-forward part's last layer, likewise
    template: str = "{text} . it was {mask} ."
    deep: bool = True


def words() -> Any:
    """Whole words, with BERT's special tokens."""
    made = tiny.tokenizer()
    made.model_max_length = 60
    return made


def byte_level(begin: bool = False, end: bool = False) -> Any:
    """As GPT-2's; a word after a space is another token than the same word after none."""
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=1000,  # more than there are: every word becomes one token
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    core.train_from_iterator([word for each in tiny.WORDS for word in (each, f" {each}")], trainer)
    core.post_processor = processors.TemplateProcessing(
        single=f"{'<s> ' * begin}$A{' </s>' * end}", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    named = dict(zip(("bos", "pad", "eos", "unk", "mask"), special, strict=True))
    if not end:  # a causal model's has no mask
        del named["mask"]
    return hf.PreTrainedTokenizerFast(
        tokenizer_object=core,
        model_max_length=60,
        **{f"{name}_token": token for name, token in named.items()},
    )


def sentinels() -> Any:
    """As T5's."""
    special = ["<pad>", "</s>", "<unk>", "<extra_id_0>", "<extra_id_1>"]
    vocabulary = [*special, *(f"▁{word}" for word in tiny.WORDS)]
    core = Tokenizer(
        models.WordLevel({word: i for i, word in enumerate(vocabulary)}, unk_token="<unk>")
    )
    core.pre_tokenizer = pre_tokenizers.Metaspace()
    core.decoder = decoders.Metaspace()
    core.post_processor = processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", 1)]
    )
    return hf.PreTrainedTokenizerFast(
        tokenizer_object=core,
        model_max_length=60,
        pad_token="<pad>",
        eos_token="</s>",
        unk_token="<unk>",
        additional_special_tokens=[
            AddedToken(sentinel, lstrip=True, special=True) for sentinel in special[3:]
        ],
    )


def masked(config: Any, model: Any, stack: str, attention: str, ffn: str, **rest: Any) -> Family:
    shape = rest.pop("shape", SHAPE)
    return Family(
        "masked-lm",
        lambda shared: model(config(**shape, **shared)),
        words,
        (stack,),
        (attention,),
        (ffn,),
        **rest,
    )


def causal(config: Any, model: Any, *, begin: bool, **more: Any) -> Family:
    return Family(
        "causal-lm",
        lambda shared: model(config(**ROTARY, **more, **shared)),
        lambda: byte_level(begin),
        ("model.layers",),
        ("self_attn.o_proj",),
        ("mlp.down_proj",),
        "{text} . it was {mask}",
    )


def of_bert(name: str) -> tuple[str, str, str]:
    return f"{name}.encoder.layer", "attention.output.dense", "output.dense"


FAMILIES: dict[str, Family] = {
    "BERT": masked(hf.BertConfig, hf.BertForMaskedLM, *of_bert("bert")),
    "RoBERTa": masked(
        hf.RobertaConfig,
        hf.RobertaForMaskedLM,
        *of_bert("roberta"),
        shape={**SHAPE, "type_vocab_size": 1},
    ),
    "DistilBERT": masked(
        hf.DistilBertConfig,
        hf.DistilBertForMaskedLM,
        "distilbert.transformer.layer",
        "attention.out_lin",
        "ffn.lin2",
        shape={
            "dim": 32,
            "n_layers": 2,
            "n_heads": 4,
            "hidden_dim": 64,
            "max_position_embeddings": 66,
        },
    ),
    "ELECTRA": masked(
        hf.ElectraConfig,
        hf.ElectraForMaskedLM,
        *of_bert("electra"),
        shape={**SHAPE, "embedding_size": 16},
        deep=False,
    ),
    "DeBERTa-v2": masked(
        hf.DebertaV2Config,
        hf.DebertaV2ForMaskedLM,
        *of_bert("deberta"),
        shape={**SHAPE, **DEBERTA},
    ),
    "ModernBERT": masked(
        hf.ModernBertConfig,
        hf.ModernBertForMaskedLM,
        "model.layers",
        "attn.Wo",
        "mlp.Wo",
        shape={**SHAPE, "local_attention": 8, "global_attn_every_n_layers": 2},
    ),
    "GPT-2": Family(
        "causal-lm",
        lambda shared: hf.GPT2LMHeadModel(
            hf.GPT2Config(n_embd=32, n_layer=2, n_head=4, n_inner=64, n_positions=66, **shared)
        ),
        byte_level,
        ("transformer.h",),
        ("attn.c_proj",),
        ("mlp.c_proj",),
        "{text} . it was {mask}",
    ),
    "OPT": Family(
        "causal-lm",
        lambda shared: hf.OPTForCausalLM(
            hf.OPTConfig(
                hidden_size=32,
                num_hidden_layers=2,
                num_attention_heads=4,
                ffn_dim=64,
                word_embed_proj_dim=32,
                max_position_embeddings=66,
                **shared,
            )
        ),
        lambda: byte_level(begin=True),
        ("model.decoder.layers",),
        ("self_attn.out_proj",),
        ("fc2",),
        "{text} . it was {mask}",
    ),
    "Llama": causal(hf.LlamaConfig, hf.LlamaForCausalLM, begin=True),
    "Qwen2": causal(hf.Qwen2Config, hf.Qwen2ForCausalLM, begin=False),
    "Qwen3": causal(hf.Qwen3Config, hf.Qwen3ForCausalLM, begin=False, head_dim=16),
    "Mistral": causal(hf.MistralConfig, hf.MistralForCausalLM, begin=True, sliding_window=9),
    "T5": Family(
        "seq2seq",
        lambda shared: hf.T5ForConditionalGeneration(
            hf.T5Config(**T5, num_heads=4, decoder_start_token_id=0, **shared)
        ),
        sentinels,
        ("encoder.block", "decoder.block"),
        ("layer.0.SelfAttention.o", "layer.0.SelfAttention.o+layer.1.EncDecAttention.o"),
        ("layer.1.DenseReluDense.wo", "layer.2.DenseReluDense.wo"),
    ),
    "BART": Family(
        "seq2seq",
        lambda shared: hf.BartForConditionalGeneration(
            hf.BartConfig(**BART, scale_embedding=True, decoder_start_token_id=2, **shared)
        ),
        lambda: byte_level(begin=True, end=True),
        ("model.encoder.layers", "model.decoder.layers"),
        ("self_attn.out_proj", "self_attn.out_proj+encoder_attn.out_proj"),
        ("fc2", "fc2"),
        "{text} . it was",
    ),
}


def save(name: str, folder: Path, std: float = 0.15) -> Path:
    """A model of a family with random weights, saved as users have them."""
    family = FAMILIES[name]
    torch.manual_seed(0)
    tokenizer = family.tokenizer()
    model = family.build({"vocab_size": len(tokenizer), "pad_token_id": tokenizer.pad_token_id})
    for parameter in model.parameters():  # larger than usual, so that differences show
        if parameter.dim() > 1:
            nn.init.normal_(parameter, std=std)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def plain(name: str, folder: Path) -> Any:
    """The family's model by transformers alone."""
    return load.FAMILIES[FAMILIES[name].readout].auto.from_pretrained(folder).eval()


def label_tokens(name: str) -> list[str]:
    """Of the label words bad and great, where they are read."""
    readout = FAMILIES[name].readout
    space = {"causal-lm": "Ġ", "seq2seq": "▁" if name == "T5" else "", "masked-lm": ""}[readout]
    return [f"{space}bad", f"{space}great"]


@torch.inference_mode()
def plain_scores(name: str, module: Any, tokenizer: Any, **inputs: Tensor) -> Tensor:
    """The two label words' logits of one example, given as `input_ids` or `inputs_embeds`."""
    family = FAMILIES[name]
    if family.readout == "seq2seq":
        start = [[0, 3]] if name == "T5" else [[2, 0]]  # behind <extra_id_0>; behind </s> <s>
        logits = module(**inputs, decoder_input_ids=torch.tensor(start)).logits[0, -1]
    else:
        logits = module(**inputs).logits[0]
        if family.readout == "causal-lm":
            logits = logits[-1]
    ids = tokenizer.convert_tokens_to_ids(label_tokens(name))
    found: Tensor = logits[..., ids]
    return found


def blocks(name: str, module: Any) -> list[list[Any]]:
    """The blocks of each stack."""
    return [list(module.get_submodule(stack)) for stack in FAMILIES[name].stacks]


@contextmanager
def thinned(name: str, module: Any, spec: SubnetworkSpec) -> Iterator[None]:
    """Within, the plain model's tensors are multiplied by the masks, at modules named by hand."""
    family, handles, numbers = FAMILIES[name], [], dict.fromkeys(("attention", "ffn"), 0)

    def out(layer: Any, site: str) -> None:
        scale = unit_scale(spec, site, 32)
        handles.append(layer.register_forward_hook(lambda m, i, output: output * scale))

    for number, stack in enumerate(blocks(name, module)):
        embedding = unit_scale(spec, f"embedding/{number}", 32)
        handles.append(changed_input(stack[0], lambda hidden, by=embedding: hidden * by))
        for block in stack:
            for path in family.attention[number].split("+"):
                out(block.get_submodule(path), f"attention-output/{numbers['attention']}")
                numbers["attention"] += 1
            ffn = block.get_submodule(family.ffn[number])
            hidden = unit_scale(spec, f"ffn-hidden/{numbers['ffn']}", 64)
            handles.append(changed_input(ffn, lambda inner, by=hidden: inner * by))
            out(ffn, f"ffn-output/{numbers['ffn']}")
            numbers["ffn"] += 1
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def changed_input(module: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """A hook that changes what enters a module."""

    def replace(module: Any, inputs: Any, named: dict[str, Any]) -> Any:
        if inputs:
            return (change(inputs[0]), *inputs[1:]), named
        return inputs, {**named, "hidden_states": change(named["hidden_states"])}

    return module.register_forward_pre_hook(replace, with_kwargs=True)
