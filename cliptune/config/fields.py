"""What a section is, and the kinds of values that several of its settings have."""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationInfo, WithJsonSchema

from cliptune.functions import loss, metric, mixer, readout
from cliptune.registry import Registry

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


def _at_home(path: str) -> str:
    return str(Path(path).expanduser()) if path.startswith("~/") else path


Place = Annotated[str, Field(min_length=1), AfterValidator(_at_home)]
File = Annotated[Path, AfterValidator(Path.expanduser)]


class Section(BaseModel):
    """A part of the tree: unknown keys are refused, values never change."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, protected_namespaces=(), coerce_numbers_to_str=True
    )
