"""What is not resumed, or not as it is: another search, a damaged journal, two at a time."""

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
from runs import (
    BEFORE,
    BUDGET,
    Killed,
    Listener,
    journal_bytes,
    killed_at,
    lasting,
    plain,
    run,
    timeless,
    tree_bytes,
)
from safetensors.numpy import save_file

from cliptune.config import Config
from cliptune.errors import RunError
from cliptune.record import read_run

# Another search


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("task.template", "{text} {mask}"),
        ("task.label_words", ["awful", "great"]),
        ("model.dtype", "bfloat16"),
        ("prompt.length", 4),
        ("prompt.dimension", 6),
        ("prompt.layers", 2),
        ("ensemble.clip_ratio", 0.2),
        ("ensemble.mixer", "median"),
        ("search.population", 4),
        ("search.method", "random"),
        ("search.selection", "accuracy"),
        ("search.sigma", 0.5),
        ("search.seed", 1),
    ],
)
def test_another_search_is_refused_and_nothing_is_touched(
    setting: str, value: Any, tmp_path: Path
) -> None:
    run(plain(tmp_path / "run", search=BUDGET))
    before = tree_bytes(tmp_path / "run")
    section, name = setting.split(".")
    other = plain(tmp_path / "run", **{section: {name: value}})
    with pytest.raises(RunError, match=rf"with another search: .*{setting} is .*the run's is "):
        run(other, resume=True)
    assert tree_bytes(tmp_path / "run") == before
    assert other.usage.forward_passes == 0


@pytest.mark.parametrize("what", ["train", "validation", "test", "model", "prompt"])
def test_other_data_or_another_model_or_prompt_is_refused(what: str, tmp_path: Path) -> None:
    file = tmp_path / "prompt.safetensors"
    save_file({"prompt": np.zeros((3, 4), np.float32)}, file)
    prompt = {"init": "file", "file": str(file)}
    scorer = plain(tmp_path / "run", search=BUDGET, prompt=prompt)
    run(scorer)
    expected = {"model": r"model\.name has other weights", "prompt": r"prompt\.file has another"}
    if what == "prompt":
        save_file({"prompt": np.ones((3, 4), np.float32)}, file)
    elif what == "model":
        facts = {**vars(scorer.facts()), "sha256": "1" * 64}
        vars(scorer)["facts"] = lambda: type(tiny.PlainScorer(scorer.config).facts())(**facts)
    else:
        splits = {**scorer.task.splits, what: tiny.task(8)[what]}
        scorer.task = type(scorer.task)(
            "tiny", scorer.task.template, scorer.task.label_words, splits
        )
    message = expected.get(what, rf"task\.data has other {what} examples")
    with pytest.raises(RunError, match=message):
        run(scorer, resume=True)


def test_a_run_may_move_with_its_data_and_its_model(tmp_path: Path) -> None:
    expected = timeless(run(plain(tmp_path / "whole", search=BUDGET)))
    with pytest.raises(Killed), killed_at(BEFORE + 4):
        run(plain(tmp_path / "run", search=BUDGET))
    shutil.move(tmp_path / "run", tmp_path / "else" / "where")
    moved = {"task": {"data": "moved"}, "model": {"name": "moved"}}
    place = tmp_path / "else" / "where"
    result = run(plain(place, search=BUDGET, **moved), resume=True)
    assert result.run_dir == str(place)
    assert timeless(result) == expected
    assert lasting(place) == lasting(tmp_path / "whole")
    assert read_run(Config, str(place)).config.task.data == "moved"


def test_a_run_of_a_cliptune_that_knew_fewer_settings_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cliptune import run as module

    def older(*arguments: Any) -> dict[str, Any]:
        found = real(*arguments)
        assert found["config"]["task"].pop("max_tokens") is None
        assert found["config"]["prompt"].pop("layers") == 1
        return found

    real = module.identity
    with monkeypatch.context() as past:
        past.setattr(module, "identity", older)
        run(plain(tmp_path / "run", search=BUDGET))
    run(plain(tmp_path / "run", search={"budget": 40}), resume=True)
    assert len(read_run(Config, str(tmp_path / "run")).generations) == 5
    with pytest.raises(RunError, match=r"prompt.layers is 2, the run's is None"):
        run(plain(tmp_path / "run", search=BUDGET, prompt={"layers": 2}), resume=True)


# Damage


