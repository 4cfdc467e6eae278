"""RemoteScorer against a real provider over HTTP: the scorer contract, and what goes wrong."""

import json
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import tiny
from provider_here import Here, asking, impatient, listening, provider_of, scorer_of, text
from scorer_contract import ScorerContract, journal_bytes, latents
from starlette.responses import Response

from cliptune import asking as asking_module
from cliptune import remote
from cliptune.config import Config, validate
from cliptune.errors import ModelError, OutOfMemoryError
from cliptune.local import LocalScorer
from cliptune.loop import search
from cliptune.observer import Observer, Progress
from cliptune.protocol import SCORE, SESSIONS
from cliptune.remote import RemoteScorer
from cliptune.task import load_task


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


def local(config: Config) -> LocalScorer:
    return LocalScorer(config, load_task(config.task))


class TestRemoteScorer(ScorerContract):
    provider: ClassVar[Here]

    @pytest.fixture(scope="class", autouse=True)
    @classmethod
    def _provider(cls, provider: Here) -> None:
        cls.provider = provider

    @classmethod
    def make(cls, config: Config) -> RemoteScorer:
        return scorer_of(asking(cls.provider, config))


def test_facts_are_a_local_scorers_but_for_where_the_model_lies(config: Config) -> None:
    found, expected = scorer_of(config).facts(), local(config).facts()
    assert found.name == Path(expected.name).name
    assert found.sha256 == expected.sha256
    assert found.inputs_sha256 == expected.inputs_sha256


def test_a_search_needs_nothing_but_a_url_and_keeps_its_labels(
    config: Config, provider: Here, model_dir: Path, task_dir: Path, tmp_path: Path
) -> None:
    tree = config.model_dump(mode="json")
    tree["model"] = {"name": "not-here", "micro_batch": 8}  # the rest is the provider's
    result = search(validate(Config, tree))
    reference = tiny.config(model_dir, task_dir, tmp_path / "local")
    search(reference)
    assert journal_bytes(tmp_path / "run") == journal_bytes(tmp_path / "local")
    assert result.bill is not None
    written = json.loads((tmp_path / "run" / "result.json").read_text())
    assert written["bill"] == json.loads((tmp_path / "run" / "bill.json").read_text())
    assert written["bill"]["requests"] == len(provider.paths)
    assert written["bill"]["tokens"] > 0
    assert "bill" not in json.loads((tmp_path / "local" / "result.json").read_text())
    assert not (tmp_path / "local" / "bill.json").exists()


def test_labels_do_not_travel(config: Config) -> None:
    sent = remote.session_of(config, load_task(config.task)).model_dump_json()
    assert "label_words" in sent
    assert '"labels"' not in sent


def test_several_words_a_class_travel(config: Config) -> None:
    tree = config.model_dump(mode="json")
    tree["task"]["verbalizer"] = [["bad", "awful", "dull"], ["great", "good"]]
    several = validate(Config, tree)
    rewards = scorer_of(several).score(latents())
    assert np.array_equal(rewards, local(several).score(latents()))
    assert not np.array_equal(rewards, local(config).score(latents()))


