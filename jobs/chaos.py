"""`cliptune chaos`: a search to which everything happens, and its journal beside a calm one's."""

import os
import shutil
import statistics
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

from rich.table import Table

from cliptune.errors import CliptuneError, ConfigError, RunError, ScorerError
from cliptune.record import read_run
from cliptune.reportfile import writable, write
from cluster.config import ClusterSearch
from cluster.machines import Machines, end_all
from jobs.config import read
from jobs.disturbance import Disturbance, Kind, schedule
from jobs.sessions import LOOK, Sessions
from jobs.signals import Stopped, leave, stopping
from jobs.words import clock, make_console, plain_table

UNIT_TIMEOUT, START_TIMEOUT = 20, 60  # seconds; unless the words say otherwise
LEAST_GENERATIONS = 3
LEFT_BEHIND = 30.0  # seconds after the search's end in which its actors must end too


def main(
    words: Sequence[str],
    *,
    faults: int,
    generations: int,
    seed: int,
    nodes: int,
    file: Path | None,
) -> None:
    """Search twice, once in peace and once not; exit code 1 where the journals differ."""
    _check(faults=faults, generations=generations, nodes=nodes)
    file = writable(file)
    population = read(words).search.population
    folder = Path(mkdtemp(prefix="chaos-"))
    keep = False
    try:
        with stopping(at_once=lambda: False):
            limits = [f"search.budget={generations * population}"]
            report = Chaos(folder, [*words, *limits], nodes, generations).run(seed, faults)
            keep = not report["equal"]
    except Stopped as stopped:
        print("Stopped.", file=sys.stderr)
        code = stopped.exit_code
    except CliptuneError as error:
        keep = any(folder.glob("*/journal"))
        kept = f" What was written is in {folder}." if keep else ""
        raise type(error)(f"{error}{kept}") from None
    else:
        code = _show(report, folder)
        write(report, file)
    finally:
        end_all()
        shutil.rmtree(folder / "ray" if keep else folder, ignore_errors=True)
    leave(code)


def _check(**least: int) -> None:
    for name, value in least.items():
        minimum = LEAST_GENERATIONS if name == "generations" else 1
        if value < minimum:
            raise ConfigError(f"--{name} must be at least {minimum}; found {value}.")
    if not Path("/proc/self/stat").exists():
        raise ConfigError("A chaos run finds its victims in /proc, which this system lacks.")


class Chaos:
    """Both searches, on machines of their own."""

    def __init__(self, folder: Path, words: Sequence[str], nodes: int, generations: int) -> None:
        self._folder = folder
        self._words = list(words)
        self._nodes, self._generations = nodes, generations
        self._began = time.monotonic()
        self._console = make_console()

    def run(self, seed: int, faults: int) -> dict[str, Any]:
        """What happened, as JSON values."""
        self._say(f"Starting Ray with {self._nodes} machines")
        machines = Machines(self._nodes, self._folder / "ray")
        self._say(f"An undisturbed search of {self._generations} generations")
        calm = self._sessions("calm", machines)
        calm_seconds = self._undisturbed(calm)
        pace = statistics.median(one.seconds for one in _telemetry(calm.run))
        self._say(f"It took {calm_seconds:.0f} seconds, {pace:.2f} a generation. Now with faults")
        stormy = self._sessions("disturbed", machines)
        plan = schedule(seed, faults, self._generations)
        disturbance = Disturbance(machines, stormy, plan, pace, self._say)
        began = time.monotonic()
        disturbance.run()
        seconds = time.monotonic() - began
        left = self._left_behind(machines)
        telemetry = _telemetry(stormy.run)
        different = differences(calm.run, stormy.run)
        return {
            "words": self._words,
            "seed": seed,
            "machines": self._nodes,
            "cores": len(os.sched_getaffinity(0)),
            "generations": stormy.generations,
            "faults": Counter(struck.kind.value for struck in disturbance.struck),
            "planned_faults": faults,
            "sessions": stormy.count,
            "ended_by_themselves": disturbance.own_ends,
            "units_given_again": sum(one.retries for one in telemetry),
            "seconds_undisturbed": calm_seconds,
            "seconds_disturbed": seconds,
            "seconds_lost": seconds - calm_seconds,
            "actors_left_behind": left,
            "struck": [asdict(struck) for struck in disturbance.struck],
            "different": different,
            "equal": not different,
        }

    def _sessions(self, name: str, machines: Machines) -> Sessions:
        words = [
            f"cluster.actors={{min: 1, max: {self._nodes}}}",
            f"cluster.unit_timeout={UNIT_TIMEOUT}",
            f"cluster.start_timeout={START_TIMEOUT}",
            *self._words,
            f"cluster.address={machines.address}",
        ]
        environment = {key: value for key, value in os.environ.items() if key != "RAY_ADDRESS"}
        return Sessions(words, self._folder / name, environment)

    def _undisturbed(self, sessions: Sessions) -> float:
        began = time.monotonic()
        sessions.start()
        while (code := sessions.ended()) is None:
            time.sleep(LOOK)
        if code:
            raise ScorerError(f"The undisturbed search failed: {sessions.last_words()}")
        return time.monotonic() - began

    def _left_behind(self, machines: Machines) -> int:
        """Actors that outlive their search."""
        deadline = time.monotonic() + LEFT_BEHIND
        while (left := len(machines.actors())) and time.monotonic() < deadline:
            time.sleep(LOOK)
        return left

    def _say(self, what: str) -> None:
        since = clock(time.monotonic() - self._began)
        self._console.print(f"{since:>7}  {what}", soft_wrap=True)


