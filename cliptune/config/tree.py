"""The whole tree: laid over its preset, validated, and what of it decides the results."""

from collections.abc import Mapping
from typing import Any, Literal, Self, TypeVar

from pydantic import Field, TypeAdapter, ValidationError, ValidationInfo, model_validator

from cliptune.config.fields import AS_WRITTEN, Place, Section, Seed
from cliptune.config.layers import merge, preset, presets
from cliptune.config.network import EnsembleConfig, ModelConfig, PromptConfig
from cliptune.config.search import ScorerConfig, StrategyConfig, WatchConfig
from cliptune.config.task import TaskConfig
from cliptune.errors import ConfigError
from cliptune.functions import without_places
from cliptune.older import without_gone
from cliptune.wording import complaint

C = TypeVar("C", bound="Config")

SEED: TypeAdapter[int] = TypeAdapter(Seed)
MOST_CORRELATED = 10_000  # numbers of a latent that CMA-ES keeps a full covariance of
NOT_IDENTITY = {
    "task": ("data", "subset", "splits", "columns", "labels"),
    "model": ("name",),
    "prompt": ("file",),
    "search": ("budget", "max_forward_passes", "max_seconds", "patience"),
}


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

    @model_validator(mode="after")
    def _layers_are_compared_by_fitness(self, info: ValidationInfo) -> Self:
        if (info.context or {}).get(AS_WRITTEN):
            return self
        if self.ensemble.mixer == "rank-mean" and self.prompt.layers > 1:
            raise ValueError(
                "ensemble.mixer rank-mean compares the candidates of one generation, and deep "
                "prompts keep the best of all: with prompt.layers above 1 choose another mixer"
            )
        return self

    @model_validator(mode="after")
    def _covariance_fits(self, info: ValidationInfo) -> Self:
        if (info.context or {}).get(AS_WRITTEN):
            return self
        if self.search.method == "cma-es" and self.prompt.dimension > MOST_CORRELATED:
            raise ValueError(
                "search.method cma-es keeps a matrix of prompt.dimension x prompt.dimension: "
                f"expected {MOST_CORRELATED:,} at most, found {self.prompt.dimension:,}; "
                "sep-cma-es takes more"
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
        tree = without_gone(tree)
        merged = merge(_below(name, task), tree) if isinstance(name, str) else tree
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


def _below(name: str, task: Any) -> dict[str, Any]:
    """The preset, but for the words that belong to its label words where those are others."""
    tree = preset(name)
    if isinstance(task, Mapping) and "label_words" in task and "verbalizer" in tree.get("task", {}):
        tree = merge(tree, {"task": {"verbalizer": None}})
    return tree


def _share_seed(tree: dict[str, Any]) -> dict[str, Any]:
    """Give search.seed to the prompt and the ensemble where they have no seed of their own."""
    search = tree.get("search", {})
    if not isinstance(search, Mapping) or "seed" not in search:
        return tree
    try:
        seed = SEED.validate_python(search["seed"])
    except ValidationError:  # said of search.seed itself
        return tree
    return merge({section: {"seed": seed} for section in ("prompt", "ensemble")}, tree)


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
