"""What else could be a search's prompt: means of its distribution, or several prompts together.

    python examples/final_prompts.py RUN ...

Each is compared with the prompt that the validation set chose, on examples that no part of the
search has seen: those of the other splits beside the run's own (`data/sst2/16-13` and its like).
None needs another forward pass of the search. The class biases of `search.calibrate`, where a run
has them, are fitted for each of them.
"""

import sys
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import numpy as np

from cliptune.calibration import calibrated, class_biases
from cliptune.config import Config
from cliptune.evaluation import calibrate, validate
from cliptune.journal import best_of
from cliptune.local import LocalScorer
from cliptune.metrics import accuracy
from cliptune.record import read_run
from cliptune.results import difference
from cliptune.rewards import log_probabilities
from cliptune.subnetwork import FULL_NETWORK
from cliptune.task import load_task

MOST = 400  # unseen examples


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


def contenders(generations):
    """Latents by name; several are prompts whose probabilities are averaged."""
    best = sorted(generations, key=lambda g: g.validation.order, reverse=True)
    means = means_of(generations)
    return {
        "chosen": [best_of(generations).validated],
        "fittest of the last generation": [generations[-1].validated],
        "mean of the distribution": [means[-1]],
        "mean over the last 5 generations": [means[-5:].mean(axis=0)],
        "mean over the last 10": [means[-10:].mean(axis=0)],
        "3 best prompts together": [g.validated for g in best[:3]],
        "5 best prompts together": [g.validated for g in best[:5]],
    }


def measured(place):
    """`(cross-entropy, accuracy)` of each contender on unseen examples."""
    record = read_run(Config, place)
    task = load_task(record.config.task)
    task = replace(task, splits={**task.splits, "test": unseen(record.config.task, task)})
    scorer = LocalScorer(record.config, task)
    means = means_of(record.generations)
    tried = [validate(scorer, mean, calibrate(scorer, mean)).order for mean in means]
    found = contenders(record.generations)
    found["mean that validation prefers"] = [means[tried.index(max(tried))]]
    for name, latents in found.items():
        scores = scorer.class_scores(np.array(latents), "test", [FULL_NETWORK])[:, 0]
        if record.config.search.calibrate:
            train = scorer.class_scores(np.array(latents), "train", [FULL_NETWORK])[:, 0]
            scores = calibrated(scores, class_biases(train, task["train"].labels))
        shares = np.exp(log_probabilities(scores)).mean(axis=0)
        labels = task["test"].labels
        right = shares[np.arange(len(labels)), labels]
        yield name, (-float(np.log(right).mean()), accuracy(shares, labels))


def main(places):
    """A line a contender: what it differs by from the chosen prompt, over runs."""
    losses, accuracies = defaultdict(list), defaultdict(list)
    for number, place in enumerate(places):
        for name, (loss, share) in measured(place):
            cell = {"task": "", "seed": number}
            losses[name].append({**cell, "test_accuracy": loss / 100})  # which it takes in percent
            accuracies[name].append({**cell, "test_accuracy": share})
    print(f"{'':34}loss {'':18}points of accuracy")
    for name in losses:
        loss = difference(losses[name], losses["chosen"])
        points = difference(accuracies[name], accuracies["chosen"])
        print(f"{name:34}{loss.mean:+.3f} [{loss.low:+.3f}, {loss.high:+.3f}]  {points}")


if __name__ == "__main__":
    main(sys.argv[1:])
