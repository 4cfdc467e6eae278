"""Deep prompts: vectors that are added to the hidden states at the prompt's positions.

Each layer but the first has such vectors of its own (BBTv2: Sun et al., EMNLP 2022). The model's
code runs as it is: they are added to what enters a block.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from cliptune.errors import ConfigError
from cliptune.sites import find_sites

TOKENS_FIRST = ("fsmt",)  # whose layers take (tokens, rows, width); with one token it does not show


class DeepPrompts:
    """What the blocks of a model are given besides their input."""

    def __init__(self, module: PreTrainedModel, offset: int) -> None:
        """`offset` is the number of tokens before the prompt."""
        self._module = module
        self._offset = offset
        self._deeper: Tensor | None = None  # (candidates, layers - 1, length, width)
        self._blocks = 0  # that ask for theirs

    @torch.inference_mode()
    def prepare(self, initial: Tensor, layers: int) -> Sequence[float]:
        """Have the blocks ask for their prompts; how far the hidden states spread in each but the
        first, with the prompt `initial`, `(length, width)`, alone as the model's input.

        To two digits: machines that round otherwise give the same.
        """
        module: Any = self._module
        sites = find_sites(module)
        blocks = sites.stacks[0]  # of an encoder and a decoder, the encoder's
        if initial.shape[1] != sites.width:
            raise ConfigError(
                f"prompt.layers: {layers} layers cannot share a prompt's width where the model "
                f"embeds words in {initial.shape[1]} and computes in {sites.width} dimensions. "
                "Leave it at 1."
            )
        if layers > len(blocks):
            raise ConfigError(f"prompt.layers: the model has {len(blocks)} layers, found {layers}.")
        spreads: list[float] = []

        def note(block: Any, inputs: tuple[Any, ...], named: dict[str, Any]) -> None:
            hidden = inputs[0] if inputs else named["hidden_states"]
            if hidden.shape[0] != 1 or module.config.model_type in TOKENS_FIRST:
                raise ConfigError(
                    f"prompt.layers: expected layers that take (rows, tokens, width), found "
                    f"{tuple(hidden.shape)} of one row. Leave it at 1."
                )
            spreads.append(float(f"{float(hidden.float().std()):.1e}"))

        handles = [
            block.register_forward_pre_hook(note, with_kwargs=True) for block in blocks[1:layers]
        ]
        encoded = getattr(module.config, "is_encoder_decoder", False)
        body = module.get_encoder() if encoded else module.base_model
        body(input_ids=None, inputs_embeds=initial[None].to(module.dtype))
        for handle in handles:
            handle.remove()
        for number in range(self._blocks + 1, layers):
            self._ask(blocks[number], number - 1)
        self._blocks = max(self._blocks, layers - 1)
        return spreads

    @property
    def current(self) -> Tensor | None:
        """What is being added."""
        return self._deeper

    @contextmanager
    def added(self, deeper: Tensor | None) -> Iterator[None]:
        """Within, the blocks from the second on add these, `(candidates, layers - 1, length,
        width)`, to their inputs: the rows of a candidate follow each other."""
        before, self._deeper = self._deeper, deeper
        try:
            yield
        finally:
            self._deeper = before

    def _ask(self, block: Any, number: int) -> None:
        def add(module: Any, inputs: tuple[Any, ...], named: dict[str, Any]) -> None:
            if self._deeper is None:
                return
            hidden = inputs[0] if inputs else named["hidden_states"]
            prompt = self._deeper[:, number].to(hidden.dtype)
            start, end = self._offset, self._offset + prompt.shape[1]
            hidden.unflatten(0, (len(prompt), -1))[:, :, start:end] += prompt[:, None]

        # before a block is narrowed to what is read of it
        block.register_forward_pre_hook(add, with_kwargs=True, prepend=True)
