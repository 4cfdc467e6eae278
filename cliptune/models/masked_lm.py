"""Masked language models: classes are read from the label words' logits at the mask position."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from cliptune.errors import TaskError
from cliptune.models import attention, fast
from cliptune.models.base import Batch, FrozenModel
from cliptune.models.tokenize import label_ids
from cliptune.task import Task

if TYPE_CHECKING:
    from cliptune.config import ModelConfig


class LabelWords(nn.Module):
    """Some rows of a vocabulary's layer, in at least single precision.

    In bfloat16 a logit of 10 is a multiple of 1/16: close candidates would be equal.
    """

    def __init__(self, decoder: nn.Linear, ids: Tensor) -> None:
        super().__init__()
        self.weight, self.bias = (
            None if whole is None else nn.Parameter(_wide(whole[ids]), requires_grad=False)
            for whole in (decoder.weight, decoder.bias)
        )

    def forward(self, hidden: Tensor) -> Tensor:
        """`(..., width)` to `(..., words)`."""
        return F.linear(_wide(hidden), self.weight, self.bias)


def _wide(values: Tensor) -> Tensor:
    return values.to(torch.promote_types(values.dtype, torch.float32))


class MaskedLM(FrozenModel):
    """BERT, RoBERTa, DistilBERT, ELECTRA's generator, ...: any `AutoModelForMaskedLM`."""

    def __init__(
        self,
        module: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        task: Task,
        config: ModelConfig,
        position: str,
    ) -> None:
        super().__init__(module, tokenizer, task, config, position)
        if not task.template.has_mask:
            raise TaskError(
                f"A masked language model is read out at {{mask}}, which task.template lacks; "
                f"found {task.template.source!r}."
            )
        words = label_ids(tokenizer, task.template, task.label_words, task.label_tokens)
        self._label_ids = torch.tensor(words, device=self.device)
        self._read_ids = self._label_ids  # where the head's logits have them
        self._read_at: Tensor | None = None
        self._narrowed: attention.OnlyWhereRead | None = None
        module.base_model.register_forward_hook(self._keep_mask_position)

    def read_out(
        self, embedded: Tensor, mask: Tensor, batch: Batch, candidates: int, length: int
    ) -> Tensor:
        seen = mask if batch.padded else None
        positions = (batch.read_at + length).repeat(candidates)
        narrowed = self._narrowed.at(positions) if self._narrowed else self._reading(positions)
        with narrowed:
            logits: Tensor = self.module(inputs_embeds=embedded, attention_mask=seen).logits
        return logits[:, 0, self._read_ids]

    def changes(self) -> dict[str, fast.Change]:
        return {**super().changes(), "last block": self._narrow, "head": self._read_labels_only}

    def _read_labels_only(self) -> fast.Undo:
        """Of the vocabulary's logits, only the label words' are ever read."""
        decoder = self.module.get_output_embeddings()
        if not isinstance(decoder, nn.Linear):
            raise fast.UnsuitedError("its head does not end in a linear layer")
        self.module.set_output_embeddings(LabelWords(decoder, self._label_ids))
        self._read_ids = torch.arange(len(self._label_ids), device=self.device)

        def undo() -> None:
            self.module.set_output_embeddings(decoder)
            self._read_ids = self._label_ids

        return undo

    def _narrow(self) -> fast.Undo:
        narrowed = self._narrowed = attention.OnlyWhereRead(fast.sites_of(self.module))

        def undo() -> None:
            narrowed.remove()
            self._narrowed = None

        return undo

    @contextmanager
    def _reading(self, positions: Tensor) -> Iterator[None]:
        """Within, the head is computed at these positions, one a row."""
        self._read_at = positions
        try:
            yield
        finally:
            self._read_at = None

    def _keep_mask_position(self, module: Any, inputs: Any, output: Any) -> Any:
        """Hand the head one position a row: the vocabulary's logits elsewhere are never read."""
        if self._read_at is not None:
            hidden = output[0]
            rows = torch.arange(len(hidden), device=hidden.device)
            output.last_hidden_state = hidden[rows, self._read_at][:, None]
        return output
