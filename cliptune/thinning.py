"""Thinned subnetworks: a frozen model with a fixed part of its hidden units dropped.

Chai et al. (2022) call it stationary clipping: every unit of a site is dropped with probability
p, once and for all tokens, examples and candidates; survivors are divided by 1 - p.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from cliptune.randomness import bits
from cliptune.sites import Sites, find_sites
from cliptune.subnetwork import FULL_NETWORK, SubnetworkSpec

UNITS = 32  # matrix units work on multiples of it


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


class Thinner:
    """Turns a model into any of its subnetworks: masks are multiplied into weights.

    A thinned model runs no slower than the whole one, and faster where ffn-hidden units are
    dropped: these are not computed. Only the embedding site, which has no weight of its own in
    every family, is a multiplication at run time. Beside the model's own weights, those of one
    subnetwork's thinned layers exist. Quantised weights are left alone: there all sites are
    multiplied at run time.
    """

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._sites: Sites | None = None
        self._whole: list[tuple[Any, nn.Parameter, nn.Parameter | None]] = []
        self._hooks: list[RemovableHandle] = []
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
        layers = (*sites.attention_outputs, *sites.ffn_outputs)
        if not all(layer.weight.is_floating_point() for layer in layers):
            self._hooks = _scale_sites(sites, spec)
            return
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
            self._hooks = _scale_block_inputs(sites, spec)

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
        for hook in self._hooks:
            hook.remove()
        self._hooks = []


@contextmanager
def hooked(model: nn.Module, spec: SubnetworkSpec) -> Iterator[None]:
    """The oracle: within, every site's tensor is multiplied by its mask as the model runs.

    Slower than `Thinner` and literally the definition, which is what it is for.
    """
    handles = _scale_sites(find_sites(model), spec) if spec.clip_ratio > 0 else []
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _scale_sites(sites: Sites, spec: SubnetworkSpec) -> list[RemovableHandle]:
    """Have every site's tensor multiplied as the model runs."""
    handles: list[RemovableHandle] = []
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
    return handles


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


def _scale_output(layer: nn.Linear, spec: SubnetworkSpec, site: str) -> RemovableHandle:
    scale = unit_scale(spec, site, layer.out_features)

    def multiply(module: nn.Module, inputs: Any, output: Tensor) -> Tensor:
        nonlocal scale
        scale = scale.to(output)
        return output * scale

    return layer.register_forward_hook(multiply)


def _scale_input(layer: nn.Linear, spec: SubnetworkSpec, site: str) -> RemovableHandle:
    scale = unit_scale(spec, site, layer.in_features)

    def multiply(module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        nonlocal scale
        scale = scale.to(inputs[0])
        return (inputs[0] * scale, *inputs[1:])

    return layer.register_forward_pre_hook(multiply)


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
