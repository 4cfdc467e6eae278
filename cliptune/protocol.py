"""What a model behind an API and its users say to each other: JSON, arrays within it as base64.

A session is a task's texts and the soft prompt's space. Its id is made of its content, so whoever
sends it again gets the same one. Labels are not part of it: they stay with the user.
"""

from __future__ import annotations

import base64
import binascii
from typing import Annotated, Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

from cliptune.config import Positive, Seed, Site
from cliptune.errors import CliptuneError
from cliptune.hashing import digest
from cliptune.scorer import ModelFacts
from cliptune.types import Neighbours

VERSION: Literal[1] = 1
TOKEN = "CLIPTUNE_TOKEN"  # noqa: S105 - the environment variable that holds it
SESSIONS, SCORE, PROMPT, HEALTH, METRICS = (
    "/v1/sessions",
    "/v1/score",
    "/v1/prompt",
    "/v1/health",
    "/metrics",
)

Row = Annotated[int, Field(ge=0)]


class UnknownSessionError(CliptuneError):
    """A provider was never sent the session, or others came since."""


class Message(BaseModel):
    """Unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())


class Array(Message):
    """Numbers in row-major order, little-endian."""

    dtype: Literal["float32", "float64"]
    shape: tuple[Row, ...] = Field(max_length=4)
    data: str  # base64

    @classmethod
    def of(cls, values: NDArray[Any]) -> Self:
        little = np.ascontiguousarray(values, values.dtype.newbyteorder("<"))
        data = base64.b64encode(little.tobytes()).decode()
        return cls(dtype=values.dtype.name, shape=values.shape, data=data)

    def numpy(self) -> NDArray[Any]:
        """The numbers, which must be finite or not as they are; their count must fit the shape."""
        flat = np.frombuffer(base64.b64decode(self.data), np.dtype(self.dtype).newbyteorder("<"))
        return flat.reshape(self.shape).astype(self.dtype, copy=False)

    @model_validator(mode="after")
    def _data_fills_the_shape(self) -> Self:
        try:
            found = len(base64.b64decode(self.data, validate=True))
        except binascii.Error as error:
            raise ValueError(f"data must be base64; {error}") from None
        expected = int(np.prod(self.shape, dtype=object)) * np.dtype(self.dtype).itemsize
        if found != expected:
            raise ValueError(
                f"data must be {expected} bytes of {self.dtype} for shape {self.shape}, {found} "
                "found"
            )
        return self


class Texts(Message):
    """The examples of a split, without their labels."""

    texts: tuple[str, ...] = Field(min_length=1)
    pairs: tuple[str, ...] | None = None  # second sentences

    @model_validator(mode="after")
    def _pairs_are_as_many(self) -> Self:
        if self.pairs is not None and len(self.pairs) != len(self.texts):
            raise ValueError(f"{len(self.texts)} texts need as many pairs, {len(self.pairs)} given")
        return self


class Session(Message):
    """What does not change from request to request."""

    version: Literal[1] = VERSION
    template: str
    label_words: tuple[str, ...] = Field(min_length=2)
    verbalizer: tuple[tuple[str, ...], ...] | None = None
    label_tokens: Literal["single", "first"] = "single"
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    splits: dict[str, Texts] = Field(min_length=1)
    prompt: dict[str, Any]  # the settings of that section, without a file's path
    prompt_file: str | None = None  # its content as base64
    sigma: Positive = 1.0
    model: dict[str, Any] = Field(default_factory=dict)  # settings of that section, no model.name

    def id(self) -> str:
        """SHA-256 of the content."""
        return digest(self.model_dump(mode="json"))


class Bounds(Message):
    """How much a provider takes at once."""

    units: int  # of a request
    rows: int  # of a unit
    bytes: int  # of a request's body


class Opened(Message):
    """What a provider says of a session."""

    session: str
    model: dict[str, Any]  # settings of that section as resolved
    facts: ModelFacts
    lengths: dict[str, tuple[int, ...]]  # tokens of the examples, without the prompt
    bounds: Bounds


class Subnetwork(Message):
    """As SubnetworkSpec."""

    index: Row
    seed: Seed
    clip_ratio: Annotated[float, Field(ge=0, lt=1)]
    sites: tuple[Site, ...]
    generation: Row | None = None


class UnitOfWork(Message):
    """Some candidates of a request on some examples, through one subnetwork."""

    subnetwork: Subnetwork
    split: str
    candidates: tuple[Row, Row]  # a span of the request's latents or prompts, [start, end)
    examples: tuple[Row, ...] = Field(min_length=1)


class Question(Message):
    """Units to be scored: with prompts by their latents, by their vectors, or without any."""

    session: str
    units: tuple[UnitOfWork, ...] = Field(min_length=1)
    latents: Array | None = None  # (candidates, d) float64
    prompts: Array | None = None  # (candidates, [layers,] length, width) float32

    @model_validator(mode="after")
    def _prompts_are_given_once(self) -> Self:
        if self.latents is not None and self.prompts is not None:
            raise ValueError("latents and prompts exclude each other")
        return self


class Charge(Message):
    """What an answer took."""

    forward_passes: int
    tokens: int  # padding included
    device_seconds: float


class Answer(Message):
    """Class scores `(candidates, examples, classes)` float32 of each unit."""

    scores: tuple[Array, ...]
    usage: Charge


class PromptQuestion(Message):
    """A latent, `(d,)` float64, whose prompt is wanted."""

    session: str
    latent: Array


class PromptAnswer(Message):
    """Its vectors, and the tokens that they are nearest to."""

    prompt: Array
    nearest: Neighbours


class Failure(Message):
    """What went wrong: one word for programs, one sentence for people."""

    error: str
    message: str
