"""The one writer of "data set · model · decoder"."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pydantic import (
    ValidationError,
)

from baselines.options import (
    DECODERS,
    Spec,
)
from bench.grid.expand import Row
from bench.records.frame import Line, lines_of, missing
from bench.records.store import Record
from bench.run import Run
from bench.text import plain

if TYPE_CHECKING:
    import pandas as pd

JOINT = " · "
TUNED = "tuned"


def spec_label(spec: Spec) -> str:
    """The name, and in brackets each option that differs from its default."""
    defaults = {key: field.default for key, field in type(spec).model_fields.items()}
    changed = [f"{key}={value:g}" if isinstance(value, float) else f"{key}={value}"
               for key, value in spec.options.items() if value != defaults[key]]  # fmt: skip
    return f"{spec.name} ({', '.join(changed)})" if changed else spec.name


def run_label(run: Run) -> str:
    """`data set · model · decoder` of a run."""
    return JOINT.join([run.dataset, spec_label(run.model), spec_label(run.decoder)])


def row_label(row: Row) -> str:
    """The same of a row; an option that a search chooses has no value yet."""
    run = row.runs[0]
    if row.search is None:
        return run_label(run)
    tuned = f"{run.decoder.name} ({row.option} tuned)"
    return JOINT.join([run.dataset, spec_label(run.model), tuned])


# What a row's settings are compared within: another data set has another content anyway.
_WITHIN = {
    "run.content": "run.dataset",
    "run.evaluation.features.sha256": "run.evaluation.features.name",
}

IMPLIED = {"run.evaluation.split", "run.evaluation.features", "run.evaluation.features.metric"}
SOURCE = "run.evaluation.features.source"


def recorded_label(registry: Mapping[str, type[Spec]], prefix: str, line: Line) -> str:
    spec = _spec(registry, prefix, line)
    if spec is not None:
        return spec_label(spec)
    # Written by a version, or with a decoder of the user's, that is not here: say all it holds.
    options = {
        column.removeprefix(f"{prefix}."): value
        for column, value in line.items()
        if column.startswith(f"{prefix}.") and not missing(value)
    }
    name = options.pop("name")
    inside = ", ".join(f"{key}={plain(value)}" for key, value in options.items())
    return f"{name} ({inside})" if inside else str(name)


def _spec(registry: Mapping[str, type[Spec]], prefix: str, line: Line) -> Spec | None:
    kind = registry.get(line[f"{prefix}.name"])
    if kind is None:
        return None
    # A frame has NaN for None.
    keys = [key for key in kind.model_fields if f"{prefix}.{key}" in line]
    values = {key: line[f"{prefix}.{key}"] for key in keys}
    try:
        return kind.model_validate({k: None if missing(v) else v for k, v in values.items()})
    except ValidationError:
        return None


def decoder_labels(
    table: pd.DataFrame, lines: pd.DataFrame, found: Mapping[str, Record]
) -> list[str]:
    """What tells a row from every other of its data set and model."""
    import pandas as pd

    labels = [
        _tuned_label(line, found.get(line["search"]))
        if line["search"]
        else recorded_label(DECODERS, "run.decoder", line)
        for line in lines_of(lines)
    ]
    settings = _differing_settings(lines)
    labels = [
        f"{label} [{extra}]" if extra else label
        for label, extra in zip(labels, settings, strict=True)
    ]
    identity = pd.DataFrame({"dataset": table["dataset"], "model": table["model"], "of": labels})
    twins = identity.duplicated(keep=False)
    # Two searches may choose the same value: their ids tell them apart.
    return [
        f"{label} [{row}]" if twin else label
        for label, row, twin in zip(labels, lines.index, twins, strict=True)
    ]


def entry_labels(table: pd.DataFrame, lines: pd.DataFrame) -> list[str]:
    """The decoder's label without the value that a search chose, where that is still unique."""
    short = [
        re.sub(rf"\({TUNED}, [^,)]+", f"({TUNED}", label) if search else label
        for label, search in zip(table["decoder"], lines["search"], strict=True)
    ]
    twins = table[["dataset", "model"]].assign(of=short).duplicated(keep=False)
    return [
        label if twin else brief
        for label, brief, twin in zip(table["decoder"], short, twins, strict=True)
    ]


def _tuned_label(line: Line, search: Record | None) -> str:
    option = search["option"] if search else "beta"
    symbol = {"beta": "β"}.get(option, option)
    value = search["chosen"] if search else line.get(f"run.decoder.{option}")
    chosen = "no value worked" if missing(value) else f"{symbol}={plain(value)}"
    label = recorded_label(DECODERS, "run.decoder", line)
    name, _, inside = label.partition(" (")
    others = [part for part in inside.removesuffix(")").split(", ") if part]
    others = [part for part in others if not part.startswith(f"{option}=")]
    return f"{name} ({', '.join([TUNED, chosen, *others])})"


def _differing_settings(lines: pd.DataFrame) -> list[str]:
    """For each line the training and evaluation settings in which the lines differ."""
    measured = lines[lines["id"].notna()]
    settings = [
        column
        for column in lines
        if (
            column.startswith(("run.training.", "run.evaluation."))
            or column in ("run.content", "run.split_seed")
        )
        and column not in IMPLIED | {SOURCE}
    ]
    differing = []
    for column in settings:
        within = measured[_WITHIN[column]] if column in _WITHIN else measured["schema"]
        values = measured[column].groupby(within, dropna=False).nunique(dropna=False)
        if values.max() > 1:
            differing.append(column)
    return [
        ""
        if missing(line["id"])
        else ", ".join(f"{_setting_name(key)}={_setting(line[key])}" for key in differing)
        for line in lines_of(lines)
    ]


def _setting_name(column: str) -> str:
    return re.sub(r"^run\.(training\.)?|\.name$", "", column)


def _setting(value: Any) -> str:
    # A hash is known by its first digits.
    text = "none" if missing(value) else plain(value)
    return text[:8] if re.fullmatch(r"[0-9a-f]{16,}", text) else text
