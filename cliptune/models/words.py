"""What families share that read a class from its label word's logit at one position a row."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cliptune.errors import ModelError
from cliptune.models import fast
from cliptune.models.base import FrozenModel
from cliptune.models.tokenize import read_ids, tokens_before, word_tokens


class LabelWords(nn.Module):
    """Some rows of a vocabulary's layer, in at least single precision.

    In bfloat16 a logit of 10 is a multiple of 1/16: close candidates would be equal.
    """

    def __init__(self, decoder: nn.Linear, ids: Tensor) -> None:
        super().__init__()
        rows = ids.to(decoder.weight.device)
        self.weight, self.bias = (
            None if whole is None else nn.Parameter(_wide(whole[rows]), requires_grad=False)
            for whole in (decoder.weight, decoder.bias)
        )

    def forward(self, hidden: Tensor) -> Tensor:
        """`(..., width)` to `(..., words)`."""
        return F.linear(_wide(hidden), self.weight, self.bias)


def means_by_class(words: Sequence[Sequence[str]]) -> Tensor | None:
    """What makes the mean of each class' words of scores `(..., words)`: `(words, classes)`, of
    which a column adds up to 1. None where each class has one word."""
    sizes = torch.tensor([len(each) for each in words])
    if int(sizes.max()) == 1:
        return None
    classes = torch.arange(len(words)).repeat_interleave(sizes)
    return F.one_hot(classes, len(words)).float() / sizes


def _wide(values: Tensor) -> Tensor:
    return values.to(torch.promote_types(values.dtype, torch.float32))


class WordModel(FrozenModel):
    """A model with a vocabulary's layer at its end, of which only the label words are read."""

    def prepare(self) -> None:
        self._label_ids = torch.tensor(self.find_label_words(), device=self.device)
        self._read_ids: Tensor | slice = self._label_ids  # where the head's logits have them
        means = means_by_class(self.task.words)
        self._means = None if means is None else means.to(self.device)

    def find_label_words(self) -> list[int]:
        """The token of each word of all classes; a TaskError where they cannot be read."""
        found = {word: self.word_tokens(word) for word in self.task.every_word}
        return read_ids(self.tokenizer, found, self.task.label_tokens, self.task.words_setting)

    def by_class(self, logits: Tensor) -> Tensor:
        """`(rows, words)` logits to `(rows, classes)`: of several words of a class, their mean."""
        if self._means is None:
            return logits
        wide = _wide(logits)
        return wide @ self._means.to(wide)

    def is_word(self, token: int, word: str) -> bool:
        """Whether it is a whole word where label words are read."""
        return self.word_tokens(word) == [token]

    @contextmanager
    def reading_all_words(self) -> Iterator[None]:
        """Within, scores are of all words of the vocabulary: of a model as it was loaded."""
        before = self._read_ids, self._means
        self._read_ids, self._means = slice(None), None
        try:
            yield
        finally:
            self._read_ids, self._means = before

    def changes(self) -> dict[str, fast.Change]:
        return {**super().changes(), "head": self._read_labels_only}

    def _read_labels_only(self) -> fast.Undo:
        """Of the vocabulary's logits, only the label words' are ever read."""
        module = self.module
        decoder = module.get_output_embeddings()
        if not isinstance(decoder, nn.Linear) or not decoder.weight.is_floating_point():
            raise fast.UnsuitedError("its head does not end in a plain linear layer")
        # not by set_output_embeddings, which changes more than that in some models
        restore = fast.swapped(
            [(*fast.place(module, decoder), LabelWords(decoder, self._label_ids))]
        )
        bias = getattr(module, "final_logits_bias", None)  # BART's, beside its head
        if bias is not None:
            module.final_logits_bias = bias[:, self._label_ids]
        self._read_ids = torch.arange(len(self._label_ids), device=self.device)

        def undo() -> None:
            restore()
            if bias is not None:
                module.final_logits_bias = bias
            self._read_ids = self._label_ids

        return undo


class OnePositionRead(WordModel):
    """A model whose head is computed at one position a row alone."""

    def prepare(self) -> None:
        super().prepare()
        if self.module.base_model is self.module:
            raise ModelError(f"{type(self.module).__name__} does not tell its body from its head.")
        self._read_at: Tensor | None = None
        self.module.base_model.register_forward_hook(self._keep_one_position)

    def word_tokens(self, word: str) -> list[int]:
        return word_tokens(self.tokenizer, self.task.template, word)

    def is_word(self, token: int, word: str) -> bool:
        """And whether it follows the same tokens as the label words, so that a space is no part of
        the one and not of the other."""
        if not super().is_word(token, word):
            return False
        label_word, *_ = self.task.every_word
        before, others = (
            tokens_before(self.tokenizer, self.task.template, each) for each in (word, label_word)
        )
        return before == others

    @contextmanager
    def reading(self, positions: Tensor) -> Iterator[None]:
        """Within, the head is computed at these positions, one a row."""
        self._read_at = positions
        try:
            yield
        finally:
            self._read_at = None

    def label_logits(self, logits: Tensor, positions: Tensor) -> Tensor:
        """`(rows, classes)` of the head's logits; some heads pass by the body that has been cut."""
        if logits.shape[1] > 1:
            rows = torch.arange(len(logits), device=logits.device)
            logits = logits[rows, positions.to(logits.device)][:, None]
        return self.by_class(logits[:, 0, self._read_ids])

    def _keep_one_position(self, module: Any, inputs: Any, output: Any) -> Any:
        """Hand the head one position a row: the vocabulary's logits elsewhere are never read."""
        if self._read_at is not None:
            hidden = output[0]
            rows = torch.arange(len(hidden), device=hidden.device)
            output.last_hidden_state = hidden[rows, self._read_at.to(hidden.device)][:, None]
        return output
