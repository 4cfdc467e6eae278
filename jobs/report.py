"""`cliptune report`: runs and sweeps as one page, and as pictures; from their directories alone."""

from collections.abc import Sequence
from pathlib import Path

from cliptune.errors import ConfigError
from cliptune.record import read_run
from cliptune.results import is_results, read_results
from cluster.config import ClusterSearch

KINDS = ("png", "svg")


def main(places: Sequence[str], *, out: Path, pictures: Path | None, kind: str) -> None:
    """Report on these directories: experiments, sweeps, then the run, or the runs side by side."""
    if kind not in KINDS:
        raise ConfigError(f"--format must be one of {', '.join(KINDS)}; found {kind}.")
    try:
        import jinja2  # noqa: F401
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise ConfigError(
            f"cliptune report needs {error.name}, which is not installed: "
            "pip install 'cliptune[report]'"
        ) from None
    from cliptune.report.comparison import comparison_section
    from cliptune.report.page import page, picture_files
    from cliptune.report.results import results_section
    from cliptune.report.runs import run_section
    from cliptune.report.sweeps import sweep_section
    from cliptune.report.trials import is_sweep, read_sweep

    results = [place for place in places if is_results(place)]
    sweeps = [place for place in places if is_sweep(place)]
    runs = [place for place in places if place not in (*results, *sweeps)]
    records = [read_run(ClusterSearch, place) for place in runs]
    sections = [results_section(place, read_results(place)) for place in results]
    sections += [sweep_section(read_sweep(place)) for place in sweeps]
    if len(records) == 1:
        sections.append(run_section(records[0]))
    elif records:
        sections.append(comparison_section(records))
    html = page(sections).encode()
    _write(out, html, "--out")
    print(f"written to {out} ({len(html) / 1000:,.0f} kB)")
    if pictures is not None:
        files = list(picture_files(sections, kind))
        for name, content in files:
            _write(pictures / name, content, "--pictures")
        print(f"written to {pictures}: {', '.join(name for name, _ in files)}")


def _write(file: Path, content: bytes, option: str) -> None:
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
    except OSError as error:
        raise ConfigError(f"{option}: {file} cannot be written: {error.strerror}.") from None
