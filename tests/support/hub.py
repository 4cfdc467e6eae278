"""Datasets of the hub as `datasets` keeps them once downloaded: what it loads without a network."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import datasets

Row = Mapping[str, Any]


class _Builder(datasets.GeneratorBasedBuilder):
    """Writes the cache of a dataset from rows at hand."""

    rows: Mapping[str, Sequence[Row]]
    features: datasets.Features

    def _info(self) -> datasets.DatasetInfo:
        return datasets.DatasetInfo(features=self.features)

    def _split_generators(self, _: Any) -> list[datasets.SplitGenerator]:
        return [
            datasets.SplitGenerator(name=name, gen_kwargs={"split": name}) for name in self.rows
        ]

    def _generate_examples(self, split: str) -> Iterator[tuple[int, Row]]:
        yield from enumerate(self.rows[split])


def put(
    cache: Path,
    name: str,
    rows: Mapping[str, Sequence[Row]],
    features: Mapping[str, Any],
    subset: str = "default",
) -> None:
    """Leave a dataset in `cache` as if `load_dataset(name, subset)` had downloaded it."""
    configs = [datasets.BuilderConfig(subset)]
    kind = type("Made", (_Builder,), {"rows": rows, "BUILDER_CONFIGS": configs})
    kind.features = datasets.Features(features)
    namespace, _, short = name.rpartition("/")
    made = cache / "made"
    datasets.disable_progress_bars()
    builder = kind(cache_dir=str(made), dataset_name=short, config_name=subset, hash="0")
    builder.download_and_prepare()
    target = cache / (f"{namespace}___{short}" if namespace else short)
    target.mkdir(parents=True, exist_ok=True)
    (made / short / subset).rename(target / subset)
