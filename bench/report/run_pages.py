"""A page for each run: what it was, how it went, what it made, one command to repeat it."""

from __future__ import annotations

import contextlib
import json
import logging
import math
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from pydantic import ValidationError

from baselines.options import BALANCES, DECODERS, MODELS, Spec
from bench.evaluation.features.base import NETWORKS
from bench.files import read_checked
from bench.grid.schema import UNBALANCED, Grid
from bench.metrics import heading
from bench.records.frame import flat
from bench.records.store import Record
from bench.records.validity import LARGEST
from bench.report.images import Picture, data_uri
from bench.report.items import item
from bench.report.layout import significant
from bench.report.rollouts import STRIPS, Player, sheet_of
from bench.report.tables import Table
from bench.run import ELBO, EvaluationSettings, TrainingSettings
from bench.text import divergence, plain

logger = logging.getLogger("sigma-bench")
CHOICES = ("auto", "all", "none")

AUTOMATIC = 200
"""Runs that get a page unless all are asked for, in the table's order."""

CURVES = {
    "loss": "training loss, nats per {item}",
    "distortion": "distortion, nats per {item}",
    "rate": "rate, nats per {item}",
    "sigma": "σ",
}

RECONSTRUCTIONS = {
    "image": "test images, each followed by its reconstruction",
    "sequence": "frames of test videos, each followed by its reconstruction",
}

WIDTH, HEIGHT = 300, 120
"""Of a curve's drawing, in its own units."""


@dataclass(frozen=True)
class Curve:
    """A number over epochs as the points of an SVG line, with its ends and its last value."""

    label: str
    points: str
    low: str
    high: str
    last: str
    epochs: int


def chosen(table: Table, pages: str) -> list[str]:
    """The ids of the runs that get a page, in the table's order."""
    ids = list(dict.fromkeys(run for row in table.frame["ids"] for run in row))
    return {"all": ids, "none": [], "auto": ids[:AUTOMATIC]}[pages]


def rule(table: Table, pages: str) -> str:
    """Which runs have a page, in words."""
    count = len(chosen(table, "all"))
    if pages == "none":
        return "No run has a page of its own; the report's option --run-pages all writes them."
    if pages == "auto" and count > AUTOMATIC:
        return (
            f"The first {AUTOMATIC} of {count} runs, in the table's order, have a page of their "
            "own; the report's option --run-pages all writes one for every run."
        )
    return "Every run of the table has a page of its own, in the folder `runs` next to this file."


def content(folder: Path, grid_name: str, grid: Grid | None) -> dict[str, Any]:
    """What the page of the run in `folder` tells."""
    record = read_checked(folder / "record.json")
    assert record is not None  # the table was made from it
    columns = flat(record)
    of = item(pd.DataFrame([columns]))
    sheet = sheet_of(folder, columns)
    return {
        "record": record,
        "metrics": list(_metrics(record)),
        "sections": [
            ("Specification", _listed(record["run"])),
            ("Protocol", _listed(record["protocol"])),
            ("Cost", _listed(record["cost"])),
            ("Environment", _listed(record["environment"])),
        ],
        "curves": [*_curves(history(folder), of)],
        "pictures": [*pictures(folder, record["artifacts"], of)],
        "pictures_are": pictures_are(of),
        "players": [Player(f"seed {record['run']['seed']}", sheet)] if sheet else [],
        "strips": STRIPS,
        "what": outcome(record),
        "command": command(record["run"], grid_name, grid),
    }


def outcome(record: Record) -> str:
    """How a run ended, in words."""
    if found := record.get("divergence"):
        return divergence(found)
    if found := record.get("failure"):
        return f"failed: {found['type']}: {found['message']}"
    return str(record["status"])


def history(folder: Path) -> list[dict[str, Any]]:
    """The lines of a run's `history.jsonl`, one an epoch; none where it ended in its first.

    A torn file is left out with a warning; the curves are drawn from it and nothing else.
    """
    path = folder / "history.jsonl"
    try:
        lines = [json.loads(line) for line in path.read_text().splitlines()]
    except OSError:
        return []
    except ValueError:
        lines = [None]
    if all(map(_is_epoch, lines)):
        return lines
    logger.warning("%s is torn: its curves are left out", path)
    return []


def _is_epoch(line: Any) -> bool:
    """Whether a line of a history has what is drawn, as numbers that can be."""
    if not isinstance(line, dict) or "epoch" not in line:
        return False
    # An epoch that skipped every step has no terms.
    if not line.keys() >= {"loss", "sigma"} and "skipped" not in line:
        return False
    drawn = [line[key] for key in ("epoch", *CURVES) if key in line]
    return all(type(value) in (int, float) and not abs(value) > LARGEST for value in drawn)


def pictures_are(of: str) -> str:
    """What `pictures` has of an image or of a sequence, whose samples are its predictions."""
    return {"image": "Samples and reconstructions", "sequence": "Reconstructions"}[of]


def pictures(folder: Path, artifacts: Mapping[str, Any], of: str) -> Iterator[Picture]:
    """The samples and reconstructions that a run left, as far as they are here."""
    for what, caption in (
        ("samples", "samples from the prior"),
        ("reconstructions", RECONSTRUCTIONS[of]),
    ):
        name = artifacts.get(what)
        if isinstance(name, str) and (folder / name).is_file():
            yield Picture(caption, data_uri(folder / name))


