"""What a planned search takes on actors: how many there are, and how long they need."""

import os
from dataclasses import dataclass

from cliptune.device import resolve
from cliptune.errors import ConfigError
from cliptune.plan import Plan, Work
from cluster import nodes
from cluster.config import ActorRange, ClusterSearch
from cluster.placement import Need, Node, capacity, shares
from cluster.session import fit


@dataclass(frozen=True)
class Part:
    """What a part of the search takes."""

    forward_passes: int
    tokens: int  # with the prompt vectors
    padding: int
    seconds: float | None  # None where no speed is known


def here() -> Node:
    """This machine, as a local Ray would see it."""
    import torch  # which a plan for a model behind an API does without

    cpus, gpus = len(os.sched_getaffinity(0)), torch.cuda.device_count()
    return Node(float(cpus), float(gpus), nodes.free_memory())


def placed(config: ClusterSearch, machine: Node) -> tuple[ClusterSearch, str]:
    """The config with no `auto` left, and where its number of actors is from.

    A number that is given need not fit the machine: a search may be planned for other ones.
    """
    cluster, device = config.cluster, config.model.device
    gpus = cluster.gpus_per_actor
    if gpus == "auto":
        gpus = float(device == "cuda" or (device == "auto" and machine.gpus > 0))
    if cluster.actors == "auto":
        if gpus and not machine.gpus:
            raise ConfigError(
                "cluster.actors is auto, which is one a GPU, and this machine has none. To plan "
                "for another one, say how many: cluster.actors=4, for instance."
            )
        return fit(config, [machine], alone=True), "auto, on this machine"
    resources = cluster.model_copy(update={"gpus_per_actor": gpus})
    resolved = resolve(config.model_copy(update={"cluster": resources}), cuda=gpus > 0)
    room = capacity([machine], Need(cluster.threads_per_actor, gpus))
    given = "as given"
    if isinstance(cluster.actors, ActorRange):
        given = f"the most of {cluster.actors.min} to {cluster.actors.max}"
    return resolved, given + (f", this machine holds {room}" if cluster.most > room else "")


def timed(
    plan: Plan, config: ClusterSearch, tokens_per_second: float | None
) -> tuple[int | None, dict[str, Part]]:
    """How many generations there will be, and what the parts of the search take by then.

    The parts of the whole search are left out where only time limits it and no speed is known.
    """
    actors = config.cluster.most

    def part(*works: tuple[int, Work]) -> Part:
        tokens = sum(times * awaited(work, actors) for times, work in works)
        return Part(
            forward_passes=sum(times * work.forward_passes for times, work in works),
            tokens=sum(times * work.tokens for times, work in works),
            padding=sum(times * work.padding for times, work in works),
            seconds=None if tokens_per_second is None else tokens / tokens_per_second,
        )

    generation, validation = (1, plan.generation), (1, plan.validation)
    manual, evaluation = (1, plan.manual), (1, plan.evaluation)
    parts = {
        "generation": part(generation),
        "generation_validation": part(validation),
        "evaluation": part(evaluation),
    }
    count = plan.generations
    each, before = part(generation, validation).seconds, part(manual).seconds
    if config.search.max_seconds is not None and each is not None and before is not None:
        count = plan.generations_in(config.search.max_seconds, before, each)
    if count is not None:
        search, validations = (count, plan.generation), (manual, (count, plan.validation))
        parts["search"] = part(search)
        parts["validation"] = part(*validations)
        parts["total"] = part(search, *validations, evaluation)
    return count, parts


def awaited(work: Work, actors: int) -> int:
    """Tokens, padding included, on the way to the end: of each call, those of its busiest actor."""
    return sum(
        max(
            sum(call[unit].computed for unit in share)
            for share in shares([batch.computed for batch in call], actors)
        )
        for call in work.calls
    )
