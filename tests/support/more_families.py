"""More families, tiny and with random weights: what transformers' own classes make of a few sizes.

Unlike families.py nothing in them is named by hand: they are compared with the plain model by ids,
and thinned by folding and by hooks at the same sites.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import families
import torch
import transformers as hf
from torch import nn

SIZES: dict[str, Any] = {
    **dict.fromkeys(("hidden_size", "d_model", "n_embd", "embedding_size"), 32),
    **dict.fromkeys(("emb_dim", "word_embed_proj_dim"), 32),
    **dict.fromkeys(("num_hidden_layers", "n_layer", "n_layers", "num_layers"), 2),
    **dict.fromkeys(("num_encoder_layers", "encoder_layers"), 2),
    **dict.fromkeys(("num_decoder_layers", "decoder_layers"), 3),
    **dict.fromkeys(("num_attention_heads", "n_head", "n_heads", "num_heads"), 4),
    **dict.fromkeys(("encoder_attention_heads", "decoder_attention_heads"), 4),
    **dict.fromkeys(("intermediate_size", "ffn_dim", "d_ff", "n_inner", "dff"), 64),
    **dict.fromkeys(("encoder_ffn_dim", "decoder_ffn_dim", "ffn_hidden_size"), 64),
    **dict.fromkeys(("max_position_embeddings", "n_positions", "n_ctx", "max_seq_len"), 66),
    **{"d_kv": 8, "head_dim": 8, "num_key_value_heads": 2, "rotary_dim": 4},
    "attention_types": [[["global", "local"], 1]],
}
TEMPLATES = {"masked-lm": "{text} . it was {mask} .", "causal-lm": "{text} . it was {mask}"}


@dataclass(frozen=True)
class More:
    """A family by its class in transformers, and the settings that it needs besides sizes."""

    readout: str
    model: str
    given: dict[str, Any] = field(default_factory=dict)
    without: tuple[str, ...] = ()  # sizes that are not to be given
    sentinels: bool = False

    @property
    def template(self) -> str:
        return TEMPLATES.get(self.readout, TEMPLATES["masked-lm"] if self.sentinels else "{text} .")

    def tokenizer(self) -> Any:
        if self.readout == "masked-lm":
            return families.words()
        if self.sentinels:
            return families.sentinels()
        return families.byte_level(True, end=self.readout == "seq2seq")

    def save(self, folder: Path) -> Path:
        """With random weights, as users have them."""
        tokenizer, model = self.tokenizer(), getattr(hf, self.model)
        kind = model.config_class
        known = kind()
        names = {*vars(known), *getattr(kind, "attribute_map", {})}
        sizes = {k: v for k, v in SIZES.items() if k in names or hasattr(known, k)}
        words = {"vocab_size": len(tokenizer), "pad_token_id": tokenizer.pad_token_id}
        ends = {"bos_token_id": tokenizer.bos_token_id or 0, "eos_token_id": 1}
        if self.readout == "seq2seq":
            ends["decoder_start_token_id"] = 0 if self.sentinels else 2
        for name in self.without:
            sizes.pop(name, None)
        torch.manual_seed(0)
        made = model(kind(**{**sizes, **words, **ends, **self.given}))
        for parameter in made.parameters():  # larger than usual, so that differences show
            if parameter.dim() > 1:
                nn.init.normal_(parameter, std=0.15)
        made.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        return folder


def masked(model: str, **given: Any) -> More:
    return More("masked-lm", f"{model}ForMaskedLM", given)


def causal(model: str, **given: Any) -> More:
    return More("causal-lm", f"{model}ForCausalLM", given)


def seq2seq(model: str, **given: Any) -> More:
    return More("seq2seq", f"{model}ForConditionalGeneration", {"scale_embedding": True, **given})


def like_t5(model: str, **given: Any) -> More:
    return More("seq2seq", f"{model}ForConditionalGeneration", given, sentinels=True)


DISENTANGLED: dict[str, Any] = {
    "relative_attention": True,
    "pos_att_type": ["c2p", "p2c"],
    "position_biased_input": False,
}
FALCON = ("head_dim", "num_key_value_heads")
WINDOWS = {"max_encoder_position_embeddings": 66, "max_decoder_position_embeddings": 66}

MORE: dict[str, More] = {
    "XLM-R": masked("XLMRoberta"),
    "XLM-R-XL": masked("XLMRobertaXL"),
    "CamemBERT": masked("Camembert"),
    "RoBERTa-PreLN": masked("RobertaPreLayerNorm"),
    "MPNet": masked("MPNet"),
    "DeBERTa": masked("Deberta", **DISENTANGLED),
    "DeBERTa, legacy=false": masked("Deberta", **DISENTANGLED, legacy=False),
    "DeBERTa-v2, legacy=false": masked("DebertaV2", **DISENTANGLED, legacy=False),
    "RoFormer": masked("RoFormer"),
    "ERNIE": masked("Ernie"),
    "BigBird": masked("BigBird"),
    "RemBERT": masked("RemBert"),
    "MegatronBERT": masked("MegatronBert"),
    "LayoutLM": masked("LayoutLM"),
    "MRA": masked("Mra"),
    "EuroBERT": masked("EuroBert"),
    "XLM": More("masked-lm", "XLMWithLMHeadModel"),
    "FlauBERT": More("masked-lm", "FlaubertWithLMHeadModel"),
    "ModernBERT decoder": causal("ModernBertDecoder"),
    "GPT-NeoX": causal("GPTNeoX"),
    "GPT-J": causal("GPTJ"),
    "GPT-Neo": causal("GPTNeo"),
    "GPTBigCode": causal("GPTBigCode"),
    "CodeGen": causal("CodeGen"),
    "BLOOM": causal("Bloom"),
    "Falcon": More("causal-lm", "FalconForCausalLM", without=FALCON),
    "MPT": causal("Mpt"),
    "Phi": causal("Phi"),
    "Phi-3": causal("Phi3"),
    "Gemma": causal("Gemma", hidden_activation="gelu_pytorch_tanh"),
    "Gemma 2": causal("Gemma2"),
    "Gemma 3, text": causal("Gemma3"),
    "OLMo": causal("Olmo"),
    "OLMo 2": causal("Olmo2"),
    "Cohere": causal("Cohere"),
    "StableLM": causal("StableLm"),
    "Starcoder2": causal("Starcoder2"),
    "XGLM": causal("XGLM"),
    "BioGPT": causal("BioGpt"),
    "CTRL": More("causal-lm", "CTRLLMHeadModel"),
    "Granite": causal("Granite"),
    "SmolLM3": causal("SmolLM3"),
    "GLM": causal("Glm"),
    "Persimmon": causal("Persimmon"),
    "Nemotron": causal("Nemotron"),
    "Helium": causal("Helium"),
    "mT5": like_t5("MT5"),
    "Flan-T5": like_t5("T5", feed_forward_proj="gated-gelu", tie_word_embeddings=False),
    "UMT5": like_t5("UMT5"),
    "LongT5": like_t5("LongT5", encoder_attention_type="local", local_radius=5),
    "mBART": seq2seq("MBart"),
    "M2M100": seq2seq("M2M100"),
    "Blenderbot": seq2seq("Blenderbot"),
    "BlenderbotSmall": seq2seq("BlenderbotSmall"),
    "LED": seq2seq("LED", attention_window=4, **WINDOWS),
    "Pegasus": seq2seq("Pegasus"),
    "BigBirdPegasus": seq2seq("BigBirdPegasus"),
    "PegasusX": seq2seq("PegasusX"),
    "Marian": More("seq2seq", "MarianMTModel", {"scale_embedding": True}),
    "MVP": seq2seq("Mvp"),
    "PLBart": seq2seq("PLBart"),
    "FSMT": seq2seq("FSMT", src_vocab_size=376, tgt_vocab_size=376),
}
