"""`cliptune plan`: what a search will cost, without starting it, and without Ray."""

import json
import math
from pathlib import Path
from typing import Any

from cliptune.errors import ConfigError
from cliptune.functions import refuse_missing
from cliptune.plan import plan
from cliptune.remote import RemoteScorer
from cliptune.task import Task, load_task
from cluster.config import ClusterSearch
from cluster.plan import timed
from jobs.plandisplay import Estimate, Measured, SplitSize, as_tree, show
from jobs.words import make_console


def main(
    config: ClusterSearch, *, seconds: float, record: Path | None, measure: bool, as_json: bool
) -> None:
    """Count, measure for some seconds unless there is a record of that, and print."""
    if record is not None and not measure:
        raise ConfigError("--record and --no-measure cannot go together; leave one of them out.")
    recorded = None
    if record is not None:
        found = read_record(record)
        recorded = found, Measured(found["tokens_per_second"], source=f"from {record}")
    refuse_missing(config)  # what a search refuses is refused here
    task = load_task(config.task)
    if config.scorer.url is not None:
        estimate = of_provider(config, task, recorded[1] if recorded else Measured())
    else:
        from jobs.planhere import of_actors  # it takes torch

        estimate = of_actors(config, task, recorded, seconds if measure else None)
    if as_json:
        print(json.dumps(as_tree(estimate), indent=2, ensure_ascii=False))
    else:
        show(estimate, make_console())


def of_provider(config: ClusterSearch, task: Task, speed: Measured) -> Estimate:
    """A search whose model is behind `scorer.url`: it is asked for the texts' tokens alone.

    The tokens are those of its bill. It is not measured, which would be on that bill.
    """
    scorer = RemoteScorer(config, task)
    facts, lengths = scorer.facts(), scorer.lengths
    model = scorer.config.model.model_copy(update={"name": facts.name})
    alone = config.cluster.model_copy(update={"actors": 1})  # no actor of ours, one model of theirs
    config = config.model_copy(update={"model": model, "cluster": alone})
    counted = plan(config, task, lengths)
    generations, parts = timed(counted, config, speed.tokens_per_second)
    return Estimate(
        config=config,
        actors=None,
        parameters=facts.parameters,
        splits={
            name: SplitSize(len(each), sum(each), max(each), facts.truncated[name])
            for name, each in lengths.items()
        },
        units=max(map(len, counted.generation.calls)),
        generations=generations,
        parts=parts,
        shared=0,
        memory=None,
        speed=speed,
    )


def read_record(path: Path) -> dict[str, Any]:
    """A JSON object with `tokens_per_second`, such as `cliptune plan --json` prints."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"), parse_int=float)
    except OSError as error:
        raise ConfigError(f"--record: {path} cannot be read: {error.strerror}.") from None
    except (ValueError, RecursionError):
        raise ConfigError(
            f"--record: {path} is not one JSON value; expected what cliptune plan --json prints."
        ) from None
    rate = record.get("tokens_per_second") if isinstance(record, dict) else None
    if not isinstance(record, dict) or not isinstance(rate, float) or not 0 < rate < math.inf:
        raise ConfigError(
            f"--record: {path} must be a JSON object whose tokens_per_second is a number above 0, "
            f"as cliptune plan --json prints it when it measures; found {rate!r:.60}."
        )
    return record
