"""Thinned subnetworks: a frozen model with a fixed part of its hidden units dropped.

Chai et al. (2022) call it stationary clipping: every unit of a site is dropped with probability
p, once and for all tokens, examples and candidates; survivors are divided by 1 - p. Sites are
tensors between a model's modules:

    embedding         the input of the first block; of an encoder's and of a decoder's
    attention-output  what attention adds to the residual stream, a block
    ffn-hidden        the activation inside the feed-forward layer, a block
    ffn-output        what the feed-forward layer adds to the residual stream, a block
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from cliptune.errors import ModelError
from cliptune.randomness import bits
from cliptune.subnetwork import FULL_NETWORK, SubnetworkSpec

UNITS = 32  # matrix units work on multiples of it

Writers = tuple[tuple[nn.Linear, ...], nn.Linear]  # of a block: its attentions', its ffn's


def keep_mask(spec: SubnetworkSpec, site: str, units: int) -> NDArray[np.bool_]:
    """Which of a site's units survive, `(units,)`; `site` is e.g. `ffn-output/3`, by block.

    Depends on the ensemble's seed, the subnetwork and the site alone. Unit u is dropped where
    the u-th 64-bit word of the generator, read as a fraction of 2^64, is below the clip ratio.
    """
    purpose = ("mask", spec.seed, spec.index, spec.generation, site)
    words = bits(*purpose).random_raw(units) >> np.uint64(11)
    return np.asarray(words >= np.uint64(spec.clip_ratio * 2.0**53))


def unit_scale(spec: SubnetworkSpec, site: str, units: int) -> Tensor:
    """What a site's units are multiplied by, `(units,)` float32: 0, or 1 / (1 - p)."""
    kept = keep_mask(spec, site, units).astype(np.float32)
    return torch.from_numpy(kept / np.float32(1.0 - spec.clip_ratio))


@dataclass(frozen=True)
class Sites:
    """Where a model can be thinned, in the order in which it computes: an encoder before a decoder.

    A decoder's block that attends to the encoder, too, has two attention outputs.
    """

    stacks: tuple[tuple[nn.Module, ...], ...]  # blocks; two stacks where a decoder has an encoder
    attention_outputs: tuple[nn.Linear, ...]
    ffn_outputs: tuple[nn.Linear, ...]  # one a block
    ffn_inputs: tuple[nn.Linear, ...] | None  # None where not one layer a block makes ffn-hidden
    width: int

    @property
    def blocks(self) -> tuple[nn.Module, ...]:
        """The blocks of all stacks."""
        return tuple(block for stack in self.stacks for block in stack)


def find_sites(model: nn.Module) -> Sites:
    """Find a transformer's blocks and, in each, the layers that write to the residual stream.

    In a block these are the last linear layer of each attention and the last one outside of it
    among those with the model's width as output.
    """
    config: Any = model.config
    width = config.hidden_size
    found = [_stack(part, depth, width) for part, depth in _parts(model)]
    if not all(found):
        depths = " and ".join(str(depth) for _, depth in _parts(model))
        raise ModelError(
            f"{type(model).__name__} cannot be thinned: expected {depths} blocks, each with an "
            f"attention and a feed-forward part that end in a linear layer of width {width}; found "
            "none. Set ensemble.mode to none to search without clipping."
        )
    writers = [pair for pairs in found for pair in pairs.values()]
    attention = tuple(layer for layers, _ in writers for layer in layers)
    ffn = tuple(layer for _, layer in writers)
    stacks = tuple(tuple(pairs) for pairs in found)
    blocks = (block for stack in stacks for block in stack)
    inputs = [_readers(*pair, width) for pair in zip(blocks, ffn, strict=True)]
    alone = all(len(layers) == 1 for layers in inputs)
    first = tuple(layers[0] for layers in inputs) if alone else None
    return Sites(stacks, attention, ffn, first, width)


def _parts(model: Any) -> list[tuple[nn.Module, int]]:
    """What has blocks of its own, and how many: the model, or its encoder and its decoder."""
    config = model.config
    if not getattr(config, "is_encoder_decoder", False):
        return [(model, config.num_hidden_layers)]
    deep = getattr(config, "num_decoder_layers", None) or config.decoder_layers
    return [(model.get_encoder(), config.num_hidden_layers), (model.get_decoder(), deep)]


