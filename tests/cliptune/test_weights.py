"""A model's files on this machine: found, told apart and measured, without loading them."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import tiny
from transformers import AutoModelForMaskedLM

from cliptune import weights
from cliptune.errors import ModelError
from cliptune.weights import count_parameters, weights_digest


def test_the_digest_follows_the_weights(tmp_path: Path) -> None:
    first = tiny.save_model(tmp_path / "a")
    same = tiny.save_model(tmp_path / "b")
    other = tiny.save_model(tmp_path / "c", seed=1)
    assert weights_digest(str(first)) == weights_digest(str(same))
    assert weights_digest(str(first)) != weights_digest(str(other))


def test_without_the_demo_package_the_hub_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "MINILM_PACKAGE", "no_such_package_here")
    assert weights.source_of("minilm") == "sentence-transformers/all-MiniLM-L6-v2"


def test_parameters_are_counted_without_loading_them(model_dir: Path, tmp_path: Path) -> None:
    module = AutoModelForMaskedLM.from_pretrained(model_dir)
    assert count_parameters(str(model_dir)) == sum(p.numel() for p in module.parameters())
    assert count_parameters(str(tmp_path)) is None
    (tmp_path / "model.safetensors").write_bytes(b"no weights")
    assert count_parameters(str(tmp_path)) is None


@pytest.mark.parametrize("name", ["nobody/no-such-model", "/nowhere/at/all", "no such name", ""])
def test_what_this_machine_does_not_have_is_not_counted(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert count_parameters(name) is None


def test_a_model_that_is_not_here_has_no_digest(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"nobody/nothing has no safetensors files .*hf download"):
        weights_digest("nobody/nothing")
    with pytest.raises(ModelError, match="has no safetensors files"):
        weights_digest(str(tmp_path))


def test_a_model_of_the_hub_is_found_where_it_was_downloaded(
    model_dir: Path, tmp_path: Path
) -> None:
    cached = tmp_path / "models--nobody--model"
    shutil.copytree(model_dir, cached / "snapshots" / "abc")
    (cached / "refs").mkdir()
    (cached / "refs" / "main").write_text("abc")
    code = (
        "from cliptune.weights import count_parameters, weights_digest\n"
        "print(count_parameters('nobody/model'), weights_digest('nobody/model'))"
    )
    place = {**os.environ, "HF_HUB_CACHE": str(tmp_path)}
    found = subprocess.check_output([sys.executable, "-c", code], env=place, text=True, timeout=100)
    expected = f"{count_parameters(str(model_dir))} {weights_digest(str(model_dir))}"
    assert found.strip() == expected


def test_neither_torch_nor_transformers_is_loaded_for_it(model_dir: Path) -> None:
    code = (
        "import sys\n"
        "from cliptune.weights import count_parameters\n"
        f"assert count_parameters({str(model_dir)!r})\n"
        "assert not {'torch', 'transformers'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=100)
