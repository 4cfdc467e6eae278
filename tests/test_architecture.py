"""Three storeys, one direction: what may import what, and what may not be used at all."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import cliptune

ROOT = Path(__file__).parents[1]
STOREYS = ("cliptune", "cluster", "jobs")

LIGHT = ["cluster/placement.py"] + [
    f"cliptune/{name}.py"
    for name in (
        "types",
        "errors",
        "rewards",
        "journal",
        "scorer",
        "strategy",
        "loop",
        "asking",
        "protocol",
        "remote",
        "run",
        "evaluation",
        "task",
        "config/tree",
    )
]
HEAVY = ("ray", "torch", "numpy", "pyarrow", "transformers", "pydantic")
UNPICKLERS = {"pickle", "cloudpickle", "dill", "joblib", "shelve", "marshal"}


def files(*folders: str) -> list[Path]:
    found = sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))
    assert found, f"no files in {folders}"
    return found


def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def imports(tree: ast.AST) -> set[str]:
    """Top-level names of all imports anywhere below a node."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names.add(str(node.module))
    return {name.partition(".")[0] for name in names}


def dangers(tree: ast.AST) -> list[str]:
    """What would run code out of a file."""
    found = sorted(imports(tree) & UNPICKLERS)
    for node in ast.walk(tree):
        name = ast.unparse(node) if isinstance(node, ast.Attribute) else ""
        if name == "torch.load" or (
            name.startswith("yaml.") and name.endswith("load") and name != "yaml.safe_load"
        ):
            found.append(name)
        if isinstance(node, ast.ImportFrom) and node.module in ("torch", "yaml"):
            found += [
                f"{node.module}.{alias.name}"
                for alias in node.names
                if alias.name.endswith("load") and alias.name != "safe_load"
            ]
        if isinstance(node, ast.keyword) and node.arg in ("trust_remote_code", "allow_pickle"):
            value = node.value
            if not (isinstance(value, ast.Constant) and value.value is False):
                found.append(f"{node.arg}={ast.unparse(value)}")
    return found


def loaded_after(code: str) -> set[str]:
    """Top-level modules of a fresh interpreter that ran `code`."""
    return printed_and_loaded(code)[1]


def printed_and_loaded(code: str) -> tuple[str, set[str]]:
    """What it printed, too."""
    report = "print('\\n' + ' '.join({name.partition('.')[0] for name in sys.modules}))"
    ran = subprocess.run(
        [sys.executable, "-c", f"import sys\n{code}\n{report}"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert ran.stderr == ""
    printed, _, names = ran.stdout.rstrip("\n").rpartition("\n")
    return printed, set(names.split())


@pytest.mark.parametrize(
    ("storey", "forbidden"), [("cliptune", {"ray", "cluster", "jobs"}), ("cluster", {"jobs"})]
)
def test_imports_point_from_jobs_to_cluster_to_cliptune_only(
    storey: str, forbidden: set[str]
) -> None:
    offenders = {
        str(path.relative_to(ROOT)): sorted(found)
        for path in files(storey)
        if (found := imports(parse(path)) & forbidden)
    }
    assert offenders == {}


def test_imports_in_functions_and_under_type_checking_are_seen_too() -> None:
    tree = ast.parse(
        "if TYPE_CHECKING:\n    from ray.actor import A\ndef f():\n    import jobs.cli as c"
    )
    assert imports(tree) == {"ray", "jobs"}


def test_light_modules_import_neither_torch_nor_transformers_nor_ray() -> None:
    names = [file.removesuffix(".py").replace("/", ".") for file in LIGHT]
    loaded = loaded_after("\n".join(f"import {name}" for name in names))
    assert {"cliptune", "cluster", "numpy"} <= loaded
    assert loaded & {"torch", "transformers", "ray"} == set()


def test_no_file_can_be_made_to_run_code_out_of_data() -> None:
    offenders = {
        str(path.relative_to(ROOT)): found
        for path in files(*STOREYS, "tests")
        if (found := dangers(parse(path)))
    }
    assert offenders == {}


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "from pickle import loads",
        "def f():\n    import ray.cloudpickle, cloudpickle",
        "torch.load(path)",
        "from torch import load",
        "yaml.load(text, yaml.Loader)",
        "yaml.unsafe_load(text)",
        "from yaml import full_load",
        "AutoModel.from_pretrained(name, trust_remote_code=True)",
        "AutoModel.from_pretrained(name, trust_remote_code=config.trust)",
        "np.load(path, allow_pickle=True)",
    ],
)
def test_code_that_could_is_recognised(source: str) -> None:
    assert dangers(ast.parse(source)) != []


@pytest.mark.parametrize(
    "source", ["yaml.safe_load(text)", "f(trust_remote_code=False)", "json.load(file)"]
)
def test_code_that_could_not_is_let_be(source: str) -> None:
    assert dangers(ast.parse(source)) == []


def test_importing_cliptune_imports_nothing_heavy() -> None:
    loaded = loaded_after("import cliptune")
    assert "cliptune" in loaded
    assert loaded & {*HEAVY, "yaml"} == set()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--help"], ["Clip-Tuning", "search"]),
        (["--version"], [f"cliptune {cliptune.__version__}\n"]),
        (["search", "--help"], ["CONFIG.yaml", "key=value", "--json", "--quiet"]),
    ],
)
def test_help_says_what_there_is_and_waits_for_nothing_heavy(
    words: list[str], said: list[str]
) -> None:
    by_typer = {"pydantic"} if "search" in words else set()  # it reads a verb's options with it
    printed, loaded = printed_and_loaded(
        f"sys.argv = ['cliptune', *{words}]\n"
        "from jobs.cli import run\n"
        "try:\n    run()\nexcept SystemExit as end:\n    assert end.code in (0, None)"
    )
    assert all(word in printed for word in said)
    assert {"jobs", "typer"} <= loaded
    assert (loaded & set(HEAVY)) - by_typer == set()


def test_tests_are_no_packages_that_could_shadow_the_storeys() -> None:
    assert list((ROOT / "tests").rglob("__init__.py")) == []
