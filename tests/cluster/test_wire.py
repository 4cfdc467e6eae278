"""What travels between driver and actors arrives as it was; a copy takes the same way."""

from copy import copy
from typing import Any

import numpy as np
import pytest

from cliptune.scorer import Unit
from cliptune.subnetwork import FULL_NETWORK, SubnetworkSpec
from cluster.actor import placed, rows_of, span
from cluster.wire import Results, Units

DYNAMIC = SubnetworkSpec(2, 2**62 + 1, 0.1, ("embedding", "ffn-output"), generation=7)
UNITS = [
    Unit(DYNAMIC, "train", (3, 5), (4, 0, 9), 80, reduce=True),
    Unit(FULL_NETWORK, "test", (0, 1), (2,), 31, reduce=False),
    Unit(DYNAMIC, "train", (5, 8), (1,), 64, reduce=True),
]


@pytest.mark.parametrize("units", [UNITS, UNITS[:1], []])
def test_units_arrive_as_they_were(units: list[Unit]) -> None:
    arrived = copy(Units(units))
    assert list(arrived) == units
    assert type(arrived) is Units


@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_results_arrive_with_their_shapes_kind_and_bits(kind: Any) -> None:
    draw = np.random.default_rng(0)
    results = [draw.standard_normal(shape).astype(kind) for shape in ((5, 8), (1, 3, 2), (2, 0))]
    results[0][0, 0] = np.nan
    for before, after in zip(results, copy(Results(results)), strict=True):
        assert (after.shape, after.dtype) == (before.shape, before.dtype)
        assert after.tobytes() == before.tobytes()


@pytest.mark.parametrize(
    "wrong", [[None], [np.zeros(2), None], [np.zeros(2), np.zeros(2, int)], []]
)
def test_what_is_not_a_result_arrives_all_the_same(wrong: list[Any]) -> None:
    assert list(map(repr, copy(Results(wrong)))) == list(map(repr, wrong))


def test_latents_stand_where_the_units_look_for_them() -> None:
    latents = np.random.default_rng(0).standard_normal((9, 4))
    units = [UNITS[0], UNITS[2]]
    assert span(units) == (3, 8)
    arrived = placed(rows_of(latents, units), units, 4)
    assert np.array_equal(arrived[3:8], latents[3:8])
    assert np.isnan(arrived[:3]).all()
