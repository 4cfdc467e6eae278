"""The list of settings, held against the models themselves."""

import json
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from command import cliptune_here
from pydantic import BaseModel, Field, TypeAdapter
from pydantic.fields import FieldInfo

from cliptune.errors import ConfigError
from cluster.config import ClusterSearch
from jobs.settings import Group, Setting, choose, in_words, main, tree


def leaves(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """Every field that is no section, by its path; found by another way than that of the verb."""
    for name, field in model.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            yield from leaves(kind, f"{prefix}{name}.")
        else:
            yield prefix + name, field


LEAVES = dict(leaves(ClusterSearch))


@pytest.fixture(autouse=True)
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")


def listed(*names: str) -> list[Setting]:
    return [setting for group in choose(tree(), names) for setting in group.settings]


def printed(capsys: pytest.CaptureFixture[str], *names: str) -> str:
    main(names, as_json=False)
    return capsys.readouterr().out


def as_json(capsys: pytest.CaptureFixture[str], *names: str) -> dict[str, Any]:
    main(names, as_json=True)
    value = json.loads(capsys.readouterr().out)
    assert isinstance(value, dict)
    return value


def test_every_setting_is_listed_once() -> None:
    assert {"task.splits.train", "search.budget", "cluster.actors", "run_dir"} <= LEAVES.keys()
    assert sorted(setting.name for setting in listed()) == sorted(LEAVES)


def test_every_setting_is_found_by_its_name() -> None:
    groups = tree()
    for name in LEAVES:
        found = [setting.name for group in choose(groups, [name]) for setting in group.settings]
        assert found == [name]


def test_every_setting_says_what_it_is_for_and_what_it_may_be() -> None:
    for setting in listed():
        assert setting.meaning == LEAVES[setting.name].description, setting.name
        assert setting.meaning.strip(), setting.name
        assert setting.type.strip(), setting.name


def test_every_default_is_the_models() -> None:
    for setting in listed():
        field = LEAVES[setting.name]
        assert setting.required == field.is_required(), setting.name
        if not field.is_required():
            default = field.get_default(call_default_factory=True)
            expected = TypeAdapter(Any).dump_python(default, mode="json")
            assert setting.default == expected, setting.name


@pytest.mark.parametrize("group", tree(), ids=lambda group: group.name or "top")
def test_every_section_says_what_it_is(group: Group) -> None:
    assert group.meaning.strip()
    assert group.settings


@pytest.mark.parametrize(
    ("name", "default"),
    [
        ("task.template", "by task"),
        ("task.k", "16"),
        ("search.sigma", "1.0"),
        ("search.patience", "null"),
        ("search.method", "cma-es"),
        ("ensemble.sites", "[embedding, attention-output, ffn-output]"),
    ],
)
def test_a_default_is_shown_as_one_types_it(name: str, default: str) -> None:
    (setting,) = listed(name)
    assert setting.shown_default == default


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("search.budget", "whole number >= 1 or null"),
        ("search.loss", "one of cross-entropy, hinge, accuracy or text"),
        ("search.sigma", "number > 0"),
        ("search.seed", "whole number >= 0 and < 2^63"),
        ("ensemble.clip_ratio", "number >= 0 and < 1"),
        ("cluster.actors", "whole number >= 1 and <= 10000 or {min, max} or auto"),
        ("prompt.file", "path or null"),
        ("task.name", "text"),
        ("task.label_words", "list of text; 2 or more"),
        ("task.labels", "list of (whole number or text) or null"),
    ],
)
def test_a_type_is_said_in_words(name: str, words: str) -> None:
    (setting,) = listed(name)
    assert setting.type == words


def test_types_that_no_setting_has_yet_are_said_in_words_too() -> None:
    class Other(BaseModel):
        flag: bool
        part: float = Field(gt=0, le=0.5)
        most: int = Field(le=1_000_000)

    fields = Other.model_json_schema()["properties"]
    words = ["true or false", "number > 0 and <= 0.5", "whole number <= 1000000"]
    assert [in_words(field) for field in fields.values()] == words


def test_a_section_brings_those_inside_it_and_no_others() -> None:
    names = [setting.name for setting in listed("task")]
    assert sorted(names) == sorted(name for name in LEAVES if name.startswith("task."))
    assert [setting.name for setting in listed("task.columns")] == [
        "task.columns.text",
        "task.columns.text_pair",
        "task.columns.label",
    ]