def differences(calm: Path, disturbed: Path) -> list[str]:
    """What the second journal has otherwise than the first, in words, file by file."""
    one, other = _journal(calm), _journal(disturbed)
    found = []
    for name in sorted(one.keys() | other.keys()):
        if name not in other:
            found.append(f"{name} is missing")
        elif name not in one:
            found.append(f"{name} is one too many")
        elif one[name] != other[name]:
            found.append(f"{name} differs")
    return found


def _journal(run: Path) -> dict[str, bytes]:
    files = sorted((run / "journal").glob("*.arrow"))
    if not files:
        raise RunError(f"{run} has no journal.")
    return {file.name: file.read_bytes() for file in files}


def _telemetry(run: Path) -> list[Any]:
    return read_run(ClusterSearch, str(run)).telemetry


def _show(report: dict[str, Any], folder: Path) -> int:
    """Print it; the exit code."""
    console = make_console()
    console.print()
    console.print(_faults(report))
    console.print("A wait: seconds from a fault until the next generation was in the journal.")
    console.print()
    console.print(_figures(report))
    console.print()
    if report["planned_faults"] > sum(report["faults"].values()):
        console.print("The search ended before the last faults.")
    if report["equal"]:
        console.print("The journals are equal, byte for byte.")
        return 0
    console.print(f"Both runs are kept in {folder}.", soft_wrap=True)
    console.print(f"The journals are not equal: {', '.join(report['different'])}.", soft_wrap=True)
    return 1


def _faults(report: dict[str, Any]) -> Table:
    table = plain_table("fault", "times", "median wait", "longest wait")
    for kind in Kind:
        waits = [
            one["until_next"]
            for one in report["struck"]
            if one["kind"] == kind and one["until_next"] is not None
        ]
        figures = (f"{f(waits):.1f}" if waits else "" for f in (statistics.median, max))
        table.add_row(kind.value, str(report["faults"].get(kind.value, 0)), *figures)
    table.add_row("all", str(sum(report["faults"].values())), "", "")
    return table


def _figures(report: dict[str, Any]) -> Table:
    table = plain_table("", "")
    table.show_header = False
    words: dict[str, Callable[[Any], str]] = {
        "generations": str,
        "sessions": str,
        "ended_by_themselves": str,
        "units_given_again": str,
        "actors_left_behind": str,
        "seconds_undisturbed": clock,
        "seconds_disturbed": clock,
        "seconds_lost": clock,
    }
    for name, word in words.items():
        shown = name.replace("_", " ").replace("seconds", "time")
        table.add_row(shown, word(report[name]))
    return table
