"""The same model, faster: some of its layers are replaced by ones that do the same with less work.

The model's own code stays in charge. Each change is tried on a few inputs before it stays: where a
model is built otherwise than a change expects, the change is taken back, and `speed_up` says why.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from cliptune.device import is_out_of_memory
from cliptune.errors import ModelError
from cliptune.thinning import Sites, find_sites

TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-4}  # relative, of the scores' norm; else 0.1

Undo = Callable[[], None]
Change = Callable[[], Undo]


class UnsuitedError(Exception):
    """The model is not built as a change expects; says how."""


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


def with_linear_layers(module: nn.Module) -> None:
    """Give a model linear layers where it has GPT-2's, which are the same with weights turned."""
    for parent in list(module.modules()):
        for name, layer in list(parent.named_children()):
            if isinstance(layer, Conv1D):
                linear = nn.Linear(layer.nx, layer.nf, device="meta")
                linear.weight = nn.Parameter(layer.weight.detach().T.contiguous())
                linear.bias = layer.bias
                setattr(parent, name, linear)


def products(module: Any) -> Undo:
    """All linear layers of the blocks by oneDNN."""
    available = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    if module.device.type != "cpu" or not available:
        raise UnsuitedError("there is no oneDNN for its device")
    return swapped(
        [
            (*place(block, linear), Product(linear))
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
        changes.append((*place(block, linear), Product(linear, "gelu")))
        changes.append((*place(block, activations[0]), nn.Identity()))
    return swapped(changes)


def swapped(changes: list[tuple[nn.Module, str, nn.Module]]) -> Undo:
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


def place(block: nn.Module, wanted: nn.Module) -> tuple[nn.Module, str]:
    """The module that holds another one, and under which name."""
    for parent in block.modules():
        for name, child in parent.named_children():
            if child is wanted:
                return parent, name
    raise UnsuitedError(f"its {type(wanted).__name__} was not found")


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
