"""Attention in fewer operations, and the last block at the one position that is read."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AttentionInterface
from transformers.masking_utils import (
    ALL_MASK_ATTENTION_FUNCTIONS,
    bidirectional_mask_function,
    sdpa_mask,
)

from cliptune.models.fast import Undo, UnsuitedError, place, swapped
from cliptune.thinning import Sites

ATTENTION = "cliptune"
PROJECTIONS = (("query", "key", "value"), ("q_lin", "k_lin", "v_lin"))
LOG2_E = math.log2(math.e)
SAFE_SUMS = (1e-30, 1e30)


def attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    **others: Any,
) -> tuple[Tensor, None]:
    """Attention of `(rows, heads, tokens, size)` to `(rows, tokens, heads, size)`.

    In a block that is narrowed to the positions read, there is one query a row, and in the place
    of keys and values stands what they would be made of: the hidden states of all tokens, which the
    model's code has taken for as many heads.
    """
    heads, asked, size = query.shape[1:]
    if getattr(module, "is_causal", False):
        raise UnsuitedError("its attention is causal")
    if unknown := sorted(name for name, value in others.items() if value is not None):
        raise UnsuitedError(f"its attention is given {', '.join(unknown)}")
    scale = size**-0.5 if scaling is None else scaling
    if asked == 1 and key.shape[2] == 1 and key.shape[1] != heads:
        return _from_one_position(module, query, key, attention_mask, scale), None
    mixed = None
    if query.device.type == "cpu" and query.dtype != torch.float16:
        mixed = _exponentials(query, key, value, attention_mask, scale)
    if mixed is None:
        mixed = F.scaled_dot_product_attention(
            query, key, value, attn_mask=attention_mask, scale=scale
        )
    return mixed.transpose(1, 2), None


def _exponentials(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scale: float
) -> Tensor | None:
    """softmax(scale q k^T) v with one pass over the scores, in powers of 2.

    The largest score is not subtracted: then exponentials may leave the range of their type, and
    there is no result. A mask that hides the same keys from all queries is applied to the values
    and in the product that sums up. On CPUs a softmax costs far more than the products around it.
    """
    if mask is not None and not _hides_from_all(mask):
        return None
    rows, heads, asked, size = query.shape
    tokens = key.shape[2]
    flat = (rows * heads, -1, size)
    if mask is None:
        values = value.reshape(flat)
        ones = value.new_ones(1, 1, 1).expand(rows * heads, tokens, 1)
    else:
        seen = mask[:, 0, 0]
        row, token = (~seen).nonzero(as_tuple=True)
        copied = value.clone(memory_format=torch.contiguous_format)
        copied[row, :, token] = 0
        values = copied.view(flat)
        ones = seen.to(value.dtype).repeat_interleave(heads, dim=0)[..., None]
    weights = query.new_empty(rows * heads, asked, tokens)
    weights.baddbmm_(
        query.reshape(flat), key.reshape(flat).transpose(1, 2), beta=0, alpha=scale * LOG2_E
    )
    weights.exp2_()
    sums = torch.bmm(weights, ones)
    low, high = SAFE_SUMS
    if not (float(sums.amin()) > low and float(sums.amax()) < high):
        return None
    mixed = torch.bmm(weights, values).div_(sums)
    return mixed.view(rows, heads, asked, size)


def _from_one_position(
    module: nn.Module, query: Tensor, hidden: Tensor, mask: Tensor | None, scale: float
) -> Tensor:
    """Attention of one query a row, `(rows, heads, 1, size)`, to `(rows, 1, heads, size)`.

    Keys and values are linear in the hidden states h, and need not be made: q (K h) = (q K) h, and
    the weights' mean of V h + b is V (the mean of h) + b. A key's bias adds the same to all scores
    of a query, which the softmax takes out again.
    """
    rows, heads, _, size = query.shape
    key, value = (_linear(projection) for projection in _projections(module)[1:])
    hidden = hidden.reshape(rows, -1, key.in_features)
    asked = torch.bmm(query[:, :, 0].transpose(0, 1), key.weight.view(heads, size, -1))
    scores = torch.bmm(asked.transpose(0, 1), hidden.transpose(1, 2))  # (rows, heads, tokens)
    wide = scores.to(torch.promote_types(scores.dtype, torch.float32)) * scale
    if mask is not None:
        wide = wide.masked_fill(~mask[:, :, 0], -torch.inf)
    means = torch.bmm(wide.softmax(dim=-1).to(hidden.dtype), hidden)  # (rows, heads, width)
    mixed = torch.bmm(means.transpose(0, 1), value.weight.view(heads, size, -1).transpose(1, 2))
    found = mixed.transpose(0, 1)
    if value.bias is not None:
        found = found + value.bias.view(heads, size)
    return found[:, None]


def _hides_from_all(mask: Tensor) -> bool:
    """Whether a mask `(rows, 1, 1, keys)` is of padding, the same for every query."""
    return mask.dtype == torch.bool and mask.shape[1:3] == (1, 1)


def visible_keys(**given: Any) -> Tensor | None:
    """A mask of padding alone as `(rows, 1, 1, keys)`; any other as torch's attention has it."""
    mask = given.get("attention_mask")
    plain = given.get("mask_function") is bidirectional_mask_function
    if plain and mask is not None and mask.shape == (given["batch_size"], given["kv_length"]):
        return torch.as_tensor(mask, dtype=torch.bool)[:, None, None]
    general: Tensor | None = sdpa_mask(**given)
    return general


