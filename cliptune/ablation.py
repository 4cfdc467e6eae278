"""What clipping saves, and what each change to the model is worth: the scorer against itself."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Hashable, Iterable
from dataclasses import replace
from typing import Any, TypeVar

from cliptune.contenders import Scorer, Work
from cliptune.local import LocalScorer

K = TypeVar("K", bound=Hashable)

CLIP_RATIOS = (0.0, 0.1, 0.3, 0.5)
CLIP_SITES = (("ffn-hidden",), ("embedding", "attention-output", "ffn-output"))
NOTHING = "nothing"
EVERYTHING = "everything"


def clip_table(work: Work, rounds: int) -> list[dict[str, Any]]:
    """Seconds of the population through one subnetwork, by clip ratio and sites."""
    scorer, before = work.scorer, work.scorer.config

    def seconds(cell: tuple[tuple[str, ...], float]) -> float:
        update = {"sites": cell[0], "clip_ratio": cell[1], "subnetworks": 1, "size": 1}
        network = before.ensemble.model_copy(update=update)
        scorer.config = before.model_copy(update={"ensemble": network})
        try:
            return Scorer(work).round()
        finally:
            scorer.config = before

    cells = [(sites, ratio) for sites in CLIP_SITES for ratio in CLIP_RATIOS]
    return [
        {"sites": list(sites), "clip_ratio": ratio, "seconds": took}
        for (sites, ratio), took in _medians(seconds, cells, rounds).items()
    ]


def change_table(work: Work, rounds: int) -> list[dict[str, Any]]:
    """Seconds of the population through all subnetworks, without each change to the model."""
    config, task = work.scorer.config, work.scorer.task
    changes = tuple(work.scorer.model.changes())
    left_out = {NOTHING: (), **{name: (name,) for name in changes}, EVERYTHING: changes}
    scorers = {name: LocalScorer(config, task, without=names) for name, names in left_out.items()}
    found = _medians(
        lambda name: Scorer(replace(work, scorer=scorers[name])).round(), scorers, rounds
    )
    return [
        {"without": name, "so_left": list(scorers[name].model.as_it_was), "seconds": took}
        for name, took in found.items()
    ]


def _medians(seconds: Callable[[K], float], cells: Iterable[K], rounds: int) -> dict[K, float]:
    """Of each cell's rounds; they take turns, after a round that does not count."""
    times: dict[K, list[float]] = {cell: [] for cell in cells}
    for number in range(rounds + 1):
        for cell, taken in times.items():
            took = seconds(cell)
            if number > 0:
                taken.append(took)
    return {cell: statistics.median(taken) for cell, taken in times.items()}