def _metrics(record: Record) -> Iterator[tuple[str, str, str]]:
    metrics = record["metrics"]
    for name, value in metrics.items():
        if not name.endswith("_se"):
            error = metrics.get(f"{name}_se")
            yield heading(name), significant(value), significant(error) if error else ""


def _listed(part: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Every value of a part of a record as text, by its dotted path."""
    return [
        (name, ", ".join(map(plain, value)) if isinstance(value, list | tuple) else plain(value))
        for name, value in flat(part).items()
    ]


def _curves(lines: Sequence[Mapping[str, Any]], of: str) -> Iterator[Curve]:
    for key, label in CURVES.items():
        values = [float(line.get(key, math.nan)) for line in lines]
        finite = [value for value in values if math.isfinite(value)]
        if not finite:
            continue
        low, high = min(finite), max(finite)
        step = WIDTH / max(1, len(values) - 1)
        points = " ".join(
            f"{index * step:.1f},{HEIGHT * (1 - (value - low) / (high - low or 1)):.1f}"
            for index, value in enumerate(values)
            if math.isfinite(value)
        )
        low_text, high_text, last = map(significant, (low, high, finite[-1]))
        yield Curve(label.format(item=of), points, low_text, high_text, last, len(values))


def command(run: Mapping[str, Any], grid_name: str, grid: Grid | None) -> str:
    """One command line that makes this run and no other, the same id included.

    Arguments:
        run: the record's `run`.
        grid: what `grid_name` means here; what it has already is not said again.
    """
    only: dict[str, str] = {}
    changed: dict[str, Any] = {}
    if grid is not None and run["dataset"] in {entry.name for entry in grid.datasets}:
        only["dataset"] = run["dataset"]
    else:
        changed["datasets"] = [run["dataset"]]
    listed = {
        part: [
            entry.spec.model_dump(mode="json") | ({"tune": True} if entry.knobs else {})
            for entry in entries
        ]
        for part, entries in (
            ("model", grid.models if grid else ()),
            ("decoder", grid.decoders if grid else ()),
            ("balance", grid.balances if grid else UNBALANCED),
        )
    }
    for key, registry in (("model", MODELS), ("decoder", DECODERS), ("balance", BALANCES)):
        own = run.get(key, {"name": ELBO})
        # `--only` knows names: it tells no β from another.
        alike = [entry for entry in listed[key] if entry["name"] == own["name"]] == [own]
        if key == "balance" and grid and "decoders" in changed:
            # A balance may be for decoders that are no more in the grid.
            alike = alike and not any(entry.decoders for entry in grid.balances)
        if not alike:
            changed[f"{key}s"] = [_brief(own, registry)]
        elif key != "balance" or len(listed[key]) > 1:
            only[key] = own["name"]
    if grid is not None and run["seed"] in grid.seeds:
        only["seed"] = run["seed"]
    else:
        changed["seeds"] = [run["seed"]]
    if grid is None or run["split_seed"] != grid.split_seed:
        changed["split_seed"] = run["split_seed"]
    asked = grid.model_dump(mode="json") if grid else {"training": {}, "evaluation": {}}
    off = {"training": TrainingSettings.off(), "evaluation": EvaluationSettings.off()}
    off["evaluation"]["ood"] = ()
    asked |= {part: values | asked[part] for part, values in off.items()}
    if grid is None:
        # It may say `epochs`, which `steps` has to take out.
        del asked["training"]["epochs"]
    for knob in grid.search.knobs if grid else ():
        # The grid has a range for it, so the run's own value is said.
        del asked["training"][knob.option]
    for part, values in off.items():
        for key, value in _options(values | run[part]).items():
            if key not in asked[part] or asked[part][key] != value:
                changed[f"{part}.{key}"] = value
    words = ["sigma-bench", "run", grid_name]
    for key, value in only.items():
        words += ["--only", f"{key}={value}"]
    for key, value in changed.items():
        words += ["--set", f"{key}={value if isinstance(value, str) else json.dumps(value)}"]
    return shlex.join(words)


def _options(part: Mapping[str, Any]) -> dict[str, Any]:
    """A run's settings as a grid asks for them."""
    options = {key: value for key, value in part.items() if key != "split"}
    if "features" in options:
        features = options["features"]
        name = features["name"] if features else "none"
        # No record holds the path of a user's own network.
        known = {"none", *(word for network in NETWORKS for word in network.words)}
        options["features"] = name if name in known else "FILE"
        if not features:
            options.pop("distances", None)
    if options.get("fvd"):
        options["fvd"] = "FILE"
    if options.get("ood"):
        options["ood"] = [other["name"] for other in options["ood"]]
    return options


def _brief(options: Mapping[str, Any], registry: Mapping[str, type[Spec]]) -> Any:
    changed = {key: value for key, value in options.items() if key != "name"}
    if kind := registry.get(options["name"]):
        # Options of another version may not be this one's; then all of them are said.
        with contextlib.suppress(ValidationError):
            changed = kind(**options).changed
    return {"name": options["name"], **changed} if changed else options["name"]
