"""The settings of the search, of who scores for it, and of who is told."""

from typing import Literal, Self

from pydantic import Field, model_validator

from cliptune.config.fields import OWN, Count, Loss, Positive, Section, Seed, Selection, TrackerName


class StrategyConfig(Section):
    """The search over latents."""

    method: Literal["cma-es", "sep-cma-es", "random", "gradient"] = Field(
        "cma-es",
        description="sep-cma-es learns no more than a step a coordinate, for a large d; random "
        "is the baseline; gradient, prompt tuning by Adam, is no black box: it goes back through a "
        "model of the driver's own",
    )
    budget: Count | None = Field(8000, description="prompts scored; no limit if null")
    max_forward_passes: Count | None = Field(
        None, description="prompts x subnetworks x training examples; no limit if null"
    )
    max_seconds: Positive | None = Field(None, description="of searching; no limit if null")
    patience: Count | None = Field(
        None, description="generations without a better prompt on validation; no limit if null"
    )
    population: int = Field(
        20, ge=3, le=10_000, description="candidates a generation; pycma fails with two"
    )
    sigma: Positive = Field(1.0, description="initial step size")
    learning_rate: Positive = Field(0.1, description="of gradient alone: a step in the latent")
    loss: Loss = Field(
        "cross-entropy",
        description=f"its negative is the reward; {OWN}",
    )
    margin: Positive = Field(2.0, description="of the hinge loss")
    calibrate: bool = Field(
        True,
        description="add to the scores of every prompt and subnetwork the class biases that fit "
        "the training examples best: the search need not look for them, and predictions have them",
    )
    candidate: Literal["fittest", "mean"] = Field(
        "fittest",
        description="which prompt of a generation is tried on validation, and may be chosen: its "
        "fittest candidate, or the mean that cma-es drew its candidates around",
    )
    selection: Selection = Field(
        "loss",
        description=f"chooses the prompt on validation among the generations' best; {OWN}",
    )
    seed: Seed = Field(0, description="of the strategy, and of all that has no seed of its own")

    @model_validator(mode="after")
    def _mean_is_of_a_distribution(self) -> Self:
        if self.candidate == "mean" and not self.method.endswith("cma-es"):
            raise ValueError(f"candidate: mean goes with (sep-)cma-es alone; found {self.method}")
        return self

    @model_validator(mode="after")
    def _budget_holds_a_generation(self) -> Self:
        if self.budget is None:
            if self.max_forward_passes is None and self.max_seconds is None:
                raise ValueError(
                    "budget may be null only with search.max_seconds or search.max_forward_passes"
                )
        elif self.budget < self.population:
            raise ValueError(
                f"budget must hold at least one generation of {self.population} prompts, "
                f"found {self.budget}; raise search.budget or lower search.population"
            )
        return self


class ScorerConfig(Section):
    """Who scores where it is not we: a model behind an API; changes nothing of the results."""

    url: str | None = Field(
        None,
        pattern=r"^https?://[^/?#@\s]+[^?#@\s]*$",
        description="of a `cliptune provider`, e.g. http://127.0.0.1:8400; its token is read from "
        "the environment, CLIPTUNE_TOKEN. Our own model if null",
    )
    requests: int = Field(4, ge=1, le=256, description="on their way at the same time")
    units: Count = Field(8, description="micro-batches of a request at most")
    timeout: Positive = Field(300.0, description="seconds for the answer to a request")
    patience: Positive = Field(
        600.0, description="seconds in which a request that failed is tried again"
    )


class WatchConfig(Section):
    """Who is told how the search goes; changes nothing of it."""

    trackers: tuple[TrackerName, ...] = Field(
        (),
        description="tensorboard, mlflow, wandb: who gets a curve of each figure; where, say their "
        "own environment variables",
    )

    @model_validator(mode="after")
    def _trackers_differ(self) -> Self:
        if len(set(self.trackers)) < len(self.trackers):
            raise ValueError(
                f"trackers must differ from each other; found {', '.join(self.trackers)}"
            )
        return self
