"""What follows from the times, by hand."""

import pytest
from transformers import BertConfig, BertForMaskedLM

from cliptune.comparison import alternate, flops, plain_table, ratios, spearman


class Turns:
    """A contender that takes as long as it is told, and writes down when it was its turn."""

    def __init__(self, name: str, times: list[float], order: list[str]) -> None:
        self.name, self.times, self.order = name, times, order

    def round(self) -> float:
        self.order.append(self.name)
        return self.times.pop(0)


def test_contenders_take_turns_and_the_first_round_does_not_count() -> None:
    order: list[str] = []
    pair = {"a": Turns("a", [9, 1, 2], order), "b": Turns("b", [8, 3, 4], order)}
    assert alternate({name: one.round for name, one in pair.items()}, 2) == {
        "a": [1, 2],
        "b": [3, 4],
    }
    assert order == ["a", "b"] * 3


def test_flop_of_a_shape_counted_by_hand() -> None:
    """2 layers of width 8 and 16 inside, 50 words, two inputs of 3 and 5 tokens."""
    module = BertForMaskedLM(
        BertConfig(
            hidden_size=8,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=16,
            vocab_size=50,
            max_position_embeddings=16,
        )
    )
    block = 4 * 8 * 8 + 2 * 8 * 16  # q, k, v, o; up, down
    linear = 2 * 2 * block * (3 + 5)
    attention = 2 * (4 * 3 * 8 * 3 + 4 * 5 * 8 * 5)  # layers x (4 x T x width, for T tokens)
    head = 2 * 2 * (8 * 8 + 8 * 50)  # two masks
    assert flops(module, [3, 5]) == linear + attention + head


def test_ratios_are_against_the_better_naive_contender() -> None:
    speeds = {
        "naive": {"prompts_per_second": 2.0},
        "population": {"prompts_per_second": 4.0},
        "scorer": {"prompts_per_second": 10.0, "seconds": 2.0},
        "inference": {"prompts_per_second": 8.0},
        "ceiling": {"flop_per_second": 100.0},
    }
    assert ratios(speeds, 80) == {
        "naive_ratio": 2.5,
        "inference_ratio": 1.25,
        "ceiling_fraction": 0.4,
    }
    del speeds["population"], speeds["inference"], speeds["ceiling"]
    assert ratios(speeds, 80) == {
        "naive_ratio": 5.0,
        "inference_ratio": None,
        "ceiling_fraction": None,
    }


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ([1.0, 2.0, 3.0], [10.0, 200.0, 3000.0], 1.0),
        ([1.0, 2.0, 3.0], [3.0, 2.0, 1.0], -1.0),
        ([1.0, 2.0, 3.0, 4.0], [1.0, 2.0, 4.0, 3.0], 0.8),  # 1 - 6 x 2 / (4 x 15)
        ([1.0, 1.0, 2.0], [5.0, 5.0, 7.0], 1.0),
        ([1.0, 1.0, 1.0], [1.0, 2.0, 3.0], None),
        ([1.0], [1.0], None),
        ([], [], None),
    ],
)
def test_rank_correlation(one: list[float], other: list[float], expected: float | None) -> None:
    found = spearman(one, other)
    assert found == (None if expected is None else pytest.approx(expected))


def test_a_plain_table_has_straight_columns() -> None:
    assert plain_table(["a", "b"], [["one", "2"], ["x", "y"]]) == "a    b\none  2\nx    y"
