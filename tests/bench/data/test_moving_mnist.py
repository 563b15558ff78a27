"""Moving digits follow the published rules, and each sequence is a function of its place alone."""

from pathlib import Path
from typing import get_args

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from bench.data import describe, load, note, prepare
from bench.data.embedded import digits
from bench.data.moving_mnist import Rule, disjoint, parts, paths, sequences

RULES: tuple[Rule, ...] = get_args(Rule)
COUNT = 20_000
"""Sequences behind a rate, of two digits each."""


def standard_error(values: npt.NDArray[np.float64]) -> float:
    return float(values.std() / values.size**0.5)


@pytest.mark.parametrize(
    ("frames", "published"),
    # Frames in which a digit meets a wall, of 2 * 10^5 simulated digits.
    [(15, 1.80), (30, 3.58)],
)
def test_how_often_a_digit_meets_a_wall_under_the_rule_svg(frames: int, published: float) -> None:
    met = (paths(10, "svg", "train", 0, COUNT, frames).turns > 0).sum(1).astype(float)
    # The published number has two decimals, and errors of its own.
    allowed = 0.005 + 4 * standard_error(met) * (1 + 2 * COUNT / 200_000) ** 0.5
    assert abs(met.mean() - published) < allowed


@pytest.mark.parametrize(("first", "last", "published"), [(5, 15, 0.167), (0, 30, 0.017)])
def test_how_often_a_digit_meets_none(first: int, last: int, published: float) -> None:
    none = (paths(10, "svg", "train", 0, COUNT, 30).turns[:, first:last].sum(1) == 0).astype(float)
    assert abs(none.mean() - published) < 0.0005 + 4 * standard_error(none)


@pytest.mark.parametrize(("frame", "published"), [(0, 20 / 9), (29, 1.92)])
def test_the_mean_speed_falls_for_slow_digits_stay_away_from_walls(
    frame: int, published: float
) -> None:
    speed = np.abs(paths(10, "svg", "train", 0, COUNT, 30).speeds[:, frame, :, 1])
    assert abs(speed.mean() - published) < 0.005 + 4 * standard_error(speed)


def test_the_rule_svg_step_by_step() -> None:
    """Between walls a digit goes straight on; at one it is put to it and goes away from it."""
    found = paths(10, "svg", "test", 0, 2000, 30)
    assert found.places.min() == 0
    assert found.places.max() == 31
    gone = found.places[:, :-1] + found.speeds[:, :-1]
    place, speed, turns = found.places[:, 1:], found.speeds[:, 1:], found.turns[:, 1:]
    straight = turns == 0
    np.testing.assert_array_equal(place[straight], gone[straight])
    np.testing.assert_array_equal(speed[straight], found.speeds[:, :-1][straight])
    np.testing.assert_array_equal(place, np.where(gone >= 32, 31, np.maximum(gone, 0)))
    # Columns come last, so their new speed is not drawn again.
    assert (speed[..., 1][gone[..., 1] < 0] > 0).all()
    assert (speed[..., 1][gone[..., 1] >= 32] < 0).all()
    only_rows = (gone[..., 0] < 0) & (turns == 1)
    assert set(speed[only_rows][:, 0]) == {1, 2, 3, 4}
    assert set(speed[only_rows][:, 1]) == set(range(-4, 5))


def test_the_rule_srvp_turns_at_the_wall() -> None:
    """On to the wall, and from there with the new speed in the time that is left of the frame."""
    found = paths(10, "srvp", "test", 0, 2000, 30)
    assert 0 <= found.places.min() < found.places.max() <= 36
    assert found.turns[:, 0].max() == 0
    once = found.turns[:, 1:] == 1
    start, before = found.places[:, :-1][once], found.speeds[:, :-1][once]
    end, after = found.places[:, 1:][once], found.speeds[:, 1:][once]
    assert len(start) > 5000
    with np.errstate(divide="ignore", invalid="ignore"):
        times = np.where(before == 0, np.inf, (np.where(before > 0, 36, 0) - start) / before)
    soonest = times.min(-1, keepdims=True)
    assert soonest.min() >= 0
    assert soonest.max() < 1
    np.testing.assert_allclose(end, start + before * soonest + after * (1 - soonest), atol=1e-9)
    # Away from the wall that it met, or along it.
    assert (after * before)[times == soonest].max() <= 0
    straight = found.turns[:, 1:] == 0
    gone = found.places[:, :-1] + found.speeds[:, :-1]
    np.testing.assert_allclose(found.places[:, 1:][straight], gone[straight], atol=1e-7)
    np.testing.assert_array_equal(found.speeds[:, 1:][straight], found.speeds[:, :-1][straight])


