"""The settings of a search: one validated, frozen tree.

A tree is laid over the preset of its task (`cliptune/presets/<task.name>.yaml`), which is laid
over the defaults below. `cluster` and `jobs` add their own section to it.
"""

from collections.abc import Mapping
from importlib import resources
from importlib.metadata import entry_points
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    StrictInt,
    StrictStr,
    ValidationError,
    ValidationInfo,
    WithJsonSchema,
    field_validator,
    model_validator,
)

from cliptune.errors import ConfigError
from cliptune.functions import loss, metric, mixer, readout, without_places
from cliptune.registry import Registry
from cliptune.wording import complaint

SCHEMA_VERSION = 1

C = TypeVar("C", bound="Config")

Site = Literal["embedding", "attention-output", "ffn-hidden", "ffn-output"]
AS_WRITTEN = "as_written"  # of a validation: whether a run is read, perhaps elsewhere


def _settled_by(registry: Registry[Any]) -> tuple[Any, ...]:
    """What makes a text the name of a function."""

    def settled(name: str, info: ValidationInfo) -> str:
        return name if (info.context or {}).get(AS_WRITTEN) else registry.settled(name)

    schema = {"anyOf": [{"enum": list(registry.ours)}, {"type": "string"}]}
    return AfterValidator(settled), WithJsonSchema(schema)


Mixer = Annotated[str, *_settled_by(mixer)]
Loss = Annotated[str, *_settled_by(loss)]
Selection = Annotated[str, *_settled_by(metric)]
Readout = Annotated[str, *_settled_by(readout)]
OWN = "or your own, module:function or file.py:function"

TrackerName = Literal["tensorboard", "mlflow", "wandb"]

