"""What a RemoteScorer refuses, or gives up on: one sentence each."""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import tiny
from provider_here import Here, asking, impatient, listening, provider_of, scorer_of, text
from scorer_contract import latents
from starlette.responses import Response

from cliptune import asking as asking_module
from cliptune.asking import TooMuch
from cliptune.config import Config, validate
from cliptune.errors import CliptuneError, ConfigError, ScorerError
from cliptune.loop import search
from cliptune.protocol import SCORE, TOKEN


@pytest.fixture(scope="module")
def provider(model_dir: Path) -> Iterator[Here]:
    with listening(provider_of(model_dir)) as here:
        yield here


@pytest.fixture(autouse=True)
def own_place(monkeypatch: pytest.MonkeyPatch, provider: Here) -> Iterator[None]:
    with impatient(monkeypatch, provider):
        yield


@pytest.fixture
def config(model_dir: Path, task_dir: Path, tmp_path: Path, provider: Here) -> Config:
    return asking(provider, tiny.config(model_dir, task_dir, tmp_path / "run"))


def sentence(error: type[CliptuneError], config: Config) -> str:
    with pytest.raises(error) as caught:
        scorer_of(config).score(latents())
    assert type(caught.value) is error
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_refused_connection(config: Config) -> None:
    said = sentence(ScorerError, asking("http://127.0.0.1:9", config))
    assert "No answer from the provider at http://127.0.0.1:9: Connection refused." in said
    assert said.endswith("Check scorer.url, and that `cliptune provider` runs there.")


def test_a_provider_that_stays_busy(config: Config, provider: Here) -> None:
    scorer = scorer_of(asking(provider, config, patience=0.1, requests=1))
    busy = '{"error": "busy", "message": "16 requests wait already."}'
    provider.instead += [text(429, busy, Retry_After="9") for _ in range(9)]
    with pytest.raises(ScorerError, match=r"16 requests wait already\. Tried 1 times .*journal\."):
        scorer.score(latents())


def test_the_last_try_is_at_the_end_of_patience_and_not_before(
    config: Config, provider: Here, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asking_module, "LONGEST_PAUSE", 30.0)
    client: Any = scorer_of(config)._provider
    state: Any = SimpleNamespace(outcome=None, attempt_number=9)
    for passed, expected in ((0, (15, 30)), (50, (10, 10)), (60, (0, 0))):
        state.seconds_since_start = passed
        state.upcoming_sleep = client._pause(state, 60)
        assert expected[0] <= state.upcoming_sleep <= expected[1]
        assert client._enough(state, 60) == (passed == 60)
    state.seconds_since_start, state.attempt_number = 0, 5_000  # of hours
    assert 15 <= client._pause(state, 1e6) <= 30


def test_what_was_given_up_is_not_tried_again_when_others_begin(config: Config) -> None:
    client: Any = scorer_of(config)._provider
    tried: list[int] = []

    def once() -> None:
        tried.append(len(tried))
        client.give_up()
        client.begin()
        raise asking_module._Again("busy.", after=0.0)

    with pytest.raises(ScorerError, match="Tried 1 times"):
        client._again(once)
    assert tried == [0]


def test_a_provider_that_breaks_again_and_again(config: Config, provider: Here) -> None:
    scorer = scorer_of(asking(provider, config, requests=1))
    provider.instead += [text(500, '{"error": "defect", "message": "a defect."}')] * 100
    with pytest.raises(ScorerError, match=r"a defect\. Tried 5 times .* Its own log says more\."):
        scorer.score(latents())


def test_one_micro_batch_that_takes_too_long(config: Config, provider: Here) -> None:
    scorer = scorer_of(asking(provider, config, units=1, requests=1))
    provider.instead += [text(504, '{"error": "timeout", "message": "too long."}')] * 9
    with pytest.raises(ScorerError, match=r"answered: too long\. What was scored before"):
        scorer.score(latents())


