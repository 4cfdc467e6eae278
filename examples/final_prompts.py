"""What else could be a search's prompt: means of its distribution, several prompts together, or
what it had when it might have stopped (search.patience).

    python examples/final_prompts.py RUN ...

Each is compared with the prompt that the validation set chose, on examples that no part of the
search has seen: those of the other splits beside the run's own (`data/sst2/16-13` and its like).
None needs another forward pass of the search; the last column says which share of its generations
was. The class biases of `search.calibrate`, where a run has them, are fitted for each of them.
"""

import sys
from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from statistics import fmean

import numpy as np

from cliptune.calibration import calibrated, class_biases
from cliptune.config import Config
from cliptune.evaluation import calibrate, validate
from cliptune.journal import best_of
from cliptune.limits import would_have_stopped
from cliptune.local import LocalScorer
from cliptune.metrics import accuracy
from cliptune.record import read_run
from cliptune.results import difference
from cliptune.rewards import log_probabilities
from cliptune.subnetwork import FULL_NETWORK
from cliptune.task import load_task

MOST = 400  # unseen examples
PATIENCE = 3, 5, 8, 12  # generations without a better prompt on validation


def unseen(config, task):
    """Examples of the other splits that are not in this one, as a split."""
    folder = Path(config.data)
    known = {text for name in ("train", "validation") for text in task[name].texts}
    found = {}
    for other in sorted(folder.parent.glob("*/train.jsonl")):
        if other.parent != folder:
            splits = load_task(config.model_copy(update={"data": str(other.parent)}))
            for name in ("train", "validation"):
                found |= dict(zip(splits[name].texts, splits[name].labels, strict=True))
    rows = [(text, label) for text, label in found.items() if text not in known]
    drawn = np.random.default_rng(0).permutation(len(rows))[:MOST]
    texts, labels = zip(*(rows[row] for row in drawn), strict=True)
    return replace(task["train"], texts=texts, labels=np.array(labels))


def means_of(generations):
    """What CMA-ES moved to after each generation, with its own weights of the fitter half."""
    half = len(generations[0].fitness) // 2
    weights = np.log(half + 0.5) - np.log(np.arange(1, half + 1))
    fitter = [g.latents[np.argsort(-g.fitness, kind="stable")[:half]] for g in generations]
    return np.array([weights @ latents / weights.sum() for latents in fitter])


def means_tried(generations, scorer):
    """Averages of CMA-ES's means, by name, and the mean that the validation set likes best."""
    means = means_of(generations)
    tried = [validate(scorer, mean, calibrate(scorer, mean)).order for mean in means]
    return {
        "mean of the distribution": [means[-1]],
        "mean over the last 5 generations": [means[-5:].mean(axis=0)],
        "mean over the last 10": [means[-10:].mean(axis=0)],
        "mean that validation prefers": [means[tried.index(max(tried))]],
    }


def generations_until(config, examples, generations, patience):
    """After how many generations the search would have ended with so much patience."""
    search = config.search.model_copy(update={"patience": patience})
    limited = config.model_copy(update={"search": search})
    stopped = would_have_stopped(limited, examples, generations)
    return stopped[0] if stopped else len(generations)


def contenders(record, task, scorer):
    """`(latents, generations needed)` by name; several latents are prompts whose probabilities are
    averaged."""
    generations, config = record.generations, record.config
    best = sorted(generations, key=lambda g: g.validation.order, reverse=True)
    found = {
        "chosen": [best[0].validated],
        "fittest of the last generation": [generations[-1].validated],
        "3 best prompts together": [g.validated for g in best[:3]],
        "5 best prompts together": [g.validated for g in best[:5]],
    }
    if config.prompt.layers == 1:  # of deep prompts each layer has a distribution
        found |= means_tried(generations, scorer)
    every = {name: (latents, len(generations)) for name, latents in found.items()}
    for patience in PATIENCE:
        needed = generations_until(config, len(task["train"]), generations, patience)
        chosen = [best_of(generations[:needed]).validated]
        every[f"with search.patience={patience}"] = chosen, needed
    return every


def measured(place):
    """`(name, cross-entropy, accuracy, share of the generations)` of each on unseen examples."""
    record = read_run(Config, place)
    task = load_task(record.config.task)
    task = replace(task, splits={**task.splits, "test": unseen(record.config.task, task)})
    scorer = LocalScorer(record.config, task)
    for name, (latents, needed) in contenders(record, task, scorer).items():
        scores = scorer.class_scores(np.array(latents), "test", [FULL_NETWORK])[:, 0]
        if record.config.search.calibrate:
            train = scorer.class_scores(np.array(latents), "train", [FULL_NETWORK])[:, 0]
            scores = calibrated(scores, class_biases(train, task["train"].labels))
        shares = np.exp(log_probabilities(scores)).mean(axis=0)
        labels = task["test"].labels
        loss = -float(np.log(shares[np.arange(len(labels)), labels]).mean())
        yield name, loss, accuracy(shares, labels), needed / len(record.generations)


def main(places):
    """A line a contender: what it differs by from the chosen prompt, over runs."""
    losses, accuracies, used = defaultdict(list), defaultdict(list), defaultdict(list)
    for number, place in enumerate(places):
        cell = {"task": "", "seed": number}
        for name, loss, share, part in measured(place):
            losses[name].append({**cell, "test_accuracy": loss / 100})  # which it takes in percent
            accuracies[name].append({**cell, "test_accuracy": share})
            used[name].append(part)
    print(f"{'':34}{'loss':24}{'points of accuracy':20}generations")
    for name in losses:
        loss = difference(losses[name], losses["chosen"])
        points = str(difference(accuracies[name], accuracies["chosen"]))
        interval = f"{loss.mean:+.3f} [{loss.low:+.3f}, {loss.high:+.3f}]"
        print(f"{name:34}{interval:24}{points:20}{fmean(used[name]):.0%}")


if __name__ == "__main__":
    main(sys.argv[1:])
