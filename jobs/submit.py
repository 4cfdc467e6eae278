"""`cliptune submit`: a search as a job of a Ray cluster, which outlives this terminal."""

import re
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import cliptune
from cliptune.config import validate
from cliptune.errors import ConfigError
from cliptune.functions import refuse_here_only, refuse_missing
from cliptune.hashing import digest
from cliptune.storage import SCHEME, refuse_credentials
from cliptune.task import load_task
from cluster.config import ClusterSearch
from cluster.remote import NAME, NUMBER, RefusedError, Remote, Submission, connect
from jobs.config import read_tree
from jobs.logs import exit_code, warn, watch
from jobs.packing import CONFIG, Package, pack, size_words
from jobs.words import make_console

NAMES = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,80}")
STOP_SECONDS = 30  # for a stopped search to let go of its generation; Ray's own are 3


def main(
    words: Sequence[str], *, address: str | None, name: str | None, wait: bool, as_is: Sequence[str]
) -> None:
    """Pack the search, submit it, say how to go on; with `wait`, be its log and its exit code."""
    if name is not None and not NAMES.fullmatch(name):
        raise ConfigError(
            f"--id is of letters, digits, dots, dashes and underscores, 81 at most; found {name!r}."
        )
    config, place = settings(words)
    package = pack(config, as_is)
    _refuse_bad_input(config, package)
    with TemporaryDirectory(prefix="cliptune-") as folder:
        archive = Path(folder) / "package.zip"
        size = package.write(archive)
        search = package.digest()
        name = name or default_name(config, search, place)
        run = place or f"~/runs/{name}"
        remote = connect(address, warn)
        remote.refuse_other_versions()
        metadata = {
            "cliptune": cliptune.__version__,
            "run": run,
            "search": search,
            "settings": digest(dict(package.tree)),
        }
        running = _running(remote, name, metadata)
        if running is None:
            _tell_of(package, size)
        submission = running or _submit(remote, name, archive, metadata)
    console = make_console()
    if running is None:
        console.print(f"Submitted {submission.id} to {remote.address}", soft_wrap=True)
    else:
        console.print(f"{submission.id} runs already; nothing was submitted", soft_wrap=True)
    for what, command in _next_steps(name, run, address):
        console.print(f"  {what:<7} {command}", soft_wrap=True)
    if wait:
        ended = watch(remote, submission)
        sys.exit(exit_code(ended))


def settings(words: Sequence[str]) -> tuple[ClusterSearch, str | None]:
    """The settings, and where on the cluster its run is to lie if the words say so.

    A home folder in it, `~/`, is the one there.
    """
    tree = read_tree(words, {})
    config = validate(ClusterSearch, tree)
    if config.run_dir is None:
        return config, None
    place = str(tree["run_dir"])
    refuse_credentials(place)
    if not (SCHEME.match(place) or place.startswith(("/", "~/"))):
        raise ConfigError(
            f"run_dir: {place} would lie in the job's own folder, which goes with the job; give an "
            "absolute path on the cluster's head, ~/... for its home, or a URI such as s3://..."
        )
    return config, place


def default_name(config: ClusterSearch, search: str, place: str | None) -> str:
    """The same for the same search in the same place, whatever its limits and machines."""
    task = re.sub(r"[^A-Za-z0-9._-]", "-", config.task.name).lstrip("._-")[:60] or "search"
    return f"{task}-{digest([search, place])[:8]}"


def _refuse_bad_input(config: ClusterSearch, package: Package) -> None:
    """Say at once what the job would say when it has begun."""
    if "task.data" not in package.elsewhere:
        load_task(config.task)
    refuse_here_only(config)
    refuse_missing(config, package.elsewhere)


def _tell_of(package: Package, size: int) -> None:
    console = make_console()
    names = [CONFIG, *package.files]
    shown = ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
    console.print(f"Package of {size_words(size)}: {shown}", soft_wrap=True)
    for setting, value in package.elsewhere.items():
        console.print(f"{setting}: {value}, as the cluster's machines find it", soft_wrap=True)


def _running(remote: Remote, name: str, metadata: Mapping[str, str]) -> Submission | None:
    """The job's last try, where that is not over yet; refused where it is another search's."""
    last = remote.latest(name)
    if last is not None:
        _refuse_another(name, last, metadata)
    return None if last is None or last.over else last


def _submit(remote: Remote, name: str, archive: Path, metadata: Mapping[str, str]) -> Submission:
    """Another try of the job, or the one that somebody else has begun meanwhile."""
    place = shlex.quote(f"run_dir={metadata['run']}")
    command = f"cliptune search {CONFIG} {place} --continue --log"
    variables = {"RAY_JOB_STOP_WAIT_TIME_S": str(STOP_SECONDS)}
    last = remote.latest(name)
    number = 1 if last is None else last.number + 1
    own = {**metadata, NAME: name, NUMBER: str(number)}
    try:
        remote.submit(f"{name}-{number}", command, archive, variables, **own)
    except RefusedError as refused:
        meanwhile = _running(remote, name, metadata) if "already exists" in str(refused) else None
        if meanwhile is None:
            raise
        return meanwhile
    return remote.find(f"{name}-{number}")


def _refuse_another(name: str, last: Submission, metadata: Mapping[str, str]) -> None:
    """A name stands for one search and one run; while it runs, for its limits and machines too."""
    before = last.metadata
    if (before.get("search"), before.get("run")) != (metadata["search"], metadata["run"]):
        raise ConfigError(
            f"{name} is another search on this cluster already, in {before.get('run')}; give this "
            "one another --id."
        )
    if not last.over and before.get("settings") != metadata["settings"]:
        raise ConfigError(
            f"{last.id} runs with other limits or machines; stop it first (cliptune stop {name}), "
            "then submit this: it goes on from there."
        )


def _next_steps(name: str, run: str, address: str | None) -> list[tuple[str, str]]:
    where = "" if address is None else f" --address {shlex.quote(address)}"
    on_head = "" if SCHEME.match(run) else ", on the cluster's head"
    return [
        ("run", f"{run}{on_head}"),
        ("status", f"cliptune jobs{where}"),
        ("logs", f"cliptune logs -f {name}{where}"),
        ("stop", f"cliptune stop {name}{where}"),
        ("go on", "the same command again"),
    ]
