"""The settings of what is scored: the frozen model, its soft prompt and its thinned subnetworks."""

from typing import Literal, Self

from pydantic import Field, model_validator

from cliptune.config.fields import (
    OWN,
    Count,
    File,
    Mixer,
    Place,
    Positive,
    Readout,
    Section,
    Seed,
    Site,
)


class ModelConfig(Section):
    """The frozen language model and how it is read out."""

    name: Place = Field("roberta-large", description="a path, a hub id, or minilm")
    readout: Readout = Field(
        "auto", description=f"auto: by the architecture that the model's config names; {OWN}"
    )
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "auto", description="auto: bfloat16 where the hardware multiplies it fast, else float32"
    )
    quantize: Literal["8bit", "4bit"] | None = Field(
        None,
        description="weights of fewer bits by bitsandbytes, of the extra `large`; none if null",
    )
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="auto: a GPU if there is")
    micro_batch: Count | Literal["auto"] = Field(
        "auto",
        description="(candidate, example) rows a forward pass; auto: by device and prompt.length",
    )
    pooling: Literal["mean", "cls"] = Field("mean", description="encoder read-out only")
    temperature: Positive = Field(0.05, description="encoder read-out only: divides the cosine")


class PromptConfig(Section):
    """The soft prompt and the space in which it is searched."""

    length: int = Field(50, ge=1, le=10_000, description="prompt vectors, L")
    dimension: int = Field(500, ge=1, le=10_000_000, description="size of a layer's latent, d")
    layers: int = Field(
        1,
        ge=1,
        le=1000,
        description="of the model that are given a prompt, from the first: 1 is its input alone; "
        "more are searched in turn, layer by layer",
    )
    position: Literal["after-first", "front"] = Field(
        "after-first", description="after the first special token, or before it"
    )
    init: Literal["vocabulary", "zero", "text", "file"] = Field(
        "vocabulary", description="where P0 comes from"
    )
    text: str | None = Field(None, description="for init: text")
    file: File | None = Field(None, description="for init: file, a safetensors with `prompt`")
    projection: Literal["normal", "vocabulary", "identity"] = Field(
        "normal",
        description="A: normal numbers; differences of words' embeddings; or none: the latent is "
        "then the prompt's offset itself, of length x the model's width numbers",
    )
    scale: Positive = Field(1.0, description="alpha: spread of A z against the embeddings'")
    seed: Seed = Field(0, description="of P0's vocabulary draw and A; search.seed unless given")

    @property
    def latent_size(self) -> int:
        """Numbers of a candidate: the latents of all layers, one after the other."""
        return self.layers * self.dimension

    @model_validator(mode="after")
    def _init_has_its_source(self) -> Self:
        for source in ("text", "file"):
            if (self.init == source) != (getattr(self, source) is not None):
                raise ValueError(
                    f"init: {source} and a value for prompt.{source} go together; "
                    f"init is {self.init}, prompt.{source} is {getattr(self, source)}"
                )
        return self


class EnsembleConfig(Section):
    """The thinned subnetworks and how their rewards are mixed."""

    subnetworks: int = Field(5, ge=1, le=1000, description="N")
    clip_ratio: float = Field(0.1, ge=0, lt=1, description="p, the share of units dropped")
    mode: Literal["static", "dynamic", "none"] = Field(
        "static", description="fixed masks; new masks each generation; the full network alone"
    )
    sites: tuple[Site, ...] = Field(
        ("embedding", "attention-output", "ffn-output"), min_length=1, description="what is thinned"
    )
    mixer: Mixer = Field(
        "mean",
        description=f"(population, subnetworks) -> (population,); {OWN}",
    )
    weights: tuple[float, ...] | None = Field(None, description="for mixer: weighted")
    seed: Seed = Field(0, description="of the masks; search.seed unless given")

    @model_validator(mode="after")
    def _sites_differ(self) -> Self:
        if len(set(self.sites)) < len(self.sites):
            raise ValueError(f"sites must differ from each other; found {', '.join(self.sites)}")
        return self

    @model_validator(mode="after")
    def _weights_fit(self) -> Self:
        if (self.mixer == "weighted") != (self.weights is not None):
            raise ValueError("mixer: weighted and ensemble.weights go together")
        if self.weights is not None:
            if len(self.weights) != self.size:
                raise ValueError(
                    f"weights must be one a subnetwork ({self.size}), {len(self.weights)} given"
                )
            if not (min(self.weights) >= 0 and 0 < sum(self.weights) < float("inf")):
                raise ValueError(
                    f"weights must be finite, not negative and not all zero: {self.weights}"
                )
        return self

    @property
    def size(self) -> int:
        """Networks that score a candidate: N, or 1 where nothing is clipped."""
        return 1 if self.mode == "none" else self.subnetworks
