"""What all examples of a candidate begin with, computed once: its keys and values are shared."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel
from transformers.cache_utils import DynamicLayer

from cliptune.models.fast import UnsuitedError

MOVING = ("dynamic", "longrope")  # rotary positions that depend on how long an input is


class SharedLayer(DynamicLayer):  # type: ignore[misc]
    """A candidate's keys and values `(candidates, heads, prefix, size)`, before each example's."""

    def __init__(self, keys: Tensor, values: Tensor) -> None:
        super().__init__()
        self.keys, self.values = keys, values
        self.is_initialized = True

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Those of whole inputs, of `(candidates * examples, heads, tokens, size)`; keeps none."""
        return _joined(self.keys, key_states), _joined(self.values, value_states)


def _joined(shared: Tensor, own: Tensor) -> Tensor:
    own = own.view(len(shared), -1, *own.shape[1:])
    before = shared[:, None].expand(-1, own.shape[1], -1, -1, -1)
    return torch.cat([before, own], dim=-2).flatten(0, 1)


def moving(module: PreTrainedModel) -> str | None:
    """The kind of a model's rotary positions where they depend on an input's length."""
    config: Any = module.config
    rope = getattr(config, "rope_parameters", None) or {}
    return next((str(kind) for kind in _rope_types(rope) if str(kind) in MOVING), None)


class SharedPrefix:
    """Keys and values of the last prefix that was asked for, of one network."""

    def __init__(self, module: PreTrainedModel) -> None:
        if found := moving(module):
            raise UnsuitedError(f"its rotary positions ({found}) depend on an input's length")
        self._module = module
        self.forget()

    def forget(self) -> None:
        """The network became another one."""
        self._of: tuple[Tensor, Tensor | None] | None = None
        self._cache = DynamicCache()

    def of(self, embedded: Tensor, deeper: Tensor | None) -> DynamicCache:
        """Of the embedded prefixes `(candidates, tokens, width)` under these deep prompts.

        Units of the same candidates follow each other: they are computed for the first one.
        """
        if self._of is None or not all(map(_equal, self._of, (embedded, deeper))):
            self.forget()
            computed = DynamicCache()
            self._module.base_model(
                inputs_embeds=embedded, past_key_values=computed, use_cache=True
            )
            if not all(type(layer) is DynamicLayer for layer in computed.layers):
                raise UnsuitedError("its layers keep something else than keys and values")
            self._cache.layers = [
                SharedLayer(layer.keys, layer.values) for layer in computed.layers
            ]
            self._of = (embedded, deeper)
        return self._cache


def _equal(one: Tensor | None, other: Tensor | None) -> bool:
    if one is None or other is None:
        return one is other
    return one is other or torch.equal(one, other)


def _rope_types(parameters: dict[str, Any]) -> list[Any]:
    """Of all layers, or by the kind of layer."""
    nested = [each for each in parameters.values() if isinstance(each, dict)]
    return [parameters.get("rope_type"), *(kind for each in nested for kind in _rope_types(each))]
