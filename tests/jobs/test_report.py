"""`cliptune report`, as a person types it: files, and a sentence for what is none."""

import re
import sys
from pathlib import Path
from typing import Any

import pytest
import records
import runs
from command import cliptune_here
from pyarrow.parquet import write_table
from result_rows import row
from sweep_tables import trial, write

from cliptune.loop import search
from cliptune.results import results_of, table_of


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run, for tests that only read it; of one network, which has few pictures."""
    folder = tmp_path_factory.mktemp("report") / "run"
    records.searched(folder, ensemble={"mode": "none"})
    return folder


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def sweep() -> str:
    name = "ensemble.clip_ratio"
    return write(Path("sweep"), [trial({name: 0.1}, 0, 0.5, 0.5)], [name])


def headings(file: str = "report.html") -> list[str]:
    return re.findall("<h1>(.*)</h1>", Path(file).read_text(encoding="utf-8"))


def test_a_run_becomes_one_page_and_is_only_read(run_dir: Path) -> None:
    before = runs.tree_bytes(run_dir)
    done = cliptune_here("report", str(run_dir))
    assert (done.returncode, done.stderr) == (0, "")
    assert re.fullmatch(r"written to report\.html \(\d+ kB\)\n", done.stdout)
    assert headings() == ["tiny with plain"]
    assert runs.tree_bytes(run_dir) == before


def test_pictures_are_written_where_they_are_wanted() -> None:
    place = sweep()
    words = ("--out", "a/b.html", "--pictures", "c/d", "--format", "svg")
    done = cliptune_here("report", place, *words)
    assert done.returncode == 0, done.stderr
    assert headings("a/b.html") == ["Sweep over ensemble.clip_ratio"]
    names = ["test-ensemble.clip_ratio.svg", "validation-ensemble.clip_ratio.svg"]
    assert sorted(path.name for path in Path("c/d").iterdir()) == names
    assert done.stdout.splitlines()[1] == f"written to c/d: {', '.join(names)}"


def test_several_runs_are_compared_and_a_sweep_has_its_own_part(run_dir: Path) -> None:
    done = cliptune_here("report", str(run_dir), sweep(), str(run_dir))
    assert done.returncode == 0, done.stderr
    assert headings() == ["Sweep over ensemble.clip_ratio", "2 runs compared"]


def test_a_search_that_goes_on_is_reported_as_far_as_it_is() -> None:
    with pytest.raises(runs.Killed), runs.killed_at(runs.BEFORE + 3):
        scorer = runs.plain("run", search=runs.BUDGET, ensemble={"mode": "none"})
        search(scorer.config, scorer)
    done = cliptune_here("report", "run")
    assert done.returncode == 0, done.stderr
    assert "unfinished: " in Path("report.html").read_text(encoding="utf-8")


def foreign(folder: Path) -> None:
    (folder / "config.yaml").write_text("a: 1", encoding="utf-8")


def damaged(folder: Path) -> None:
    records.searched(folder)
    file = folder / "journal" / "000001.arrow"
    file.write_bytes(file.read_bytes()[:-100])


def no_result(folder: Path) -> None:
    records.searched(folder)
    (folder / "result.json").write_text('{"cost": 3}', encoding="utf-8")


def no_sweep(folder: Path) -> None:
    (folder / "table.parquet").write_bytes(b"PAR1")


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda folder: None, "place is no run directory"),
        (foreign, "Unknown setting a"),
        (damaged, "place/journal/000001.arrow is damaged"),
        (no_result, "place/result.json is not one of cliptune's"),
        (no_sweep, "place/table.parquet is damaged"),
    ],
)
def test_what_cannot_be_read_is_one_sentence_and_no_page(make: Any, sentence: str) -> None:
    Path("place").mkdir()
    make(Path("place"))
    done = cliptune_here("report", "place")
    assert done.returncode == 2
    assert sentence in done.stderr
    assert done.stderr.count("\n") <= 2
    assert not Path("report.html").exists()


def test_a_run_of_the_first_journal_schema_is_refused_by_name() -> None:
    old = Path(__file__).parents[1] / "data" / "run-schema-1"
    done = cliptune_here("report", str(old))
    assert done.returncode == 2
    assert "journal schema version 1" in " ".join(done.stderr.split())


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--format", "pdf"], "--format must be one of png, svg; found pdf."),
        (["--out", "/proc/none/x.html"], "--out: /proc/none/x.html cannot be written"),
    ],
)
def test_bad_options_are_one_sentence(words: list[str], sentence: str) -> None:
    done = cliptune_here("report", sweep(), *words)
    assert done.returncode == 2
    assert sentence in done.stderr


def test_a_library_that_is_missing_is_named_with_what_installs_it(
    run_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    done = cliptune_here("report", str(run_dir))
    assert done.returncode == 2
    assert done.stderr == (
        "cliptune: cliptune report needs matplotlib, which is not installed: "
        "pip install 'cliptune[report]'\n"
    )


def test_the_papers_experiments_have_a_part_of_their_own(run_dir: Path) -> None:
    rows = results_of([row("sst2", 13, name, 0.7) for name in ("bbt", "clip-static")], "main")
    Path("reproduction").mkdir()
    write_table(table_of(rows), "reproduction/results.parquet")
    done = cliptune_here("report", "reproduction", str(run_dir))
    assert done.returncode == 0, done.stderr
    assert headings() == ["The paper&#39;s experiments", "tiny with plain"]
