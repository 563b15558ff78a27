"""Counts at the resolutions of a pyramid of feature maps, as one readable string: `1@1 2@4 4@8`."""

import re
from collections.abc import Collection, Iterable
from typing import Annotated

from pydantic import AfterValidator, BaseModel
from pydantic_core import PydanticCustomError

BELOW, FULL = "below", "full"
ENTRY = re.compile(rf"(\d{{1,3}})@(\d{{1,3}}|{BELOW}|{FULL})", re.ASCII)


def resolutions(side: int) -> tuple[int, ...]:
    """The sides of the feature maps, the images' first: halved while even and above 4, then 1.

    Raises:
        ValueError: images of that side have no such pyramid.

    >>> resolutions(28), resolutions(32)
    ((28, 14, 7, 1), (32, 16, 8, 4, 1))
    """
    if side % 2 or not 16 <= side <= 64:
        raise ValueError(f"resolution {side} is not an even number from 16 to 64")
    sides = [side]
    while sides[-1] % 2 == 0 and sides[-1] > 4:
        sides.append(sides[-1] // 2)
    return (*sides, 1)


def counts(text: str, side: int) -> dict[int, int]:
    """The counts at each of `resolutions(side)`, the images' first.

    `below` means every resolution below the images' that has no entry of its own, `full` the
    images' own. What is not named has count 0.

    Raises:
        ValueError: an entry's resolution is not in the pyramid.

    >>> counts("1@below", 28)
    {28: 0, 14: 1, 7: 1, 1: 1}
    >>> counts("1@1 2@4 4@8 8@16", 32)
    {32: 0, 16: 8, 8: 4, 4: 2, 1: 1}
    """
    given = _entries(text)
    found = dict.fromkeys(resolutions(side), int(given.pop(BELOW, 0)))
    found[side] = int(given.pop(FULL, 0))
    for place, count in given.items():
        if int(place) not in found:
            possible = ", ".join(map(str, reversed(found)))
            raise ValueError(
                f"'{count}@{place}': images of {side}x{side} have no feature maps of {place}x"
                f"{place}; possible: {possible}"
            )
        found[int(place)] = count
    return found


def by_level(parts: Iterable[str]) -> dict[str, list[str]]:
    """The parts of a latent by their level, the groups of one resolution: what is before the dot.

    >>> by_level(["1x1", "4x4.1", "4x4.2"])
    {'1x1': ['1x1'], '4x4': ['4x4.1', '4x4.2']}
    """
    found: dict[str, list[str]] = {}
    for part in parts:
        found.setdefault(part.partition(".")[0], []).append(part)
    return found


FIXED = 5
"""The most rows of a picture whose levels are fixed one after the other."""


def levels_to_fix(parts: Iterable[str]) -> list[str]:
    """The levels that are fixed one after the other, the top first; the last one is never.

    With all of them fixed nothing is left to differ.

    >>> levels_to_fix(["1x1", "4x4.1", "4x4.2", "8x8"])
    ['1x1', '4x4']
    """
    return list(by_level(parts))[:-1][:FIXED]


def canonical(text: str) -> str:
    """The one way to write it: the smallest resolution first, then `below` and `full`.

    Raises:
        ValueError: it is no such string.

    >>> canonical(" 2@4   1@1")
    '1@1 2@4'
    """
    places = _entries(text)
    order = sorted(places, key=lambda place: (place == FULL, place == BELOW, _side(place)))
    return " ".join(f"{places[place]}@{place}" for place in order)


def _side(place: str) -> int:
    return int(place) if place.isdecimal() else 0


def _entries(text: str) -> dict[str, int]:
    """The count of each place, in the order of the text."""
    found: dict[str, int] = {}
    for word in text.split():
        entry = ENTRY.fullmatch(word)
        if entry is None:
            raise PydanticCustomError(
                "levels",
                "expected COUNT@RESOLUTION as in '1@1 2@4' or '1@below 1@full' ('{word}' is none)",
                {"word": word},
            )
        count, place = int(entry[1]), str(_side(entry[2]) or entry[2])
        if place in found:
            raise PydanticCustomError("levels", "'{word}' repeats a resolution", {"word": word})
        found[place] = count
    if not found:
        raise PydanticCustomError("levels", "expected COUNT@RESOLUTION as in '1@1 2@4'")
    return found


Levels = Annotated[str, AfterValidator(canonical)]


def unfit(possible: Collection[int], side: int) -> str:
    """What is wrong with images of that side where only `possible` ones are taken; or nothing.

    >>> unfit((32, 64), 28), unfit((), 28)
    ('it takes images of 32x32 or 64x64, not of 28x28: resize them, as in NAME@32', '')
    """
    if not possible or side in possible:
        return ""
    named = " or ".join(f"{one}x{one}" for one in possible)
    return (
        f"it takes images of {named}, not of {side}x{side}: resize them, as in NAME@{min(possible)}"
    )


def misfit(spec: BaseModel, side: int) -> str:
    """Why a model cannot have images of that side: it says so, or an option has no feature maps.

    A model's option `downsampling` divides the side. Empty where it can.

    >>> from baselines.options import MODELS
    >>> misfit(MODELS["hierarchical"](groups="1@1 2@8"), 28)
    "groups: '2@8': images of 28x28 have no feature maps of 8x8; possible: 1, 7, 14, 28"
    """
    if fault := unfit(getattr(spec, "resolutions", ()), side):
        return fault
    by = getattr(spec, "downsampling", 1)
    if isinstance(by, int) and by > 1 and side % by:
        return f"downsampling {by} does not divide the images' side {side}"
    for key, field in type(spec).model_fields.items():
        if any(getattr(check, "func", None) is canonical for check in field.metadata):
            try:
                counts(getattr(spec, key), side)
            except ValueError as error:
                return f"{key}: {error}"
    return ""
