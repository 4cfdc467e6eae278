"""Encoder-decoders: classes are read from the label words' scores as the decoder's first word.

The encoder is given prompt and text. The decoder is given what stands before its first word
whatever it writes: its start token, the special token that the tokenizer begins a text with (BART's
<s>), and, where {mask} is one of T5's sentinels, that sentinel, behind which T5 writes what it
stands for.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor
from transformers import AutoModelForSeq2SeqLM

from cliptune.errors import ModelError
from cliptune.models.base import Batch
from cliptune.models.tokenize import Encoded, encode
from cliptune.models.words import WordModel
from cliptune.task import Split

SENTINEL = "<extra_id_0>"  # of T5's tokenizers: stands for words that the decoder is to write


class Seq2Seq(WordModel):
    """T5, BART, ...: any `AutoModelForSeq2SeqLM`."""

    auto: ClassVar[Any] = AutoModelForSeq2SeqLM
    readout: ClassVar[str] = "seq2seq"
    two_stacks: ClassVar[bool] = True

    def prepare(self) -> None:
        self._sentinel = SENTINEL if SENTINEL in self.tokenizer.get_vocab() else None
        super().prepare()
        self.shows_mask = self.task.template.has_mask
        start = getattr(self.module.config, "decoder_start_token_id", None)
        if start is None:
            raise ModelError(
                f"The config.json of {self.config.name} names no decoder_start_token_id, from "
                "which the seq2seq read-out begins. Add it, or choose another model."
            )
        beginning = [start, *self._leading]
        if self._sentinel and self.task.template.has_mask:
            beginning.append(self.tokenizer.convert_tokens_to_ids(self._sentinel))
        self._beginning = torch.tensor([beginning], device=self.device)

    @property
    def beginning(self) -> list[int]:
        """What the decoder is given before its first word."""
        ids: list[int] = self._beginning[0].tolist()
        return ids

    @property
    def mask_token(self) -> str | None:
        """What stands for {mask} in an input, where the template has one."""
        has = self.task.template.has_mask
        return (self._sentinel or str(self.tokenizer.mask_token)) if has else None

    def tokenise(self, split: Split, limit: int) -> Encoded:
        return encode(self.tokenizer, self.task.template, split, limit, self._sentinel)

    def read_out(
        self, embedded: Tensor, mask: Tensor, batch: Batch, candidates: int, length: int
    ) -> Tensor:
        output = self.module(
            inputs_embeds=embedded,
            attention_mask=mask if batch.padded else None,
            decoder_input_ids=self._beginning.expand(len(embedded), -1),
            use_cache=False,
        )
        logits: Tensor = output.logits
        return self.by_class(logits[:, -1, self._read_ids])
