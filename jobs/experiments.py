"""The paper's experiments as sweeps: tasks, methods and questions, by name.

Every one is a `Sweep` of cases, so that `cliptune sweep` could run it as well.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cliptune.config import merge
from cliptune.errors import ConfigError
from cliptune.results import MAIN, PLAIN, WORDS
from cliptune.wording import nearest
from jobs.sweepfile import SEED, Sweep

Tree = dict[str, Any]

TASK = "{task}"  # in --data: the name of the task

GLUE = {"data": "nyu-mll/glue", "splits": {"test": "validation"}}  # its test labels are hidden
PAIR = {"text": "sentence1", "text_pair": "sentence2"}
TASKS: Mapping[str, Tree] = {  # where the hub has them; the templates are the presets'
    "sst2": {**GLUE, "subset": "sst2", "columns": {"text": "sentence"}},
    "yelp_polarity": {"data": "fancyzhx/yelp_polarity"},
    "agnews": {"data": "fancyzhx/ag_news"},
    "dbpedia": {"data": "fancyzhx/dbpedia_14", "columns": {"text": "content"}},
    "mrpc": {**GLUE, "subset": "mrpc", "columns": PAIR},
    "snli": {
        "data": "stanfordnlp/snli",
        "columns": {"text": "premise", "text_pair": "hypothesis"},
    },
    "rte": {**GLUE, "subset": "rte", "columns": PAIR},
}

FEELINGS = [["bad", "terrible", "awful", "poor"], ["great", "good", "excellent", "wonderful"]]
ENTAILED, NOT_ENTAILED = ["Yes", "Indeed", "So"], ["No", "But", "Instead"]
VERBALIZERS: Mapping[str, Tree] = {  # of tasks whose presets are read from one word a class
    "sst2": {"verbalizer": FEELINGS},
    "yelp_polarity": {"verbalizer": FEELINGS},
    "mrpc": {"verbalizer": [NOT_ENTAILED, ENTAILED]},
    "snli": {"verbalizer": [ENTAILED, ["Maybe", "Perhaps", "Also"], NOT_ENTAILED]},
    "rte": {"verbalizer": [ENTAILED, NOT_ENTAILED]},
}

SEEDS = (13, 21, 42, 87, 100)  # of the splits that the literature shares


@dataclass(frozen=True)
class Sizes:
    """What methods depend on besides the settings of all."""

    budget: int  # prompts
    subnetworks: int
    layers: int  # of the model
    numbers: int  # of a prompt: its length times the model's width


PAPER: Tree = {"search": {"calibrate": False}}  # of all methods, unless their settings say more
FULL: Tree = {"ensemble": {"mode": "none"}}  # the full network alone scores


CALIBRATED: Tree = {"search": {"calibrate": True}}


def _deep(sizes: Sizes) -> Tree:
    return {"prompt": {"layers": sizes.layers}}


# what each method changes in the settings of all, which are those of Clip-Tuning
METHODS: Mapping[str, Callable[[Sizes], Tree]] = {
    "random": lambda sizes: {"search": {"method": "random"}},
    "bbt": lambda sizes: FULL,
    "bbt-equal-passes": lambda sizes: merge(
        FULL, {"search": {"budget": sizes.budget * sizes.subnetworks}}
    ),
    "clip-static": lambda sizes: {},
    "clip-dynamic": lambda sizes: {"ensemble": {"mode": "dynamic"}},
    "bbt-calibrated": lambda sizes: merge(FULL, CALIBRATED),
    "clip-calibrated": lambda sizes: CALIBRATED,
    "deep-bbt": lambda sizes: merge(FULL, _deep(sizes)),
    "deep-clip": _deep,
    "prompt-tuning": lambda sizes: {
        **FULL,
        "prompt": {"projection": "identity", "dimension": sizes.numbers},
        "search": {"method": "gradient"},
    },
}


def _critics(sizes: Sizes) -> Mapping[str, Tree]:
    """Each changes Clip-Tuning and takes as many forward passes."""
    return {
        PLAIN: {},
        "rank-mean": {"ensemble": {"mixer": "rank-mean"}},
        "min": {"ensemble": {"mixer": "min"}},
    }


def _ways(sizes: Sizes) -> Mapping[str, Tree]:
    """Each takes as many forward passes as the search that it changes."""
    return {
        PLAIN: {},
        "mean": {"search": {"candidate": "mean"}},
        "small-scale": {"prompt": {"scale": 0.3}},
        "vocabulary-projection": {"prompt": {"projection": "vocabulary"}},
        "sep-cma-es": {"search": {"method": "sep-cma-es"}},
        "no-projection": {
            "prompt": {"projection": "identity", "dimension": sizes.numbers},
            "search": {"method": "sep-cma-es"},
        },
        "hinge": {"search": {"loss": "hinge"}},
    }


def _initialisations(sizes: Sizes) -> Mapping[str, Tree]:
    text = {"init": "text", "text": "the following text was sorted by what it says"}
    return {
        "vocabulary": {"prompt": {"init": "vocabulary"}},
        "zero": {"prompt": {"init": "zero"}},
        "text": {"prompt": text},
    }


def _each(section: str, setting: str, *values: float) -> Mapping[str, Tree]:
    return {f"{value:g}": {section: {setting: value}} for value in values}


@dataclass(frozen=True)
class Experiment:
    """A question, and the searches that answer it on every task with every seed."""

    question: str
    methods: Sequence[str] | None = None  # all of them
    values: Callable[[Sizes], Mapping[str, Tree]] | None = None  # of what it varies, by name
    several_words: bool = False  # whether classes are read from them


EXPERIMENTS: Mapping[str, Experiment] = {
    MAIN: Experiment("how good each method is at equal prompts"),
    "clipping": Experiment(
        "static, dynamic or no clipping (Figure 3b)",
        ["random", "bbt", "clip-static", "clip-dynamic"],
    ),
    "clip-ratio": Experiment(
        "how much of each subnetwork to clip (Figure 2)",
        ["clip-static"],
        lambda sizes: _each("ensemble", "clip_ratio", 0.02, 0.05, 0.1, 0.2, 0.3, 0.5),
    ),
    "subnetworks": Experiment(
        "how many subnetworks (Figure 3a)",
        ["clip-static"],
        lambda sizes: _each("ensemble", "subnetworks", 1, 2, 3, 5, 8),
    ),
    "training-size": Experiment(
        "how many examples a class to learn from (Figure 3c)",
        ["bbt", "clip-static"],
        lambda sizes: _each("task", "k", 2, 4, 8, 16),
    ),
    "beyond": Experiment(
        "other ways to use the subnetworks than the paper's", ["clip-static"], _critics
    ),
    "search": Experiment(
        "other ways to search than CMA-ES through a random projection", ["bbt-calibrated"], _ways
    ),
    WORDS: Experiment(
        "one word a class or several (task.verbalizer)",
        ["bbt-calibrated"],
        lambda sizes: {"several": {}},
        several_words=True,
    ),
    "learning-rate": Experiment(
        "which step gradients should take, for the reference's sake",
        ["prompt-tuning"],
        lambda sizes: _each("search", "learning_rate", 0.001, 0.01, 0.1),
    ),
    "initialisation": Experiment(
        "where the prompt begins (Figure 4)", ["bbt", "clip-static"], _initialisations
    ),
}


@dataclass(frozen=True)
class Matrix:
    """What is run of an experiment."""

    tasks: Sequence[str]
    methods: Sequence[str]
    seeds: Sequence[int]
    values: Sequence[str] | None  # of what experiments vary; all if none
    data: str | None  # where examples lie, by {task} and {seed}; on the hub if none


def sweep_of(experiment: str, matrix: Matrix, sizes: Sizes, base: Tree) -> Sweep | None:
    """An experiment as a sweep; none where it has none of the methods, or none of the values."""
    asked = EXPERIMENTS[experiment]
    compared = [name for name in matrix.methods if name in (asked.methods or METHODS)]
    varied = asked.values(sizes) if asked.values else None
    if varied is not None and matrix.values is not None:
        varied = {name: tree for name, tree in varied.items() if name in matrix.values}
    if not compared or varied == {}:
        return None
    space: Tree = {
        "task": {"cases": {name: _task(name, matrix.data, asked) for name in matrix.tasks}},
        "method": {"cases": {name: METHODS[name](sizes) for name in compared}},
        **({} if varied is None else {experiment: {"cases": varied}}),
    }
    return Sweep.model_validate(
        {"base": merge(PAPER, base), "space": space, "seeds": list(matrix.seeds)}
    )


def _task(name: str, data: str | None, asked: Experiment) -> Tree:
    found = TASKS[name] if data is None else {"data": data.replace(TASK, name)}
    words = {"verbalizer": None}  # one word a class, as the paper has it
    if asked.several_words:
        words = VERBALIZERS.get(name, {})  # else the preset has several
    return {"task": {"name": name, "seed": SEED, **found, **words}}


def values_of(experiments: Sequence[str], sizes: Sizes) -> list[str]:
    """Names of all that some experiments vary."""
    every = [EXPERIMENTS[name].values for name in experiments]
    return list(dict.fromkeys(value for values in every if values for value in values(sizes)))


def named(asked: str | None, known: Sequence[str], option: str) -> list[str]:
    """The names of a list with commas, in the order of those that there are; all if none given."""
    if asked is None:
        return list(known)
    names = [name.strip() for name in asked.split(",") if name.strip()]
    for name in names:
        if name not in known:
            raise ConfigError(
                f"{option}: there is no {name}{nearest(name, known)}. Expected some of "
                f"{', '.join(known)}, with commas."
            )
    if not names:
        raise ConfigError(f"{option}: expected some of {', '.join(known)}; found {asked!r}.")
    return [name for name in known if name in names]
