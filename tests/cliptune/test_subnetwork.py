"""Which subnetworks score a generation."""

from typing import Any

import pytest

from cliptune.config import EnsembleConfig
from cliptune.subnetwork import FULL_NETWORK, SubnetworkSpec, ensemble


def networks(generation: int = 0, **settings: Any) -> tuple[SubnetworkSpec, ...]:
    return ensemble(EnsembleConfig(subnetworks=3, seed=9, **settings), generation)


def test_static_clipping_numbers_its_subnetworks_under_one_seed() -> None:
    found = networks(clip_ratio=0.2, sites=("ffn-hidden",))
    assert found == tuple(SubnetworkSpec(i, 9, 0.2, ("ffn-hidden",), None) for i in range(3))


def test_static_subnetworks_are_the_same_in_every_generation() -> None:
    assert networks(0) == networks(5)


def test_dynamic_subnetworks_are_new_in_every_generation() -> None:
    assert [spec.generation for spec in networks(5, mode="dynamic")] == [5, 5, 5]
    assert not set(networks(0, mode="dynamic")) & set(networks(1, mode="dynamic"))


def test_dynamic_subnetworks_are_never_static_ones() -> None:
    assert not set(networks(0, mode="dynamic")) & set(networks(0))


def test_without_clipping_the_full_network_scores_alone() -> None:
    assert networks(mode="none", clip_ratio=0.2) == (FULL_NETWORK,)


@pytest.mark.parametrize("mode", ["static", "dynamic"])
def test_a_clip_ratio_of_zero_is_the_full_network_for_every_critic(mode: str) -> None:
    assert networks(4, mode=mode, clip_ratio=0) == (FULL_NETWORK,) * 3


@pytest.mark.parametrize("mode", ["static", "dynamic", "none"])
def test_as_many_networks_as_the_config_says(mode: str) -> None:
    config = EnsembleConfig(subnetworks=4, mode=mode)  # type: ignore[arg-type]
    assert len(ensemble(config, 0)) == config.size
