"""What clipping saves, and what each change to the model is worth: the scorer against itself."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from statistics import median
from typing import Any

from cliptune.comparison import alternate
from cliptune.contenders import Scorer, Work
from cliptune.local import LocalScorer

DEFAULT_SITES = ("embedding", "attention-output", "ffn-output")
CLIP_SITES = (("ffn-hidden",), DEFAULT_SITES)
CLIP_RATIOS = (0.0, 0.1, 0.3, 0.5)
NOTHING = "nothing"
EVERYTHING = "everything"


def clip_table(work: Work, rounds: int) -> list[dict[str, Any]]:
    """Seconds of the population through one subnetwork, by clip ratio and sites."""
    cells = [(sites, ratio) for sites in CLIP_SITES for ratio in CLIP_RATIOS]
    turns = {
        f"{','.join(sites)} {ratio}": partial(_clipped, work, sites, ratio)
        for sites, ratio in cells
    }
    times = alternate(turns, rounds).values()
    return [
        {"sites": list(sites), "clip_ratio": ratio, "seconds": median(took)}
        for (sites, ratio), took in zip(cells, times, strict=True)
    ]


def _clipped(work: Work, sites: tuple[str, ...], ratio: float) -> float:
    """A round through one subnetwork of other sites and clip ratio."""
    scorer, before = work.scorer, work.scorer.config
    update = {"sites": sites, "clip_ratio": ratio, "subnetworks": 1}
    network = before.ensemble.model_copy(update=update)
    scorer.config = before.model_copy(update={"ensemble": network})
    try:
        return Scorer(work).round()
    finally:
        scorer.config = before


def change_table(work: Work, rounds: int) -> list[dict[str, Any]]:
    """Seconds of the population through all subnetworks, without each change to the model."""
    config, task = work.scorer.config, work.scorer.task
    changes = tuple(work.scorer.model.changes())
    left_out = {NOTHING: (), **{name: (name,) for name in changes}, EVERYTHING: changes}
    scorers = {name: LocalScorer(config, task, without=names) for name, names in left_out.items()}
    turns = {name: Scorer(replace(work, scorer=one)).round for name, one in scorers.items()}
    return [
        {"without": name, "so_left": list(scorers[name].model.as_it_was), "seconds": median(took)}
        for name, took in alternate(turns, rounds).items()
    ]