def test_names_that_overlap_are_listed_once_and_in_the_trees_order() -> None:
    names = [setting.name for setting in listed("search.seed", "search.budget", "task.k", "search")]
    assert names[0] == "task.k"
    assert len(set(names)) == len(names)
    assert set(names[1:]) == {name for name in LEAVES if name.startswith("search.")}


def test_a_setting_whose_name_begins_another_ones_is_not_that_one() -> None:
    assert [setting.name for setting in listed("task.label_words", "prompt.text")] == [
        "task.label_words",
        "prompt.text",
    ]
    assert [setting.name for setting in listed("task.columns.text")] == ["task.columns.text"]


KNOWN = (
    "known: task, model, prompt, ensemble, search, scorer, watch, cluster, schema_version, run_dir"
)


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("search.budgt", "did you mean search.budget?"),
        ("serch", "did you mean search?"),
        ("budget", "did you mean search.budget?"),
        ("run.budget", "did you mean search.budget?"),
        ("seed", "did you mean task.seed or prompt.seed or ensemble.seed or search.seed?"),
        ("search.", "did you mean search?"),
        ("qqq", KNOWN),
        ("", KNOWN),
    ],
)
def test_an_unknown_name_gets_the_nearest(name: str, hint: str) -> None:
    with pytest.raises(ConfigError) as caught:
        main(["task", name], as_json=False)
    assert str(caught.value) == f"Unknown setting or section {name} ({hint})."


def test_json_holds_type_default_and_meaning(capsys: pytest.CaptureFixture[str]) -> None:
    assert as_json(capsys, "search.patience", "task.template", "ensemble.sites") == {
        "task.template": {"type": "text", "meaning": LEAVES["task.template"].description},
        "ensemble.sites": {
            "type": "list of one of embedding, attention-output, ffn-hidden, ffn-output; 1 or more",
            "default": ["embedding", "attention-output", "ffn-output"],
            "meaning": LEAVES["ensemble.sites"].description,
        },
        "search.patience": {
            "type": "whole number >= 1 or null",
            "default": None,
            "meaning": LEAVES["search.patience"].description,
        },
    }


def test_json_and_tables_hold_the_same_settings(capsys: pytest.CaptureFixture[str]) -> None:
    found = as_json(capsys)
    assert sorted(found) == sorted(LEAVES)
    lines = printed(capsys).splitlines()
    for name in found:
        rows = [line for line in lines if not line.startswith(" ")]  # else a meaning goes on
        assert len([line for line in rows if line.split()[:1] == [name]]) == 1


def test_tables_fit_80_columns_and_cut_no_word(capsys: pytest.CaptureFixture[str]) -> None:
    text = printed(capsys)
    assert max(map(len, text.splitlines())) <= 80
    assert "…" not in text
    words = set(text.split())
    for setting in listed():
        cells = (setting.name, setting.type, setting.shown_default, setting.meaning)
        assert set(" ".join(cells).split()) <= words


def test_a_wide_terminal_is_used(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    lines = printed(capsys, "cluster").splitlines()
    (line,) = [line for line in lines if line.startswith("cluster.gpus_per_actor")]
    assert str(LEAVES["cluster.gpus_per_actor"].description) in line


def test_tables_say_that_presets_and_the_user_win_over_defaults(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert "preset is laid over the defaults" in printed(capsys, "search")
    assert "by task:" not in printed(capsys, "search")
    assert "by task:" in printed(capsys, "task")


def test_the_verb_prints_plain_text_where_there_is_no_terminal() -> None:
    done = cliptune_here("config", "search.budget")
    assert (done.returncode, done.stderr) == (0, "")
    assert "\x1b" not in done.stdout
    assert done.stdout.splitlines()[2].split()[:5] == [
        "search.budget",
        "whole",
        "number",
        ">=",
        "1",
    ]


def test_the_verb_refuses_an_unknown_name_with_one_sentence() -> None:
    done = cliptune_here("config", "search.budgt", "--json")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        "cliptune: Unknown setting or section search.budgt (did you mean search.budget?).\n"
    )


def test_nothing_heavy_is_imported() -> None:
    code = (
        "import sys\nfrom jobs.settings import main\nmain([], as_json=False)\n"
        "print(*sorted({name.partition('.')[0] for name in sys.modules}))"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(ran.stdout.splitlines()[-1].split())
    assert {"cluster", "pydantic"} <= loaded
    assert loaded & {"torch", "ray", "transformers", "numpy", "pyarrow"} == set()
