"""Which subnetwork: a few numbers from which any machine rebuilds its masks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cliptune.config import EnsembleConfig, Site


@dataclass(frozen=True, slots=True)
class SubnetworkSpec:
    """The identity of a thinned subnetwork; with clip ratio 0, the whole network."""

    index: int
    seed: int
    clip_ratio: float
    sites: tuple[Site, ...]
    generation: int | None = None  # of dynamic clipping, where each generation has its own masks


FULL_NETWORK = SubnetworkSpec(index=0, seed=0, clip_ratio=0.0, sites=())


def ensemble(config: EnsembleConfig, generation: int) -> tuple[SubnetworkSpec, ...]:
    """The subnetworks that score a generation: N, or the full network where none is clipped."""
    if config.mode == "none" or config.clip_ratio == 0:
        return (FULL_NETWORK,) * config.size
    epoch = generation if config.mode == "dynamic" else None
    return tuple(
        SubnetworkSpec(index, config.seed, config.clip_ratio, config.sites, epoch)
        for index in range(config.size)
    )
