"""What served prompts answer, refuse and count, asked over HTTP; and the page in a browser."""

import hashlib
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import browser
import pytest
from provider_here import Here, listening
from served import ask, searched

from cliptune.predictor import load
from cluster.classify import Classifier, Limits
from cluster.prompts import Served

TEXTS = ["a good film", "an awful story . it was dull"]
TOKEN = "a token of the tests"  # noqa: S105 - not a real one
LIMITS = Limits(texts=4, characters=100, bytes=2000, queue=1)


@pytest.fixture(scope="module")
def runs(
    model_dir: Path, task_dir: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("served")
    return {
        "first": searched(model_dir, task_dir, folder / "first"),
        "other": searched(model_dir, task_dir, folder / "other", search={"seed": 1, "budget": 8}),
    }


@pytest.fixture(scope="module")
def classifier(runs: dict[str, Path]) -> Classifier:
    return Classifier([Served(name, str(run)) for name, run in runs.items()], LIMITS)


@pytest.fixture(scope="module")
def here(classifier: Classifier) -> Iterator[Here]:
    with listening(classifier) as here:
        yield here


@pytest.fixture(scope="module")
def guarded(runs: dict[str, Path]) -> Iterator[Here]:
    digest = hashlib.sha256(TOKEN.encode()).hexdigest()
    with listening(Classifier([Served("first", str(runs["first"]))], LIMITS, digest)) as here:
        yield here


def classify(here: Here, body: Any, **headers: str) -> tuple[int, Any]:
    status, answer, _ = ask(here.url, "/v1/classify", body, **headers)
    return status, answer


@pytest.mark.parametrize("ensemble", [False, True])
@pytest.mark.parametrize("name", ["first", "other"])
def test_each_prompt_answers_as_it_does_by_itself(
    name: str, ensemble: bool, here: Here, runs: dict[str, Path]
) -> None:
    status, answer = classify(here, {"prompt": name, "texts": TEXTS, "ensemble": ensemble})
    expected = load(runs[name]).predict(TEXTS, ensemble=ensemble)
    assert (status, answer["prompt"]) == (200, name)
    for found, one in zip(answer["predictions"], expected, strict=True):
        assert (found["label"], found["value"]) == (one.label, one.value)
        assert found["probabilities"] == pytest.approx(one.probabilities, abs=1e-6)
        assert found["agreement"] == one.agreement


def test_prompts_are_described_without_where_they_lie(here: Here, runs: dict[str, Path]) -> None:
    status, answer, _ = ask(here.url, "/v1/prompts")
    assert status == 200
    assert [each["name"] for each in answer["prompts"]] == ["first", "other"]
    assert answer["prompts"][0]["label_words"] == ["bad", "great"]
    assert set(answer["prompts"][0]["accuracy"]["tuned prompt"]) == {"train", "validation", "test"}
    assert str(runs["first"].parent) not in str(answer)


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        ({"texts": TEXTS}, 422, "first, other"),
        ({"prompt": "third", "texts": TEXTS}, 422, "'third'"),
        ({"prompt": "first", "texts": []}, 422, "texts"),
        ({"prompt": "first", "texts": "a film"}, 422, "texts"),
        ({"prompt": "first", "texts": [["a", "b"]]}, 422, "texts.0: expected a text; found 2"),
        ({"prompt": "first", "texts": ["a film", " "]}, 422, "texts.1"),
        ({"prompt": "first", "texts": ["a film"], "top": 1}, 422, "top"),
        ({"prompt": "first", "texts": ["a"] * 5}, 413, "4 texts"),
        ({"prompt": "first", "texts": ["a" * 101]}, 413, "100 characters"),
        (b"x" * 3000, 413, "2,000 bytes"),
        (b"{", 422, "JSON"),
    ],
)
def test_what_cannot_be_answered_is_refused_in_a_sentence(
    body: Any, status: int, words: str, here: Here
) -> None:
    found, answer = classify(here, body)
    assert found == status
    assert words in answer["message"]


def test_other_paths_methods_and_kinds_of_content_are_refused(here: Here) -> None:
    assert ask(here.url, "/v1/other")[0] == 404
    assert ask(here.url, "/v1/classify")[0] == 405
    body = {"prompt": "first", "texts": TEXTS}
    assert ask(here.url, "/v1/classify", body, **{"content-type": "text/plain"})[0] == 415


