"""Tiny random models and tasks, built here and now: no download, a second for all of them."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import (
    BertConfig,
    BertForMaskedLM,
    DistilBertConfig,
    DistilBertForMaskedLM,
    ElectraConfig,
    ElectraForMaskedLM,
    PreTrainedTokenizerFast,
    RobertaConfig,
    RobertaForMaskedLM,
)

from cliptune.config import Config, merge, validate
from cliptune.scorer import ModelFacts, Usage
from cliptune.specimen import whole_words
from cliptune.subnetwork import SubnetworkSpec
from cliptune.task import SPLITS, Split, Task, Template
from cliptune.types import Neighbours

WORDS = (
    "it was bad great good awful the a film story plot of and but not very fun dull sad joy love "
    "hate long short slow quick old new red blue one two three . , ! ? :"
).split()

SHAPE: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "max_position_embeddings": 64,
}


def tokenizer() -> PreTrainedTokenizerFast:
    """Whole words, lower case, BERT's special tokens."""
    return whole_words(WORDS, 64)


def save_model(folder: Path, family: str = "bert", seed: int = 0, std: float = 0.2) -> Path:
    """A masked language model with random weights, saved as users have them."""
    torch.manual_seed(seed)
    words = tokenizer()
    shared = {"vocab_size": len(words), "pad_token_id": 0}
    if family == "bert":
        model = BertForMaskedLM(BertConfig(**SHAPE, **shared))
    elif family == "roberta":
        shape = {**SHAPE, "max_position_embeddings": 66}
        model = RobertaForMaskedLM(RobertaConfig(**shape, **shared, type_vocab_size=1))
    elif family == "electra":
        model = ElectraForMaskedLM(ElectraConfig(**SHAPE, **shared, embedding_size=16))
    elif family == "distilbert":
        model = DistilBertForMaskedLM(
            DistilBertConfig(
                dim=32, n_layers=2, n_heads=4, hidden_dim=64, max_position_embeddings=64, **shared
            )
        )
    else:
        raise ValueError(family)
    for parameter in model.parameters():  # larger than usual, so that differences show
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=std)
    model.save_pretrained(folder)
    words.save_pretrained(folder)
    return folder


def save_task(folder: Path, *, examples: int = 6, pair: bool = False) -> Path:
    """A two-class task of random sentences with the label in one word."""
    rng = np.random.default_rng(0)
    folder.mkdir(parents=True, exist_ok=True)
    for split in ("train", "validation", "test"):
        with (folder / f"{split}.jsonl").open("w", encoding="utf-8") as file:
            for i in range(examples):
                row: dict[str, Any] = {"text": sentence(rng, i % 2), "label": i % 2}
                if pair:
                    row["text_pair"] = sentence(rng, i % 2)
                file.write(json.dumps(row) + "\n")
    return folder


def sentence(rng: np.random.Generator, label: int) -> str:
    words = rng.choice(WORDS[5:30], rng.integers(3, 12)).tolist()
    words.insert(int(rng.integers(len(words))), ("awful", "good")[label])
    return " ".join(words)


def tree(folder: Path, data: Path, run_dir: Path | None = None, **sections: Any) -> dict[str, Any]:
    """Settings of a search that takes no time.

    Class scores are as the model gives them: what is said of rewards can be computed by hand.
    """
    base = {
        "task": {
            "name": "tiny",
            "data": str(data),
            "template": "{text} . it was {mask} .",
            "label_words": ["bad", "great"],
            "k": 3,
        },
        "model": {"name": str(folder), "dtype": "float32", "device": "cpu", "micro_batch": 8},
        "prompt": {"length": 3, "dimension": 5},
        "ensemble": {"subnetworks": 3, "clip_ratio": 0.3},
        "search": {"budget": 12, "population": 4, "calibrate": False},
        "run_dir": None if run_dir is None else str(run_dir),
    }
    return merge(base, sections)


def config(folder: Path, data: Path, run_dir: Path | None = None, **sections: Any) -> Config:
    return validate(Config, tree(folder, data, run_dir, **sections))


def task(examples: int = 6) -> Task:
    """The task of `tree`, made without files."""
    rng = np.random.default_rng(0)
    labels = np.arange(examples) % 2
    splits = {
        name: Split(tuple(sentence(rng, int(label)) for label in labels), None, labels)
        for name in SPLITS
    }
    return Task("tiny", Template("{text} . it was {mask} ."), ("bad", "great"), splits)


class PlainScorer:
    """A Scorer of plain numpy: each critic wants the latent near a target of its own."""

    workers = 1

    def __init__(self, config: Config) -> None:
        self.config = config
        self.task = task()
        self.usage = Usage()
        self.micro_batch = int(config.model.micro_batch)
        self._d = config.prompt.latent_size
        self.targets = np.random.default_rng(1).normal(2, 0.3, (config.ensemble.size, self._d))

    def score(self, latents: Any, generation: int = 0) -> Any:
        targets = self.targets
        if self.config.ensemble.mode == "dynamic":  # other critics each generation
            targets = targets + np.random.default_rng([2, generation]).normal(0, 0.3, targets.shape)
        self.usage.forward_passes += len(latents) * len(targets) * len(self.task["train"])
        return -((latents[:, None] - targets) ** 2).sum(axis=-1)

    def class_scores(
        self, latents: Any, split: str, subnetworks: Sequence[SubnetworkSpec]
    ) -> np.ndarray[Any, np.dtype[np.float32]]:
        """The nearer to the first target, the more examples come out right."""
        latents = np.zeros((1, self._d)) if latents is None else latents
        labels = self.task[split].labels
        self.usage.forward_passes += len(latents) * len(subnetworks) * len(labels)
        distance = ((latents - self.targets[0]) ** 2).mean(axis=-1)
        lead = np.linspace(0.5, 3, len(labels)) - distance[:, None]  # (population, examples)
        scores = np.zeros((len(latents), len(subnetworks), len(labels), 2), np.float32)
        scores[:, :, np.arange(len(labels)), labels] = lead[:, None]
        return scores

    def prompt(self, latent: Any) -> Any:
        return np.outer(np.arange(1, 4), latent[:4]).astype(np.float32)

    def nearest(self, latent: Any) -> Neighbours:
        """A made-up vocabulary, with what could do harm on a page."""
        tokens = ("Ġgood", "<script>alert(1)</script>", "▁$x$")
        return [[(token, 0.75), ("##ing", 0.5)] for token in tokens]

    def facts(self) -> ModelFacts:
        none, some = dict.fromkeys(SPLITS, 0), dict.fromkeys(SPLITS, 9)
        return ModelFacts("plain", "0" * 64, width=4, parameters=0, truncated=none, tokens=some)

    def canary(self) -> str:
        return "1" * 64
