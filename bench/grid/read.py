"""A grid file becomes a checked `Grid`."""

import re
import reprlib
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any, TypeVar

from baselines.options import BALANCES, DECODERS, MODELS, Spec
from bench import data, plugins
from bench.errors import RequestError, nearest
from bench.grid.knob import Part
from bench.grid.schema import (
    BalanceEntry,
    DatasetEntry,
    DecoderEntry,
    Grid,
    ModelEntry,
    TrainingOptions,
    Tuning,
)
from bench.grid.tune import Shared, check_together, place, shared_search, tuned
from bench.grid.yaml_source import Path_, Source

S = TypeVar("S", bound=Spec)

LONGEST = 1_000_000
"""Characters of a grid file; YAML needs a thousand times their memory."""


def bundled_grids() -> dict[str, Path]:
    """The bundled grids by name."""
    folder = Path(str(resources.files("bench") / "grids"))
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def read_grid(name: str, overrides: Sequence[str] = ()) -> Grid:
    """The grid of a bundled name or of a path, with `--set` applied.

    Raises:
        RequestError: no such grid; anything wrong in it, with file, line, key and a remedy.
    """
    bundled = bundled_grids()
    path = bundled.get(name, Path(name))
    try:
        with path.open(encoding="utf-8") as file:
            text = file.read(LONGEST + 1)
    except IsADirectoryError:
        raise RequestError(f"{name}: expected a grid file, found a folder") from None
    except FileNotFoundError:
        if path.suffix in (".yaml", ".yml"):
            raise RequestError(f"{name}: there is no such grid file") from None
        raise RequestError(
            f"unknown grid '{name}'; {nearest(name, list(bundled))}; or a path"
        ) from None
    except OSError as error:
        raise RequestError(f"{reprlib.repr(name)}: cannot be read ({error.strerror})") from None
    except UnicodeDecodeError:
        raise RequestError(f"{name}: is not UTF-8 text") from None
    if len(text) > LONGEST:
        raise RequestError(f"{name}: is longer than a grid may be ({LONGEST:,} characters)")
    return parse(Source(text, path.name if name in bundled else name, overrides), path.parent)


def parse(source: Source, folder: Path) -> Grid:
    """A checked grid from its source; its plugins' paths start from `folder`.

    This process has the plugins of the grid that it parsed last.
    """
    value = dict(source.value)
    _load_plugins(source, value.get("plugins"), folder)
    shared = shared_search(source)
    for key, read in (("models", _model), ("decoders", _decoder), ("balances", _balance)):
        entries = value.get(key)
        if isinstance(entries, list):
            value[key] = tuple(
                read(source, entry, (key, index), shared) for index, entry in enumerate(entries)
            )
    value["search"] = Tuning()
    if isinstance(training := value.get("training"), dict):
        value["training"], value["search"] = tuned(
            source, TrainingOptions, training, ("training",), "training", shared
        )
    if isinstance(datasets := value.get("datasets"), list):
        value["datasets"] = tuple(
            _dataset(source, entry, ("datasets", index)) for index, entry in enumerate(datasets)
        )
    grid = source.check(Grid, value, ())
    for index, dataset in enumerate(grid.datasets):
        try:
            name = data.stem(dataset.data)
            if ":" not in name and name not in data.names():
                plugins.discover()
            data.describe(dataset.data, grid.split_seed)
        except RequestError as error:
            raise source.error(("datasets", index), str(error)) from None
    _check_balances(source, grid)
    tunings: dict[str, Sequence[Tuning]] = {
        "decoders": grid.decoders,
        "balances": grid.balances,
        "models": grid.models,
        "training": (grid.search,),
    }
    check_together(source, tunings)
    for key, entries in tunings.items():
        for index, one in enumerate(entries):
            both = set(grid.seeds) & set(one.search.seeds if one.search else ())
            if both:
                raise source.error(
                    place(key, index),
                    f"seeds {sorted(both)} both tune and test; give `tune` seeds of its own",
                )
    for index, entry in enumerate(grid.decoders):
        if grid.training.dequantise and entry.spec.is_discrete:
            raise source.error(
                ("decoders", index),
                f"decoder '{entry.spec.name}' scores 8-bit levels, which `training.dequantise` "
                "makes continuous; leave one of the two out",
            )
        for number, model in enumerate(grid.models):
            if entry.spec.detached_outputs and not model.spec.honours_detached_outputs:
                raise source.error(
                    ("models", number),
                    f"decoder '{entry.spec.name}' needs a model that honours `detached_outputs`",
                )
    names = [dataset.name for dataset in grid.datasets]
    keys = ("plugins", "models", "decoders", "balances", "seeds")
    check_unique(source, {"datasets": names, **{key: getattr(grid, key) for key in keys}})
    return grid


