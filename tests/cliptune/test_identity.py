"""What decides a search: the same is recognised, and what differs is called by its name."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import threadpoolctl
import tiny
from safetensors.numpy import save_file

from cliptune.config import Config
from cliptune.errors import RunError
from cliptune.identity import fingerprint, identity, refuse_another
from cliptune.task import Split, Task

DECISIVE: list[tuple[str, Any]] = [
    ("task.name", "other"),
    ("task.template", "{text} {mask}"),
    ("task.label_words", ["awful", "great"]),
    ("task.label_tokens", "first"),
    ("task.k", 4),
    ("task.seed", 1),
    ("task.max_tokens", 30),
    ("model.readout", "encoder"),
    ("model.dtype", "bfloat16"),
    ("model.quantize", "8bit"),
    ("model.device", "cuda"),
    ("model.micro_batch", 16),
    ("model.pooling", "cls"),
    ("model.temperature", 0.1),
    ("prompt.length", 4),
    ("prompt.dimension", 6),
    ("prompt.layers", 2),
    ("prompt.position", "front"),
    ("prompt.init", "zero"),
    ("prompt.scale", 0.5),
    ("prompt.seed", 1),
    ("ensemble.subnetworks", 4),
    ("ensemble.clip_ratio", 0.2),
    ("ensemble.mode", "dynamic"),
    ("ensemble.sites", ["embedding"]),
    ("ensemble.mixer", "median"),
    ("ensemble.seed", 1),
    ("search.method", "random"),
    ("search.population", 5),
    ("search.sigma", 0.5),
    ("search.loss", "hinge"),
    ("search.margin", 1.0),
    ("search.selection", "accuracy"),
]


def config(**sections: Any) -> Config:
    return tiny.config(Path("model"), Path("data"), **sections)


def of(examples: Task | None = None, sha256: str = "0" * 64, **sections: Any) -> dict[str, Any]:
    """The identity of a search with these settings, as it comes back from origin.json."""
    scorer = tiny.PlainScorer(config(**sections))
    facts = replace(scorer.facts(), sha256=sha256)
    found = identity(scorer.config, examples or scorer.task, facts)
    return dict(json.loads(json.dumps(found)))


def refusal(before: dict[str, Any], now: dict[str, Any]) -> str:
    with pytest.raises(RunError) as caught:
        refuse_another("runs/a", before, now)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith("runs/a cannot be resumed with another search: ")
    assert message.endswith("What decides the results must stay as it is; start a new run instead.")
    return message.split(": ", 1)[1].split(". What decides")[0]


def changed(**splits: Callable[[Split], Split]) -> Task:
    """The tiny task with some of its splits changed."""
    task = tiny.task()
    return replace(
        task,
        splits={
            name: splits.get(name, lambda split: split)(split)
            for name, split in task.splits.items()
        },
    )


def test_the_same_search_is_recognised() -> None:
    refuse_another("runs/a", of(), of())


@pytest.mark.parametrize(("setting", "value"), DECISIVE, ids=[name for name, _ in DECISIVE])
def test_a_setting_that_decides_the_results_is_named(setting: str, value: Any) -> None:
    section, name = setting.split(".")
    before = getattr(getattr(config(), section), name)
    before = list(before) if isinstance(before, tuple) else before
    message = refusal(of(), of(**{section: {name: value}}))
    assert message == f"{setting} is {value!r}, the run's is {before!r}"


def test_the_seed_of_all_names_all_that_it_changes() -> None:
    message = refusal(of(), of(search={"seed": 7}))
    for section in ("search", "prompt", "ensemble"):
        assert f"{section}.seed is 7, the run's is 0" in message
    assert message.count("; ") == 2


@pytest.mark.parametrize("split", ["train", "validation", "test"])
@pytest.mark.parametrize(
    "change",
    [
        lambda split: replace(split, texts=(*split.texts[:-1], "another one")),
        lambda split: replace(split, labels=1 - split.labels),
        lambda split: replace(split, texts=split.texts[::-1]),
        lambda split: replace(split, pairs=split.texts),
        lambda split: replace(split, texts=split.texts[1:], labels=split.labels[1:]),
    ],
    ids=["text", "label", "order", "pair", "number"],
)
def test_other_examples_are_named_by_their_split(
    split: str, change: Callable[[Split], Split]
) -> None:
    message = refusal(of(), of(changed(**{split: change})))
    assert message == f"task.data has other {split} examples than the run"


def test_another_model_is_known_by_its_weights() -> None:
    assert refusal(of(), of(sha256="1" * 64)) == (
        "model.name has other weights than the run's model (by SHA-256)"
    )


@pytest.mark.parametrize(
    ("fact", "said"),
    [
        ("config_sha256", "model.name has the run's weights, but another config.json"),
        ("inputs_sha256", "model.name has another tokenizer than the run's model"),
    ],
)
def test_another_network_or_tokenizer_of_the_same_weights_is_known(fact: str, said: str) -> None:
    scorer = tiny.PlainScorer(config())
    facts = [replace(scorer.facts(), **{fact: digit * 64}) for digit in "01"]
    before, now = (identity(scorer.config, scorer.task, one) for one in facts)
    assert refusal(before, now).startswith(said)


def test_what_the_first_runs_did_not_record_is_not_compared() -> None:
    before, now = of(), of()
    for name in ("model_config", "inputs", "selection_code"):
        del before[name]
    refuse_another("runs/a", before, now)


def test_a_metric_of_the_users_own_is_known_by_its_code_and_may_move(tmp_path: Path) -> None:
    found = []
    for folder, sign in (("a", ""), ("b", ""), ("c", "-")):
        file = tmp_path / folder / "metric.py"
        file.parent.mkdir()
        file.write_text(f"def score(probabilities, labels):\n    return {sign}labels.mean()\n")
        found.append(of(search={"selection": f"{file}:score"}))
    assert found[0] == found[1]
    assert refusal(found[0], found[2]) == (
        "search.selection is written otherwise than it was for the run"
    )


def test_a_prompt_file_is_known_by_its_content(tmp_path: Path) -> None:
    def prompt(name: str, value: float) -> dict[str, Any]:
        save_file({"prompt": np.full((3, 4), value, np.float32)}, tmp_path / name)
        return of(prompt={"init": "file", "file": str(tmp_path / name)})

    one = prompt("a", 1.0)
    refuse_another("runs/a", one, prompt("elsewhere", 1.0))
    assert refusal(one, prompt("a", 2.0)) == "prompt.file has another content than the run's"


@pytest.mark.parametrize(
    "sections",
    [
        {"run_dir": "elsewhere"},
        {"search": {"budget": 400}},
        {"search": {"budget": None, "max_seconds": 5.0}},
        {"search": {"max_forward_passes": 99999, "patience": 3}},
        {"task": {"data": "moved", "splits": {"test": "other"}, "columns": {"text": "other"}}},
        {"model": {"name": "moved"}},
    ],
)
def test_places_and_limits_may_differ(sections: dict[str, Any]) -> None:
    refuse_another("runs/a", of(), of(**sections))


def test_a_setting_that_an_older_cliptune_did_not_have_may_be_null() -> None:
    before = of()
    assert before["config"]["task"].pop("max_tokens", 0) is None
    refuse_another("runs/a", before, of())
    assert "task.max_tokens is 9, the run's is None" in refusal(before, of(task={"max_tokens": 9}))


@pytest.mark.parametrize("before", [None, {}, [], "", 3])
def test_an_origin_that_says_nothing_is_damaged(before: Any) -> None:
    with pytest.raises(RunError, match=r"^runs/a/origin\.json is damaged: it does not say what"):
        refuse_another("runs/a", before, of())


# The platform


def test_the_fingerprint_survives_being_written_down() -> None:
    found = fingerprint()
    assert json.loads(json.dumps(found)) == found
    assert set(found) == {"machine", "processor", "blas", "numpy", "cma"}
    assert found["numpy"] == np.__version__
    assert all(found.values())


def test_the_fingerprint_does_not_change_with_the_threads() -> None:
    before = fingerprint()
    with threadpoolctl.threadpool_limits(1):
        assert fingerprint() == before


def test_other_libraries_that_are_loaded_do_not_change_the_fingerprint(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """torch brings a BLAS of its own, and is there in some processes only."""
    before = fingerprint()
    foreign = {"user_api": "blas", "prefix": "libmkl_rt", "filepath": "/x/torch/lib/libmkl_rt.so"}
    found = [foreign, *threadpoolctl.threadpool_info(), {"user_api": "openmp", "filepath": "/x"}]
    monkeypatch.setattr(threadpoolctl, "threadpool_info", lambda: found)
    assert fingerprint() == before
