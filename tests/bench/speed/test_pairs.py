"""That ratios come from alternating pairs, and what a table makes of them."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.speed.pairs import Finding, Pairs, alternate
from bench.speed.table import Speed, seconds


class Machine:
    """A machine whose every second of work takes `slowdown` more than the one before."""

    def __init__(self, slowdown: float) -> None:
        self.order, self.slowdown = "", slowdown

    def arm(self, name: str, work: float) -> Callable[[], float]:
        def measure() -> float:
            self.order += name
            return work * (1 + self.slowdown * (len(self.order) - 1))

        return measure


def test_arms_alternate_and_the_first_one_changes_from_pair_to_pair() -> None:
    machine = Machine(0)
    pairs = alternate(machine.arm("a", 6), machine.arm("b", 2), 5)
    assert machine.order == "abbaabbaab"
    assert pairs.ratios == (3, 3, 3, 3, 3)


def test_a_drift_cancels_over_two_pairs() -> None:
    machine = Machine(0.01)
    pairs = alternate(machine.arm("a", 6), machine.arm("b", 2), 2)
    assert sum(pairs.baseline) / sum(pairs.ours) == pytest.approx(3)
    assert min(pairs.ratios) < 3 < max(pairs.ratios)


@given(st.lists(st.tuples(st.floats(1e-3, 1e3), st.floats(1e-3, 1e3)), min_size=1))
def test_a_ratio_is_of_one_pair_and_the_median_lies_between(
    taken: list[tuple[float, float]],
) -> None:
    pairs = Pairs(*zip(*taken, strict=True))
    told = pairs.as_dict()
    assert told["lowest"] <= told["ratio"] <= told["highest"]
    assert told["pairs"] == len(taken)
    assert told["highest"] in [baseline / ours for baseline, ours in taken]


def test_a_row_without_pairs_has_a_dash_where_numbers_would_be() -> None:
    told = Speed({}, [Finding("one", "words"), Finding("two", "more", Pairs((3.0,), (2.0,)))])
    assert told.cells() == [
        ("one", "-", "-", "-", "words"),
        ("two", "3 s", "2 s", "1.50 (1.50..1.50, 1)", "more"),
    ]
    assert told.notes() == []


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (75, "75 s"),
        (1, "1 s"),
        (0.0123, "12.3 ms"),
        (4e-6, "4 µs"),
        (2e-9, "2 ns"),
        (5e-12, "5 ps"),
    ],
)
def test_seconds_have_the_unit_that_fits(value: float, text: str) -> None:
    assert seconds(value) == text
