"""Deep prompts: a strategy a layer, in turn."""

import numpy as np

from cliptune.strategy import CMAES, LayerByLayer, replay
from cliptune.types import Fitness, Latents


def whole(latents: Latents) -> Fitness:
    """Best at (1, 1, ...), where it is 0."""
    return np.asarray(-((latents - 1) ** 2).sum(axis=1))


def layer_by_layer() -> LayerByLayer:
    return LayerByLayer([CMAES(3, 6, 1.0, 0, layer) for layer in range(2)])


def test_layers_are_searched_in_turn_and_the_others_keep_the_best_latents() -> None:
    strategy, best, highest = layer_by_layer(), np.zeros(6), -np.inf
    for turn in range(8):
        latents = strategy.ask()
        searched, kept = (slice(0, 3), slice(3, 6)) if turn % 2 == 0 else (slice(3, 6), slice(0, 3))
        assert np.array_equal(latents[:, kept], np.tile(best[kept], (6, 1)))
        assert len(np.unique(latents[:, searched], axis=0)) == 6
        fitness = whole(latents)
        strategy.tell(latents, fitness)
        if fitness.max() > highest:
            best, highest = latents[fitness.argmax()], fitness.max()


def test_layers_draw_differently() -> None:
    first, second = layer_by_layer(), layer_by_layer()
    latents = first.ask()
    first.tell(latents, np.zeros(6))
    assert np.array_equal(second.ask(), latents)
    assert not np.allclose(first.ask()[:, 3:], latents[:, :3])


def test_layer_by_layer_finds_the_optimum_of_all_layers() -> None:
    strategy, asked = layer_by_layer(), []
    for _ in range(100):
        asked.append(strategy.ask())
        strategy.tell(asked[-1], whole(asked[-1]))
    assert np.abs(np.array(asked[-2:]) - 1).max() < 0.1


def test_a_layer_that_makes_no_difference_ends_alone() -> None:
    def first_layer_only(latents: Latents) -> Fitness:
        return whole(latents[:, :3])

    strategy, searched = layer_by_layer(), []
    while strategy.termination is None and len(searched) < 400:
        latents = strategy.ask()
        searched.append("first" if len(np.unique(latents[:, :3], axis=0)) > 1 else "second")
        strategy.tell(latents, first_layer_only(latents))
    assert "second" not in searched[40:]
    assert len(searched) > 60
    assert strategy.termination is not None
    assert np.abs(latents[:, :3] - 1).max() < 0.1


def test_layer_by_layer_can_be_relived() -> None:
    live, again = layer_by_layer(), layer_by_layer()
    for _ in range(5):
        latents = live.ask()
        fitness = whole(latents)
        live.tell(latents, fitness)
        assert replay(again, latents, fitness) == 0
    assert np.array_equal(live.ask(), again.ask())
