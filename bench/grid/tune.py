"""`{tune: …}` in a grid file becomes knobs and the search that sets them."""

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any, TypeVar

from pydantic import BaseModel

from bench.errors import RequestError
from bench.grid.knob import Knob, Part
from bench.grid.schema import BalanceEntry, DecoderEntry, Search, Tune, Tuning
from bench.grid.yaml_source import Path_, Source

M = TypeVar("M", bound=BaseModel)
Shared = Mapping[str, Any]
"""The key `search` of a grid, which every `{tune: …}` starts from."""


def shared_search(source: Source) -> Shared:
    """The key `search`, checked; it may leave `trials` to each `{tune: …}`."""
    given = source.value.get("search")
    if given is None:
        return {}
    if isinstance(given, dict):
        source.check(Search, {"trials": 1, **given}, ("search",))
        return given
    raise source.error(("search",), f"expected keys ({', '.join(Search.model_fields)})")


def tuned(
    source: Source, kind: type[M], fields: dict[str, Any], path: Path_, part: Part, shared: Shared
) -> tuple[M, Tuning]:
    """The options of a part of a run, the tuned ones at their low ends, and what tunes them.

    Arguments:
        kind: what checks the options.
        fields: the options as the grid has them.
        path: where they are in it.

    Raises:
        RequestError: an option that cannot be tuned, or not over that range; a search that is
            wrong, or another one than that of an option beside it.
    """
    found: dict[str, Tune] = {}
    for option, inside in fields.items():
        if not isinstance(inside, dict) or (part == "model" and "tune" not in inside):
            continue
        if set(inside) != {"tune"}:
            raise source.error((*path, option), "expected a value, or {tune: {low: …, high: …}}")
        within = (*path, option, "tune")
        given = inside["tune"]
        tune = source.check(Tune, {**shared, **given} if isinstance(given, dict) else given, within)
        if tune.low >= tune.high:
            raise source.error(within, "low must be below high")
        if tune.scale == "log" and tune.low <= 0:
            raise source.error((*within, "scale"), "`log` needs a range above 0")
        if tune.each == "model" and part not in ("model", "training"):
            told = f"an option of a {part} is tuned for each row; leave `each` out"
            raise source.error((*within, "each"), told)
        found[option] = tune
    at = {**fields, **{option: tune.low for option, tune in found.items()}}
    knobs, searches = [], {}
    for option, tune in found.items():
        knob = _knob(source, kind, at, path, part, option, tune)
        at[option] = knob.lowest
        knobs.append(knob)
        searches[option] = _search(tune)
    spec = source.check(kind, at, path)
    for one, other in combinations(searches, 2):
        if difference := _difference(searches[one], searches[other]):
            raise source.error((*path, other, "tune"), _apart(one, difference))
    search = next(iter(searches.values()), None)
    return spec, Tuning(knobs=tuple(knobs), search=search)


def _knob(
    source: Source, kind: type[M], fields: dict[str, Any], path: Path_, part: Part, option: str,
    tune: Tune,
) -> Knob:  # fmt: skip
    """The knob of an option that takes both ends of its range and what is between them."""
    knob = Knob(
        part=part,
        option=option,
        low=tune.low,
        high=tune.high,
        scale=tune.measure,
        each=tune.each,
    )
    between = knob.rounded(tune.low + 0.37 * (tune.high - tune.low))

    def check(*values: float) -> None:
        for place, value in enumerate(values):
            # The low end is what stands in the grid's entry, so its fault is the entry's.
            within = (*path, option, "tune") if place else path
            spec = source.check(kind, {**fields, option: value}, within)
            taken = getattr(spec, option)
            if isinstance(taken, bool) or not isinstance(taken, int | float):
                raise source.error((*path, option), "is no number, so it cannot be tuned")

    try:
        check(knob.low, knob.high, between)
    except RequestError:
        if not (knob.low.is_integer() and knob.high.is_integer()):
            raise
    else:
        return knob
    check(int(knob.low), int(knob.high), int(between))
    return knob.model_copy(update={"whole": True})


def place(key: str, index: int) -> Path_:
    """Where an entry of the grid is; `training` has no list of them."""
    return (key,) if key == "training" else (key, index)


def _search(tune: Tune) -> Search:
    return Search(**{key: getattr(tune, key) for key in Search.model_fields})


def _difference(one: Search, other: Search) -> str:
    """The settings in which two searches differ; empty where they are one."""
    pairs = {key: (getattr(one, key), getattr(other, key)) for key in Search.model_fields}
    return ", ".join(f"{key} {a} against {b}" for key, (a, b) in pairs.items() if a != b)


def _apart(other: str, difference: str) -> str:
    return (
        f"is tuned together with '{other}', whose search is another one ({difference}); say it "
        "once, in the grid's key `search`"
    )


def _meet(one: Tuning, other: Tuning) -> bool:
    """Whether two entries of a grid are parts of one row."""
    if isinstance(one, DecoderEntry) and isinstance(other, BalanceEntry):
        return other.takes(one)
    return True


def check_together(source: Source, lists: Mapping[str, Sequence[Tuning]]) -> None:
    """Raise where options of different parts of a row ask for different searches.

    Arguments:
        lists: by key of the grid; a row has one entry of each.
    """
    for (_, ours), (other, theirs) in combinations(lists.items(), 2):
        for mine in ours:
            for index, yours in enumerate(theirs):
                if mine.search is None or yours.search is None or not _meet(mine, yours):
                    continue
                if difference := _difference(mine.search, yours.search):
                    path = (*place(other, index), yours.knobs[0].option, "tune")
                    raise source.error(path, _apart(mine.knobs[0].name, difference))
