"""Taking turns, and what follows from the times: speeds, ratios, FLOP, ranks, machine."""

from __future__ import annotations

import os
import platform
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
import transformers
from torch import nn

from cliptune.contenders import Contender, Work
from cliptune.device import bfloat16_unit, processor_name
from cliptune.rewards import rank_mean
from cliptune.sites import find_sites

NAIVE, POPULATION, SCORER, INFERENCE, CEILING = CONTENDERS = (
    "naive",
    "population",
    "scorer",
    "inference",
    "ceiling",
)

SPEARMAN = "spearman"
ENGINE_SHARE = "engine_share"  # measured by jobs, with Ray
RATIOS = ("naive_ratio", "inference_ratio", "ceiling_fraction", "peak_memory_ratio", SPEARMAN)
CONTENDER_COLUMNS = ("contender", "prompts/s", "tokens/s", "")
CLIP_COLUMNS = ("sites", "clip ratio", "seconds")
CHANGE_COLUMNS = ("without", "seconds")

Report = dict[str, Any]
Row = tuple[str, ...]


def alternate(turns: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """Seconds of each one's rounds; they take turns, after a round that does not count."""
    times: dict[str, list[float]] = {name: [] for name in turns}
    for number in range(rounds + 1):
        for name, turn in turns.items():
            took = turn()
            if number > 0:
                times[name].append(took)
            print(f"{number}/{rounds} {name} {took:.2f} s", file=sys.stderr)
    return times


def summary(
    work: Work, contenders: dict[str, Contender], times: dict[str, list[float]]
) -> dict[str, dict[str, Any]]:
    """Speed by contender: of the median of its rounds."""
    found: dict[str, dict[str, Any]] = {}
    for name, contender in contenders.items():
        took = statistics.median(times[name])
        speed: dict[str, Any] = {"seconds": took, "seconds_of_rounds": times[name]}
        if name == CEILING:
            speed = {"flop_per_second": 1e12 / took}
        else:
            speed["prompts_per_second"] = len(work.latents) / took
            speed["tokens_per_second"] = work.passes * sum(work.lengths) / took
        found[name] = speed | contender.remarks()
    return found


def ratios(speeds: dict[str, dict[str, Any]], flop: float) -> dict[str, float | None]:
    """How the scorer compares; None where a contender was left out. `flop` is that of a round."""
    rate = {name: speed.get("prompts_per_second") for name, speed in speeds.items()}
    own = rate.get(SCORER)
    naive = max((rate[name] or 0.0 for name in (NAIVE, POPULATION) if name in rate), default=None)
    inference = rate.get(INFERENCE)
    ceiling = speeds[CEILING]["flop_per_second"] if CEILING in speeds else None
    achieved = flop / speeds[SCORER]["seconds"] if own else None
    return {
        "naive_ratio": own / naive if own and naive else None,
        "inference_ratio": own / inference if own and inference else None,
        "ceiling_fraction": achieved / ceiling if achieved and ceiling else None,
    }


def flops(module: nn.Module, lengths: Sequence[int]) -> int:
    """FLOP of a plain forward over inputs of these lengths, without padding.

    Two for each weight of a linear layer and token, 4 x T x width for the attention products of a
    token and layer in an input of T; the head, all that is linear outside of the blocks, counts at
    one position an input.
    """
    sites = find_sites(module)
    inside = [_linear(block) for block in sites.blocks]
    head = _linear(module) - sum(inside)
    tokens = sum(lengths)
    attention = 4 * sites.width * len(inside) * sum(length**2 for length in lengths)
    return 2 * sum(inside) * tokens + attention + 2 * head * len(lengths)


def _linear(module: nn.Module) -> int:
    return sum(m.weight.numel() for m in module.modules() if isinstance(m, nn.Linear))


def spearman(one: Sequence[float], other: Sequence[float]) -> float | None:
    """Rank correlation; None where there is nothing to rank. Ties share their ranks."""
    mine, theirs = (rank_mean(np.asarray(values)[:, None]) for values in (one, other))
    if len(one) < 2 or np.ptp(mine) == 0 or np.ptp(theirs) == 0:
        return None
    return float(np.corrcoef(mine, theirs)[0, 1])


def machine(device: str, dtype: str, load: float) -> dict[str, Any]:
    """What the figures depend on beside the program."""
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "load_before": load,
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name() if device == "cuda" else device,
        "dtype": dtype,
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "python": platform.python_version(),
    }


def _processor() -> str:
    name = processor_name() or platform.machine()
    return f"{name} with {unit}" if (unit := bfloat16_unit()) else name


def tables(report: Report) -> list[tuple[Row, list[Row]]]:
    """Columns and rows of each table that was measured."""
    found = [
        (CONTENDER_COLUMNS, _contender_rows(report)),
        (CLIP_COLUMNS, _clip_rows(report)),
        (CHANGE_COLUMNS, _change_rows(report)),
    ]
    return [(columns, body) for columns, body in found if body]


def _contender_rows(report: Report) -> list[Row]:
    """The contenders' table: name, prompts/s, tokens/s, note."""
    found = []
    for name, speed in report["contenders"].items():
        rate, tokens = speed.get("prompts_per_second"), speed.get("tokens_per_second")
        note = [str(speed["dtype"])]
        note += [f"{speed['batch']} rows a batch"] if "batch" in speed else []
        note += [f"{speed['flop_per_second'] / 1e9:,.0f} GFLOP/s"] if name == CEILING else []
        note += [f"from {speed['scaled_from']}"] if "scaled_from" in speed else []
        cells = ["" if rate is None else f"{rate:.3f}", "" if tokens is None else f"{tokens:,.0f}"]
        found.append((name, *cells, ", ".join(note)))
    return found


def lines(report: Report) -> list[str]:
    """The machine, and each ratio that was measured."""
    machine = report["machine"]
    text = [
        f"{machine['processor']}, {machine['cores']} cores, load {machine['load_before']:.1f}; "
        f"{machine['device']}, {machine['threads']} threads, {machine['dtype']}; "
        f"torch {machine['torch']}, transformers {machine['transformers']}"
    ]
    for name in (*RATIOS, ENGINE_SHARE):
        if report.get(name) is not None:
            more = f" over {report['spearman_candidates']} candidates" if name == SPEARMAN else ""
            text.append(f"{name} {report[name]:.3f}{more}")
    return text


def _clip_rows(report: Report) -> list[Row]:
    """The table of time against clip ratio: sites, p, seconds."""
    return [
        (", ".join(cell["sites"]), f"{cell['clip_ratio']:g}", f"{cell['seconds']:.2f}")
        for cell in report.get("clip_table", [])
    ]


def _change_rows(report: Report) -> list[Row]:
    """The table of time by what was left out."""
    found: list[Row] = []
    for cell in report.get("changes", []):
        more = [name for name in cell["so_left"] if name != cell["without"]]
        note = f" (and so {', '.join(more)})" if more and cell["without"] in cell["so_left"] else ""
        found.append((cell["without"] + note, f"{cell['seconds']:.2f}"))
    return found


def plain_table(header: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    """Columns as wide as what stands in them."""
    whole = [header, *body]
    widths = [max(len(row[i]) for row in whole) for i in range(len(header))]
    padded = ("  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)) for row in whole)
    return "\n".join(line.rstrip() for line in padded)
