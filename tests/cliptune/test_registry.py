"""Functions of the user's own: by a decorator, a path or an entry point; where they are found."""

import json
import sys
from collections.abc import Iterator
from importlib.metadata import EntryPoint, EntryPoints
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import runs
import tiny
import users_file

import cliptune
from cliptune import functions, metrics, rewards
from cliptune.config import Config, validate
from cliptune.errors import ConfigError, ModelError
from cliptune.identity import identity
from cliptune.local import LocalScorer
from cliptune.record import read_run
from cliptune.subnetwork import FULL_NETWORK
from cliptune.task import load_task

SCORES = np.array([[1.0, 3.0], [2.0, 0.5]])
LABELS = np.array([1, 1])
REWARDS = np.array([[1.0, 2.0, 9.0], [3.0, 4.0, 5.0]])
OURS = [
    (functions.mixer, rewards.MIXERS),
    (functions.loss, rewards.REWARDS),
    (functions.metric, metrics.METRICS),
]
READOUT = """
from cliptune.models.masked_lm import MaskedLM

class Swapped(MaskedLM):
    readout = "own"

    def read_out(self, *arguments):
        return super().read_out(*arguments).flip(-1)

def no_class():
    pass
"""


@pytest.fixture(autouse=True)
def forgotten() -> Iterator[None]:
    """What a test registers is gone after it."""
    before = [(registry, dict(registry._registered)) for registry, _ in OURS]
    yield
    for registry, known in before:
        registry._registered = known
        registry._found = {}


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Path]:
    lines = (
        "import cliptune\n"
        "@cliptune.mixer('largest')\n"
        "def largest(rewards):\n"
        "    return rewards.max(axis=1)\n"
        "def margin(scores, labels):\n"
        "    return 1.0 - scores[..., range(len(labels)), labels]\n"
    )
    with users_file.written(tmp_path / "own_functions.py", lines) as path:
        yield path


def config(**sections: Any) -> Config:
    return tiny.config(Path("model"), Path("data"), **sections)


@pytest.mark.parametrize(("registry", "table"), OURS)
def test_ours_are_listed_as_they_are_there(registry: Any, table: Any) -> None:
    assert registry.ours == tuple(table)
    assert [registry.find(name) for name in registry.ours] == list(table.values())


def test_a_decorated_mixer_is_known_by_its_name() -> None:
    @cliptune.mixer("largest")
    def largest(rewards: Any) -> Any:
        return rewards.max(axis=1)

    assert largest(REWARDS).tolist() == [9, 5]  # it is still the function that it was
    assert config(ensemble={"mixer": "largest"}).ensemble.mixer == "largest"
    assert functions.mixer.find("largest")(REWARDS, None).tolist() == [9, 5]


def test_a_name_given_again_is_the_new_function() -> None:
    for value in (1.0, 2.0):
        cliptune.metric("constant")(lambda probabilities, labels, value=value: value)
        assert functions.metric.find("constant")(SCORES, LABELS) == value


def test_a_loss_is_turned_into_a_reward() -> None:
    @cliptune.loss("distance")
    def distance(scores: Any, labels: Any) -> Any:
        return np.abs(scores - 1).sum(axis=-1)

    found = functions.loss.find("distance")(SCORES[None].astype(np.float32), LABELS, 2.0)
    assert found.tolist() == [[-2.0, -1.5]]


def test_a_search_uses_them(tmp_path: Path) -> None:
    @cliptune.mixer("largest")
    def largest(rewards: Any) -> Any:
        return rewards.max(axis=1)

    scorer = runs.plain(tmp_path / "run", ensemble={"mixer": "largest"}, search={"budget": 16})
    runs.run(scorer)
    for row in (row for rows in runs.rows(tmp_path / "run") for row in rows):
        assert row["fitness"] == max(row["rewards"])
    origin = json.loads((tmp_path / "run" / "origin.json").read_text(encoding="utf-8"))
    assert len(origin["identity"]["mixer_code"]) == 64
    functions.mixer._registered.clear()  # as in another process
    assert read_run(Config, str(tmp_path / "run")).config.ensemble.mixer == "largest"


def test_what_a_module_registers_is_kept_by_its_path(own: Path) -> None:
    __import__("own_functions")
    settled = config(ensemble={"mixer": "largest"})
    assert settled.ensemble.mixer == "own_functions:largest"
    assert functions.mixer.find("own_functions:largest")(REWARDS, None).tolist() == [9, 5]
    functions.refuse_here_only(settled)


@pytest.mark.parametrize("name", ["own_functions.py:margin", "own_functions:margin"])
def test_a_path_leads_to_a_function(name: str, own: Path) -> None:
    found = functions.loss.find(name)(SCORES[None], LABELS, 2.0)
    assert found.tolist() == [[2.0, -0.5]]
    assert functions.loss.source_digest(name) is not None


