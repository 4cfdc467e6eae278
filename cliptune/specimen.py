"""What the benchmark scores when nothing real is at hand: random weights, made-up sentences.

Imports nothing but torch and transformers, so that it can be measured on any machine.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import (
    BertConfig,
    BertForMaskedLM,
    PreTrainedTokenizerFast,
    RobertaConfig,
    RobertaForMaskedLM,
)

from cliptune.errors import TaskError
from cliptune.randomness import generator
from cliptune.task import Split, Task, Template

if TYPE_CHECKING:
    from cliptune.config import Config

TEMPLATE = "{text} . It was {mask} ."  # of Black-Box Tuning, for SST-2
LABEL_WORDS = ("bad", "great", "good", "awful", "new", "old", "short", "long", "quick", "slow")
WORDS = (
    *("the", "a", "it", "of", "and", "but", "not", "very", "film", "story", "plot", "was", "is"),
    *("this", "that", "with", "for", "on", "all", "one", "two", "more", "some", "first", "last"),
    *("time", "life", "love", "world", "man", "woman", "people", "work", "way", "day", "home"),
)
SPECIAL = {
    "pad_token": "[PAD]",
    "unk_token": "[UNK]",
    "cls_token": "[CLS]",
    "sep_token": "[SEP]",
    "mask_token": "[MASK]",
}
SST2_TOKENS = (  # of the 32 sentences in SST-2's 16-shot training set of seed 42, BERT's tokenizer
    *(5, 7, 8, 9, 9, 10, 11, 11, 11, 12, 12, 12, 14, 14, 15, 16),
    *(16, 19, 20, 20, 24, 25, 28, 29, 30, 32, 32, 34, 36, 45, 47, 53),
)


@dataclass(frozen=True)
class Shape:
    """The sizes of a masked language model."""

    family: str  # bert or roberta
    layers: int
    width: int
    heads: int
    ffn: int
    vocabulary: int


SHAPES = {
    "minilm": Shape("bert", 6, 384, 12, 1536, 30522),
    "roberta-base": Shape("roberta", 12, 768, 12, 3072, 50265),
    "roberta-large": Shape("roberta", 24, 1024, 16, 4096, 50265),
}


class Settings(SimpleNamespace):
    """The fields of a Config that scoring reads, without pydantic."""

    def model_copy(self, *, update: dict[str, Any]) -> Self:
        """A copy with other values, as pydantic's models have it."""
        return type(self)(**{**vars(self), **update})


class Ensemble(Settings):
    """Settings of thinned subnetworks."""

    @property
    def size(self) -> int:
        """Networks that score."""
        return int(self.subnetworks)


def settings(
    *,
    model: str,
    dtype: str,
    device: str,
    micro_batch: int | str,
    length: int,
    dimension: int,
    subnetworks: int,
    clip_ratio: float,
    sites: tuple[str, ...],
    seed: int,
) -> Config:
    """What a LocalScorer reads of a search's config; the rest are that one's defaults."""
    tree: Any = Settings(
        model=Settings(
            name=model,
            readout="masked-lm",
            dtype=dtype,
            quantize=None,
            device=device,
            micro_batch=micro_batch,
        ),
        prompt=Settings(
            length=length,
            dimension=dimension,
            layers=1,
            latent_size=dimension,
            position="after-first",
            init="vocabulary",
            projection="normal",
            scale=1.0,
            seed=seed,
        ),
        ensemble=Ensemble(
            subnetworks=subnetworks,
            clip_ratio=clip_ratio,
            mode="static",
            sites=sites,
            seed=seed,
        ),
        search=Settings(sigma=1.0, loss="cross-entropy", margin=2.0, calibrate=False),
    )
    config: Config = tree
    return config


def save_model(shape: Shape, folder: Path, seed: int = 0) -> Path:
    """A masked language model of a shape with random weights, saved in float32."""
    torch.manual_seed(seed)
    sizes = {
        "vocab_size": shape.vocabulary,
        "hidden_size": shape.width,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "intermediate_size": shape.ffn,
        "pad_token_id": 0,
    }
    if shape.family == "bert":
        module = BertForMaskedLM(BertConfig(**sizes))
    else:
        module = RobertaForMaskedLM(
            RobertaConfig(**sizes, max_position_embeddings=514, type_vocab_size=1)
        )
    module.save_pretrained(folder)
    whole_words([*LABEL_WORDS, *WORDS, ".", ","], 512).save_pretrained(folder)
    return folder


def whole_words(words: Iterable[str], longest: int) -> PreTrainedTokenizerFast:
    """A tokenizer of these words, lower case, after BERT's special tokens."""
    vocabulary = {word: i for i, word in enumerate(dict.fromkeys([*SPECIAL.values(), *words]))}
    core = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))  # noqa: S106
    core.normalizer = normalizers.Lowercase()
    core.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    core.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        special_tokens=[(token, vocabulary[token]) for token in ("[CLS]", "[SEP]")],
    )
    return PreTrainedTokenizerFast(tokenizer_object=core, model_max_length=longest, **SPECIAL)


def made_up_task(seed: int = 0) -> Task:
    """32 made-up sentences of two classes, as long as those of SST-2's 16-shot training set."""
    rng = generator("sentences", seed)
    lengths = rng.permutation(SST2_TOKENS)
    texts = tuple(" ".join(rng.choice(WORDS, length)) for length in lengths)
    return _task("sst2-lengths", texts, np.arange(len(texts)) % 2)


def read_task(file: Path) -> Task:
    """The examples of a file with `{"text": ..., "label": 0}` a line."""
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
        rows = [json.loads(line) for line in lines if line.strip()]
        texts = tuple(str(row["text"]) for row in rows)
        labels = np.array([int(row["label"]) for row in rows], dtype=np.int64)
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise TaskError(
            f'--task: {file} must be a file with {{"text": "...", "label": 0}} a line; '
            f"{type(error).__name__}: {error}."
        ) from None
    if not rows or not all(0 <= label < len(LABEL_WORDS) for label in labels):
        raise TaskError(
            f"--task: {file} must hold examples with labels from 0 to {len(LABEL_WORDS) - 1}; "
            f"found {len(rows)} examples with labels {sorted(set(labels.tolist()))}."
        )
    return _task(file.stem, texts, labels)


def _task(name: str, texts: tuple[str, ...], labels: Any) -> Task:
    words = LABEL_WORDS[: max(2, int(labels.max()) + 1)]
    return Task(name, Template(TEMPLATE), words, {"train": Split(texts, None, labels)})