def test_a_full_queue_and_a_late_answer_are_said(
    classifier: Classifier, here: Here, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, may = threading.Event(), threading.Event()
    compute = classifier._host.answer

    def held(*given: Any) -> Any:
        begun.set()
        assert may.wait(20)
        return compute(*given)

    monkeypatch.setattr(classifier._host, "answer", held)
    body = {"prompt": "first", "texts": TEXTS[:1]}
    answers: list[int] = []
    first = threading.Thread(target=lambda: answers.append(classify(here, body)[0]))
    first.start()
    assert begun.wait(20)
    monkeypatch.setattr(classifier, "_limits", Limits(seconds=0.05))
    assert classify(here, body)[0] == 504
    monkeypatch.setattr(classifier._batcher, "_queue", 0)
    status, _, headers = ask(here.url, "/v1/classify", body)
    assert (status, headers["retry-after"]) == (429, "1")
    may.set()
    first.join(20)
    assert answers == [200]


def test_without_the_token_only_health_and_an_empty_page_are_shown(guarded: Here) -> None:
    for path in ("/v1/prompts", "/metrics", "/v1/other"):
        assert ask(guarded.url, path)[0] in (401, 404)
    status, answer, headers = ask(guarded.url, "/v1/classify", {"texts": TEXTS})
    assert (status, headers["www-authenticate"]) == (401, "Bearer")
    assert TOKEN not in str(answer)
    assert classify(guarded, {"texts": TEXTS}, authorization="Bearer other")[0] == 401
    assert classify(guarded, {"texts": TEXTS}, authorization=f"Bearer {TOKEN}")[0] == 200
    assert ask(guarded.url, "/v1/health")[:2] == (200, {"status": "ok"})
    assert ask(guarded.url, "/")[0] == 200


def test_metrics_count_requests_texts_and_batches_and_hold_no_text(here: Here) -> None:
    classify(here, {"prompt": "first", "texts": ["a story that nobody else has"]})
    status, text, _ = ask(here.url, "/metrics")
    assert status == 200
    assert 'cliptune_serve_texts_total{ensemble="false",prompt="first"' in text
    assert 'path="/v1/classify"' in text
    assert "cliptune_serve_batch_texts_sum" in text
    assert "nobody" not in text


@pytest.mark.slow
@pytest.mark.skipif(browser.BROWSER is None, reason="no Chromium here")
def test_the_page_asks_for_the_token_and_shows_classes_and_agreement(
    guarded: Here, tmp_path: Path
) -> None:
    with browser.tab(tmp_path) as tab:
        for width, dark in ((375, True), (1280, False)):
            tab.look(width, dark=dark)
            tab.open(guarded.url)
            tab.wait("!document.getElementById('door').hidden")
            tab.type("token", TOKEN)
            tab.run("document.querySelector('#door button').click()")
            tab.wait("!document.getElementById('ask').hidden")
            tab.type("text", "<img src=x onerror=alert(1)> a good film")
            tab.run("document.getElementById('send').click()")
            tab.wait("!document.getElementById('found').hidden")
            shown = tab.run("document.getElementById('found').innerText")
            assert "of 3 subnetworks say the same" in shown
            assert {"bad", "great"} <= set(shown.split())
            assert tab.run("document.documentElement.scrollWidth") <= width
            assert tab.run("document.querySelectorAll('img').length") == 0
            assert tab.run("matchMedia('(prefers-color-scheme: dark)').matches") == dark
    said = [str(event) for event in tab.events if event["method"] == "Log.entryAdded"]
    assert all("401" in each for each in said), said  # nothing that the page's policy forbids


def test_of_a_search_that_has_not_ended_the_full_network_alone_is_asked(
    model_dir: Path, task_dir: Path, tmp_path: Path
) -> None:
    """The class biases of its thinned networks are known at its end."""
    run = searched(model_dir, task_dir, tmp_path / "secret", search={"calibrate": True})
    for name in ("result.json", "prompt.json", "prompt.safetensors"):
        (run / name).unlink()
    classifier = Classifier([Served("half", str(run))], LIMITS)
    with listening(classifier) as half:
        status, answer = classify(half, {"texts": TEXTS, "ensemble": True})
        assert status == 422
        assert "its search has not ended: ensemble must be false" in answer["message"]
        assert "secret" not in answer["message"]
        assert ask(half.url, "/v1/prompts")[1]["prompts"][0]["subnetworks"] == 0
        assert classify(half, {"texts": TEXTS})[0] == 200