def test_a_folder_that_is_in_the_path_already_keeps_its_place(
    own: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(own.parent)
    path = [str(Path.cwd()), *sys.path]
    monkeypatch.setattr(sys, "path", [*path])
    functions.loss.find("own_functions:margin")
    assert sys.path == path


def test_files_are_named_in_full_for_others_and_by_their_name_for_the_identity(own: Path) -> None:
    here = config(search={"loss": "own_functions.py:margin"})
    assert functions.anchored(here).search.loss == f"{own}:margin"
    assert functions.anchored(here).identity() == here.identity()
    assert set(functions.codes(here)) == {"loss_code"}
    own.write_text(own.read_text(encoding="utf-8") + "\n", encoding="utf-8")
    assert functions.codes(here) != functions.codes(config())


def test_an_installed_package_may_bring_functions(
    own: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    point = EntryPoint("trimmed", "own_functions:largest", "cliptune.mixers")

    def entry_points(**wanted: str) -> EntryPoints:
        return EntryPoints([point]).select(**wanted)

    monkeypatch.setattr("cliptune.registry.entry_points", entry_points)
    settled = config(ensemble={"mixer": "trimmed"})
    assert settled.ensemble.mixer == "trimmed"
    assert functions.mixer.find("trimmed")(REWARDS, None).tolist() == [9, 5]
    functions.refuse_here_only(settled)
    with pytest.raises(ConfigError, match=r"trimmed\b.*found 'trimed' \(did you mean trimmed\?\)"):
        config(ensemble={"mixer": "trimed"})


@pytest.mark.parametrize(
    ("sections", "complaint"),
    [
        (
            {"ensemble": {"mixer": "meen"}},
            r"ensemble.mixer: expected mean, weighted.*found 'meen' \(did you mean mean\?\)",
        ),
        ({"search": {"loss": "hindge"}}, r"search.loss: .*did you mean hinge\?"),
    ],
)
def test_a_wrong_name_is_refused_with_the_nearest(sections: Any, complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        config(**sections)


def test_a_path_that_leads_nowhere_is_refused_before_the_search_begins(tmp_path: Path) -> None:
    scorer = runs.plain(tmp_path / "run", search={"loss": "nowhere.py:f"})
    with pytest.raises(ConfigError, match=r"search\.loss: nowhere\.py:f cannot be imported"):
        runs.run(scorer)
    assert not (tmp_path / "run").exists()


def test_what_only_this_process_knows_is_refused_for_others() -> None:
    cliptune.metric("mine")(lambda probabilities, labels: 0.0)
    with pytest.raises(ConfigError, match=r"mine is registered in this process alone.*module:func"):
        functions.refuse_here_only(config(search={"selection": "mine"}))


@pytest.mark.parametrize(
    ("value", "complaint"),
    [
        ([1.0], r"must return finite numbers of shape \(2,\), one for each of the candidates"),
        ([1.0, float("nan")], "finite numbers"),
        (None, "finite numbers"),
        ("text", "finite numbers"),
    ],
)
def test_what_a_mixer_returns_is_checked(value: Any, complaint: str) -> None:
    cliptune.mixer("odd")(lambda rewards: value)
    with pytest.raises(ConfigError, match=complaint):
        functions.mixer.find("odd")(REWARDS, None)


def test_what_a_function_raises_is_told_in_a_sentence() -> None:
    cliptune.loss("broken")(lambda scores: scores)
    with pytest.raises(ConfigError, match=r"broken failed on scores \(1, 2, 2\) and labels \(2,\)"):
        functions.loss.find("broken")(SCORES[None], LABELS, 2.0)


@pytest.mark.parametrize("name", ["mean", "two words", "a:b", ""])
def test_a_name_must_be_a_word_and_none_of_ours(name: str) -> None:
    with pytest.raises(ConfigError, match="must be a word and none of ours"):
        cliptune.mixer(name)


def test_a_config_of_a_run_is_read_whatever_it_names() -> None:
    tree = {"ensemble": {"mixer": "registered-elsewhere"}}
    assert validate(Config, tree, as_written=True).ensemble.mixer == "registered-elsewhere"


# A read-out


@pytest.fixture
def readout(own: Path) -> str:
    """A file with a read-out that takes the classes for each other."""
    path = own.with_name("own_readout.py")
    path.write_text(READOUT, encoding="utf-8")
    return f"{path}:Swapped"


def test_a_read_out_of_the_users_own_gives_the_scores(
    readout: str, model_dir: Path, task_dir: Path
) -> None:
    plain, swapped = (
        LocalScorer(one, load_task(one.task))
        for one in (
            tiny.config(model_dir, task_dir),
            tiny.config(model_dir, task_dir, model={"readout": readout}),
        )
    )
    latents = np.random.default_rng(0).standard_normal((2, 5))
    expected = plain.class_scores(latents, "train", [FULL_NETWORK])
    found = swapped.class_scores(latents, "train", [FULL_NETWORK])
    assert np.array_equal(found, expected[..., ::-1])
    assert "readout_code" in identity(swapped.config, swapped.task, swapped.facts())
    assert "readout_code" not in identity(plain.config, plain.task, plain.facts())


def test_a_run_is_not_used_with_a_read_out_that_was_changed(
    readout: str, model_dir: Path, task_dir: Path, tmp_path: Path
) -> None:
    config = tiny.config(model_dir, task_dir, tmp_path / "run", model={"readout": readout})
    cliptune.search(config)
    assert cliptune.load(tmp_path / "run").predict(["a film"])
    file = Path(readout.rpartition(":")[0])
    file.write_text(file.read_text(encoding="utf-8") + "# changed\n", encoding="utf-8")
    with pytest.raises(ModelError, match="is written otherwise than it was for"):
        cliptune.load(tmp_path / "run")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("own_readout.py:no_class", "must be a subclass of cliptune.models.FrozenModel"),
        ("own_readout.py:Missing", "cannot be imported"),
        ("masked-ml", "did you mean masked-lm?"),
    ],
)
def test_what_is_no_read_out_is_refused(
    name: str, words: str, readout: str, model_dir: Path, task_dir: Path
) -> None:
    with pytest.raises(ConfigError) as caught:
        cliptune.search(tiny.config(model_dir, task_dir, model={"readout": name}))
    assert words in str(caught.value)