def _check_balances(source: Source, grid: Grid) -> None:
    """Raise where a balance cannot train a decoder of its rows, or a decoder has no rows at all."""
    names = [entry.spec.name for entry in grid.decoders]
    for index, balance in enumerate(grid.balances):
        for number, name in enumerate(balance.decoders or ()):
            if name not in names:
                path = ("balances", index, "decoders", number)
                told = f"the grid has no decoder '{name}'; {nearest(name, names)}"
                raise source.error(path, told)
        for entry in filter(balance.takes, grid.decoders):
            if refusal := balance.spec.refusal(entry.spec):
                raise source.error(
                    ("balances", index), f"{refusal}; `decoders: […]` names those that it is for"
                )
        for other in grid.balances[:index]:
            alike = (other.spec, other.knobs) == (balance.spec, balance.knobs)
            if alike and any(other.takes(d) and balance.takes(d) for d in grid.decoders):
                raise source.error(("balances", index), "is listed twice; keep one")
    for index, entry in enumerate(grid.decoders):
        if not any(balance.takes(entry) for balance in grid.balances):
            told = f"decoder '{entry.spec.name}' is under none of the grid's `balances`"
            raise source.error(("decoders", index), f"{told}; add `elbo` for it, or leave it out")


def check_unique(source: Source, lists: Mapping[str, Sequence[Any]], path: Path_ = ()) -> None:
    """Raise where one of the lists under a path of the grid has a value twice."""
    for key, values in lists.items():
        seen: set[str] = set()
        for index, value in enumerate(values):
            # Values of one kind are equal where they print the same; not all of them can be hashed.
            if (text := repr(value)) in seen:
                raise source.error((*path, key, index), "is listed twice; keep one")
            seen.add(text)


def named(
    source: Source, entry: Any, path: Path_, registry: Mapping[str, type[S]], kind: str
) -> tuple[type[S], dict[str, Any]]:
    """The spec that an entry, `name` or `{name: …, option: …}`, names, and its fields unchecked."""
    fields = {"name": entry} if isinstance(entry, str) else entry
    if not isinstance(fields, dict) or not isinstance(fields.get("name"), str):
        raise source.error(path, f"expected a {kind}'s name, or {{name: …, option: …}}")
    name = fields["name"]
    if name not in registry:
        plugins.discover()
    if name not in registry:
        where = (*path, "name") if isinstance(entry, dict) else path
        raise source.error(where, f"unknown {kind} '{name}'; {nearest(name, list(registry))}")
    return registry[name], fields


def _load_plugins(source: Source, paths: Any, folder: Path) -> None:
    plugins.forget()
    for index, path in enumerate(paths if isinstance(paths, list) else ()):
        try:
            plugins.load(folder / Path(str(path)).expanduser())
        except RequestError as error:
            raise source.error(("plugins", index), str(error)) from None


def _dataset(source: Source, entry: Any, path: Path_) -> DatasetEntry:
    if isinstance(entry, str):
        return DatasetEntry(name=entry, data=entry)
    named = isinstance(entry, dict) and entry.keys() == {"name", "data"}
    if not named or not isinstance(entry["name"], str):
        raise source.error(path, "expected text, or {name: …, data: …}")
    name, place = entry["name"], entry["data"]
    if not isinstance(place, str) or not re.fullmatch(r"[A-Za-z0-9][\w.-]*", name):
        raise source.error(
            path,
            "expected {name: …, data: …}, a name of letters, digits and . _ -, and a data set, "
            f"not {reprlib.repr(entry)}",
        )
    if name in data.names() and place != name:
        raise source.error(path, f"'{name}' is the name of another data set; rename it")
    return DatasetEntry(name=name, data=place)


def _decoder(source: Source, entry: Any, path: Path_, shared: Shared) -> DecoderEntry:
    spec, tuning = _entry(source, entry, path, DECODERS, "decoder", shared)
    return DecoderEntry(spec=spec, knobs=tuning.knobs, search=tuning.search)


def _model(source: Source, entry: Any, path: Path_, shared: Shared) -> ModelEntry:
    spec, tuning = _entry(source, entry, path, MODELS, "model", shared)
    return ModelEntry(spec=spec, knobs=tuning.knobs, search=tuning.search)


def _balance(source: Source, entry: Any, path: Path_, shared: Shared) -> BalanceEntry:
    decoders = None
    if isinstance(entry, dict) and "decoders" in entry:
        decoders = entry["decoders"]
        entry = {key: value for key, value in entry.items() if key != "decoders"}
        if not (isinstance(decoders, list) and decoders):
            raise source.error((*path, "decoders"), "expected a list of names of decoders")
        for number, name in enumerate(decoders):
            if not isinstance(name, str):
                raise source.error((*path, "decoders", number), "expected a decoder's name")
        check_unique(source, {"decoders": decoders}, path)
    spec, tuning = _entry(source, entry, path, BALANCES, "balance", shared)
    return BalanceEntry(
        spec=spec,
        knobs=tuning.knobs,
        search=tuning.search,
        decoders=None if decoders is None else tuple(decoders),
    )


def _entry(
    source: Source,
    entry: Any,
    path: Path_,
    registry: Mapping[str, type[S]],
    part: Part,
    shared: Shared,
) -> tuple[S, Tuning]:
    kind, fields = named(source, entry, path, registry, part)
    return tuned(source, kind, fields, path, part, shared)
