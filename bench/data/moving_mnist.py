"""Stochastic moving MNIST: two digits that bounce off the walls in directions drawn anew.

Two rules are published. `svg` (Denton and Fergus 2018, arXiv 1802.07687): digits of 32x32 pixels,
and one that has left the frame is put back to the wall in the next. `srvp` (Franceschi et al. 2020,
arXiv 2002.09219): digits of 28x28 pixels, which turn at the wall within a frame. Both draw from
NumPy's global generator; here a sequence is a function of the rule, its stream and its index.
"""

import hashlib
from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from bench.data.fingerprint import Parts
from bench.data.images import Images, channels_first, resize
from bench.data.splits import permutation

Rule = Literal["svg", "srvp"]

SIDE = 64
DIGITS = 2
FASTEST = 4
"""Pixels that a digit moves in a frame along an axis, at most."""

DIGIT_SIDES: dict[Rule, int] = {"svg": 32, "srvp": 28}

TURNS = 4
"""Turns in a frame with a new direction, under `srvp`; at further ones, in corners, it is mirrored.

Under `svg` there are two at most: a wall above or below, then one left or right.
"""

ROUNDING = 1e-8
"""Of a frame: who reaches a wall just at its end has not met it yet."""

BLOCK = 250
"""Sequences drawn at once."""

_Numbers = npt.NDArray[np.uint64]
_Integers = npt.NDArray[np.int64]
_Reals = npt.NDArray[np.float64]


class Paths(NamedTuple):
    """How the digits of N sequences move; the last axis is (row, column).

    Attributes:
        digits: which digit it is, (N, 2), from 0.
        places: its upper left corner in each frame, pixels, (N, T, 2, 2); `srvp` draws it at the
            nearest whole pixel.
        speeds: the pixels that it moves until the next frame if it meets no wall, (N, T, 2, 2).
        turns: how often it met a wall on the way to a frame, (N, T, 2); never on that to the first.
    """

    digits: _Integers
    places: _Reals
    speeds: _Reals
    turns: _Integers


def parts(
    splits: Sequence[Images], counts: Sequence[int], frames: int, rule: Rule, resolution: int
) -> Parts:
    """Sequences of the digits (N, 28, 28, 1) of the training, validation and test split.

    `counts` says how many sequences each split has.
    """
    train, validation, test = counts
    whole = np.empty((train + validation, frames, 1, resolution, resolution), np.uint8)
    held = np.empty((test, *whole.shape[1:]), np.uint8)
    targets = (whole[:train], whole[train:], held)
    for name, digits, target in zip(("train", "validation", "test"), splits, targets, strict=True):
        scaled = resize(digits, DIGIT_SIDES[rule])
        for first in range(0, len(target), BLOCK):
            block = target[first : first + BLOCK]
            made = sequences(scaled, rule, name, first, len(block), frames)
            block[:] = channels_first(resize(made, resolution))
    return Parts(whole, held, validation)


def disjoint(digits: Images, counts: Sequence[int]) -> list[Images]:
    """Digits dealt out in groups of `counts`; none is in two of them."""
    shuffled = digits[permutation(len(digits), "moving mnist", 0)]
    return np.split(shuffled, np.cumsum(counts)[:-1])


def sequences(
    digits: Images, rule: Rule, stream: str, first: int, count: int, frames: int
) -> Images:
    """The sequences number `first`, `first` + 1, ... of a stream: (count, frames, 64, 64, 1).

    Each is the same whatever others are made with it. Where digits overlap, their values are added.

    >>> digits = np.full((5, 28, 28, 1), 9, np.uint8)
    >>> both = sequences(digits, "svg", "test", 0, 2, frames=3)
    >>> np.array_equal(both[1:], sequences(digits, "svg", "test", 1, 1, frames=3))
    True
    """
    found = paths(len(digits), rule, stream, first, count, frames)
    side = DIGIT_SIDES[rule]
    scaled = resize(digits, side)[..., 0]
    corners = np.rint(found.places).astype(np.intp)
    video = np.empty((count, frames, SIDE, SIDE, 1), np.uint8)
    every, span = np.arange(count)[:, None, None], np.arange(side)
    for frame in range(frames):
        canvas = np.zeros((count, SIDE, SIDE), np.uint16)
        for digit in range(DIGITS):
            row, column = (corners[:, frame, digit, axis, None] + span for axis in (0, 1))
            canvas[every, row[:, :, None], column[:, None]] += scaled[found.digits[:, digit]]
        video[:, frame, ..., 0] = np.minimum(canvas, 255)
    return video


