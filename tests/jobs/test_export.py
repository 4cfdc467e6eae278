"""`cliptune export`: what it says when it is done."""

import json
from pathlib import Path

import tiny
from command import cliptune_here

import cliptune


def test_the_command_exports(model_dir: Path, task_dir: Path, tmp_path: Path) -> None:
    run, out = tmp_path / "run", tmp_path / "out"
    sections = {"prompt": {"position": "front"}, "search": {"budget": 4}}
    cliptune.search(tiny.config(model_dir, task_dir, run, **sections))
    done = cliptune_here("export", str(run), "--to", "peft", "--out", str(out))
    files = ["README.md", "adapter_config.json", "adapter_model.safetensors", "recipe.json"]
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"{', '.join(files)} written to {out}\n"
    adapter = json.loads((out / "adapter_config.json").read_text(encoding="utf-8"))
    assert (adapter["peft_type"], adapter["num_virtual_tokens"]) == ("PROMPT_TUNING", 3)
