"""A provider over real HTTP in this process, without Ray Serve around it."""

import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
import uvicorn
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from cliptune import asking as asking_module
from cliptune.config import Config, ModelConfig, validate
from cliptune.protocol import TOKEN
from cliptune.remote import RemoteScorer
from cliptune.task import load_task
from cluster.provider import Limits, Provider

Handler = Callable[[Request], Awaitable[Response]]


@dataclass
class Here:
    """Where it is, and what it answers instead of what it would."""

    url: str
    provider: Handler
    instead: list[Response] = field(default_factory=list)  # of the next requests, first one first
    paths: list[str] = field(default_factory=list)  # that were asked for

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        request = Request(scope, receive)
        self.paths.append(request.url.path)
        if self.instead:
            response = self.instead.pop(0)  # before anything else may come between
            await request.body()
        else:
            response = await self.provider(request)
        await response(scope, receive, send)


def model_of(folder: Path, **settings: Any) -> ModelConfig:
    return ModelConfig(**{"name": str(folder), "dtype": "float32", "device": "cpu", **settings})


def provider_of(
    folder: Path, token_sha256: str | None = None, settings: Any = None, **limits: Any
) -> Provider:
    return Provider(model_of(folder, **(settings or {})), Limits(**limits), token_sha256)


@contextmanager
def listening(provider: Handler, port: int = 0) -> Iterator[Here]:
    """Have it answer at a port, by default one of its own."""
    before = torch.get_num_threads()
    here = Here("", provider)
    config = uvicorn.Config(here, host="127.0.0.1", port=port, log_level="error", lifespan="off")
    server = uvicorn.Server(config)
    sockets = [config.bind_socket()]
    sockets[0].listen()  # from now on nobody is refused
    here.url = f"http://127.0.0.1:{sockets[0].getsockname()[1]}"
    thread = threading.Thread(target=server.run, kwargs={"sockets": sockets}, daemon=True)
    thread.start()
    try:
        yield here
    finally:
        server.should_exit = True
        thread.join(10)
        torch.set_num_threads(before)


def text(status: int, words: str = "", **headers: str) -> PlainTextResponse:
    """An answer of something between us and the provider."""
    return PlainTextResponse(words, status, {k.replace("_", "-"): v for k, v in headers.items()})


@contextmanager
def impatient(monkeypatch: pytest.MonkeyPatch, here: Here) -> Iterator[None]:
    """No token, short pauses, and nothing left of an earlier test."""
    monkeypatch.delenv(TOKEN, raising=False)
    monkeypatch.setattr(asking_module, "FIRST_PATIENCE", 0.5)
    monkeypatch.setattr(asking_module, "LONGEST_PAUSE", 0.02)
    here.paths.clear()
    yield
    here.instead.clear()


def asking(here: Here | str, config: Config, **settings: Any) -> Config:
    url = here if isinstance(here, str) else here.url
    tree = {**config.model_dump(mode="json"), "scorer": {"url": url, "patience": 5, **settings}}
    return validate(Config, tree)


def scorer_of(config: Config) -> RemoteScorer:
    return RemoteScorer(config, load_task(config.task))