def paths(digits: int, rule: Rule, stream: str, first: int, count: int, frames: int) -> Paths:
    """The paths of sequences `first` to `first + count - 1`, each of two of so many `digits`."""
    turns = TURNS if rule == "srvp" else 2
    # The same numbers in each frame, used or not, so that no sequence depends on another.
    start, step = (DIGITS, 5), (frames, DIGITS, turns, 2)
    size = int(np.prod(start) + np.prod(step))
    entropy = hashlib.sha256(f"moving mnist {rule} {stream}".encode()).digest()
    # NumPy guarantees a bit generator's raw stream across versions, but not `integers`.
    generator = np.random.PCG64(int.from_bytes(entropy, "big")).advance(first * size)
    raw = generator.random_raw(count * size).reshape(count, size)
    begun, later = np.split(raw, [int(np.prod(start))], axis=1)
    begun = begun.reshape(count, *start)
    later = later.reshape(count, *step)
    places_allowed = SIDE - DIGIT_SIDES[rule] + (rule == "srvp")
    place = _below(begun[..., 1:3], places_allowed).astype(np.float64)
    speed = _speeds(begun[..., 3:])
    found = Paths(
        _below(begun[..., 0], digits),
        np.empty((count, frames, DIGITS, 2)),
        np.empty((count, frames, DIGITS, 2)),
        np.zeros((count, frames, DIGITS), np.int64),
    )
    for frame in range(frames):
        if rule == "svg":
            place, speed, met = _put_back(place, speed, later[:, frame])
        elif frame:
            place, speed, met = _turned(place, speed, later[:, frame])
        else:
            met = np.zeros((count, DIGITS), np.int64)
        found.places[:, frame], found.speeds[:, frame] = place, speed
        found.turns[:, frame] = met
        if rule == "svg":
            place = place + speed
    return found


def _below(raw: _Numbers, bound: int) -> _Integers:
    """Uniform integers in [0, bound) of 64 random bits each; their bias is below bound / 2^32."""
    return ((raw >> np.uint64(32)) * np.uint64(bound) >> np.uint64(32)).astype(np.int64)


def _speeds(raw: _Numbers) -> _Reals:
    return (_below(raw, 2 * FASTEST + 1) - FASTEST).astype(np.float64)


def _put_back(place: _Reals, speed: _Reals, raw: _Numbers) -> tuple[_Reals, _Reals, _Integers]:
    """The rule `svg`: who has left the frame is at the wall, rows before columns."""
    place, speed = place.copy(), speed.copy()
    met = np.zeros(place.shape[:-1], np.int64)
    far = SIDE - DIGIT_SIDES["svg"]
    for axis in (0, 1):
        numbers = raw[..., axis, :]
        before, after = place[..., axis] < 0, place[..., axis] >= far
        out = before | after
        place[..., axis] = np.where(before, 0, np.where(after, far - 1, place[..., axis]))
        away = np.where(before, 1, -1) * (1 + _below(numbers[..., 0], FASTEST))
        speed[..., axis] = np.where(out, away, speed[..., axis])
        speed[..., 1 - axis] = np.where(out, _speeds(numbers[..., 1]), speed[..., 1 - axis])
        met += out
    return place, speed, met


def _turned(place: _Reals, speed: _Reals, raw: _Numbers) -> tuple[_Reals, _Reals, _Integers]:
    """The rule `srvp`: a frame's way, with a new direction away from each wall that it meets."""
    far = SIDE - DIGIT_SIDES["srvp"]
    left = np.ones(place.shape[:-1])
    met = np.zeros(place.shape[:-1], np.int64)
    for turn in range(TURNS):
        wall = np.where(speed > 0, float(far), 0.0)
        # The time until the wall; none is reached along an axis without speed.
        time = np.where(speed == 0, np.inf, wall - place) / np.where(speed == 0, 1.0, speed)
        soonest = time.min(-1)
        meets = soonest < left - ROUNDING
        passed = np.where(meets, soonest, left)[..., None]
        hit = meets[..., None] & (time == soonest[..., None])
        # Rounding may move a place over a wall that it does not meet.
        place = np.where(hit, wall, np.clip(place + speed * passed, 0, far))
        drawn = _speeds(raw[..., turn, :])
        away = np.where(wall > 0, -1.0, 1.0) * np.abs(drawn)
        speed = np.where(meets[..., None], np.where(hit, away, drawn), speed)
        left = left - passed[..., 0]
        met += meets
    rest = place + speed * left[..., None]
    outside = (rest < 0) | (rest > far)
    place = np.where(rest < 0, -rest, np.where(rest > far, 2 * far - rest, rest))
    return place, np.where(outside, -speed, speed), met + outside.any(-1)