AttentionInterface.register(ATTENTION, attend)
ALL_MASK_ATTENTION_FUNCTIONS.register(ATTENTION, visible_keys)


def own_attention(module: Any) -> Undo:
    """Attention in fewer passes over its scores."""
    before = module.config._attn_implementation
    if not getattr(module, "_can_set_attn_implementation", lambda: True)():
        raise UnsuitedError("its attention cannot be chosen")
    try:
        module.set_attn_implementation(ATTENTION)
    except (ValueError, AttributeError) as error:
        raise UnsuitedError(f"its attention cannot be chosen ({error})") from None
    return lambda: module.set_attn_implementation(before)


class OnlyWhereRead:
    """Narrows the last block to one position a row: nobody reads its output elsewhere.

    `attend` still meets the hidden states of all positions, of which no keys or values are made.
    """

    def __init__(self, sites: Sites) -> None:
        self.read_at: Tensor | None = None  # (rows,)
        self.hidden: Tensor | None = None
        self.read: Tensor | None = None
        block = sites.blocks[-1]
        if len(sites.blocks) < 2:
            raise UnsuitedError("it has one block only")
        _, key, value = _projections(block)
        self._restore = swapped(
            [(*place(block, each), Unprojected(_linear(each), self)) for each in (key, value)]
        )
        self._handle = block.register_forward_pre_hook(self._narrow, with_kwargs=True)

    def remove(self) -> None:
        self._handle.remove()
        self._restore()

    def _narrow(self, module: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any]) -> Any:
        if self.read_at is None:
            return None
        self.hidden = hidden = inputs[0] if inputs else named["hidden_states"]
        rows = torch.arange(len(hidden), device=hidden.device)
        self.read = read = hidden[rows, self.read_at][:, None]
        return (
            ((read, *inputs[1:]), named) if inputs else (inputs, {**named, "hidden_states": read})
        )

    @contextmanager
    def at(self, positions: Tensor) -> Iterator[None]:
        """Within, the last block is computed at these positions, one a row."""
        self.read_at = positions
        try:
            yield
        finally:
            self.read_at = self.hidden = self.read = None


class Unprojected(nn.Module):
    """Stands where keys or values are made, and hands on what they would be made of.

    Outside of `OnlyWhereRead.at` it makes them.
    """

    def __init__(self, linear: nn.Linear, narrowed: OnlyWhereRead) -> None:
        super().__init__()
        self.linear = linear
        self._narrowed = narrowed

    def forward(self, input: Tensor) -> Tensor:
        """`(rows, 1, width)`, the positions read, to `(rows, tokens, width)`."""
        if self._narrowed.read_at is None:
            projected: Tensor = self.linear(input)
            return projected
        if input is not self._narrowed.read or self._narrowed.hidden is None:
            raise UnsuitedError("its keys and values are not taken from the block's own input")
        return self._narrowed.hidden


def _linear(projection: nn.Module) -> nn.Linear:
    linear = projection.linear if isinstance(projection, Unprojected) else projection
    if not isinstance(linear, nn.Linear):
        raise UnsuitedError("its keys and values are not made by linear layers")
    return linear


def _projections(block: nn.Module) -> tuple[nn.Module, ...]:
    """What makes queries, keys and values."""
    for names in PROJECTIONS:
        for module in block.modules():
            if all(hasattr(module, name) for name in names):
                return tuple(getattr(module, name) for name in names)
    raise UnsuitedError("the projections to its keys and values were not found")