Count = Annotated[int, Field(ge=1)]
Seed = Annotated[int, Field(ge=0, lt=2**63)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


NOT_IDENTITY = {
    "task": ("data", "subset", "splits", "columns", "labels"),
    "model": ("name",),
    "prompt": ("file",),
    "search": ("budget", "max_forward_passes", "max_seconds", "patience"),
}


def _at_home(path: str) -> str:
    return str(Path(path).expanduser()) if path.startswith("~/") else path


Place = Annotated[str, Field(min_length=1), AfterValidator(_at_home)]
File = Annotated[Path, AfterValidator(Path.expanduser)]


class Section(BaseModel):
    """A part of the tree: unknown keys are refused, values never change."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, protected_namespaces=(), coerce_numbers_to_str=True
    )


class SplitNames(Section):
    """Splits or files that the examples come from; those drawn from the same one never overlap."""

    train: str | None = Field(None, description="train if null")
    validation: str | None = Field(
        None, description="validation, valid, dev or val if null; else drawn from train's"
    )
    test: str | None = Field(None, description="test if null; what is left of a single file")


class ColumnNames(Section):
    """What the examples' columns are called."""

    text: str = Field("text", description="the sentence")
    text_pair: str = Field("text_pair", description="the second sentence, of pair tasks")
    label: str = Field("label", description="the class")


class TaskConfig(Section):
    """What is to be classified, and how it is put into words."""

    name: str = Field(
        "tickets", pattern=r"^\w[\w.-]*$", description="a preset's name, or a name of your own"
    )
    data: Place | None = Field(
        None, description="a folder or file of examples, or the name of a dataset on the hub"
    )
    subset: str | None = Field(None, description="of a hub dataset that has several")
    splits: SplitNames = Field(default_factory=SplitNames)
    columns: ColumnNames = Field(default_factory=ColumnNames)
    labels: tuple[StrictInt | StrictStr, ...] | None = Field(
        None, description="values of the label column in the label words' order; 0, 1, ... if null"
    )
    template: str = Field(description="how a text is presented: {text}, {text_pair}, {mask}")
    label_words: tuple[str, ...] = Field(min_length=2, description="one a class, in label order")
    label_tokens: Literal["single", "first"] = Field(
        "single", description="first: of a label word that is several tokens, the first one counts"
    )
    k: Count | Literal["all"] = Field(
        16, description="examples a class for training, and again for validation"
    )
    seed: Seed = Field(0, description="draws the k examples where the files hold more")
    max_tokens: Count | None = Field(
        None, description="longest input with its prompt; the model's own limit if null"
    )

    @field_validator("labels", "label_words", mode="before")
    @classmethod
    def _yes_and_no_are_quoted(cls, values: Any) -> Any:
        if isinstance(values, list) and any(isinstance(value, bool) for value in values):
            raise ValueError(f"YAML reads yes and no as true and false: quote them; found {values}")
        return values

    @model_validator(mode="after")
    def _labels_stand_for_the_words(self) -> Self:
        if len(set(self.label_words)) < len(self.label_words):
            raise ValueError(f"label_words must differ; found {', '.join(self.label_words)}")
        labels = self.label_words if self.labels is None else self.labels
        if len(set(map(str, labels))) < len(labels) or len(labels) != len(self.label_words):
            raise ValueError(
                f"labels must be {len(self.label_words)} different values, one a label word; "
                f"found {', '.join(map(str, labels))}"
            )
        return self


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
    dimension: int = Field(500, ge=1, le=100_000, description="size of a layer's latent, d")
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
    pool: Count | None = Field(
        None,
        description="of static masks, from which each generation draws its N; they are the same "
        "for all generations if null",
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
    def _pool_is_larger(self) -> Self:
        if self.pool is None:
            return self
        if self.mode != "static" or self.mixer == "weighted":
            raise ValueError("pool goes with mode static, and with another mixer than weighted")
        if self.pool < self.subnetworks:
            raise ValueError(
                f"pool must hold the {self.subnetworks} subnetworks of a generation, "
                f"found {self.pool}"
            )
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
        False,
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


class Config(Section):
    """A whole search, but for the machines that run it."""

    schema_version: Literal[1] = Field(1, description="of this tree")
    task: TaskConfig
    model: ModelConfig = Field(default_factory=ModelConfig)
    prompt: PromptConfig = Field(default_factory=PromptConfig)
    ensemble: EnsembleConfig = Field(default_factory=EnsembleConfig)
    search: StrategyConfig = Field(default_factory=StrategyConfig)
    scorer: ScorerConfig = Field(default_factory=ScorerConfig)
    watch: WatchConfig = Field(default_factory=WatchConfig)
    run_dir: Place | None = Field(
        None,
        description="folder or URI (s3://, gs://, ...), new; runs/<task>-<time> if null",
    )

    @model_validator(mode="after")
    def _gradient_has_what_it_needs(self) -> Self:
        if self.search.method != "gradient":
            return self
        if self.scorer.url is not None:
            raise ValueError(
                "search.method gradient goes back through a model of our own: scorer.url must be "
                f"null, found {self.scorer.url}"
            )
        for setting, found, needed in (
            ("ensemble.mode", self.ensemble.mode, "none"),
            ("prompt.layers", self.prompt.layers, 1),
            ("search.calibrate", self.search.calibrate, False),
        ):
            if found != needed:
                raise ValueError(
                    f"search.method gradient goes through the full network, from its input alone: "
                    f"{setting} must be {needed}, found {found}"
                )
        if self.search.loss not in ("cross-entropy", "hinge"):
            raise ValueError(
                "search.method gradient needs a loss whose gradient is known, cross-entropy or "
                f"hinge; found {self.search.loss}"
            )
        return self

    @model_validator(mode="before")
    @classmethod
    def _lay_over_preset(cls, tree: Any) -> Any:
        if not isinstance(tree, Mapping):
            return tree
        task = tree.get("task", {})
        name = (
            task.get("name", TaskConfig.model_fields["name"].default)
            if isinstance(task, Mapping)
            else None
        )
        merged = merge(preset(name), tree) if isinstance(name, str) else dict(tree)
        return _share_seed(merged)

    def identity(self) -> dict[str, Any]:
        """What decides the results: the tree without the limits, who scores and watches, and where
        files lie.

        The content of data, model and prompt file belongs to it; see RunDirectory.
        """
        tree = Config.model_dump(self, mode="json", include=set(Config.model_fields))
        del tree["run_dir"], tree["scorer"], tree["watch"]
        for section, settings in NOT_IDENTITY.items():
            for setting in settings:
                del tree[section][setting]
        without_places(tree)
        return tree


TASKS: dict[str, Mapping[str, Any]] = {}  # that were registered


def register_task(name: str, settings: Mapping[str, Any]) -> None:
    """Have `task.name: NAME` bring these settings, as a preset does.

    A run's config.yaml holds them, so that no other process has to know the name. Installed
    packages bring theirs as entry points of the group `cliptune.tasks`, each a mapping.
    """
    if name in presets():
        raise ConfigError(f"{name} is a task of ours; register yours by another name.")
    TASKS[name] = settings


def preset(name: str) -> dict[str, Any]:
    """The settings that go with a task's name; empty for a name of the user's own."""
    tree: Mapping[str, Any] = {}
    if name in presets():
        file = resources.files("cliptune") / "presets" / f"{name}.yaml"
        tree = yaml.safe_load(file.read_text(encoding="utf-8"))
    elif name in TASKS:
        tree = TASKS[name]
    elif point := next(iter(entry_points(group="cliptune.tasks", name=name)), None):
        tree = point.load()
    return merge(tree, {"task": {"name": name}}) if tree else {}


def presets() -> list[str]:
    """Names of the tasks that come with a template and label words."""
    folder = resources.files("cliptune") / "presets"
    return sorted(
        f.name.removesuffix(".yaml") for f in folder.iterdir() if f.name.endswith(".yaml")
    )


def merge(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Lay one tree over another: sections are joined, values of the upper one win."""
    merged = dict(below)
    for key, value in above.items():
        lower = merged.get(key)
        both = isinstance(lower, Mapping) and isinstance(value, Mapping)
        merged[key] = merge(lower, value) if both else value  # type: ignore[arg-type]
    return merged


def _share_seed(tree: dict[str, Any]) -> dict[str, Any]:
    """Give search.seed to the prompt and the ensemble where they have no seed of their own."""
    search = tree.get("search", {})
    if isinstance(search, Mapping) and isinstance(search.get("seed"), int) and search["seed"] >= 0:
        seeded = {section: {"seed": search["seed"]} for section in ("prompt", "ensemble")}
        return merge(seeded, tree)
    return tree


def validate(kind: type[C], tree: Mapping[str, Any], *, as_written: bool = False) -> C:
    """Check a tree; a bad one raises a ConfigError that names the setting and the remedy.

    `as_written` is for settings of a run: what they name may be registered elsewhere alone.
    """
    try:
        return kind.model_validate(tree, context={AS_WRITTEN: as_written})
    except ValidationError as error:
        hint = (
            f"task.name is not a preset ({', '.join(presets())}), so the template and the label "
            "words must be given"
        )
        hints = {"task.template": hint, "task.label_words": hint}
        raise ConfigError(complaint(kind, error, hints)) from None