def test_a_prompt_file_goes_as_content_and_not_as_a_path(config: Config, tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    file = tmp_path / "first.safetensors"
    save_file({"prompt": np.ones((3, 32), np.float32)}, file)
    tree = config.model_dump(mode="json")
    tree["prompt"] |= {"init": "file", "file": str(file)}
    filed = validate(Config, tree)
    assert str(tmp_path) not in remote.session_of(filed, load_task(filed.task)).model_dump_json()
    scorer = scorer_of(filed)
    assert np.array_equal(scorer.score(latents()), local(filed).score(latents()))
    assert np.array_equal(scorer.prompt(np.zeros(5)), np.ones((3, 32), np.float32))


def test_a_busy_provider_is_asked_again_after_as_long_as_it_says(
    config: Config, provider: Here
) -> None:
    scorer = scorer_of(asking(provider, config, requests=1))  # one meets all of these
    busy = '{"error": "busy", "message": "16 requests wait already."}'
    provider.instead += [text(429, busy, Retry_After="0.01") for _ in range(3)]
    provider.instead += [text(503, "down", Retry_After="0.01"), text(502), text(500)]
    assert np.array_equal(scorer.score(latents()), local(config).score(latents()))
    assert scorer.usage.retries == 6
    assert scorer.usage.bill is not None
    assert scorer.usage.bill.retries == 6


def test_a_busy_provider_may_name_the_time_of_the_next_try(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = parsedate_to_datetime("Sun, 22 Nov 2026 08:00:00 GMT").timestamp()
    monkeypatch.setattr("cliptune.asking.time.time", lambda: now)
    assert asking_module._seconds("Sun, 22 Nov 2026 08:00:07 GMT") == 7
    assert asking_module._seconds("Sun, 22 Nov 2026 07:00:00 GMT") == 0
    assert asking_module._seconds("7") == 7
    assert asking_module._seconds("soon") is None


def test_an_answer_that_breaks_off_is_asked_for_again(config: Config, provider: Here) -> None:
    scorer = scorer_of(config)
    provider.instead += [Response("{", headers={"content-length": "1000"}) for _ in range(2)]
    assert np.array_equal(scorer.score(latents()), local(config).score(latents()))
    assert scorer.usage.retries == 2


def test_the_end_of_the_process_does_not_wait_for_requests_on_their_way(
    config: Config, provider: Here
) -> None:
    class GivesUp(Observer):
        seen: tuple[bool, ...] = ()

        def waiting(self) -> None:
            threads = [t for t in threading.enumerate() if t.name == "cliptune-request"]
            self.seen += tuple(thread.daemon for thread in threads)

    observer = GivesUp()
    RemoteScorer(asking(provider, config), load_task(config.task), observer).score(latents())
    assert observer.seen
    assert all(observer.seen)


def test_a_session_that_is_forgotten_is_sent_again(
    config: Config, model_dir: Path, provider: Here
) -> None:
    scorer = scorer_of(config)
    before, provider.provider = provider.provider, provider_of(model_dir)  # as a new replica
    try:
        assert np.array_equal(scorer.score(latents()), local(config).score(latents()))
    finally:
        provider.provider = before
    assert provider.paths.count(SESSIONS) >= 2


def test_another_model_behind_the_same_url_is_noticed(
    config: Config, provider: Here, tmp_path: Path
) -> None:
    scorer = scorer_of(config)
    other = tiny.save_model(tmp_path / "other", seed=1)
    before, provider.provider = provider.provider, provider_of(other)
    try:
        with pytest.raises(ModelError, match=r"has another model now: other with SHA-256 .*bert"):
            scorer.score(latents())
    finally:
        provider.provider = before


def test_a_provider_that_dies_amid_a_search_and_comes_back_is_waited_for(
    model_dir: Path, task_dir: Path, tmp_path: Path
) -> None:
    """At the same address, with nothing in its memory."""
    with closing(socket.socket()) as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    config = asking(
        f"http://127.0.0.1:{port}", tiny.config(model_dir, task_dir, tmp_path / "run"), patience=60
    )
    lives = [listening(provider_of(model_dir), port) for _ in range(2)]
    lives[0].__enter__()

    class Dies(Observer):
        def generation(self, progress: Progress) -> None:
            if progress.generation.number == 0:
                lives[0].__exit__(None, None, None)

        def waiting(self) -> None:
            if scorer.usage.bill is not None and scorer.usage.bill.retries and len(lives) == 2:
                lives.append(lives[1])
                lives[1].__enter__()

    observer = Dies()
    scorer = RemoteScorer(config, load_task(config.task), observer)
    try:
        search(config, scorer, observer)
    finally:
        lives[1].__exit__(None, None, None)
    reference = tiny.config(model_dir, task_dir, tmp_path / "local")
    search(reference)
    assert journal_bytes(tmp_path / "run") == journal_bytes(tmp_path / "local")
    assert scorer.usage.bill is not None
    assert scorer.usage.bill.retries > 0


def test_a_search_that_was_interrupted_is_resumed_with_one_bill(config: Config) -> None:
    class Ends(Observer):
        def generation(self, progress: Progress) -> None:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        search(config, observer=Ends())
    first = json.loads((Path(str(config.run_dir)) / "bill.json").read_text())
    result = search(config, resume=True)
    assert result.bill is not None
    assert result.bill.requests > first["requests"] > 0


def test_a_request_that_takes_too_long_is_sent_again_in_parts(
    config: Config, provider: Here
) -> None:
    scorer = scorer_of(config)
    expected = scorer.score(latents())
    undisturbed = provider.paths.count(SCORE)
    provider.paths.clear()
    slow = '{"error": "timeout", "message": "it took longer than 1 s."}'
    provider.instead += [text(504, slow) for _ in range(2)]
    assert np.array_equal(scorer.score(latents()), expected)
    assert provider.paths.count(SCORE) >= undisturbed + 2 * 2  # two parts or more of each
    assert np.array_equal(expected, local(config).score(latents()))


def test_memory_that_runs_out_there_makes_micro_batches_smaller(
    config: Config, provider: Here
) -> None:
    scorer = scorer_of(config)
    provider.instead.append(text(507, '{"error": "out_of_memory", "message": "no room."}'))
    rewards = scorer.score(latents())
    assert scorer.micro_batch == 4
    tree = config.model_dump(mode="json")
    tree["model"]["micro_batch"] = 4
    assert np.array_equal(rewards, local(validate(Config, tree)).score(latents()))


def test_memory_for_not_even_one_row_is_said(config: Config, provider: Here) -> None:
    full = '{"error": "out_of_memory", "message": "no room."}'
    scorer = scorer_of(asking(provider, config, requests=1))
    scorer.micro_batch = 1
    provider.instead += [text(507, full)] * 100
    with pytest.raises(OutOfMemoryError, match=r"no room\."):
        scorer.score(latents())


def test_who_asks_needs_neither_torch_nor_transformers(
    model_dir: Path, task_dir: Path, tmp_path: Path, provider: Here
) -> None:
    tree = tiny.tree(Path("nowhere"), task_dir, tmp_path / "run", scorer={"url": provider.url})
    code = (
        "import sys, json\n"
        "class Blocked:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.partition('.')[0] in ('torch', 'transformers', 'ray'):\n"
        "            raise ImportError(f'{name} is blocked')\n"
        "sys.meta_path.insert(0, Blocked())\n"
        "import cliptune\n"
        "from cliptune.config import validate\n"
        f"tree = json.loads({json.dumps(json.dumps(tree))})\n"
        "print(cliptune.search(validate(cliptune.Config, tree)).stopped)"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=200)
    assert ran.returncode == 0, ran.stderr
    search(tiny.config(model_dir, task_dir, tmp_path / "local"))
    assert journal_bytes(tmp_path / "run") == journal_bytes(tmp_path / "local")