def _stack(part: nn.Module, depth: int, width: int) -> dict[nn.Module, Writers]:
    """The blocks of a model's part with their writers; empty where they are not found."""
    lists = [m for m in part.modules() if isinstance(m, nn.ModuleList) and len(m) == depth]
    for blocks in lists:
        found = {block: _writers(block, width) for block in blocks}
        if all(attention and ffn for attention, ffn in found.values()):
            return {block: (layers, ffn) for block, (layers, ffn) in found.items() if ffn}
    return {}


def _writers(block: nn.Module, width: int) -> tuple[tuple[nn.Linear, ...], nn.Linear | None]:
    """The last layer of each attention, and that of the feed-forward part.

    None of a mixture of experts, whose units are other ones for each token.
    """
    attention: dict[str, nn.Linear] = {}
    ffn = None
    for name, module in block.named_modules():
        if "expert" in name.lower():
            return (), None
        if isinstance(module, nn.Linear) and module.out_features == width:
            if within := _attention(name):
                attention[within] = module
            else:
                ffn = module
    return tuple(attention.values()), ffn


def _attention(name: str) -> str:
    """The attention that a module of a block belongs to, by its name; empty for none."""
    parts = name.split(".")
    for i, part in enumerate(parts):
        if "attn" in part.lower() or "attention" in part.lower():
            return ".".join(parts[: i + 1])
    return ""


def _readers(block: nn.Module, ffn: nn.Linear, width: int) -> list[nn.Linear]:
    """The linear layers of a block from the model's width to that of its ffn-hidden units."""
    return [
        module
        for name, module in block.named_modules()
        if isinstance(module, nn.Linear)
        and (module.in_features, module.out_features) == (width, ffn.in_features)
        and module is not ffn
        and not _attention(name)
    ]


class Thinner:
    """Turns a model into any of its subnetworks: masks are multiplied into weights.

    A thinned model runs no slower than the whole one, and faster where ffn-hidden units are
    dropped: these are not computed. Only the embedding site, which has no weight of its own in
    every family, is a multiplication at run time. Beside the model's own weights, those of one
    subnetwork's thinned layers exist.
    """

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._sites: Sites | None = None
        self._whole: list[tuple[Any, nn.Parameter, nn.Parameter | None]] = []
        self._embedding_hooks: list[RemovableHandle] = []
        self.current = FULL_NETWORK

    def switch(self, spec: SubnetworkSpec) -> None:
        """Make the model the subnetwork that `spec` names."""
        if spec == self.current:
            return
        self._restore()
        try:
            if spec.clip_ratio > 0:
                self._fold(spec)
        except BaseException:  # memory may run out half-way
            self._restore()
            raise
        self.current = spec

    def _fold(self, spec: SubnetworkSpec) -> None:
        self._sites = sites = self._sites or find_sites(self._model)
        for number, layer in enumerate(sites.attention_outputs):
            if "attention-output" in spec.sites:
                self._put(layer, *_scaled(layer, spec, f"attention-output/{number}"))
        for block, layer in enumerate(sites.ffn_outputs):
            weight: Tensor = layer.weight
            bias: Tensor | None = layer.bias
            if "ffn-output" in spec.sites:
                weight, bias = _scaled(layer, spec, f"ffn-output/{block}")
            if "ffn-hidden" in spec.sites:
                kept, scale = _columns(spec, f"ffn-hidden/{block}", layer.in_features)
                if sites.ffn_inputs is None:
                    kept = torch.arange(layer.in_features)
                else:
                    first = sites.ffn_inputs[block]
                    rows = kept.to(first.weight.device)
                    self._put(
                        first,
                        first.weight[rows],
                        first.bias[rows] if first.bias is not None else None,
                    )
                weight = _times(weight[:, kept.to(weight.device)], scale[kept])
            if weight is not layer.weight:
                self._put(layer, weight, bias)
        if "embedding" in spec.sites:
            self._embedding_hooks = _scale_block_inputs(sites, spec)

    def _put(self, layer: Any, weight: Tensor, bias: Tensor | None) -> None:
        """Give a layer other weights, of another shape perhaps, and keep its own."""
        self._whole.append((layer, layer.weight, layer.bias))
        dtype = layer.weight.dtype
        layer.weight = nn.Parameter(weight.to(dtype).contiguous(), requires_grad=False)
        if bias is not None:
            layer.bias = nn.Parameter(bias.to(dtype), requires_grad=False)

    def _restore(self) -> None:
        self.current = FULL_NETWORK
        for layer, weight, bias in self._whole:
            layer.weight = weight
            layer.bias = bias
        self._whole = []
        for hook in self._embedding_hooks:
            hook.remove()
        self._embedding_hooks = []


