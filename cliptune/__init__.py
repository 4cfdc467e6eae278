"""Clip-Tuning: learning a soft prompt for a frozen language model without gradients.

Chai et al., "Clip-Tuning: Towards Derivative-free Prompt Learning with a Mixture of Rewards",
Findings of EMNLP 2022 (arXiv 2210.12050). `search` is the whole of it in one call.
"""

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from cliptune.api import search
    from cliptune.config import Config, register_task
    from cliptune.functions import loss, metric, mixer, readout
    from cliptune.observer import Observer, Progress
    from cliptune.predictor import Prediction, Predictor, load
    from cliptune.record import Result

_HOMES = {
    "Config": "config",
    "Observer": "observer",
    "Prediction": "predictor",
    "Predictor": "predictor",
    "Progress": "observer",
    "Result": "record",
    "load": "predictor",
    "loss": "functions",
    "metric": "functions",
    "mixer": "functions",
    "readout": "functions",
    "register_task": "config",
    "search": "api",
}

__all__ = [
    "Config",
    "Observer",
    "Prediction",
    "Predictor",
    "Progress",
    "Result",
    "__version__",
    "load",
    "loss",
    "metric",
    "mixer",
    "readout",
    "register_task",
    "search",
]


def __getattr__(name: str) -> Any:
    """Import on first use: `cliptune --help` must not wait for numpy and arrow."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"cliptune.{_HOMES[name]}"), name)
