"""What a provider answers, refuses and counts: asked as any HTTP client would."""

import asyncio
import hashlib
import json
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from provider_here import provider_of
from starlette.requests import Request
from starlette.responses import Response

from cliptune.config import Config
from cliptune.local import LocalScorer
from cliptune.protocol import (
    HEALTH,
    METRICS,
    PROMPT,
    SCORE,
    SESSIONS,
    Answer,
    Array,
    Opened,
    PromptAnswer,
)
from cliptune.remote import session_of
from cliptune.subnetwork import FULL_NETWORK
from cliptune.task import load_task
from cluster.provided import ModelHost
from cluster.provider import Provider

LATENTS = np.random.default_rng(0).standard_normal((2, 5))


@pytest.fixture(autouse=True)
def threads() -> Iterator[None]:
    """A provider sets those of its process, which here is ours."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def provider(model_dir: Path) -> Provider:
    return provider_of(model_dir)


@pytest.fixture
def config(model_dir: Path, task_dir: Path) -> Config:
    return tiny.config(model_dir, task_dir)


async def asked(
    provider: Provider, path: str, body: Any = None, *, method: str = "", **headers: str
) -> Response:
    """One request, as an ASGI server hands it over."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    headers = {"host": "127.0.0.1:8400", "content_type": "application/json", **headers}
    parts = [content[i : i + 1024] for i in range(0, len(content) or 1, 1024)]
    scope = {
        "type": "http",
        "method": method or ("GET" if body is None else "POST"),
        "path": path,
        "query_string": b"",
        "headers": [
            (name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()
        ],
    }

    async def messages() -> AsyncIterator[dict[str, Any]]:
        for i, part in enumerate(parts):
            yield {"type": "http.request", "body": part, "more_body": i + 1 < len(parts)}

    return await provider(Request(scope, messages().__anext__))


def ask(provider: Provider, path: str, body: Any = None, **more: str) -> tuple[int, Any]:
    """Status and JSON."""
    response = asyncio.run(asked(provider, path, body, **more))
    return response.status_code, json.loads(bytes(response.body))


def opened(provider: Provider, config: Config, **other: Any) -> Opened:
    session = session_of(config, load_task(config.task)).model_dump(mode="json")
    status, found = ask(provider, SESSIONS, session | other)
    assert status == 200, found
    return Opened.model_validate(found)


def question(session: str, **other: Any) -> dict[str, Any]:
    full = {"index": 0, "seed": 0, "clip_ratio": 0.0, "sites": []}
    unit = {"subnetwork": full, "split": "train", "candidates": [0, 2], "examples": [0, 1]}
    latents = Array.of(LATENTS).model_dump(mode="json")
    return {"session": session, "units": [unit], "latents": latents, **other}


def unit(session: str, **other: Any) -> dict[str, Any]:
    (first,) = question(session)["units"]
    return question(session, units=[first | other])


def test_scores_are_a_local_scorers(provider: Provider, config: Config) -> None:
    status, found = ask(provider, SCORE, question(opened(provider, config).session))
    assert status == 200
    answer = Answer.model_validate(found)
    local = LocalScorer(config, load_task(config.task))
    expected = local.class_scores(LATENTS, "train", [FULL_NETWORK])[:, 0, :2]
    np.testing.assert_allclose(answer.scores[0].numpy(), expected, rtol=0, atol=1e-5)
    assert answer.usage.forward_passes == 4


def test_prompts_may_come_as_vectors(provider: Provider, config: Config) -> None:
    session = opened(provider, config).session
    prompts = []
    for latent in LATENTS:
        asked_for = {"session": session, "latent": Array.of(latent).model_dump(mode="json")}
        status, found = ask(provider, PROMPT, asked_for)
        assert status == 200
        prompts.append(PromptAnswer.model_validate(found).prompt.numpy())
    vectors = Array.of(np.stack(prompts)).model_dump(mode="json")
    _, by_vectors = ask(provider, SCORE, question(session, latents=None, prompts=vectors))
    _, by_latents = ask(provider, SCORE, question(session))
    for one, other in zip(by_vectors["scores"], by_latents["scores"], strict=True):
        np.testing.assert_allclose(
            Array.model_validate(one).numpy(), Array.model_validate(other).numpy(), atol=1e-5
        )


def test_a_session_has_one_name_wherever_it_is_opened(
    provider: Provider, config: Config, model_dir: Path
) -> None:
    again = opened(provider_of(model_dir), config)
    assert opened(provider, config) == opened(provider, config) == again


def test_sessions_share_the_models_weights_and_not_their_subnetworks(
    model_dir: Path, task_dir: Path
) -> None:
    provider = provider_of(model_dir, sessions=2, idle=0)
    configs = [tiny.config(model_dir, task_dir, prompt={"seed": seed}) for seed in range(3)]
    names = [opened(provider, config).session for config in configs[:2]]
    thinned = {"index": 1, "seed": 3, "clip_ratio": 0.5, "sites": ["ffn-output"]}
    before = ask(provider, SCORE, question(names[1]))[1]["scores"]
    ask(provider, SCORE, unit(names[0], subnetwork=thinned))
    assert ask(provider, SCORE, question(names[1]))[1]["scores"] == before
    kept: Any = provider._host._sessions
    one, other = (kept[name].model.module.get_input_embeddings() for name in names)
    assert one is not other
    assert one.weight is other.weight
    opened(provider, configs[2])  # the first one makes way
    status, found = ask(provider, SCORE, question(names[0]))
    assert (status, found["error"]) == (404, "unknown_session")


def test_searches_that_go_on_keep_their_places_and_a_further_one_waits(
    model_dir: Path, task_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    provider = provider_of(model_dir, sessions=1)
    one, other = (tiny.config(model_dir, task_dir, prompt={"seed": seed}) for seed in (0, 1))
    session = opened(provider, one).session
    sent = session_of(other, load_task(other.task)).model_dump(mode="json")
    status, found = ask(provider, SESSIONS, sent)
    assert (status, found["error"]) == (429, "busy")
    assert "all places for sessions (1) are taken by searches that go on" in found["message"]
    assert ask(provider, SCORE, question(session))[0] == 200
    now = time.monotonic() + 11
    monkeypatch.setattr("cluster.provided.time.monotonic", lambda: now)
    with provider._host.awaited(session):  # a question of it waits, for longer than eleven seconds
        assert ask(provider, SESSIONS, sent)[0] == 429
    assert ask(provider, SESSIONS, sent)[0] == 429  # it was answered just now
    now += 11
    assert ask(provider, SESSIONS, sent)[0] == 200
    assert ask(provider, SCORE, question(session))[0] == 404


@pytest.mark.parametrize(
    ("other", "words"),
    [
        ({"split": "nothing"}, "has no split 'nothing'"),
        ({"examples": [0, 99]}, "train has 6 examples; 99 was asked for"),
        ({"candidates": [0, 3]}, "candidates must be a span of the 2 that were sent"),
        ({"candidates": [1, 1]}, "candidates must be a span of the 2 that were sent"),
        ({"examples": [0] * 4096}, "a unit may have 4096 rows, 8192 were asked for"),
        ({"examples": []}, "units.0.examples: "),
        ({"examples": [-1]}, "units.0.examples.0: "),
        ({"colour": 1}, "units.0.colour: "),
    ],
)
def test_a_bad_unit_is_refused_in_one_sentence(
    other: dict[str, Any], words: str, provider: Provider, config: Config
) -> None:
    status, found = ask(provider, SCORE, unit(opened(provider, config).session, **other))
    assert (status, found["error"]) == (422, "invalid")
    assert words in found["message"]
    assert "\n" not in found["message"]


@pytest.mark.parametrize(
    ("latents", "words"),
    [
        (Array.of(np.zeros((2, 4))).model_dump(), "latents must have the shape (2, 5), (2, 4)"),
        ({"dtype": "float64", "shape": [2, 5], "data": "AAAA"}, "data must be 80 bytes"),
        ({"dtype": "float64", "shape": [2, 5], "data": "?"}, "data must be base64"),
        ({"dtype": "object", "shape": [], "data": ""}, "latents.dtype: "),
        ({"dtype": "float64", "shape": [2**40, 2**40], "data": ""}, "data must be "),
    ],
)
def test_bad_arrays_are_refused(
    latents: Any, words: str, provider: Provider, config: Config
) -> None:
    session = opened(provider, config).session
    status, found = ask(provider, SCORE, question(session, latents=latents))
    assert status == 422
    assert words in found["message"]


@pytest.mark.parametrize(
    ("other", "words"),
    [
        ({"template": "{nothing}"}, "task.template knows"),
        ({"splits": {}}, "splits: "),
        ({"prompt": {"length": 10_000, "dimension": 100_000}}, "GiB are given to a session"),
        ({"prompt": {"length": 63}}, "Lower prompt.length"),
        ({"prompt": {"init": "file"}}, "prompt"),
        ({"prompt": {"init": "file", "file": "/etc/passwd"}}, "init: file and a value"),
        ({"prompt_file": "?"}, "prompt_file must be base64"),
        ({"model": {"micro_batch": 5000}}, "model.micro_batch may be 4096 here"),
        ({"model": {"dtype": "float16"}}, "model.dtype is float32 at this provider"),
        ({"splits": {"train": {"texts": ["a"], "pairs": ["b"]}}}, "second sentences"),
    ],
)
def test_a_bad_session_is_refused_in_one_sentence(
    other: dict[str, Any], words: str, provider: Provider, config: Config
) -> None:
    session = session_of(config, load_task(config.task)).model_dump(mode="json")
    status, found = ask(provider, SESSIONS, session | other)
    assert (status, found["error"]) == (422, "invalid")
    assert words in found["message"]


def test_what_is_too_much_is_refused(model_dir: Path, config: Config) -> None:
    provider = provider_of(model_dir, bytes=3000, units=2, examples=3)
    status, found = ask(provider, SCORE, b"x" * 4000)
    assert (status, found["message"]) == (413, "a request may have 3,000 bytes, it has more.")
    assert ask(provider, SCORE, b"x" * 100_000)[0] == 413
    _, found = ask(provider, SCORE, question("0") | {"units": question("0")["units"] * 3})
    assert found["message"] == "a request may have 2 units, 3 were sent."
    session = session_of(config, load_task(config.task)).model_dump(mode="json")
    _, found = ask(provider, SESSIONS, session)
    assert found["message"] == "a session takes 3 examples at most; 18 were sent."


def test_paths_and_methods_that_are_none(provider: Provider) -> None:
    assert ask(provider, "/v2/score", {})[0] == 404
    assert ask(provider, SCORE, {}, method="PUT")[0] == 405
    assert ask(provider, SCORE, b"not json")[0] == 422
    assert ask(provider, SCORE, {}, content_type="text/plain")[0] == 415


def test_a_token_is_asked_for_by_all_but_health(model_dir: Path) -> None:
    guarded = provider_of(model_dir, hashlib.sha256(b"right").hexdigest())
    assert ask(guarded, HEALTH) == (200, {"status": "ok"})
    for path, body in ((METRICS, None), (SCORE, {}), (SESSIONS, {}), (PROMPT, {}), ("/x", None)):
        response = asyncio.run(asked(guarded, path, body))
        assert response.status_code == 401
        assert response.headers["www-authenticate"] == "Bearer"
    assert ask(guarded, SCORE, {}, authorization="Bearer wrong")[0] == 401
    assert ask(guarded, SCORE, {}, authorization="Basic right")[0] == 401
    assert ask(guarded, SCORE, {}, authorization="Bearer right")[0] == 422  # {} is no question


def test_metrics_count_what_was_done(model_dir: Path, config: Config) -> None:
    provider = provider_of(model_dir)
    ask(provider, SCORE, question(opened(provider, config).session))
    ask(provider, SCORE, b"")
    text = bytes(asyncio.run(asked(provider, METRICS)).body).decode()
    for line in (
        'cliptune_provider_requests_total{path="/v1/score",status="200"} 1.0',
        'cliptune_provider_requests_total{path="/v1/score",status="422"} 1.0',
        "cliptune_provider_units_total 1.0",
        "cliptune_provider_forward_passes_total 4.0",
        "cliptune_provider_sessions 1.0",
        "cliptune_provider_waiting 0.0",
        "cliptune_provider_replicas 1.0",
    ):
        assert line in text.splitlines()


class Held:
    """A model that computes nothing until it may."""

    sessions = 0

    awaited = staticmethod(nullcontext)

    def __init__(self) -> None:
        self.begun, self.go = threading.Event(), threading.Event()
        self.together = self.most = self.calls = 0

    def score(self, question: Any, check: Any) -> Answer:
        self.calls += 1
        self.together += 1
        self.most = max(self.most, self.together)
        self.begun.set()
        self.go.wait(20)
        self.together -= 1
        check()
        usage = {"forward_passes": 0, "tokens": 0, "device_seconds": 0}
        return Answer.model_validate({"scores": [], "usage": usage})


async def together(provider: Provider, held: Held, count: int, *, release: bool) -> list[Response]:
    """So many requests at once, the first of which is being computed."""
    first = asyncio.create_task(asked(provider, SCORE, question("0")))
    await asyncio.to_thread(held.begun.wait, 20)
    others = [asyncio.create_task(asked(provider, SCORE, question("0"))) for _ in range(count - 1)]
    if release:
        await asyncio.wait(others, return_when=asyncio.FIRST_COMPLETED)  # a refusal
    else:
        await asyncio.wait([first, *others])
    held.go.set()
    return await asyncio.gather(first, *others)


def held_provider(model_dir: Path, **limits: Any) -> tuple[Provider, Held]:
    provider, held = provider_of(model_dir, **limits), Held()
    provider._host = held  # type: ignore[assignment]
    return provider, held


def test_one_request_is_computed_at_a_time_and_the_queue_is_bounded(model_dir: Path) -> None:
    provider, held = held_provider(model_dir, queue=2)
    answers = asyncio.run(together(provider, held, 5, release=True))
    assert sorted(answer.status_code for answer in answers) == [200, 200, 200, 429, 429]
    assert held.most == 1
    refused = next(answer for answer in answers if answer.status_code == 429)
    assert refused.headers["retry-after"] == "1"
    assert ask(provider, SCORE, question("0"))[0] == 200  # room again


def test_what_takes_too_long_is_given_up_and_what_waits_with_it_may_come_again(
    model_dir: Path,
) -> None:
    provider, held = held_provider(model_dir, seconds=0.2)
    computed, waited = asyncio.run(together(provider, held, 2, release=False))
    assert computed.status_code == 504
    assert waited.status_code == 503
    assert waited.headers["retry-after"] == "1"
    assert ask(provider, SCORE, question("0"))[0] == 200
    assert held.calls == 2  # what nobody waits for any more was not computed


def test_a_defect_is_told_without_its_details(
    provider: Provider, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: Any) -> None:
        raise ZeroDivisionError(f"a {'secret'} path")

    monkeypatch.setattr(ModelHost, "score", broken)
    status, found = ask(provider, SCORE, question("0"))
    assert (status, found["error"]) == (500, "defect")
    assert "secret" not in found["message"]
    assert "ZeroDivisionError" in caplog.text  # and where it happened
    assert "test_provider.py" in caplog.text
    assert "secret path" not in caplog.text
