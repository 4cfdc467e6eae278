"""The settings of a search: one validated, frozen tree.

A tree is laid over the preset of its task (`cliptune/presets/<task.name>.yaml`), which is laid
over the sections' defaults. `cluster` and `jobs` add their own section to it.
"""

from cliptune.config.fields import Count, Positive, Section, Seed, Site
from cliptune.config.layers import merge, preset, presets, register_task
from cliptune.config.network import EnsembleConfig, ModelConfig, PromptConfig
from cliptune.config.search import ScorerConfig, StrategyConfig, WatchConfig
from cliptune.config.task import ColumnNames, SplitNames, TaskConfig
from cliptune.config.tree import NOT_IDENTITY, Config, validate

__all__ = [
    "NOT_IDENTITY",
    "ColumnNames",
    "Config",
    "Count",
    "EnsembleConfig",
    "ModelConfig",
    "Positive",
    "PromptConfig",
    "ScorerConfig",
    "Section",
    "Seed",
    "Site",
    "SplitNames",
    "StrategyConfig",
    "TaskConfig",
    "WatchConfig",
    "merge",
    "preset",
    "presets",
    "register_task",
    "validate",
]
