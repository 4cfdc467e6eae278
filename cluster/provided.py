"""The sessions of a provider: one model in this process, made ready for several searches."""

from __future__ import annotations

import base64
import gc
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cliptune.config import Config, ModelConfig, validate
from cliptune.device import resolve
from cliptune.errors import ConfigError
from cliptune.local import LocalScorer
from cliptune.models.load import Loaded, load_plain, shape_of
from cliptune.protocol import (
    Answer,
    Array,
    Bounds,
    Charge,
    Opened,
    PromptAnswer,
    PromptQuestion,
    Question,
    Session,
    UnitOfWork,
    UnknownSessionError,
)
from cliptune.scorer import Unit
from cliptune.subnetwork import SubnetworkSpec
from cliptune.task import Split, Task, Template
from cliptune.weights import weights_digest

FIXED = ("dtype", "device", "quantize", "readout")  # settings of the model that are not the user's
PROJECTION = 4 * 2**30  # bytes of a session's matrices A at most
NAME = "provided"  # of a session's task; the template and the label words are the user's


class ModelHost:
    """A frozen model and the sessions that were opened last; not for several threads at once."""

    def __init__(
        self, model: ModelConfig, bounds: Bounds, sessions: int, examples: int, idle: float
    ) -> None:
        """At most so many `sessions` of so many `examples` each are kept; one that was not asked
        for `idle` seconds makes room for another."""
        tree = {"model": model.model_dump(mode="json")}
        self._config = resolve(validate(Config, tree), cuda=torch.cuda.is_available())
        self._bounds, self._examples = bounds, examples
        self._most, self._idle = sessions, idle
        self._sessions: dict[str, _Session] = {}
        self._asked: dict[str, float] = {}  # when it was asked last
        self._awaited: Counter[str] = Counter()  # questions that wait, or are being answered
        self._loaded: Loaded = load_plain(self._config.model)
        self.public_name = public_name(model.name)
        weights_digest(model.name)  # reads gigabytes, once

    @property
    def sessions(self) -> int:
        """How many are kept."""
        return len(self._sessions)

    def open(self, session: Session) -> Opened | None:
        """Make the model ready for it, or find that it is; None while there is no room for it.

        Searches that go on would else take each other's place with every question.
        """
        name = session.id()
        if name not in self._sessions:
            if len(self._sessions) >= self._most and not self._make_room():
                return None
            self._sessions[name] = self._made(session)
        return self._find(name).opened(name, self._bounds, self.public_name)

    @contextmanager
    def awaited(self, name: str) -> Iterator[None]:
        """While a question waits or is answered its session stays; from any thread."""
        self._awaited[name] += 1
        try:
            yield
        finally:
            if name in self._asked:  # first: the model's thread may look for an idle one just now
                self._asked[name] = time.monotonic()
            self._awaited[name] -= 1
            if not self._awaited[name]:
                del self._awaited[name]

    def _make_room(self) -> bool:
        """Whether a session could go."""
        until = time.monotonic() - self._idle
        idle = (name for name in self._sessions if name not in self._awaited)
        oldest = min(idle, key=self._asked.__getitem__, default=None)
        if oldest is None or self._asked[oldest] > until:
            return False
        del self._sessions[oldest], self._asked[oldest]
        gc.collect()  # a model is in a cycle, and Python does not see what it holds on a device
        return True

    def score(self, question: Question, check: Callable[[], None]) -> Answer:
        """Class scores of each unit on its own; `check` may raise between two of them."""
        scorer = self._find(question.session)
        prompts = _prompts(question, scorer)
        units = [_unit(each, scorer, prompts, self._bounds) for each in question.units]
        started, scores = time.perf_counter(), []
        for unit in units:
            check()
            scores.append(scorer.run([unit], prompts)[0])
        return Answer(
            scores=tuple(map(Array.of, scores)),
            usage=Charge(
                forward_passes=sum(unit.rows for unit in units),
                tokens=sum(unit.tokens for unit in units),
                device_seconds=time.perf_counter() - started,
            ),
        )

    def prompt(self, question: PromptQuestion) -> PromptAnswer:
        """The vectors of a latent, and what they are near to."""
        scorer = self._find(question.session)
        latent = question.latent.numpy().astype(np.float64)
        _expect("latent", latent, (scorer.config.prompt.latent_size,))
        return PromptAnswer(prompt=Array.of(scorer.prompt(latent)), nearest=scorer.nearest(latent))

    def _find(self, name: str) -> _Session:
        if name not in self._sessions:
            raise UnknownSessionError(
                f"session {name[:12]} is not known here (any more); send it again."
            )
        self._asked[name] = time.monotonic()
        return self._sessions[name]

    def _made(self, session: Session) -> _Session:
        examples = sum(len(split.texts) for split in session.splits.values())
        if examples > self._examples:
            raise ConfigError(
                f"a session takes {self._examples:,} examples at most; {examples:,} were sent."
            )
        with tempfile.TemporaryDirectory() as folder:
            config = self._settings(session, Path(folder) / "prompt.safetensors")
            return _Session(config, _task(session), loaded=self._loaded.another())

    def _settings(self, session: Session, file: Path) -> Config:
        """A search's settings as far as a scorer needs them; no path of the user's is among them.

        `file` is where its prompt.file may lie.
        """
        prompt = {key: value for key, value in session.prompt.items() if key != "file"}
        if session.prompt_file is not None:
            file.write_bytes(_decoded(session.prompt_file))
            prompt["file"] = str(file)
        task = {
            "name": NAME,
            "template": session.template,
            "label_words": session.label_words,
            "verbalizer": session.verbalizer,
            "label_tokens": session.label_tokens,
            "max_tokens": session.max_tokens,
        }
        tree = {
            "task": task,
            "prompt": prompt,
            "search": {"sigma": session.sigma, "method": "random"},  # the user's is not ours
            "model": {**session.model, "name": self._config.model.name},
        }
        config = validate(Config, tree)
        config = config.model_copy(update={"model": self._agreed(config.model)})
        config = resolve(config, cuda=config.model.device == "cuda")
        if int(config.model.micro_batch) > self._bounds.rows:
            raise ConfigError(
                f"model.micro_batch may be {self._bounds.rows} here, {config.model.micro_batch} "
                "was asked for."
            )
        layers, width = shape_of(self._config.model.name)
        space = config.prompt
        size = 4 * space.length * width * space.dimension * min(space.layers, layers)
        if space.projection != "identity" and size > PROJECTION:
            raise ConfigError(
                f"prompt.length {space.length} x width {width} x prompt.dimension "
                f"{space.dimension} x prompt.layers {space.layers} takes {size / 2**30:.1f} GiB; "
                f"at most {PROJECTION / 2**30:.0f} GiB are given to a session."
            )
        return config

    def _agreed(self, asked: ModelConfig) -> ModelConfig:
        """The model's settings: what is the provider's must not be asked for otherwise."""
        ours = self._config.model
        for name in FIXED:
            mine, wanted = getattr(ours, name), getattr(asked, name)
            if wanted not in ("auto", mine):
                raise ConfigError(
                    f"model.{name} is {mine or 'null'} at this provider, {wanted or 'null'} was "
                    f"asked for. Ask for {mine or 'null'}, or have the provider started with it."
                )
        return asked.model_copy(update={name: getattr(ours, name) for name in FIXED})


