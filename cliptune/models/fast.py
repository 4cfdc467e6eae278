"""The same model, faster: some of its layers are replaced by ones that do the same with less work.

The model's own code stays in charge. Each change is tried on a few inputs before it stays: where a
model is built otherwise than a change expects, the change is taken back, and `speed_up` says why.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AttentionInterface
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, sdpa_mask

from cliptune.device import is_out_of_memory
from cliptune.errors import ModelError
from cliptune.thinning import Sites, find_sites

ATTENTION = "cliptune"
PROJECTIONS = (("query", "key", "value"), ("q_lin", "k_lin", "v_lin"))
LOG2_E = math.log2(math.e)
SAFE_SUMS = (1e-30, 1e30)
TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-4}  # relative, of the scores' norm; else 0.1

Undo = Callable[[], None]
Change = Callable[[], Undo]


class UnsuitedError(Exception):
    """The model is not built as a change expects; says how."""


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

    In a block that is narrowed to the positions read, there is one query a row, and the model's
    code has taken the keys of all tokens for as many heads.
    """
    rows, heads, asked, size = query.shape
    if getattr(module, "is_causal", False):
        raise UnsuitedError("its attention is causal")
    if unknown := sorted(name for name, value in others.items() if value is not None):
        raise UnsuitedError(f"its attention is given {', '.join(unknown)}")
    if asked == 1 and key.shape[2] == 1 and key.shape[1] != heads:
        key, value = (
            whole.transpose(1, 2).reshape(rows, -1, heads, size).transpose(1, 2)
            for whole in (key, value)
        )
        attention_mask = None if attention_mask is None else attention_mask[:, :, :1]
    scale = size**-0.5 if scaling is None else scaling
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
    seen = value.new_ones(1, 1, 1) if mask is None else mask[:, :1, 0, :, None].to(value.dtype)
    values = value.reshape(flat) if mask is None else (value * seen).reshape(flat)
    weights = query.new_empty(rows * heads, asked, tokens)
    weights.baddbmm_(
        query.reshape(flat), key.reshape(flat).transpose(1, 2), beta=0, alpha=scale * LOG2_E
    )
    weights.exp2_()
    ones = seen.expand(rows, heads, tokens, 1).reshape(-1, tokens, 1)
    sums = torch.bmm(weights, ones)
    low, high = SAFE_SUMS
    if not (float(sums.amin()) > low and float(sums.amax()) < high):
        return None
    mixed = torch.bmm(weights, values).div_(sums)
    return mixed.view(rows, heads, asked, size)


def _hides_from_all(mask: Tensor) -> bool:
    """Whether a mask `(rows, heads, queries, keys)` is of padding, the same for every query."""
    return mask.dtype == torch.bool and bool((mask == mask[:, :1, :1]).all())


AttentionInterface.register(ATTENTION, attend)
ALL_MASK_ATTENTION_FUNCTIONS.register(ATTENTION, sdpa_mask)


def own_attention(module: Any) -> Undo:
    """Attention in fewer passes over its scores."""
    before = module.config._attn_implementation
    try:
        module.set_attn_implementation(ATTENTION)
    except (ValueError, AttributeError) as error:
        raise UnsuitedError(f"its attention cannot be chosen ({error})") from None
    return lambda: module.set_attn_implementation(before)


class Product(nn.Linear):
    """A linear layer by oneDNN, its bias and perhaps an exact GELU added in the same pass.

    torch's own writes the bias first and then adds the product to it.
    """

    def __init__(self, linear: nn.Linear, activation: str = "none") -> None:
        super().__init__(linear.in_features, linear.out_features, device="meta")
        self.weight, self.bias = linear.weight, linear.bias
        self._activation = activation

    def forward(self, input: Tensor) -> Tensor:
        """`(..., in)` to `(..., out)`."""
        product: Tensor = torch.ops.mkldnn._linear_pointwise(
            input, self.weight, self.bias, self._activation, [], "none"
        )
        return product


def products(module: Any) -> Undo:
    """All linear layers of the blocks by oneDNN."""
    available = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    if module.device.type != "cpu" or not available:
        raise UnsuitedError("there is no oneDNN for its device")
    return _swapped(
        [
            (*_place(block, linear), Product(linear))
            for block in sites_of(module).blocks
            for linear in block.modules()
            if type(linear) is nn.Linear
        ]
    )


