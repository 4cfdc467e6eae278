"""A sweep's folder: what the sweep is, which trials it has, and how each of them ended.

sweep.yaml      the sweep, as its file and the words beside it said it
manifest.json   the trials: settings, seed, state; rewritten whenever one is added or ends
trials/NAME/    an ordinary run directory a trial
table.parquet   a row a trial (see ranking.py)
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import yaml

from cliptune.errors import ConfigError, HeldError, RunError
from cliptune.record import RESULT, read_json
from cliptune.settings import safe_dump
from cliptune.storage import Folder, open_folder
from cliptune.wording import one_line
from jobs.sweepfile import Settings, Sweep, brief, identity, labelled
from jobs.sweepspace import points, read_space

SWEEP, MANIFEST, TRIALS = "sweep.yaml", "manifest.json", "trials"
MAY_DIFFER = ("concurrency", "failures", "base.cluster.", "base.search.seed")  # no trial's seed
ABSENT = object()


@dataclass
class Entry:
    """A trial and how it ended."""

    name: str
    settings: Settings
    seed: int
    state: str = "waiting"
    ended: str | None = None  # why, in words
    error: str | None = None

    @property
    def label(self) -> str:
        """Its settings in words; the same for all of its seeds."""
        return labelled(self.settings)


class Manifest:
    """The trials of a sweep, in its folder."""

    def __init__(self, folder: Folder, sweep: Sweep) -> None:
        self._folder = folder
        self.sweep = sweep
        self.entries: list[Entry] = []
        self._by_name: dict[str, Entry] = {}

    @property
    def place(self) -> str:
        return self._folder.place

    @property
    def groups(self) -> list[list[Entry]]:
        """The trials that have all but their seed in common."""
        groups: dict[str, list[Entry]] = {}
        for entry in self.entries:
            groups.setdefault(json.dumps(entry.settings), []).append(entry)
        return list(groups.values())

    def __getitem__(self, name: str) -> Entry:
        return self._by_name[name]

    def run_dir(self, entry: Entry) -> str:
        return f"{self.place}/{TRIALS}/{entry.name}"

    def has_result(self, entry: Entry) -> bool:
        return self._folder.exists(f"{TRIALS}/{entry.name}/{RESULT}")

    def add(self, settings: Settings) -> None:
        """A trial a seed; `write` makes it last."""
        for seed in self.sweep.seeds:
            name = f"{len(self.entries):03d}-{name_of(settings, seed)}"
            self._take(Entry(name, settings, seed))

    def take(self, entry: Entry, *, even_if_not_done: bool) -> None:
        """A trial that may have a result already."""
        done = self.has_result(entry)
        if done:
            entry.state, entry.ended = "done", self.reason(entry)
        if done or even_if_not_done:
            self._take(entry)

    def write(self) -> None:
        names = dict.fromkeys(name for entry in self.entries for name in entry.settings)
        value = {
            "schema_version": self.sweep.schema_version,
            "varies": list(names),
            "trials": [asdict(entry) for entry in self.entries],
        }
        content = json.dumps(value, indent=2, ensure_ascii=False) + "\n"
        self._folder.write(MANIFEST, content.encode())

    def write_file(self, name: str, content: bytes) -> None:
        self._folder.write(name, content)

    def read(self) -> None:
        """The trials of an earlier session. Those that failed are waiting again, and what is done
        is what has a result: the session may have died before it could write that here."""
        value = read_json(self._folder, MANIFEST)
        try:
            for trial in value["trials"]:
                self._take(Entry(**trial))
        except (KeyError, TypeError) as error:
            raise RunError(f"{self.place}/{MANIFEST} is damaged: {error}.") from None
        for entry in self.entries:
            if self.has_result(entry):
                entry.state, entry.ended, entry.error = "done", self.reason(entry), None
            elif entry.state != "stopped":
                entry.state, entry.ended, entry.error = "waiting", None, None

    def reason(self, entry: Entry) -> str | None:
        """Why the search of a trial that is done ended."""
        stopped = read_json(self._folder, f"{TRIALS}/{entry.name}/{RESULT}").get("stopped")
        return None if stopped is None else str(stopped)

    def _take(self, entry: Entry) -> None:
        self.entries.append(entry)
        self._by_name[entry.name] = entry


@contextmanager
def opened(place: str, sweep: Sweep) -> Iterator[tuple[Manifest, bool]]:
    """The folder of a new sweep, or of this very one, held against others; whether it had begun."""
    with _held(place) as folder:
        manifest = Manifest(folder, sweep)
        begun = folder.exists(MANIFEST)
        if begun:
            _refuse_another(folder, _plain(_read(folder)), _plain(sweep))
            manifest.read()
        folder.write(SWEEP, _yaml(sweep))
        yield manifest, begun


@contextmanager
def grown(place: str, sweep: Sweep, beside: Sequence[str] = ()) -> Iterator[Manifest]:
    """The folder of a sweep whose points may become more from session to session, held likewise.

    The manifest has the trials of this sweep, and those of earlier ones that are done. What both
    know by the same name must be the same. A trial that a sweep `beside` it has done with the same
    settings is copied from there.
    """
    with _held(place) as folder:
        whole = sweep
        if folder.exists(SWEEP):
            before, now = _plain(_read(folder)), _plain(sweep)
            whole = Sweep.model_validate(_joined(folder, before, now))
        manifest = Manifest(folder, whole)
        done = {key: run for other in beside for key, run in _done(open_folder(other))}
        asked = [json.dumps(settings) for settings in points(sweep, read_space(sweep))]
        for settings in points(whole, read_space(whole)):
            for seed in whole.seeds:
                mine = json.dumps(settings) in asked and seed in sweep.seeds
                entry = Entry(name_of(settings, seed), settings, seed)
                if mine and done and not manifest.has_result(entry):
                    same = done.get(identity(whole, settings, seed))
                    if same is not None:
                        _copy(open_folder(same), open_folder(manifest.run_dir(entry)))
                manifest.take(entry, even_if_not_done=mine)
        folder.write(SWEEP, _yaml(whole))
        yield manifest


def _done(folder: Folder) -> Iterator[tuple[str, str]]:
    """The trials of a sweep that have a result, by what they are: their run directories."""
    if not folder.exists(SWEEP):
        return
    sweep = _read(folder)
    manifest = Manifest(folder, sweep)
    for settings in points(sweep, read_space(sweep)):
        for seed in sweep.seeds:
            entry = Entry(name_of(settings, seed), settings, seed)
            if manifest.has_result(entry):
                try:
                    key = identity(sweep, settings, seed)
                except ConfigError:  # of another version: no search of this one is the same
                    continue
                yield key, manifest.run_dir(entry)


def _copy(source: Folder, target: Folder, part: str = "") -> None:
    """A run directory, its result last: where that is, all of it is."""
    for name in sorted(source.names(part), key=lambda name: name == RESULT):
        whole = f"{part}/{name}" if part else name
        if source.exists(whole):
            target.write(whole, source.read(whole))
        else:
            _copy(source, target, whole)


@contextmanager
def _held(place: str) -> Iterator[Folder]:
    folder = open_folder(place)
    folder.make()
    with ExitStack() as held:
        try:
            held.enter_context(folder.locked())
        except HeldError:
            raise HeldError(
                f"{place} is being written by another sweep; wait for its end, stop it, or give "
                "another folder with --into."
            ) from None
        if folder.exists("config.yaml"):
            raise RunError(f"{place} holds a run, not a sweep. Give another folder with --into.")
        yield folder


def _joined(folder: Folder, before: dict[str, Any], now: dict[str, Any]) -> dict[str, Any]:
    """Two sweeps as one, with the cases, the values and the seeds of both."""
    both = {**now, "space": {}, "seeds": list(dict.fromkeys([*before["seeds"], *now["seeds"]]))}
    for name in now["space"] | before["space"]:
        kinds = [tree["space"].get(name) for tree in (before, now)]
        if not all(isinstance(kind, dict) and kind.keys() <= {"grid", "cases"} for kind in kinds):
            raise _another(folder, [f"space.{name} is in one of them only"])
        old, new = kinds
        cases = {**old.get("cases", {}), **new.get("cases", {})}
        values = [*old.get("grid", []), *new.get("grid", [])]
        grid = [value for at, value in enumerate(values) if value not in values[:at]]
        both["space"][name] = {"cases": cases} if cases else {"grid": grid}
    _refuse_another(folder, {**before, "space": {}, "seeds": []}, {**now, "space": {}, "seeds": []})
    changed = [
        f"{name}.{case} is {brief(tree)}, there it is {brief(old[case])}"
        for name, kind in now["space"].items()
        for old in [before["space"][name].get("cases", {})]
        for case, tree in kind.get("cases", {}).items()
        if old.get(case, tree) != tree
    ]
    if changed:
        raise _another(folder, changed)
    return both


def _read(folder: Folder) -> Sweep:
    try:
        return Sweep.model_validate(yaml.safe_load(folder.read(SWEEP)))
    except (ValueError, yaml.YAMLError) as error:
        raise RunError(f"{folder.place}/{SWEEP} is damaged: {one_line(error)}.") from None


def _refuse_another(folder: Folder, then: dict[str, Any], now: dict[str, Any]) -> None:
    before, after = _leaves(then), _leaves(now)
    other = [
        f"{name} is {_said(after, name)}, there it is {_said(before, name)}"
        for name in dict.fromkeys((*after, *before))
        if before.get(name, ABSENT) != after.get(name, ABSENT) and not name.startswith(MAY_DIFFER)
    ]
    if other:
        raise _another(folder, other)


def _another(folder: Folder, differences: Sequence[str]) -> RunError:
    return RunError(
        f"{folder.place} holds another sweep: {'; '.join(differences[:4])}. Give another folder "
        "with --into, or the same sweep to go on with it."
    )


def _leaves(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """By full name; in the space a case that changes nothing is one as well."""
    leaves: dict[str, Any] = {}
    for key, value in tree.items():
        inner = isinstance(value, Mapping) and (value or not prefix.startswith("space."))
        leaves |= _leaves(value, f"{prefix}{key}.") if inner else {f"{prefix}{key}": value}
    return leaves


def _said(tree: Mapping[str, Any], name: str) -> str:
    return brief(tree[name]) if name in tree else "not given"


def _plain(sweep: Sweep) -> dict[str, Any]:
    tree: dict[str, Any] = json.loads(sweep.model_dump_json())
    return tree


def _yaml(sweep: Sweep) -> bytes:
    return safe_dump(_plain(sweep)).encode()


def name_of(settings: Settings, seed: int) -> str:
    """A folder's name that says what is in it."""
    parts = [f"{name.rpartition('.')[2]}-{brief(value)}" for name, value in settings.items()]
    text = re.sub(r"[^\w.-]+", "_", "-".join(parts))[:60].strip("._-")
    return f"{text}-seed-{seed}"
