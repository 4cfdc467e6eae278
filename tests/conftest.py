"""What all tests share: no network, one tiny model, one tiny task."""

import os

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"

from pathlib import Path

import pytest

# Whoever gives the tests out to workers reads this file too, and runs none: what takes seconds to
# import is imported where it is used.


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """As actors have it. In models this small a second thread costs more than it brings, and many
    times as much where its core is taken."""
    import torch

    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import tiny

    return tiny.save_model(tmp_path_factory.mktemp("bert"))


@pytest.fixture(scope="session")
def task_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import tiny

    return tiny.save_task(tmp_path_factory.mktemp("task"))


@pytest.fixture(scope="session")
def shared() -> Path:
    """Real data and a real small model, where they lie beside the project."""
    folder = Path(__file__).parents[2] / "shared"
    if not folder.is_dir():
        pytest.skip(f"no {folder.name}/ beside the project: real data and model are not here")
    return folder