@pytest.mark.parametrize("finished", [True, False])
@pytest.mark.parametrize(
    "damage",
    [
        lambda content: b"",
        lambda content: content[: len(content) // 2],
        lambda content: content[:99] + bytes([content[99] ^ 1]) + content[100:],
    ],
    ids=["empty", "half", "flipped"],
)
def test_a_damaged_last_file_is_set_aside_and_searched_again(
    damage: Callable[[bytes], bytes], finished: bool, tmp_path: Path
) -> None:
    expected = timeless(run(plain(tmp_path / "whole", search=BUDGET)))
    scorer = plain(tmp_path / "run", search=BUDGET)
    if finished:
        run(scorer)
    else:
        with pytest.raises(Killed), killed_at(BEFORE + 4):
            run(scorer)
    for _ in range(2):  # and if it happens again
        last = sorted((tmp_path / "run" / "journal").glob("*.arrow"))[-1]
        damaged = damage(last.read_bytes())
        last.write_bytes(damaged)
        listener = Listener()
        result = run(scorer, listener, resume=True)
        assert timeless(result) == expected
        assert journal_bytes(tmp_path / "run") == journal_bytes(tmp_path / "whole")
        aside = last.with_name(f"{last.name}.damaged")
        assert aside.read_bytes() == damaged
        assert listener.warnings == [
            f"The journal's last file was damaged, is now {aside}, and is searched again."
        ]


def test_the_only_file_may_be_the_damaged_one(tmp_path: Path) -> None:
    expected = timeless(run(plain(tmp_path / "whole", search=BUDGET)))
    scorer = plain(tmp_path / "run", search=BUDGET)
    with pytest.raises(Killed), killed_at(BEFORE + 1):
        run(scorer)
    (tmp_path / "run" / "journal" / "000000.arrow").write_bytes(b"half")
    listener = Listener()
    assert timeless(run(scorer, listener, resume=True)) == expected
    assert len(listener.warnings) == 1
    assert listener.resumptions == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda file: file.write_bytes(b""), r"000001\.arrow is damaged"),
        (lambda file: file.unlink(), r"000001\.arrow is missing; the journal goes on with 000002"),
        (lambda file: file.rename(file.with_name("0.arrow")), r"000000\.arrow is missing"),
        (
            lambda file: shutil.copy(file.with_name("000000.arrow"), file),
            r"000001\.arrow does not follow",
        ),
    ],
    ids=["damaged", "missing", "renamed", "copied"],
)
def test_damage_further_back_is_an_error_and_nothing_is_touched(
    change: Callable[[Path], Any], message: str, tmp_path: Path
) -> None:
    scorer = plain(tmp_path / "run", search=BUDGET)
    run(scorer)
    change(tmp_path / "run" / "journal" / "000001.arrow")
    before = tree_bytes(tmp_path / "run")
    with pytest.raises(RunError, match=message):
        run(scorer, resume=True)
    assert tree_bytes(tmp_path / "run") == before


def test_another_runs_journal_is_refused(tmp_path: Path) -> None:
    for name, seed in (("run", 0), ("other", 1)):
        run(plain(tmp_path / name, search={**BUDGET, "seed": seed}))
    shutil.rmtree(tmp_path / "run" / "journal")
    shutil.copytree(tmp_path / "other" / "journal", tmp_path / "run" / "journal")
    with pytest.raises(RunError, match=r"000000\.arrow does not follow .*another search's"):
        run(plain(tmp_path / "run", search=BUDGET), resume=True)


# Two at a time


def test_two_searches_never_write_one_run(tmp_path: Path) -> None:
    refused = []

    class Second(Listener):
        def generation(self, progress: Any) -> None:
            super().generation(progress)
            for resume in (True, False):
                with pytest.raises(RunError, match="is being written by another search") as caught:
                    run(plain(tmp_path / "run", search=BUDGET), resume=resume)
                refused.append(str(caught.value))

    result = run(plain(tmp_path / "run", search=BUDGET), Second())
    assert len(refused) == 6
    assert timeless(result) == timeless(run(plain(tmp_path / "whole", search=BUDGET)))


HOLDER = """
import sys
from cliptune.config import Config, validate
from cliptune.record import read_config
from cliptune.run import opened
with opened(validate(Config, read_config(sys.argv[1])), resume=True):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_what_a_killed_process_held_can_be_gone_on_with_at_once(tmp_path: Path) -> None:
    expected = timeless(run(plain(tmp_path / "whole", search=BUDGET)))
    scorer = plain(tmp_path / "run", search=BUDGET)
    with pytest.raises(Killed), killed_at(BEFORE + 4):
        run(scorer)
    words = [sys.executable, "-c", HOLDER, str(tmp_path / "run")]
    process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        with pytest.raises(RunError, match="is being written by another search"):
            run(scorer, resume=True)
        process.kill()
    assert timeless(run(scorer, resume=True)) == expected
    assert lasting(tmp_path / "run") == lasting(tmp_path / "whole")
