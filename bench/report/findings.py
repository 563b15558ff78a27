"""The report in plain sentences, made from its numbers, for a reader who was not there."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bench.metrics import better, heading, is_shown
from bench.records.frame import Line, lines_of, missing
from bench.report.figures import information
from bench.report.figures.subset import Subset, subsets
from bench.report.figures.sweep import sigma_vaes
from bench.report.layout import cell_text
from bench.report.tables import NoteKind, Table, published_metrics
from bench.significance import best_rows
from bench.text import duration, words

PLACES = 8
"""Data sets (times models) of which something is said one by one."""

ENDS = tuple(f"prediction_calibration_error_{end}" for end in ("first", "last"))
"""How well a prediction knows its uncertainty at the first horizon and at the last."""

NAMED = 4
"""Decoders named in a sentence before the rest is a count."""


@dataclass(frozen=True)
class Findings:
    """Sentences under the four questions that a reader asks; `shows` by data set and model."""

    run: tuple[str, ...]
    cost: tuple[str, ...]
    shows: tuple[tuple[str, tuple[str, ...]], ...]
    cannot: tuple[str, ...]


def findings(table: Table) -> Findings:
    """What was run, what it cost, what it shows and what it cannot show."""
    return Findings(
        tuple(_run(table)), tuple(_cost(table)), tuple(_shows(table)), tuple(_cannot(table))
    )


def leaders(table: Table) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """Who leads in -log p and in the distance, in sentences by data set and model."""
    names = [name for name in table.metrics if is_shown(name, "overview")]
    places = islice(subsets(table, ()), PLACES)
    told = (_of_place(place.rows, _winners(place.rows, names)) for place in places)
    return tuple(one for one in told if one[1])


def _of_place(rows: pd.DataFrame, sentences: Iterable[str]) -> tuple[str, tuple[str, ...]]:
    dataset, model = rows[["dataset", "model"]].iloc[0]
    return f"{dataset} with {model}", tuple(map(_unbroken, sentences))


def _run(table: Table) -> Iterator[str]:
    rows = table.frame
    parts = [
        f"{_count(len(names), noun)} ({_some(names)})"
        for noun, column in (("data set", "dataset"), ("model", "model"))
        for names in [list(rows[column].unique())]
    ]
    entries = int(rows["entry"].nunique())
    decoders = _count(entries, "decoder")
    if "balance" in rows:
        decoders = f"{_count(entries, 'row')} of decoder and balance"
    seeds = _count(int(table.records["run.seed"].nunique()), "seed")
    yield f"{decoders} on {words(parts)}, with {seeds}."
    lost = [f"{rows[s].sum()} {s}" for s in ("diverged", "failed") if rows[s].sum()]
    done = f"{_count(int(rows['n'].sum()), 'run')} completed"
    yield f"{words([done, *lost])}."


def _cost(table: Table) -> Iterator[str]:
    rows = table.frame
    tuning, seconds = rows["tuning_runs"].sum(), rows["seconds"].sum()
    total = f"{duration(seconds)} of computing for {_count(int(rows['runs'].sum()), 'run')}"
    if not tuning:
        yield f"{total}; nothing was tuned."
        return
    spent = rows["tuning_seconds"].sum()
    share = f"{spent / seconds:.0%}" if seconds else "none"
    yield f"{total}, of which the search took {tuning} runs and {duration(spent)} ({share})."


def _shows(table: Table) -> Iterator[tuple[str, tuple[str, ...]]]:
    places = list(subsets(table, ()))
    for place in places[:PLACES]:
        rows = place.rows
        names = [*_headline(table), *(name for name in ENDS if name in rows)]
        sentences = [*_winners(rows, names), *_tuned(table, place)]
        sentences += [*_edges(rows), *_published(rows), *_bends(place)]
        if sentences:
            yield _of_place(rows, sentences)
    if len(places) > PLACES:
        yield "", (f"The table has {len(places) - PLACES} further pairs of data set and model.",)


def _unbroken(sentence: str) -> str:
    """Put non-breaking spaces around ± and =."""
    return re.sub(r" (±|=) ", "\u00a0\\1\u00a0", sentence)


def _headline(table: Table) -> list[str]:
    return [name for name in table.metrics if is_shown(name, "findings")]


def _winners(rows: pd.DataFrame, names: Iterable[str]) -> Iterator[str]:
    return (sentence for name in names for sentence in _winner(rows, name))


def _winner(rows: pd.DataFrame, metric: str) -> Iterator[str]:
    ranked = rows[rows[metric].notna()].sort_values(
        metric, ascending=better(metric) == "lower", kind="stable"
    )
    best = ranked[[metric in names for names in ranked["best"]]].to_dict("records")
    if len(ranked) < 2 or not best or better(metric) is None:
        return
    first, *tied = best
    direction = "Lowest" if better(metric) == "lower" else "Highest"
    among = " of the densities" if metric == "neg_log_p" and rows["discrete"].any() else ""
    sentence = (
        f"{direction} {heading(metric)}{among}: {first['decoder']} ({cell_text(first, metric)})"
    )
    if tied:
        sentence += f", not told apart from {_some([row['decoder'] for row in tied])}"
    alone = [row["decoder"] for row in ranked.to_dict("records") if row["n"] == 1]
    if alone:
        sentence += f"; not compared, with one seed: {_some(alone)}"
    yield f"{sentence}."


def _tuned(table: Table, place: Subset) -> Iterator[str]:
    """Whether a tuned β beats the best σ-VAE of one σ on -log p, by the rule that sets bold."""
    lines, of = lines_of(place.rows), place.item
    scored = [row for row in lines if not (missing(row.get("neg_log_p")) or row["discrete"])]
    own = set(sigma_vaes(table.records)["id"])
    learned = [row for row in scored if own.intersection(row["ids"])]
    tuned = [row for row in scored if "beta" in row["key"].tuned]
    if not learned or not tuned:
        return
    ours = min(learned, key=lambda row: row["neg_log_p"])
    for row in tuned:
        search = f"after {_spent(ours)}" if ours["tuning_runs"] else "which needs no search"
        sides = f"{row['decoder']}, after {_spent(row)}, against {ours['decoder']}, {search}"
        gap = row["neg_log_p"] - ours["neg_log_p"]
        side = "worse" if gap > 0 else "better"
        size = f"{abs(gap):.3g} nats per {of} {side} in -log p"
        verdict = best_rows(_seeds(table.records, (row, ours), "neg_log_p"), "lower")
        if not verdict.compared.all():
            yield f"{sides}: {size}, one of them with a single seed, which tells nothing."
        elif verdict.best.all():
            yield f"{sides}: not told apart ({size})."
        else:
            yield f"{sides}: {size}."


def _spent(row: Line) -> str:
    """What a row's search took."""
    return f"{_count(row['tuning_runs'], 'tuning run')}, {duration(row['tuning_seconds'])}"


