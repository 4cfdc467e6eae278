"""`cluster.search`: the same search on Ray, with functions that its actors find."""

from pathlib import Path

import pytest
import runs
import tiny

import cliptune
import cluster
from cliptune import functions
from cliptune.errors import ConfigError

LOSS = "def flat(scores, labels):\n    return 0.5 * (scores.max(axis=-1) - scores.min(axis=-1))\n"


@pytest.mark.slow
def test_actors_find_a_loss_of_the_users_own(
    model_dir: Path, task_dir: Path, tmp_path: Path
) -> None:
    file, there, here = tmp_path / "own_loss.py", tmp_path / "there", tmp_path / "here"
    file.write_text(LOSS, encoding="utf-8")
    search = {"budget": 8, "loss": f"{file}:flat"}
    listener = runs.Listener()
    tree = tiny.tree(model_dir, task_dir, there, search=search)
    cluster.search(tree, listener, cluster={"actors": 1})
    cliptune.search(tree, run_dir=str(here))
    assert len(listener.progress) == 2
    assert runs.journal_bytes(there) == runs.journal_bytes(here)
    rewards = [reward for rows in runs.rows(here) for row in rows for reward in row["rewards"]]
    assert max(rewards) < 0  # a loss is no reward


def test_what_only_this_process_knows_is_refused(
    model_dir: Path, task_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(functions.mixer, "_registered", {})
    functions.mixer("of-a-notebook")(lambda rewards: rewards.max(axis=1))
    tree = tiny.tree(model_dir, task_dir, tmp_path / "run", ensemble={"mixer": "of-a-notebook"})
    with pytest.raises(ConfigError, match=r"ensemble\.mixer: of-a-notebook is registered in this"):
        cluster.search(tree)
    assert not (tmp_path / "run").exists()
