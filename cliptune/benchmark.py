"""How fast the scorer is, beside others and beside what the machine can do.

`python -m cliptune.benchmark` needs nothing but torch and transformers. The contenders take turns
in one run, so that what else the machine does meets all of them, and medians are compared.
docs/performance.md says what each of them does and how the ratios are defined.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from transformers import AutoModelForMaskedLM
from transformers.utils import logging

from cliptune import specimen
from cliptune.ablation import DEFAULT_SITES, change_table, clip_table
from cliptune.comparison import (
    CEILING,
    CONTENDERS,
    INFERENCE,
    NAIVE,
    POPULATION,
    SCORER,
    Report,
    alternate,
    flops,
    lines,
    machine,
    plain_table,
    ratios,
    spearman,
    summary,
    tables,
)
from cliptune.contenders import Ceiling, Contender, Inference, Naive, Scorer, Work
from cliptune.errors import CliptuneError, ConfigError
from cliptune.local import LocalScorer
from cliptune.probe import warm_up, watched, weight_bytes
from cliptune.randomness import generator
from cliptune.reportfile import writable, write
from cliptune.subnetwork import FULL_NETWORK, ensemble

if TYPE_CHECKING:
    from cliptune.task import Task

SITES = (*DEFAULT_SITES, "ffn-hidden")
CHOICES = {
    "sites": SITES,
    "contenders": CONTENDERS,
    "device": ("auto", "cpu", "cuda"),
    "dtype": ("auto", "float32", "bfloat16", "float16"),
    "naive_head": ("mask", "all"),
    "clock": ("wall", "cpu"),
}
SLICE = 4  # candidates of a naive contender's round on a CPU; a GPU takes all


@dataclass(frozen=True)
class Options:
    """What is measured."""

    model: str = "minilm"
    task: str | None = None
    population: int = 20
    subnetworks: int = 5
    clip_ratio: float = 0.1
    prompt_length: int = 50
    sites: tuple[str, ...] = DEFAULT_SITES
    threads: int = 1
    device: str = "auto"
    dtype: str = "auto"
    micro_batch: int | str = "auto"
    rounds: int = 3
    slice: int | None = None
    naive_head: str = "mask"
    clock: str = "wall"
    contenders: tuple[str, ...] = CONTENDERS
    clip_table: bool = False
    changes: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        sizes = ("population", "subnetworks", "prompt_length", "threads", "rounds", "slice")
        for name in (*sizes, "micro_batch"):
            value = getattr(self, name)
            if isinstance(value, int) and value < 1:
                raise ConfigError(f"--{name.replace('_', '-')} must be at least 1; found {value}.")
        if not 0 <= self.clip_ratio < 1:
            raise ConfigError(f"--clip-ratio must be from 0 to below 1; found {self.clip_ratio}.")
        for name, known in CHOICES.items():
            value = getattr(self, name)
            for one in value if isinstance(value, tuple) else (value,):
                if one not in known:
                    raise ConfigError(
                        f"--{name.replace('_', '-')} knows {', '.join(known)}; found {one}."
                    )
        if self.clock == "cpu" and self.device != "cpu":
            raise ConfigError(f"--clock cpu goes with --device cpu; found {self.device}.")


def measure(options: Options) -> Report:
    """Run the benchmark; everything that is printed, as JSON values."""
    threads = torch.get_num_threads()
    torch.set_num_threads(options.threads)
    logging.disable_progress_bar()
    try:
        with TemporaryDirectory(prefix="cliptune-benchmark-") as folder:
            return _measure(options, Path(folder))
    finally:
        torch.set_num_threads(threads)


def _measure(options: Options, folder: Path) -> Report:
    load = os.getloadavg()[0]
    model = stored_model(options, folder)
    task = chosen_task(options)
    scorer = LocalScorer(settings(options, model), task)
    latents = generator("latents", options.seed).standard_normal(
        (options.population, scorer.config.prompt.latent_size)
    )
    work = Work(scorer, latents, ensemble(scorer.config.ensemble, 0), options.clock)
    warm_up(scorer, FULL_NETWORK)  # what libraries take at their first use is not the scorer's
    with watched(work.device) as peak:  # before anything larger has left memory behind
        rewards = scorer.score(latents)
    own = weight_bytes(scorer.model.module, scorer.model.module.dtype)
    contenders = _contenders(options, work, model)
    times = alternate({name: one.round for name, one in contenders.items()}, options.rounds)
    report: Report = {
        "machine": machine(work.device, scorer.config.model.dtype, load),
        "settings": asdict(options),
        "contenders": summary(work, contenders, times),
    }
    plain = _plain(model, work, scorer.config.model.dtype)
    report |= ratios(report["contenders"], flops(plain, work.lengths) * work.passes)
    held = None if peak.bytes is None else own + peak.bytes
    weights = weight_bytes(plain, scorer.model.module.dtype)
    report["memory_bytes"] = {"weights": weights, "peak": held}
    report["peak_memory_ratio"] = None if held is None else held / weights
    known = reference(contenders)
    report["spearman"] = spearman([rewards[i, 0] for i in known], list(known.values()))
    report["spearman_candidates"] = len(known)
    if options.clip_table:
        report["clip_table"] = clip_table(work, options.rounds)
    if options.changes:
        report["changes"] = change_table(work, options.rounds)
    return report


def reference(contenders: Mapping[str, Contender]) -> dict[int, float]:
    """Rewards in float32 on the first subnetwork, of the candidates that naive ones came to."""
    naive = [one for one in contenders.values() if isinstance(one, Naive)]
    return {i: reward for one in naive for i, reward in one.rewards.items()}


def stored_model(options: Options, folder: Path) -> str:
    """The folder of the model: a shape's is made here and now."""
    shape = specimen.SHAPES.get(options.model)
    if shape is None:
        return options.model
    return str(specimen.save_model(shape, folder / "model", options.seed))