@pytest.mark.parametrize("status", [413, 504])
def test_a_task_that_is_too_much_for_the_provider(
    status: int, config: Config, provider: Here
) -> None:
    said = '{"error": "too_much", "message": "more than 600 bytes: raise --megabytes."}'
    provider.instead.append(text(status, said))
    assert "answered: more than 600 bytes: raise --megabytes." in sentence(TooMuch, config)


def test_a_server_that_is_no_provider(config: Config, provider: Here) -> None:
    for answer in (text(200, "<html>"), text(404, "nothing"), text(302, Location="/login")):
        provider.instead.append(answer)
        said = sentence(ScorerError, config)
        assert "is no cliptune provider of this version. Check scorer.url" in said


def test_an_answer_of_other_shapes(config: Config, provider: Here) -> None:
    scorer = scorer_of(asking(provider, config, requests=1))
    usage = {"forward_passes": 0, "tokens": 0, "device_seconds": 0}
    empty = json.dumps({"scores": [], "usage": usage})
    provider.instead.append(Response(empty, media_type="application/json"))
    with pytest.raises(ScorerError, match="class scores of other shapes than asked for"):
        scorer.score(latents())


def test_settings_that_the_provider_has_otherwise(config: Config) -> None:
    tree = config.model_dump(mode="json")
    tree["model"]["dtype"] = "bfloat16"
    said = sentence(ConfigError, validate(Config, tree))
    assert "model.dtype is float32 at this provider, bfloat16 was asked for." in said


def test_a_label_word_of_several_tokens_is_refused_there_in_the_models_words(
    config: Config,
) -> None:
    tree = config.model_dump(mode="json")
    tree["task"]["label_words"] = ["bad", "greatest"]
    assert "greatest" in sentence(ConfigError, validate(Config, tree))


def test_a_token_is_read_from_the_environment_and_shown_to_the_provider_alone(
    config: Config, model_dir: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    digest = hashlib.sha256(b"s3cret").hexdigest()
    with listening(provider_of(model_dir, digest)) as here:
        guarded = asking(here, config)
        assert "a token is needed. Give its token in" in sentence(ScorerError, guarded)
        monkeypatch.setenv(TOKEN, "wrong")
        assert "the token is another one. Give its token in" in sentence(ScorerError, guarded)
        monkeypatch.setenv(TOKEN, "s3cret")
        search(guarded)
        assert here.paths.count(SCORE) > 0
    for file in (tmp_path / "run").rglob("*"):
        assert file.is_dir() or b"s3cret" not in file.read_bytes()


def test_a_token_with_a_newline_at_its_end_is_that_token(
    config: Config, model_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As it comes out of a file or a cluster's secret."""
    monkeypatch.setenv(TOKEN, "s3cret\n")
    with listening(provider_of(model_dir, hashlib.sha256(b"s3cret").hexdigest())) as here:
        assert scorer_of(asking(here, config)).score(latents()).size


@pytest.mark.parametrize("token", ["s3c\nret", "s3crét"])
def test_a_token_that_no_header_holds_is_refused_and_not_shown(
    token: str, config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(TOKEN, token)
    said = sentence(ConfigError, config)
    assert said == f"{TOKEN} must be one line of ASCII characters that can be printed."


def test_a_provider_that_is_busy_when_a_search_begins_is_waited_for_as_long_as_later(
    config: Config, provider: Here, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asking_module, "FIRST_PATIENCE", 0.001)
    busy = '{"error": "busy", "message": "16 requests wait already."}'
    provider.instead += [text(429, busy, Retry_After="0.01") for _ in range(3)]
    assert scorer_of(config).score(latents()).size


@pytest.mark.parametrize("url", ["127.0.0.1:8400", "ftp://host", "http://me:pass@host", "http://"])
def test_a_url_is_one_of_http_without_secrets(url: str, config: Config) -> None:
    with pytest.raises(ConfigError, match=r"scorer\.url"):
        asking(url, config)


def test_the_gradient_needs_a_model_of_our_own(config: Config) -> None:
    tree = config.model_dump(mode="json")
    tree["search"]["method"], tree["ensemble"]["mode"] = "gradient", "none"
    with pytest.raises(ConfigError, match=r"scorer\.url must be null"):
        validate(Config, tree)
