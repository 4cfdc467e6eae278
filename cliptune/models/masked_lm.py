"""Masked language models: classes are read from the label words' logits at the mask position."""

from __future__ import annotations

from typing import Any, ClassVar

from torch import Tensor
from transformers import AutoModelForMaskedLM

from cliptune.errors import TaskError
from cliptune.models import attention, fast
from cliptune.models.base import Batch
from cliptune.models.words import OnePositionRead


class MaskedLM(OnePositionRead):
    """BERT, RoBERTa, DistilBERT, ELECTRA's generator, ...: any `AutoModelForMaskedLM`."""

    auto: ClassVar[Any] = AutoModelForMaskedLM
    readout: ClassVar[str] = "masked-lm"
    shows_mask = True
    _narrowed: attention.OnlyWhereRead | None = None

    def find_label_words(self) -> list[int]:
        template = self.task.template
        if not template.has_mask:
            raise TaskError(
                f"A masked language model is read out at {{mask}}, which task.template lacks; "
                f"found {template.source!r}."
            )
        return super().find_label_words()

    def read_out(
        self, embedded: Tensor, mask: Tensor, batch: Batch, candidates: int, length: int
    ) -> Tensor:
        seen = mask if batch.padded else None
        positions = (batch.read_at + length).repeat(candidates)
        narrowed = self._narrowed.at(positions) if self._narrowed else self.reading(positions)
        with narrowed:
            logits: Tensor = self.module(inputs_embeds=embedded, attention_mask=seen).logits
        return self.label_logits(logits, positions)

    def changes(self) -> dict[str, fast.Change]:
        return {**super().changes(), "last block": self._narrow}

    def _narrow(self) -> fast.Undo:
        narrowed = self._narrowed = attention.OnlyWhereRead(fast.sites_of(self.module))

        def undo() -> None:
            narrowed.remove()
            self._narrowed = None

        return undo
