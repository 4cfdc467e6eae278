"""Whatever a config or a task file holds, the command says one sentence or does its work."""

import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest
import tiny
import yaml
from command import cliptune_here
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cliptune.config import Config, validate
from cliptune.errors import CliptuneError
from cliptune.loop import search

FEW, MANY = 20, 2000
RUNS = (5, 300)  # of whole searches


def fuzzed(most: int) -> settings:
    """The same few tries each time, or many that nobody has tried before."""
    return settings(
        max_examples=most,
        derandomize=most in (FEW, RUNS[0]),
        deadline=None,
        database=None,
        suppress_health_check=[HealthCheck.too_slow],
    )


tries = pytest.mark.parametrize(
    "most", [pytest.param(FEW, id="few"), pytest.param(MANY, id="many", marks=pytest.mark.slow)]
)

# What people write by mistake, and what only a program would.
leaves = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.sampled_from([0, 1, 2, -1, 10**6, 2**63, 10**30]),
    st.floats(),
    st.text(max_size=20),
    st.sampled_from(
        ["", " ", "all", "auto", "nan", "1e400", "{text}", "{mask}", "{}", "\x00", "/"]
    ),
)
values = st.recursive(
    leaves,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
    ),
    max_leaves=8,
)


def check(done: CompletedProcess[str]) -> int:
    """Exit code 0 and no complaint, or 2 and one sentence; which."""
    if done.returncode == 0:
        assert done.stderr == ""
        return 0
    assert done.returncode == 2, done.stderr
    assert done.stdout == ""
    assert done.stderr.startswith("cliptune: ")
    assert "unexpected" not in done.stderr.partition(":")[2][:20], done.stderr
    assert "Traceback" not in done.stderr
    return 2


