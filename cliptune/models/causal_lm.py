"""Causal language models: classes are read from the label words' scores as the next token."""

from __future__ import annotations

from typing import Any, ClassVar

from torch import Tensor
from transformers import AutoModelForCausalLM

from cliptune.errors import TaskError
from cliptune.models import fast
from cliptune.models.base import Batch
from cliptune.models.prefix import SharedPrefix, moving
from cliptune.models.tokenize import (
    Encoded,
    encode_until_mask,
    tokens_before,
)
from cliptune.models.words import OnePositionRead
from cliptune.task import Split, Template


class CausalLM(OnePositionRead):
    """GPT-2, Llama, Qwen, Mistral, ...: any `AutoModelForCausalLM`."""

    auto: ClassVar[Any] = AutoModelForCausalLM
    readout: ClassVar[str] = "causal-lm"
    _prefix: SharedPrefix | None = None

    def find_label_words(self) -> list[int]:
        task, tokenizer = self.task, self.tokenizer
        if not task.template.ends_with_mask:
            raise TaskError(
                "A causal language model is read out behind the last word of its input, so "
                f"task.template must end with {{mask}}; found {task.template.source!r}. Give one "
                f"that does, for instance task.template={_example(task.template)!r}."
            )
        ids = super().find_label_words()
        first, *others = task.every_word
        before = tokens_before(tokenizer, task.template, first)
        for word in others:
            if tokens_before(tokenizer, task.template, word) != before:
                raise TaskError(
                    f"Label words must follow the same tokens; before {first!r} stand "
                    f"{tokenizer.convert_ids_to_tokens(before)[-3:]}, others before {word!r}. "
                    f"Change one of them in {task.words_setting}."
                )
        return ids

    def tokenise(self, split: Split, limit: int) -> Encoded:
        task = self.task
        return encode_until_mask(self.tokenizer, task.template, split, limit, task.every_word[0])

    def read_out(
        self, embedded: Tensor, mask: Tensor, batch: Batch, candidates: int, length: int
    ) -> Tensor:
        seen = mask if batch.padded else None
        positions = (batch.read_at + length).repeat(candidates)
        if self._prefix is None or length == 0:
            with self.reading(positions):
                output = self.module(inputs_embeds=embedded, attention_mask=seen, use_cache=False)
        else:
            shared = self._beginning(length)
            beginnings = embedded.view(candidates, -1, *embedded.shape[1:])[:, 0, :shared]
            cache = self._prefix.of(beginnings.contiguous(), self._deep.current)
            positions = positions - shared
            with self.reading(positions), self._deep.added(None):
                output = self.module(
                    inputs_embeds=embedded[:, shared:],
                    attention_mask=seen,
                    past_key_values=cache,
                    use_cache=True,
                )
        return self.label_logits(output.logits, positions)

    def shared_tokens(self, length: int) -> int:
        if self.device.type == "meta":  # nothing can be tried out: as far as its config tells
            return 0 if moving(self.module) else self._beginning(length)
        return 0 if self._prefix is None else self._beginning(length)

    def _beginning(self, length: int) -> int:
        """Prompt and first special token, whichever of them stands before the other."""
        return length + len(self._leading)

    def network_changed(self) -> None:
        if self._prefix is not None:
            self._prefix.forget()

    def changes(self) -> dict[str, fast.Change]:
        return {**super().changes(), "shared prefix": self._share_prefix}

    def _share_prefix(self) -> fast.Undo:
        """The prompt's keys and values are computed once for all examples of a candidate."""
        self._prefix = SharedPrefix(self.module)

        def undo() -> None:
            self._prefix = None

        return undo


def _example(template: Template) -> str:
    """A template with the same texts whose end is {mask}."""
    until_mask, found, _ = template.source.partition("{mask}")
    if found and all(f"{{{name}}}" in until_mask for name in template.fields - {"mask"}):
        return until_mask + "{mask}"
    texts = [f"{{{name}}}" for name in ("text", "text_pair") if name in template.fields]
    return " ".join([*texts, "Answer: {mask}"])