def fused_gelu(module: Any) -> Undo:
    """The feed-forward layer's first half as one operation."""
    changes: list[tuple[nn.Module, str, nn.Module]] = []
    for block, linear in zip(*_ffn_inputs(sites_of(module)), strict=True):
        activations = [m for m in block.modules() if _is_exact_gelu(m)]
        if len(activations) != 1:
            raise UnsuitedError("its feed-forward layers have another activation than GELU")
        if not isinstance(linear, Product):
            raise UnsuitedError("its linear layers are not oneDNN's")
        changes.append((*_place(block, linear), Product(linear, "gelu")))
        changes.append((*_place(block, activations[0]), nn.Identity()))
    return _swapped(changes)


def _swapped(changes: list[tuple[nn.Module, str, nn.Module]]) -> Undo:
    """Put modules in others' places: each is given with its parent and name."""
    before = [(parent, name, getattr(parent, name)) for parent, name, _ in changes]
    for parent, name, new in changes:
        setattr(parent, name, new)

    def undo() -> None:
        for parent, name, old in before:
            setattr(parent, name, old)

    return undo


def _ffn_inputs(sites: Sites) -> tuple[tuple[nn.Module, ...], tuple[nn.Linear, ...]]:
    if sites.ffn_inputs is None:
        raise UnsuitedError("its feed-forward layers do not begin with one linear layer")
    return sites.blocks, sites.ffn_inputs


def _is_exact_gelu(module: nn.Module) -> bool:
    exact = getattr(module, "approximate", "none") == "none"
    return exact and type(module).__name__ in ("GELU", "GELUActivation")


def _place(block: nn.Module, wanted: nn.Module) -> tuple[nn.Module, str]:
    """The module that holds another one, and under which name."""
    for parent in block.modules():
        for name, child in parent.named_children():
            if child is wanted:
                return parent, name
    raise UnsuitedError(f"its {type(wanted).__name__} was not found")


class OnlyWhereRead:
    """Narrows the last block to one position a row: nobody reads its output elsewhere.

    Its keys and values still come from all positions.
    """

    def __init__(self, sites: Sites) -> None:
        self.read_at: Tensor | None = None  # (rows,)
        self._hidden: Tensor | None = None
        self._read: Tensor | None = None
        block = sites.blocks[-1]
        if len(sites.blocks) < 2:
            raise UnsuitedError("it has one block only")
        _, key, value = _projections(block)
        self._handles = [
            block.register_forward_pre_hook(self._narrow, with_kwargs=True),
            key.register_forward_pre_hook(self._widen),
            value.register_forward_pre_hook(self._widen),
        ]

    def remove(self) -> None:
        for handle in self._handles:
            handle.remove()

    def _narrow(self, module: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any]) -> Any:
        if self.read_at is None:
            return None
        self._hidden = hidden = inputs[0] if inputs else named["hidden_states"]
        rows = torch.arange(len(hidden), device=hidden.device)
        self._read = read = hidden[rows, self.read_at][:, None]
        return (
            ((read, *inputs[1:]), named) if inputs else (inputs, {**named, "hidden_states": read})
        )

    def _widen(self, module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...] | None:
        if self.read_at is None:
            return None
        if inputs[0] is not self._read:
            raise UnsuitedError("its keys and values are not taken from the block's own input")
        return (self._hidden,)

    @contextmanager
    def at(self, positions: Tensor) -> Iterator[None]:
        """Within, the last block is computed at these positions, one a row."""
        self.read_at = positions
        try:
            yield
        finally:
            self.read_at = self._hidden = self._read = None


def _projections(block: nn.Module) -> tuple[nn.Module, nn.Module, nn.Module]:
    for names in PROJECTIONS:
        for module in block.modules():
            if all(hasattr(module, name) for name in names):
                query, key, value = (getattr(module, name) for name in names)
                return query, key, value
    raise UnsuitedError("the projections to its keys and values were not found")


def sites_of(module: nn.Module) -> Sites:
    """The model's blocks; UnsuitedError where they cannot be found."""
    try:
        return find_sites(module)
    except ModelError as error:
        raise UnsuitedError(str(error)) from None


def try_out(change: Change, scores: Callable[[], Tensor], dtype: torch.dtype) -> str | None:
    """Make a change that must not change the scores, or take it back and say why."""
    undo: Undo | None = None
    try:
        before = scores()
        undo = change()
        after = scores()
    except Exception as error:  # the model's own code, used otherwise than it was meant
        if undo is not None:
            undo()
        if is_out_of_memory(error):  # says nothing of the change: with more, it would be made
            raise
        if isinstance(error, UnsuitedError):
            return str(error)
        return f"it fails there ({type(error).__name__}: {' '.join(str(error).split()):.200})"
    off = float((after - before).norm() / before.norm())
    if not off <= TOLERANCE.get(dtype, 0.1):
        undo()
        return f"its scores would change, by {off:.1e} of their norm"
    return None
