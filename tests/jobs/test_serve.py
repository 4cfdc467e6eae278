"""`cliptune serve`: names, what is refused before anything starts, and all of it on Ray Serve."""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import tiny
import torch
import yaml
from served import ask, searched

import cliptune
from cliptune.config import Config
from cliptune.errors import CliptuneError, ConfigError, ModelError
from cliptune.export import export
from cliptune.functions import readout
from cliptune.record import read_run
from cluster.classify import Classifier, Limits
from cluster.prompts import PromptHost
from jobs.serve import named, own_device, refuse_odd

ROOT = Path(__file__).parents[2]
TOKEN = "a token of the tests"  # noqa: S105 - not a real one
OWN = """
from cliptune.models.masked_lm import MaskedLM

class Milder(MaskedLM):
    readout = "own"
"""


@pytest.fixture(scope="module")
def run(model_dir: Path, task_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return searched(
        model_dir,
        task_dir,
        tmp_path_factory.mktemp("served") / "run",
        search={"calibrate": True},
    )


def test_a_prompt_is_called_as_its_folder_or_as_one_says(run: Path) -> None:
    found = named([f"{run}/", f"mine={run}"])
    assert [(each.name, each.run) for each in found] == [("run", str(run)), ("mine", str(run))]


@pytest.mark.parametrize("words", [["{}", "{}"], ["a b={}"], ["<b>={}"], [f"{'a' * 65}={{}}"]])
def test_names_must_be_plain_and_differ(words: list[str], run: Path) -> None:
    with pytest.raises(ConfigError, match="NAME="):
        named([word.format(run) for word in words])


def test_a_run_of_another_model_is_refused(run: Path, task_dir: Path, tmp_path: Path) -> None:
    another = searched(tiny.save_model(tmp_path / "model", seed=1), task_dir, tmp_path / "another")
    with pytest.raises(ModelError, match=r"another model .*cannot share one"):
        refuse_odd(named([str(run), str(another)]), None)


def test_a_model_that_changed_is_refused_before_anything_starts(run: Path, tmp_path: Path) -> None:
    other = tiny.save_model(tmp_path / "model", seed=1)
    with pytest.raises(ModelError, match="other weights"):
        refuse_odd(named([str(run)]), str(other))


def test_a_read_out_by_its_name_goes_with_the_same_one_on_auto(
    run: Path, model_dir: Path, task_dir: Path, tmp_path: Path
) -> None:
    named_so = searched(model_dir, task_dir, tmp_path / "run", model={"readout": "masked-lm"})
    another = searched(model_dir, task_dir, tmp_path / "another", model={"readout": "encoder"})
    prompts = named([f"auto={run}", f"name={named_so}"])
    refuse_odd(prompts, None)
    assert len(PromptHost(prompts, None, "cpu").infos) == 2
    with pytest.raises(ModelError, match=r"model\.readout is encoder in .* and auto in"):
        refuse_odd(named([str(run), f"other={another}"]), None)


def test_a_read_out_of_the_users_own_is_found_from_the_users_folder(
    model_dir: Path, task_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine.py").write_text(OWN)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    own = searched(model_dir, task_dir, tmp_path / "own", model={"readout": "mine.py:Milder"})
    prompts = named([str(own)])
    refuse_odd(prompts, None)
    monkeypatch.chdir("elsewhere")  # where a replica may begin
    monkeypatch.setattr(readout, "_found", {})
    with pytest.raises(ConfigError, match=r"model\.readout: mine\.py:Milder cannot be imported"):
        refuse_odd(prompts, None)
    threads = torch.get_num_threads()
    served = Classifier(prompts, Limits(), threads=threads, folder=str(tmp_path))
    assert served._host.infos[0].name == "own"


def test_of_a_run_of_a_provider_one_has_to_say_where_the_model_lies(
    run: Path, model_dir: Path, tmp_path: Path
) -> None:
    shutil.copytree(run, copy := tmp_path / "run")
    tree = yaml.safe_load((copy / "config.yaml").read_text())
    tree["scorer"]["url"], tree["model"]["name"] = "http://127.0.0.1:9", "roberta-large"
    (copy / "config.yaml").write_text(yaml.safe_dump(tree))
    prompts = named([str(copy)])
    with pytest.raises(ModelError, match=r"a model behind an API, .* it lies: --model PATH\."):
        refuse_odd(prompts, None)
    with pytest.raises(ModelError, match="a model behind an API"):
        cliptune.load(copy)
    refuse_odd(prompts, str(model_dir))
    cliptune.load(copy, model=model_dir)
    export(read_run(Config, str(copy)), "embeddings", tmp_path / "out", str(model_dir))
    assert "roberta" not in (tmp_path / "out" / "README.md").read_text()


def test_no_gpu_is_reserved_for_a_prompt_that_was_searched_on_a_cpu(
    run: Path, tmp_path: Path
) -> None:
    assert own_device(named([str(run)])[0]) == "cpu"
    shutil.copytree(run, copy := tmp_path / "run")
    tree = yaml.safe_load((copy / "config.yaml").read_text())
    tree["model"]["device"] = "cuda"
    (copy / "config.yaml").write_text(yaml.safe_dump(tree))
    assert own_device(named([str(copy)])[0]) is None


def test_what_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CliptuneError, match="no run directory"):
        refuse_odd(named([str(tmp_path)]), None)


@pytest.mark.slow
def test_prompts_are_served_until_the_signal(run: Path, home: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    code = "from jobs.cli import run; run()"
    words = ["serve", f"mine={run}", "--port", str(port), "--replicas", "2"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "CLIPTUNE_TOKEN": TOKEN}
    with subprocess.Popen(
        [sys.executable, "-c", code, *words], stdout=subprocess.PIPE, text=True, env=environment
    ) as process:
        assert process.stdout is not None
        said = next(line for line in process.stdout if "http" in line)
        (url,) = re.findall(r"http://\S+", said)
        body = {"texts": ["a good film"], "ensemble": True}
        guard = {"authorization": f"Bearer {TOKEN}"}
        found = [ask(url, "/v1/classify", body, **guard)[:2] for _ in range(8)]
        refused, page = ask(url, "/v1/classify", body), ask(url, "/")
        process.send_signal(signal.SIGINT)
        rest = process.stdout.read()
    assert [status for status, _ in found] == [200] * 8
    assert all(answer == found[0][1] for _, answer in found)
    assert (refused[0], page[0]) == (401, 200)
    assert "sha256-" in page[2]["content-security-policy"]
    assert (process.returncode, rest) == (130, "Stopped.\n")
    assert TOKEN not in said