class _Session(LocalScorer):
    """A scorer of one search; prompts may come as vectors, too."""

    def opened(self, name: str, bounds: Bounds, model: str) -> Opened:
        settings = self.config.model
        return Opened(
            session=name,
            model={
                "dtype": settings.dtype,
                "device": settings.device,
                "micro_batch": settings.micro_batch,
            },
            facts=replace(self.facts(), name=model),
            lengths={split: tuple(lengths) for split, lengths in self.lengths.items()},
            bounds=bounds,
        )

    def _prompted(self, latents: NDArray[Any]) -> Tensor:
        if latents.ndim == 2:
            return super()._prompted(latents)
        return torch.tensor(latents, dtype=torch.float32, device=self.model.device)


def public_name(model: str) -> str:
    """A model's name without where it lies on the provider's disk."""
    path = Path(model).expanduser()
    return path.resolve().name if path.is_dir() else model


def _task(session: Session) -> Task:
    """The task without labels: what is not known is -1."""
    template = Template(session.template)
    splits = {}
    for name, sent in session.splits.items():
        if template.has_pair != (sent.pairs is not None):
            raise ConfigError(
                f"the template and the {name} examples must both have second sentences, or neither."
            )
        labels = np.full(len(sent.texts), -1, dtype=np.int64)
        splits[name] = Split(sent.texts, sent.pairs, labels)
    return Task(
        NAME,
        template,
        session.label_words,
        splits,
        session.max_tokens,
        session.label_tokens,
        session.verbalizer,
    )


def _prompts(question: Question, scorer: _Session) -> NDArray[Any] | None:
    """Latents `(candidates, d)`, vectors `(candidates, [layers,] length, width)`, or none."""
    space = scorer.config.prompt
    if question.latents is not None:
        latents = question.latents.numpy().astype(np.float64)
        _expect("latents", latents, (*latents.shape[:1], space.latent_size))
        return latents
    if question.prompts is None:
        return None
    prompts = question.prompts.numpy().astype(np.float32)
    layers = (space.layers,) if space.layers > 1 else ()
    _expect("prompts", prompts, (*prompts.shape[:1], *layers, space.length, scorer.model.width))
    return prompts


def _expect(what: str, found: NDArray[Any], shape: tuple[int, ...]) -> None:
    if found.shape != shape:
        raise ConfigError(f"{what} must have the shape {shape}, {found.shape} was sent.")


def _unit(
    asked: UnitOfWork, scorer: _Session, prompts: NDArray[Any] | None, bounds: Bounds
) -> Unit:
    """A unit that is there to be computed."""
    lengths = scorer.lengths.get(asked.split)
    if lengths is None:
        raise ConfigError(f"the session has no split {asked.split!r:.60}.")
    if max(asked.examples) >= len(lengths):
        raise ConfigError(
            f"{asked.split} has {len(lengths)} examples; {max(asked.examples)} was asked for."
        )
    (start, end), candidates = asked.candidates, 1 if prompts is None else len(prompts)
    if not start < end <= candidates:
        raise ConfigError(
            f"candidates must be a span of the {candidates} that were sent, ({start}, {end}) found."
        )
    subnetwork = SubnetworkSpec(**asked.subnetwork.model_dump())
    longest = max(lengths[row] for row in asked.examples)
    tokens = longest + (0 if prompts is None else scorer.config.prompt.length)
    unit = Unit(subnetwork, asked.split, (start, end), asked.examples, tokens, reduce=False)
    if unit.rows > bounds.rows:
        raise ConfigError(f"a unit may have {bounds.rows} rows, {unit.rows} were asked for.")
    return unit


def _decoded(content: str) -> bytes:
    try:
        return base64.b64decode(content, validate=True)
    except ValueError as error:
        raise ConfigError(f"prompt_file must be base64; {error}.") from None