@contextmanager
def hooked(model: nn.Module, spec: SubnetworkSpec) -> Iterator[None]:
    """The oracle: within, every site's tensor is multiplied by its mask as the model runs.

    Slower than `Thinner` and literally the definition, which is what it is for.
    """
    handles: list[RemovableHandle] = []
    if spec.clip_ratio > 0:
        sites = find_sites(model)
        if "embedding" in spec.sites:
            handles += _scale_block_inputs(sites, spec)
        if "attention-output" in spec.sites:
            for number, layer in enumerate(sites.attention_outputs):
                handles.append(_scale_output(layer, spec, f"attention-output/{number}"))
        for block, ffn in enumerate(sites.ffn_outputs):
            if "ffn-hidden" in spec.sites:
                handles.append(_scale_input(ffn, spec, f"ffn-hidden/{block}"))
            if "ffn-output" in spec.sites:
                handles.append(_scale_output(ffn, spec, f"ffn-output/{block}"))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _scaled(layer: nn.Linear, spec: SubnetworkSpec, site: str) -> tuple[Tensor, Tensor | None]:
    """A layer's weight and bias with a site's scale on their output units."""
    rows = unit_scale(spec, site, layer.out_features)
    weight = _times(layer.weight, rows[:, None])
    return weight, None if layer.bias is None else _times(layer.bias, rows)


def _columns(spec: SubnetworkSpec, site: str, units: int) -> tuple[Tensor, Tensor]:
    """Which of a site's units are computed, and the scale of all of them.

    The survivors, and as many of the dropped ones, scaled by 0, as make a multiple of UNITS.
    """
    scale = unit_scale(spec, site, units)
    order = torch.argsort((scale == 0).to(torch.int8), stable=True)
    survivors = int((scale != 0).sum())
    computed = min(units, -(-max(survivors, 1) // UNITS) * UNITS)
    return order[:computed].sort().values, scale


def _times(weight: Tensor, scale: Tensor) -> Tensor:
    """A product in at least single precision."""
    wide = torch.promote_types(weight.dtype, torch.float32)
    return weight.detach().to(wide) * scale.to(weight.device)


def _scale_output(module: nn.Module, spec: SubnetworkSpec, site: str) -> RemovableHandle:
    def multiply(module: nn.Module, inputs: Any, output: Tensor) -> Tensor:
        return output * unit_scale(spec, site, output.shape[-1]).to(output)

    return module.register_forward_hook(multiply)


def _scale_input(module: nn.Module, spec: SubnetworkSpec, site: str) -> RemovableHandle:
    def multiply(module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        return (inputs[0] * unit_scale(spec, site, inputs[0].shape[-1]).to(inputs[0]), *inputs[1:])

    return module.register_forward_pre_hook(multiply)


def _scale_block_inputs(sites: Sites, spec: SubnetworkSpec) -> list[RemovableHandle]:
    return [
        _scale_block_input(stack[0], unit_scale(spec, f"embedding/{number}", sites.width))
        for number, stack in enumerate(sites.stacks)
    ]


def _scale_block_input(block: nn.Module, scale: Tensor) -> RemovableHandle:
    def multiply(module: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any]) -> Any:
        nonlocal scale
        hidden = inputs[0] if inputs else named["hidden_states"]
        scale = scale.to(hidden)
        scaled = hidden * scale
        if inputs:
            return (scaled, *inputs[1:]), named
        return inputs, {**named, "hidden_states": scaled}

    return block.register_forward_pre_hook(multiply, with_kwargs=True)
