"""Masked language models: classes are read from the label words' logits at the mask position."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from cliptune.errors import TaskError
from cliptune.models.base import Batch, FrozenModel
from cliptune.models.tokenize import label_ids
from cliptune.task import Task

if TYPE_CHECKING:
    from cliptune.config import ModelConfig


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
        self._read_at: Tensor | None = None
        module.base_model.register_forward_hook(self._keep_mask_position)

    def read_out(
        self, embedded: Tensor, mask: Tensor, batch: Batch, candidates: int, length: int
    ) -> Tensor:
        self._read_at = (batch.read_at + length).repeat(candidates)
        try:
            logits: Tensor = self.module(inputs_embeds=embedded, attention_mask=mask).logits
        finally:
            self._read_at = None
        return logits[:, 0, self._label_ids]

    def _keep_mask_position(self, module: Any, inputs: Any, output: Any) -> Any:
        """Hand the head one position a row: the vocabulary's logits elsewhere are never read."""
        if self._read_at is not None:
            hidden = output[0]
            rows = torch.arange(len(hidden), device=hidden.device)
            output.last_hidden_state = hidden[rows, self._read_at][:, None]
        return output