@pytest.mark.parametrize("rule", RULES)
@given(first=st.integers(0, 10**6), count=st.integers(1, 5), at=st.integers(0, 4))
def test_a_sequence_alone_equals_the_one_among_others(
    rule: Rule, first: int, count: int, at: int
) -> None:
    made = np.random.default_rng(0).integers(0, 256, (7, 28, 28, 1), np.uint8)
    among = sequences(made, rule, "train", first, count, 3)
    at %= count
    np.testing.assert_array_equal(
        sequences(made, rule, "train", first + at, 1, 3), among[at : at + 1]
    )


def test_rules_and_streams_do_not_share_their_numbers() -> None:
    starts = [
        paths(1000, rule, stream, 0, 50, 1).digits.ravel()
        for rule in RULES
        for stream in ("train", "validation", "test")
    ]
    for place, one in enumerate(starts):
        assert all((one == other).mean() < 0.1 for other in starts[:place])


@pytest.mark.parametrize("rule", RULES)
def test_digits_are_drawn_at_their_places_and_added(rule: Rule) -> None:
    side = {"svg": 32, "srvp": 28}[rule]
    made = np.arange(90, 200, 10, dtype=np.uint8)[:, None, None, None].repeat(28, 1).repeat(28, 2)
    video = sequences(made, rule, "test", 4, 3, 12)
    found = paths(len(made), rule, "test", 4, 3, 12)
    for sequence, frame in np.ndindex(3, 12):
        expected = np.zeros((64, 64), int)
        for digit in (0, 1):
            row, column = found.places[sequence, frame, digit].round().astype(int)
            value = int(made[found.digits[sequence, digit], 0, 0, 0])
            expected[row : row + side, column : column + side] += value
        np.testing.assert_array_equal(video[sequence, frame, ..., 0], expected.clip(max=255))


def test_digits_are_scaled_as_svg_scales_them() -> None:
    """Pillow's bilinear filter, 28 to 32 pixels."""
    made = np.random.default_rng(0).integers(0, 256, (1, 28, 28, 1), np.uint8)
    peer = np.asarray(Image.fromarray(made[0, ..., 0]).resize((32, 32), Image.Resampling.BILINEAR))
    video = sequences(made, "svg", "test", 0, 50, 1)
    found = paths(1, "svg", "test", 0, 50, 1)
    apart = np.abs(np.diff(found.places[:, 0], axis=1)).max((1, 2)) >= 24
    assert apart.any()
    for sequence in np.flatnonzero(apart):
        row, column = found.places[sequence, 0, 0].astype(int)
        # The quarter that the other digit cannot reach.
        other = found.places[sequence, 0, 1].astype(int)
        mask = np.ones((64, 64), bool)
        mask[other[0] : other[0] + 32, other[1] : other[1] + 32] = False
        mask = mask[row : row + 32, column : column + 32]
        drawn = video[sequence, 0, row : row + 32, column : column + 32, 0]
        np.testing.assert_array_equal(drawn[mask], peer[mask])


def test_no_digit_is_in_two_splits() -> None:
    own = disjoint(digits("smmnist5k"), (3500, 500, 1000))
    assert [len(split) for split in own] == [3500, 500, 1000]
    train, validation, test = ({digit.tobytes() for digit in split} for split in own)
    assert not train & validation
    assert not train & test
    assert not validation & test


def test_each_split_is_made_of_its_own_digits() -> None:
    own = [np.full((4, 28, 28, 1), value, np.uint8) for value in (1, 10, 100)]
    made = parts(own, (3, 2, 4), 5, "srvp", 64)
    assert made.validation == 2
    assert set(np.unique(made.train[:3])) == {0, 1, 2}
    assert set(np.unique(made.train[3:])) == {0, 10, 20}
    assert set(np.unique(made.test)) == {0, 100, 200}


@pytest.mark.parametrize("name", ["smmnist5k", "smmnist5k_srvp"])
def test_the_embedded_sequences_have_the_pinned_hash(name: str) -> None:
    dataset = load(name)
    assert dataset.description == describe(name)
    sizes = [tuple(split.shape) for split in (dataset.train, dataset.validation, dataset.test)]
    assert sizes == [(n, 20, 1, 64, 64) for n in (2000, 250, 500)]
    assert "5,000 digits" in note(f"{name}@32[:100]")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["smmnist", "smmnist_srvp"])
def test_the_sequences_of_mnist_have_the_pinned_hash(
    name: str, shared_data: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SIGMA_BENCH_DATA", str(shared_data))
    assert prepare(name) == describe(name)


def test_another_size_is_each_frame_resized() -> None:
    own = np.split(digits("smmnist5k")[:60], 3)
    small, full = (parts(own, (3, 2, 4), 8, "srvp", side) for side in (32, 64))
    assert small.sizes == full.sizes
    peer = Image.fromarray(full.test[-1, 7, 0]).resize((32, 32), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(small.test[-1, 7, 0], peer)
