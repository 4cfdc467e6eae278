"""A sweep while it runs: which trial comes next, and what becomes of those that ended."""

import statistics
from collections.abc import Iterator, Sequence

from cliptune.config import merge
from cliptune.errors import CliptuneError, ConfigError
from cliptune.journal import Generation, best_of
from cliptune.record import is_run, read_run
from cluster import nodes
from cluster.config import ClusterSearch
from cluster.placement import Growth, Node
from cluster.session import anchored, fit
from cluster.trials import Asha, Report, State, Trial
from jobs.config import of_run
from jobs.manifest import Entry, Manifest
from jobs.ranking import TABLE, Row, parquet, row_of, table_of
from jobs.suggestions import Suggestions
from jobs.sweepdisplay import SweepDisplay
from jobs.sweepfile import Settings, config_of, tree_of

REPEATS = 20  # suggestions of what is known already, until Optuna is taken to have no others


class SweepPlan:
    """The plan of a sweep (see `cluster.tuning.Plan`), written down as it goes."""

    def __init__(
        self, manifest: Manifest, suggestions: Suggestions | None, display: SweepDisplay
    ) -> None:
        self.manifest = manifest
        self._suggestions = suggestions
        self._display = display
        self.rows: dict[str, Row] = {e.name: self._row(e) for e in manifest.entries}
        self._failures: dict[str, int] = {}
        self.again()
        if suggestions is not None:
            for group in manifest.groups:
                suggestions.again(group[0].settings)
                self._suggest_by(group[0])

    @property
    def total(self) -> int:
        """Trials, those that are not drawn yet included."""
        drawn = len(self.manifest.entries)
        if self._suggestions is None:
            return drawn
        return max(drawn, self.manifest.sweep.samples * len(self.manifest.sweep.seeds))

    @property
    def left(self) -> int:
        ended = sum(entry.state != "waiting" for entry in self.manifest.entries)
        return self.total - ended

    def again(self) -> None:
        """Give out anew what has no end yet, also what was given out before."""
        self._waiting = [entry for entry in self.manifest.entries if entry.state == "waiting"]

    def next(self) -> Trial | None:
        while entry := self._next():
            try:
                return Trial(entry.name, self._config(entry))
            except CliptuneError as error:
                self.ended(entry.name, "failed", str(error))
        return None

    def reported(self, name: str, report: Report) -> None:
        entry = self.manifest[name]
        if "generation" in report:
            self._display.reported(entry, report)
            return
        failures = self._failures[name] = self._failures.get(name, 0) + 1
        if failures <= self.manifest.sweep.failures:
            self._display.warning(f"{name}: {report['error']} It is tried again.")

    def ended(self, name: str, state: State, error: str | None) -> None:
        entry = self.manifest[name]
        entry.state, entry.error = state, error
        entry.ended = "asha" if state == "stopped" else None
        row = self.rows[name] = self._row(entry)
        if state == "done":
            entry.ended = row["ended"] = self.manifest.reason(entry)
        self.write()
        self._display.ended(entry, row, self.total - self.left, self.total)
        self._suggest_by(entry)

    def write(self) -> None:
        """The manifest and the table."""
        self.manifest.write()
        varies = dict.fromkeys(name for e in self.manifest.entries for name in e.settings)
        for entry in self.manifest.entries:
            if entry.name not in self.rows:
                self.rows[entry.name] = self._row(entry)
        rows = [self.rows[entry.name] for entry in self.manifest.entries]
        self.manifest.write_file(TABLE, parquet(table_of(rows, list(varies))))

    def refuse_what_never_fits(self, configs: Sequence[ClusterSearch]) -> None:
        """Compare what trials reserve with what the cluster has, or may come to have."""
        machines, growth = nodes.present(), nodes.growth()
        for config in configs:
            _placed(config, machines, growth)

    def _next(self) -> Entry | None:
        more = len(self.manifest.entries) < self.total
        if not self._waiting and more and (settings := self._suggested()) is not None:
            before = len(self.manifest.entries)
            self.manifest.add(settings)
            self.write()
            self._waiting = self.manifest.entries[before:]
        return self._waiting.pop(0) if self._waiting else None

    def _suggested(self) -> Settings | None:
        """Settings that are new; none where Optuna only repeats itself, its space being small."""
        if self._suggestions is None:
            return None
        for _ in range(REPEATS):
            settings = self._suggestions.ask()
            known = [e for e in self.manifest.entries if e.settings == settings]
            if not known:
                return settings
            self._suggestions.tell(settings, self._score(known))
        return None

    def _score(self, group: Sequence[Entry]) -> float | None:
        """What settings came to: the mean over the seeds that came to anything."""
        scores = [self.rows[e.name].get("validation.score") for e in group if e.state != "failed"]
        known = [score for score in scores if score is not None]
        return statistics.fmean(known) if known else None

    def _config(self, entry: Entry) -> ClusterSearch:
        """A trial's config, over that of its run where it has begun, with nothing left on auto."""
        place = self.manifest.run_dir(entry)
        tree = tree_of(self.manifest.sweep, entry.settings, entry.seed)
        if is_run(place):
            tree = merge(of_run(place), tree)
        config = config_of({**tree, "run_dir": place}, entry.label)
        return anchored(_placed(config, nodes.present(), nodes.growth()))

    def _row(self, entry: Entry) -> Row:
        return row_of(entry, self.manifest.run_dir(entry))

    def _suggest_by(self, entry: Entry) -> None:
        """Tell Optuna of settings all of whose seeds have ended."""
        group = [e for e in self.manifest.entries if e.settings == entry.settings]
        if self._suggestions is None or any(e.state == "waiting" for e in group):
            return
        self._suggestions.tell(entry.settings, self._score(group))


