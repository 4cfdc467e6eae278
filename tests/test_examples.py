"""The scripts of examples/ do what they say, on runs of a tiny model."""

import subprocess
import sys
from pathlib import Path

import pytest
import tiny

import cliptune
from jobs.config import read

EXAMPLES = Path(__file__).parent.parent / "examples"


@pytest.mark.parametrize(
    "file", [*(EXAMPLES / "searches").glob("*.yaml")], ids=lambda file: file.stem
)
def test_every_search_is_valid_and_not_the_embedded_one(file: Path) -> None:
    assert read([str(file)]) != read([])


def test_final_prompts_compares_what_a_search_could_have_ended_with(
    model_dir: Path, tmp_path: Path
) -> None:
    runs = []
    for seed, examples in ((13, 6), (21, 8)):
        data = tiny.save_task(tmp_path / "data" / f"16-{seed}", examples=examples)
        search = {"budget": 16, "calibrate": seed == 13}
        config = tiny.config(model_dir, data, tmp_path / f"run-{seed}", search=search)
        runs.append(cliptune.search(config).run_dir)
    script = EXAMPLES / "final_prompts.py"
    done = subprocess.run(
        [sys.executable, script, *runs], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    head, chosen, *others = done.stdout.splitlines()
    assert head.split() == ["loss", "points", "of", "accuracy", "generations"]
    assert chosen.split() == "chosen +0.000 [+0.000, +0.000] +0.0 [+0.0, +0.0] 100%".split()
    shares = {line[:34].strip(): int(line.split()[-1].rstrip("%")) for line in others}
    assert shares["mean of the distribution"] == 100
    assert 25 <= shares["with search.patience=3"] <= shares["with search.patience=12"] == 100
