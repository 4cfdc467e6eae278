"""The settings of the machines: how many actors, and what each of them gets."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from cliptune.config import Config, Count, Section

Share = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class ClusterConfig(Section):
    """Changes speed, never results, but for threads_per_actor, which decides rounding."""

    address: str | None = Field(
        None, description="of a running Ray; RAY_ADDRESS if null, and a local Ray without that"
    )
    actors: Annotated[int, Field(ge=1, le=10_000)] | Literal["auto"] = Field(
        "auto", description="auto: one a GPU, or 2 on CPUs where there are as many"
    )
    threads_per_actor: Count = Field(1, description="CPU threads, and CPUs reserved, an actor")
    gpus_per_actor: Share | Literal["auto"] = Field(
        "auto", description="auto: 1 where the cluster has GPUs, else 0; may be a fraction of one"
    )
    start_timeout: Count = Field(600, description="seconds for an actor to be placed and loaded")
    failures: Count = Field(
        3, description="deaths of actors without any unit scored in between that end the search"
    )

    @model_validator(mode="after")
    def _gpus_are_whole_or_a_part_of_one(self) -> Self:
        gpus = self.gpus_per_actor
        if gpus != "auto" and gpus > 1 and gpus != int(gpus):
            raise ValueError(
                f"cluster.gpus_per_actor must be a part of one GPU or a whole number; found {gpus}"
            )
        return self


class ClusterSearch(Config):
    """A whole search with its machines."""

    cluster: ClusterConfig = Field(default_factory=ClusterConfig)