def settings_of(tree: Mapping[str, Any], path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """The path of every section and setting of a tree."""
    paths = []
    for name, value in tree.items():
        paths.append((*path, name))
        if isinstance(value, Mapping):
            paths += settings_of(value, (*path, name))
    return paths


def changed(tree: dict[str, Any], path: tuple[str, ...], value: Any) -> dict[str, Any]:
    """The tree with another value at a path, or nothing there for `...`."""
    first, *rest = path
    if rest:
        below = tree.get(first)
        return {**tree, first: changed(below if isinstance(below, dict) else {}, (*rest,), value)}
    kept = {key: old for key, old in tree.items() if key != first}
    return kept if value is ... else {**kept, first: value}


@pytest.fixture(scope="module")
def whole(model_dir: Path, task_dir: Path) -> dict[str, Any]:
    """A config with every setting in it."""
    return validate(Config, tiny.tree(model_dir, task_dir)).model_dump(mode="json")


@tries
def test_a_config_is_understood_or_refused(
    most: int, whole: dict[str, Any], tmp_path: Path
) -> None:
    file = tmp_path / "config.yaml"
    paths = st.one_of(
        st.sampled_from(settings_of(whole)),
        st.tuples(st.sampled_from(sorted(whole)), st.text(max_size=8)),
        st.tuples(st.text(max_size=8)),
    )
    changes = st.lists(st.tuples(paths, values | st.just(...)), min_size=1, max_size=3)
    outcomes = set()

    @fuzzed(most)
    @given(
        changes,
        st.sampled_from([("task",), ("plan", "--no-measure"), ("plan", "--no-measure", "--json")]),
    )
    def holds(changes: list[tuple[tuple[str, ...], Any]], verb: tuple[str, ...]) -> None:
        tree = whole
        for path, value in changes:
            tree = changed(tree, path, value)
        file.write_text(yaml.safe_dump(tree, allow_unicode=True), encoding="utf-8")
        outcomes.add(check(cliptune_here(*verb, str(file))))

    holds()
    assert outcomes == {0, 2}


@tries
def test_any_bytes_are_a_config_or_refused(
    most: int, whole: dict[str, Any], tmp_path: Path
) -> None:
    """With words beside it that are all that a search needs."""
    file = tmp_path / "config.yaml"
    words = [f"{name}={json.dumps(section)}" for name, section in whole.items()]
    outcomes = set()
    pieces = st.sampled_from(
        "task: search: model: [ ] { } - & * ! | > ' \" # % @ ` 1 \t \n ? , ...".split(" ")
    )
    texts = st.lists(pieces | st.text(max_size=3), max_size=12).map(
        lambda some: " ".join(some).encode()
    )

    @fuzzed(most)
    @given(st.binary(max_size=40) | texts)
    def holds(content: bytes) -> None:
        file.write_bytes(content)
        outcomes.add(check(cliptune_here("plan", "--no-measure", str(file), *words)))

    holds()
    assert outcomes == {0, 2}


@tries
def test_any_word_is_a_setting_or_refused(most: int, whole: dict[str, Any], tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(yaml.safe_dump(whole), encoding="utf-8")
    names = [".".join(path) for path in settings_of(whole)]
    arguments = st.text(
        st.characters(exclude_characters="\x00", exclude_categories=["Cs"]), max_size=12
    )
    outcomes = set()

    @fuzzed(most)
    @given(st.sampled_from(names) | arguments, arguments | values.map(str))
    def holds(name: str, value: str) -> None:
        word = f"{name}={value}".replace("\x00", "")
        outcomes.add(check(cliptune_here("plan", "--no-measure", str(file), "--", word)))

    holds()
    assert outcomes == {0, 2}


def edited(edits: list[tuple[int, str, Any]]) -> list[dict[str, Any]]:
    """Good examples, with a few values that are not."""
    rows: list[dict[str, Any]] = [
        {"text": f"it was film {i} .", "label": i % 2, "extra": None} for i in range(8)
    ]
    for row, column, value in edits:
        rows[row] = changed(rows[row], (column,), value)
    return rows


edits = st.tuples(
    st.integers(0, 7), st.sampled_from(["text", "label", "extra", "other"]), values | st.just(...)
)
rows = st.lists(edits, max_size=3).map(edited)


def as_json_lines(rows: list[dict[str, Any]]) -> bytes:
    return "\n".join(json.dumps(row) for row in rows).encode()


def as_comma_separated(rows: list[dict[str, Any]]) -> bytes:
    lines = ["text,label", *(f"{row.get('text')},{row.get('label')}" for row in rows)]
    return "\n".join(lines).encode("utf-8", "replace")


def damaged(content: bytes, cut: int, byte: int) -> bytes:
    """With one byte changed, and perhaps the end missing."""
    at = cut % (len(content) + 1)
    return content[:at] + bytes([byte]) + content[at + 1 : None if cut % 2 else at + 20]


def as_table(rows: list[dict[str, Any]], ending: str) -> bytes:
    import pyarrow as pa
    from pyarrow import parquet

    try:
        table = pa.table({name: [row.get(name) for row in rows] for name in ("text", "label")})
    except (pa.ArrowException, OverflowError):  # values of several types in a column
        return b""
    sink = pa.BufferOutputStream()
    if ending == "parquet":
        parquet.write_table(table, sink)
    else:
        with pa.ipc.new_file(sink, table.schema) as writer:
            writer.write_table(table)
    return sink.getvalue().to_pybytes()


contents = {
    "jsonl": rows.map(as_json_lines),
    "csv": rows.map(as_comma_separated),
    "tsv": rows.map(as_comma_separated).map(lambda content: content.replace(b",", b"\t")),
    "parquet": rows.map(lambda some: as_table(some, "parquet")),
    "arrow": rows.map(lambda some: as_table(some, "arrow")),
}
files = st.one_of(
    [
        st.tuples(
            st.just(ending),
            made
            | st.builds(damaged, made, st.integers(0, 4000), st.integers(0, 255))
            | st.binary(),
        )
        for ending, made in contents.items()
    ]
)


@tries
def test_a_task_file_is_read_or_refused(
    most: int, model_dir: Path, task_dir: Path, tmp_path: Path
) -> None:
    place, config = tmp_path / "data", tmp_path / "config.yaml"
    place.mkdir()
    tree = tiny.tree(model_dir, place, task={"k": 1, "label_tokens": "first"})
    config.write_text(yaml.safe_dump(tree), encoding="utf-8")
    outcomes = set()

    @fuzzed(most)
    @given(files, st.sampled_from(["all", "train"]))
    def holds(file: tuple[str, bytes], name: str) -> None:
        ending, content = file
        for old in place.iterdir():
            old.unlink()
        path = place / f"{name}.{ending}"
        path.write_bytes(content)
        words = [f"task.data={path}"] if name == "all" else []
        outcomes.add(check(cliptune_here("task", str(config), *words)))

    holds()
    assert outcomes == {0, 2}


def choices(*values: Any) -> st.SearchStrategy[Any]:
    return st.sampled_from(values)


searches = st.fixed_dictionaries(
    {
        "task": st.fixed_dictionaries(
            {},
            optional={
                "k": choices(1, 2, "all"),
                "max_tokens": st.integers(8, 70),
                "label_tokens": choices("single", "first"),
                "template": choices(
                    "{text} {mask}", "{mask} : {text}", "{text}", "{{ {text} }} {mask}"
                ),
                "label_words": choices(["bad", "great"], ["not very fun", "sad"], ["", "good"]),
            },
        ),
        "model": st.fixed_dictionaries(
            {},
            optional={
                "readout": choices("auto", "masked-lm", "encoder"),
                "dtype": choices("auto", "float32", "bfloat16", "float16"),
                "micro_batch": choices(1, 7, 1000, "auto"),
                "pooling": choices("mean", "cls"),
                "temperature": choices(1e-300, 1e-9, 0.05, 1e300),
            },
        ),
        "prompt": st.fixed_dictionaries(
            {},
            optional={
                "length": st.integers(1, 70),
                "dimension": st.integers(1, 12),
                "position": choices("after-first", "front"),
                "init": choices("vocabulary", "zero", "text"),
                "text": choices("it was good", "", "unknown words", "film " * 100),
                "scale": choices(1e-300, 1e-30, 1.0, 1e30, 1e300),
            },
        ),
        "ensemble": st.fixed_dictionaries(
            {},
            optional={
                "subnetworks": st.integers(1, 4),
                "clip_ratio": choices(0, 0.5, 0.999999),
                "mode": choices("static", "dynamic", "none"),
                "sites": st.lists(
                    choices("embedding", "attention-output", "ffn-hidden", "ffn-output"),
                    min_size=1,
                    unique=True,
                ),
                "mixer": choices("mean", "median", "min", "rank-mean"),
            },
        ),
        "search": st.fixed_dictionaries(
            {"population": st.integers(3, 6)},
            optional={
                "method": choices("cma-es", "random"),
                "max_forward_passes": choices(1, 100, 10**30),
                "max_seconds": choices(1e-9, 1e300),
                "patience": st.integers(1, 2),
                "sigma": choices(1e-300, 1e-30, 1.0, 1e30, 1e300),
                "loss": choices("cross-entropy", "hinge", "accuracy"),
                "margin": choices(1e-300, 2.0, 1e300),
                "selection": choices("loss", "accuracy", "macro-f1"),
                "seed": st.integers(0, 2**63 - 1),
            },
        ),
    }
)


@pytest.mark.parametrize(
    "most",
    [
        pytest.param(RUNS[0], id="few"),
        pytest.param(RUNS[1], id="many", marks=pytest.mark.slow),
    ],
)
def test_a_search_runs_or_is_refused_in_a_sentence(
    most: int, model_dir: Path, task_dir: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """What is valid setting by setting need not work together; numbers may overflow."""

    outcomes = Counter[str]()

    @fuzzed(most)
    @given(searches)
    def holds(sections: dict[str, dict[str, Any]]) -> None:
        tree = tiny.tree(model_dir, task_dir, tmp_path_factory.mktemp("runs") / "run")
        for name, section in sections.items():
            tree[name] = {**tree[name], **section}
        try:
            result = search(validate(Config, tree))
        except CliptuneError as error:
            assert str(error).strip()
            assert "\n" not in str(error).strip()
            outcomes[type(error).__name__] += 1
        else:
            assert result.cost.prompts_scored <= 12
            outcomes["ran"] += 1

    holds()
    assert outcomes["ran"] > 0, outcomes