def chosen_task(options: Options) -> Task:
    """The examples of --task, or made-up ones."""
    if options.task is None:
        return specimen.made_up_task(options.seed)
    return specimen.read_task(Path(options.task))


def settings(options: Options, model: str) -> Any:
    """What the scorer reads of a search's config."""
    return specimen.settings(
        model=model,
        dtype=options.dtype,
        device=options.device,
        micro_batch=options.micro_batch,
        length=options.prompt_length,
        dimension=500,
        subnetworks=options.subnetworks,
        clip_ratio=options.clip_ratio,
        sites=options.sites,
        seed=options.seed,
    )


def _plain(model: str, work: Work, dtype: str) -> nn.Module:
    """The model as transformers has it."""
    loaded: Any = AutoModelForMaskedLM.from_pretrained(
        model, dtype=getattr(torch, dtype), use_safetensors=True, trust_remote_code=False
    )
    module: nn.Module = loaded.requires_grad_(False).eval().to(work.device)
    return module


def _contenders(options: Options, work: Work, model: str) -> dict[str, Contender]:
    """Those asked for, in the order of their turns."""
    chosen: dict[str, Contender] = {}
    wanted = set(options.contenders)
    part = options.slice or (SLICE if work.device == "cpu" else options.population)
    for name in (NAIVE, POPULATION):
        if name in wanted:
            module = _plain(model, work, "float32")
            chosen[name] = Naive(
                module, work, part=part, together=name == POPULATION, head=options.naive_head
            )
    if SCORER in wanted:
        chosen[SCORER] = Scorer(work)
    if wanted & {INFERENCE, CEILING}:
        module = _plain(model, work, work.scorer.config.model.dtype)
        inference = Inference(module, work)
        if INFERENCE in wanted:
            chosen[INFERENCE] = inference
        if CEILING in wanted:
            chosen[CEILING] = Ceiling(module, work, inference.rows)
    return chosen


def parser() -> argparse.ArgumentParser:
    """The options, by the names of Options."""
    shown = argparse.ArgumentParser(
        prog="python -m cliptune.benchmark", description="How fast the scorer is on this machine."
    )
    usual = {field.name: field.default for field in fields(Options)}

    def option(name: str, help: str, **more: Any) -> None:
        default = usual[name]
        if "action" not in more:
            text = ",".join(default) if isinstance(default, tuple) else default
            help = f"{help} (default: {text})" if text is not None else help
        shown.add_argument(f"--{name.replace('_', '-')}", default=default, help=help, **more)

    option("model", f"a model's folder, or with random weights {', '.join(specimen.SHAPES)}")
    option("task", 'a file with {"text": "...", "label": 0} a line; else made-up sentences')
    option("population", "candidates", type=int)
    option("subnetworks", "N", type=int)
    option("clip_ratio", "p, the share of units dropped", type=float)
    option("prompt_length", "prompt vectors, L", type=int)
    option("sites", f"what is thinned, of {', '.join(SITES)}", type=names)
    option("threads", "of the one actor that scores", type=int)
    option("device", "cpu, cuda or auto")
    option("dtype", "of the scorer")
    option("micro_batch", "rows a forward pass of the scorer", type=number_or_auto)
    option("rounds", "that the contenders take turns", type=int)
    option(
        "slice",
        f"candidates of a naive round, scaled; if not given {SLICE}, on a GPU all",
        type=int,
    )
    option("naive_head", "where the naive loop computes the vocabulary: mask or all")
    option("clock", "wall, or cpu: leaves out the time in which others have the processor")
    option("contenders", "who takes part", type=names)
    option("clip_table", "also time clip ratios and sites", action="store_true")
    option("changes", "also time it without each of its changes", action="store_true")
    option("seed", "of all that is random", type=int)
    shown.add_argument("--json", type=Path, metavar="FILE", help="write the report there")
    return shown


def names(text: str) -> tuple[str, ...]:
    """Names with commas between them."""
    return tuple(part.strip() for part in text.split(",") if part.strip())


def number_or_auto(text: str) -> int | str:
    """A micro-batch."""
    return text if text == "auto" else int(text)


def main(words: Sequence[str] | None = None) -> None:
    """`python -m cliptune.benchmark`."""
    given = vars(parser().parse_args(words))
    try:
        file = writable(given.pop("json"))
        report = measure(Options(**given))
        for columns, body in tables(report):
            print(plain_table(columns, body))
        print("\n".join(lines(report)))
        write(report, file)
    except CliptuneError as error:
        print(f"cliptune.benchmark: {error}", file=sys.stderr)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
