"""What a model takes on this machine: memory, and how many tokens it computes a second."""

from __future__ import annotations

import re
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from cliptune.local import LocalScorer
from cliptune.models.large import quantised_bytes
from cliptune.scorer import Unit
from cliptune.sites import find_sites
from cliptune.subnetwork import FULL_NETWORK, ensemble

if TYPE_CHECKING:
    from cliptune.config import EnsembleConfig
    from cliptune.plan import MicroBatch
    from cliptune.subnetwork import SubnetworkSpec

PROCESS = Path("/proc/self")


@dataclass
class Peak:
    """How far memory rose at most, in bytes; None where the system does not say."""

    bytes: int | None = None


def warm_up(scorer: LocalScorer, subnetwork: SubnetworkSpec) -> None:
    """Turn the model into a subnetwork by scoring one example with it."""
    length = scorer.config.prompt.length + scorer.lengths["train"][0]
    unit = Unit(subnetwork, "train", (0, 1), (0,), length, reduce=True)
    scorer.run([unit], np.zeros((1, scorer.config.prompt.latent_size)))


def weight_bytes(module: nn.Module, dtype: torch.dtype, quantize: str | None = None) -> int:
    """What a module's weights take in a precision; those of a module without weights, too.

    `quantize` is as in the model's settings; `module` is then a whole model, not yet quantised.
    """
    fewer = {} if quantize is None else quantised_bytes(module, quantize)
    return sum(fewer.values()) + sum(
        tensor.numel() * (dtype if tensor.is_floating_point() else tensor.dtype).itemsize
        for tensor in (*module.parameters(), *module.buffers())
        if tensor not in fewer
    )


def thinned_bytes(
    module: nn.Module, dtype: torch.dtype, config: EnsembleConfig, quantize: str | None = None
) -> int:
    """What the second copy of the thinned layers takes that a Thinner keeps; 0 without clipping,
    and of quantised layers, which are left alone."""
    if quantize is not None or ensemble(config, 0)[0] == FULL_NETWORK:
        return 0
    sites = find_sites(module)
    layers = {
        "attention-output": sites.attention_outputs,
        "ffn-output": sites.ffn_outputs,
        "ffn-hidden": (*sites.ffn_outputs, *(sites.ffn_inputs or ())),
    }
    thinned = {layer for site in config.sites for layer in layers.get(site, ())}
    return sum(weight_bytes(layer, dtype) for layer in thinned)


def activation_bytes(scorer: LocalScorer, batch: MicroBatch) -> int | None:
    """Peak of a micro-batch's forward pass beside the weights, measured.

    To be called before anything larger is scored: on a CPU, memory that the process has had
    before is reused unseen.
    """
    warm_up(scorer, ensemble(scorer.config.ensemble, 0)[0])
    with watched(scorer.model.device.type) as peak:
        _forward(scorer, batch)
    return peak.bytes


def tokens_per_second(scorer: LocalScorer, batch: MicroBatch, seconds: float) -> float:
    """Tokens computed a second, padding included: a micro-batch again and again, the median."""
    warm_up(scorer, ensemble(scorer.config.ensemble, 0)[0])
    _forward(scorer, batch)  # the first one of a shape is slower
    took: list[float] = []
    end = time.perf_counter() + seconds
    while not took or time.perf_counter() < end:
        started = time.perf_counter()
        _forward(scorer, batch)
        took.append(time.perf_counter() - started)
    return batch.computed / statistics.median(took)


def resident_bytes() -> int | None:
    """What this process holds in memory now; None where the system does not say."""
    try:
        return _status("VmRSS")
    except OSError:
        return None


@contextmanager
def watched(device: str) -> Iterator[Peak]:
    """Watch the memory of this process, or on a GPU; the peak is known afterwards."""
    peak = Peak()
    if device == "cuda":
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        yield peak
        peak.bytes = torch.cuda.max_memory_allocated() - before
        return
    resident = _forget_peak()
    yield peak
    if resident is not None:
        peak.bytes = max(0, _status("VmHWM") - resident)


def _forget_peak() -> int | None:
    """Have the system begin its record of the peak anew; returns what is resident now."""
    try:
        (PROCESS / "clear_refs").write_text("5", encoding="ascii")
        return _status("VmRSS")
    except OSError:
        return None


def _status(name: str) -> int:
    text = (PROCESS / "status").read_text(encoding="ascii")
    found = re.search(rf"^{name}:\s+(\d+) kB$", text, re.MULTILINE)
    if found is None:
        raise OSError(f"{PROCESS}/status has no {name}")
    return 1024 * int(found[1])


def _forward(scorer: LocalScorer, batch: MicroBatch) -> None:
    """A micro-batch as the scorer runs it; what is in the prompts makes no difference here."""
    model, length, unit = scorer.model, scorer.config.prompt.length, batch.unit
    shape = (unit.rows // len(unit.examples), length, model.width)
    if batch.first:  # what its candidates share is computed with it
        model.network_changed()
    prompts = torch.zeros(shape, device=model.device) if batch.prompted else None
    model.class_scores(prompts, model.batch(scorer.encoded[unit.split], unit.examples)).cpu()