def asha_of(plan: SweepPlan, configs: Sequence[ClusterSearch]) -> Asha | None:
    """ASHA as the sweep wants it, knowing of the trials of earlier sessions."""
    asked = plan.manifest.sweep.asha
    if asked is None:
        return None
    budgets = {config.search.budget for config in configs}
    budget = budgets.pop()
    if budget is None or budgets:
        raise ConfigError("asha compares trials by prompts scored: give all one search.budget.")
    population = max(config.search.population for config in configs)
    grace = asked.grace or max(population, budget // 9)
    if grace >= budget:
        raise ConfigError(
            f"asha.grace must be below search.budget, else it stops nothing; found {grace} and "
            f"{budget}."
        )
    past = {}
    for entry in plan.manifest.entries:
        if entry.state in ("done", "stopped"):
            record = read_run(ClusterSearch, plan.manifest.run_dir(entry))
            past[entry.name] = list(_reports(record.generations, budget))
    return Asha(grace, budget, asked.reduction, past)


def _reports(generations: Sequence[Generation], budget: int) -> Iterator[Report]:
    """What a trial has reported while it ran: of its last generation nothing (see `report`)."""
    prompts, best = 0, generations[:1]
    for generation in generations:
        prompts += len(generation.fitness)
        best = [best_of([*best, generation])]
        if prompts < budget:
            yield {"prompts_scored": prompts, "score": best[0].validation.score}


def _placed(
    config: ClusterSearch, machines: Sequence[Node], growth: Sequence[Growth]
) -> ClusterSearch:
    """With nothing left on auto, refused where the cluster cannot hold it.

    One actor where their number is on auto: side by side, trials leave no actor idle. A model
    behind an API needs none, and what is on auto is its provider's.
    """
    if config.scorer.url is not None:
        return config
    if config.cluster.actors == "auto":
        alone = config.cluster.model_copy(update={"actors": 1})
        config = config.model_copy(update={"cluster": alone})
    return fit(config, machines, growth)
