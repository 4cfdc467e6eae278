"""The settings of the machines: how many actors, and what each of them gets."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import Discriminator, Field, Tag, model_validator

from cliptune.config import Config, Count, Section

MOST = 10_000
Actors = Annotated[int, Field(ge=1, le=MOST)]
Share = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class ActorRange(Section):
    """Bounds between which actors come and go with the cluster's machines."""

    min: Actors = Field(1, description="below it, the search waits")
    max: Actors = Field(description="as many as the cluster holds up to it; it is asked for more")

    @model_validator(mode="after")
    def _bounds_are_in_order(self) -> Self:
        if self.min > self.max:
            raise ValueError(f"min must not be above max; found {self.min} and {self.max}")
        return self


def _kind_of_actors(value: Any) -> str:
    """Which of the three it is meant to be, so that what is said of it is about that."""
    if isinstance(value, Mapping | ActorRange):
        return "range"
    return "auto" if isinstance(value, str) else "number"


class ClusterConfig(Section):
    """Changes speed, never results, but for threads_per_actor, which decides rounding."""

    address: str | None = Field(
        None, description="of a running Ray; RAY_ADDRESS if null, and a local Ray without that"
    )
    actors: Annotated[
        Annotated[Actors, Tag("number")]
        | Annotated[ActorRange, Tag("range")]
        | Annotated[Literal["auto"], Tag("auto")],
        Discriminator(_kind_of_actors),
    ] = Field(
        "auto",
        description="auto: one a GPU; without GPUs 2, or in a Ray of the search's own one a "
        "CPU, up to 8 as memory allows; {min, max}: as many as there is room for at any time",
    )
    threads_per_actor: Count = Field(1, description="CPU threads, and CPUs reserved, an actor")
    gpus_per_actor: Share | Literal["auto"] = Field(
        "auto", description="auto: 1 where the cluster has GPUs, else 0; may be a fraction of one"
    )
    start_timeout: Count = Field(600, description="seconds for a placed actor to load the model")
    unit_timeout: Count = Field(
        120, description="seconds after which an actor with one micro-batch is taken to hang"
    )
    wait_timeout: Count | None = Field(
        None, description="seconds below the least number of actors that end the search; never"
    )
    failures: Count = Field(
        3,
        description="starts of actors in a row, or actors lost over one micro-batch, that end it",
    )
    mixed_hardware: bool = Field(
        False, description="take actors that round otherwise; results then depend on who scored"
    )

    @model_validator(mode="after")
    def _gpus_are_whole_or_a_part_of_one(self) -> Self:
        gpus = self.gpus_per_actor
        if gpus != "auto" and gpus > 1 and gpus != int(gpus):
            raise ValueError(
                f"cluster.gpus_per_actor must be a part of one GPU or a whole number; found {gpus}"
            )
        return self

    @property
    def most(self) -> int:
        """Actors at most; nothing may be left on auto."""
        actors = self.actors
        return actors.max if isinstance(actors, ActorRange) else int(actors)

    @property
    def to_begin(self) -> int:
        """Actors that the search begins with at least."""
        actors = self.actors
        return actors.min if isinstance(actors, ActorRange) else int(actors)

    @property
    def least(self) -> int:
        """Actors without which it waits: where a number is given, it goes on with any that live."""
        return self.actors.min if isinstance(self.actors, ActorRange) else 1


class ClusterSearch(Config):
    """A whole search with its machines."""

    cluster: ClusterConfig = Field(default_factory=ClusterConfig)