def _seeds(records: pd.DataFrame, rows: Sequence[Line], metric: str) -> NDArray[np.float64]:
    """A metric of rows by seed (rows, seeds), NaN where a row has none."""
    runs = records.set_index("id")[["run.seed", f"metrics.{metric}"]]
    each = [runs.loc[list(row["ids"])].set_index("run.seed").squeeze(axis=1) for row in rows]
    return np.asarray(pd.concat(each, axis=1).T, dtype=np.float64)


def _edges(rows: pd.DataFrame) -> Iterator[str]:
    for decoder, notes in zip(rows["decoder"], rows["notes"], strict=True):
        yield from (f"{decoder}: {n.text}." for n in notes if n.kind is NoteKind.AT_EDGE)


def _published(rows: pd.DataFrame) -> Iterator[str]:
    for metric in published_metrics(rows):
        other = [
            any(note.kind is NoteKind.OTHER_SETTING for note in notes) for notes in rows["notes"]
        ]
        known = rows[rows[f"published_{metric}_difference"].notna() & ~np.array(other)]
        if len(known):
            gaps = known[f"published_{metric}_difference"].abs()
            worst = known.loc[gaps.idxmax()]
            yield (
                f"Against the paper's {heading(metric)} ({_count(len(known), 'row')}) ours is "
                f"{gaps.median():.3g} away in the median and {gaps.max():.3g} at most "
                f"({worst['decoder']}: {worst[metric]:.4g}, paper "
                f"{worst[f'published_{metric}']:g})."
            )


def _bends(place: Subset) -> Iterator[str]:
    """Whether the learned β are where the curves over β bend."""
    for sweep in information.measured(place.completed):
        setting = f"{sweep.setting}: " if sweep.setting else ""
        yield setting + information.verdict(sweep).words


def _cannot(table: Table) -> Iterator[str]:
    rows, records = table.frame, table.records
    noted = {note.kind for notes in rows["notes"] for note in notes}
    seeds = int(rows["n"].max())
    if seeds < 2:
        yield "One seed: nothing says how much of a difference is chance."
    elif seeds < 5:
        yield f"{seeds} seeds: small differences stay unseen, so that bold rows need not be equal."
    if NoteKind.SINGULAR_COVARIANCE in noted:
        yield (
            "The Fréchet distance has fewer samples than features: it ranks rows of this table "
            "and does not compare with another table's."
        )
    metrics = {str(m) for m in _values(records, "protocol.distance.metric")} - {"fid"}
    if metrics:
        yield (
            f"{words([heading(m) for m in sorted(metrics)])}: not Inception's features, so not "
            "FID, and not comparable with a published FID."
        )
    elif not _values(records, "protocol.distance.metric"):
        yield "No distance to real images was measured."
    if rows["discrete"].any() and not rows["discrete"].all():
        yield "-log p of discrete decoders is a probability: compare them with others by bits/dim."
    lost = int(rows["diverged"].sum())
    if lost:
        yield (
            f"{_count(lost, 'run')} diverged and {'is' if lost == 1 else 'are'} in no mean, which "
            "flatters a decoder that loses its bad seeds: read n."
        )
    if failed := int(rows["failed"].sum()):
        yield f"{_count(failed, 'run')} failed and will be tried again by the same command."
    if NoteKind.SIGMA_MOVING in noted:
        yield "A learned σ had not arrived when training ended: its row understates the decoder."
    for column, what in (("device", "devices"), ("precision", "precisions"), ("commit", "commits")):
        values = _values(records, f"environment.{column}")
        if len(values) > 1:
            named = [str(value)[:12] if column == "commit" else str(value) for value in values]
            yield f"Records come from {len(values)} {what}: {_some(named)}."
    if True in _values(records, "environment.dirty"):
        yield "Some records were made with uncommitted changes of the code."
    if rows["dataset"].nunique() == 1:
        yield f"{rows['dataset'].iloc[0]} alone was run: another data set may order the rows anew."


def _values(frame: pd.DataFrame, column: str) -> list[Any]:
    return list(frame[column].dropna().unique()) if column in frame else []


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _some(names: Sequence[str]) -> str:
    rest = len(names) - NAMED
    return words([*names[:NAMED], f"{rest} more"] if rest > 1 else names)
