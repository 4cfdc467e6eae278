"""Frozen language models behind one interface; a file a family."""

from cliptune.models.base import Batch, FrozenModel
from cliptune.models.load import load_model

__all__ = ["Batch", "FrozenModel", "load_model"]
