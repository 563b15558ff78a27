"""What a reader must know to trust the table, in plain words."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pandas as pd

from bench.data import note
from bench.grid.knob import Knob
from bench.metric import Metric
from bench.metrics import better, extractor, find, floor_of, heading, is_distance, is_shown
from bench.records.frame import Line, column_of, lines_of
from bench.records.labels import symbols
from bench.records.rows import metrics_of, natural
from bench.records.searches import chosen_by, knobs_of
from bench.records.store import Record
from bench.report.items import FRAMES, GIVEN, PREDICTED, PROTOCOL, item
from bench.run import TrainingSettings
from bench.significance import ERRORS_NEEDED
from bench.text import counted, duration, plain, words

EDGE = 1 / 20
"""The part of a search's range, in its scale, that counts as its end."""

NAMED = 4
"""Rows of one budget that are named; more are counted."""

LENGTHS = ("full", "short", "none")
"""Of a caption: every sentence; what the numbers are; nothing, for an author who writes his own."""

SHORT = (
    "Means over the n seeds that completed, ± half the width of their 95 % interval; bold: no "
    "other row is clearly better."
)


def caption(
    tests: pd.DataFrame,
    searches: Sequence[Record],
    rows: pd.DataFrame,
    partial: tuple[int, int] | None = None,
) -> tuple[str, ...]:
    """The protocol of a table, a sentence each; values that differ between rows are all named.

    Arguments:
        tests: the frame of records behind the table (the test split's).
        rows: the table's frame.
        partial: how many runs are done and how many the grid has, where some are missing.
    """
    return tuple(_sentences(tests, searches, rows, partial))


def _sentences(
    tests: pd.DataFrame,
    searches: Sequence[Record],
    rows: pd.DataFrame,
    partial: tuple[int, int] | None,
) -> Iterator[str]:
    if partial is not None:
        yield f"Partial: {partial[0]} of {partial[1]} runs are done."
    yield from _data(tests)
    yield from _training(tests)
    yield from _likelihood(tests, rows)
    yield from _prediction(tests)
    yield from _distance(tests, rows)
    yield from _selection(searches)
    yield from _budget(searches, rows)
    yield (
        "Means over the n seeds that completed, ± half the width of the 95 % interval of the mean "
        "(Student's t over seeds); ±? where a single seed gives no interval, nothing where all "
        "seeds agree. Runs that diverged or failed are counted next to n and are in no mean."
        + (" Runs and time include the search." if searches else "")
    )
    yield _bold(rows)
    yield from _paper(rows)


def _bold(rows: pd.DataFrame) -> str:
    if not any(map(len, rows["tested"])):
        return "Nothing is bold: no two rows have two seeds each, so that none can be compared."
    three, two = ERRORS_NEEDED
    return (
        "Bold (in a terminal a star): no other row of the data set, the model and the evaluation "
        f"protocol has a mean that is better by {three:g} standard errors of the difference "
        f"({two:g} where a row has two seeds), nor is one when the bold row's worst seeds are left "
        "out and two stay; a row with one seed is not compared."
    )


ADDED = {
    "betas": "betas {}",
    "weight_decay": "weight decay {}",
    "warm_up": "warm-up over {} steps",
    "schedule": "{} schedule",
    "clip": "gradient norm clipped at {}",
    "skip": "steps with a norm above {} skipped",
    "ema": "scored with averages of the weights (decay {})",
    "flips": "half of the images mirrored",
    "dequantise": "uniform noise of one level on the images, in scoring too",
}
"""What is said of a training option that is on."""


BINARISED = {
    "static": "black and white, every image drawn once",
    "resampled": "black and white, the images to train on drawn anew at each epoch",
}
"""What is said of data that are binarised in a way."""


def _data(tests: pd.DataFrame) -> Iterator[str]:
    if "run.dataset" in tests:
        for name in tests["run.dataset"].unique():
            if told := note(name):
                yield f"{name}: {told}."
    if "run.binarised" in tests:
        for how, runs in tests.groupby("run.binarised"):
            yield f"{words(list(runs['run.dataset'].unique()))}: {BINARISED[str(how)]}."


def _training(tests: pd.DataFrame) -> Iterator[str]:
    said = {key: _values(tests, f"run.training.{key}") for key in TrainingSettings.model_fields}
    length = words(
        [counted(said[f"{unit}s"], unit) for unit in ("epoch", "step") if said[f"{unit}s"]], "or"
    )
    if not length:
        return
    added = [
        text.format(said[key])
        + (" (not in all rows)" if tests[f"run.training.{key}"].isna().any() else "")
        for key, text in ADDED.items()
        if said[key]
    ]
    yield (
        f"Training: {length}, batch {said['batch']}, {said['optimizer']}, learning rate "
        f"{said['lr']}, {_values(tests, 'run.training.precision')}"
        + (f"; {', '.join(added)}." if added else ".")
    )


def _likelihood(tests: pd.DataFrame, rows: pd.DataFrame) -> Iterator[str]:
    protocol = "protocol.likelihood."
    if f"{protocol}split" not in tests:
        return
    of = item(tests)
    yield (
        f"-log p: negative ELBO in nats per {of} on data in [0, 1], one posterior draw, on "
        f"{_values(tests, f'{protocol}images')} {of}s of the "
        f"{_values(tests, f'{protocol}split')} split, {_values(tests, f'{protocol}precision')}; "
        f"σ is {_values(tests, f'{protocol}sigma')}, and β means σ² = β/2."
    )
    if of == "sequence":
        yield (
            f"A sequence: {_values(tests, FRAMES)} scored frames, "
            f"{_values(tests, f'{protocol}frames_are')}; a prediction is given the first "
            f"{_values(tests, f'{protocol}given')} frames of the video."
        )
    # -log p and the distances have sentences of their own.
    metrics = [find(name) for name in metrics_of(rows) if not is_shown(name, "overview")]
    weighed = "balance_weight" in rows
    for metric in dict.fromkeys(metrics):
        if metric and ("table" in metric.shown or (weighed and metric.home == "balance")):
            yield f"{metric.heading}: {metric.meaning}."
    if "neg_log_p_fitted_sigma" in rows:
        yield (
            "-log p, fitted σ: the same with the one σ that fits the "
            f"{_values(tests, f'{protocol}fitted_sigma_images')} "
            f"{_values(tests, f'{protocol}fitted_sigma_split')} {of}s."
        )


def _prediction(tests: pd.DataFrame) -> Iterator[str]:
    measured = tests[column_of(tests, f"{PROTOCOL}rollouts").fillna(0) > 0]
    if len(measured):
        yield (
            f"Prediction: K = {_values(measured, f'{PROTOCOL}rollouts')} rollouts of each of N = "
            f"{_values(measured, f'{PROTOCOL}clips')} videos of the "
            f"{_values(measured, f'{PROTOCOL}split')} split, {_values(measured, GIVEN)} frames "
            f"given, the next {_values(measured, PREDICTED)} predicted; fed back are "
            f"{_values(measured, f'{PROTOCOL}fed_back')}. Best of K: "
            f"{_values(measured, f'{PROTOCOL}best')}; it is picked with the truth in hand, so it "
            "compares at the same K alone."
        )


def _distance(tests: pd.DataFrame, rows: pd.DataFrame) -> Iterator[str]:
    protocol = "protocol.distance."
    if f"{protocol}metric" not in tests:
        return
    distances = [name for name in metrics_of(rows) if is_distance(name)]
    made, real = ("samples", "images") if item(tests) == "image" else ("frames", "frames")
    for metric, group in tests.groupby(f"{protocol}metric"):
        yield (
            f"{heading(metric)}: Fréchet distance between "
            f"{_values(group, f'{protocol}samples')} {made} "
            f"({_values(group, f'{protocol}samples_are')}) and "
            f"{_values(group, f'{protocol}real_images')} real {real} "
            f"({_values(group, f'{protocol}real_split')} split) on the "
            f"{_values(group, f'{protocol}dimension')} features of "
            f"{_values(group, f'{protocol}extractor')} (weights sha256 "
            f"{_values(group, f'{protocol}weights_sha256', digits=8)}), batch "
            f"{_values(group, f'{protocol}batch')}, {_values(group, f'{protocol}precision')}"
            + ("." if metric == "fid" else "; it is not FID and does not compare with FID.")
        )
        yield from _floor(group, metric, real)
        alike: dict[Metric, list[str]] = {}
        for name in distances:
            what = find(name)
            if what is None or what.compares == "training":
                continue
            if name != metric and extractor(name) == extractor(metric):
                alike.setdefault(what, []).append(heading(name))
        for what, headings in alike.items():
            if f"{protocol}{what.compares}_are" in group:
                are = _values(group, f"{protocol}{what.compares}_are")
                yield f"{words(headings)}: the same of {are}." + (
                    f" No t was chosen by its distance; {heading(metric)} has t = 1."
                    if what.compares == "tempered"
                    else ""
                )


def _floor(group: pd.DataFrame, metric: str, noun: str) -> Iterator[str]:
    """What training images have in place of samples, by data set."""
    column, count = f"metrics.{floor_of(metric)}", "protocol.distance.training_images"
    if not {column, count, "run.dataset"} <= set(group):
        return
    known = group.dropna(subset=[column, count])
    means = known.groupby(["run.dataset", known[count].map(plain)])[column].mean()
    told = [f"{value:.3g} on {name} ({n} {noun})" for (name, n), value in means.items()]
    if told:
        yield (
            f"{heading(metric)} of training images in place of samples: {words(told)}; a perfect "
            "model could expect as much."
        )


def _selection(searches: Sequence[Record]) -> Iterator[str]:
    seen = set()
    for search in searches:
        how, knobs = search["search"], knobs_of(search)
        best = "highest" if better(how["objective"]) == "higher" else "lowest"
        pruner = "" if how["pruner"] == "none" else f", pruner {how['pruner']}"
        rounds = f", {how['together']} at a time" if "together" in how else ""
        seeds = ", ".join(str(seed) for seed in how["seeds"])
        sentence = (
            f"Tuned {_ranges(knobs)}: {best} {how['objective']} on the validation split among "
            f"{how['trials']} trials {_between(knobs)}(the first "
            f"{how['startup']} {_spread(knobs)}, then {how['sampler']}{rounds}"
            f"{pruner}), trial seed"
            f"{'s' if len(how['seeds']) > 1 else ''} {seeds}.{_lent(search)}"
        )
        if sentence not in seen:
            seen.add(sentence)
            yield sentence


def _lent(search: Record) -> str:
    """Whose search it was, where other rows take a value from it."""
    knobs = [knob for knob in knobs_of(search) if knob.each == "model"]
    if not knobs:
        return ""
    names, first = words(symbols(knobs)), search["decoder"]["name"]
    return f" {names}: chosen on {first}, the first row of the model, for all of its rows."


def _budget(searches: Sequence[Record], rows: pd.DataFrame) -> Iterator[str]:
    """What tuning each row took, where anything was tuned."""
    if not searches:
        return
    trials = {run: len(search["trials"]) for search in searches for run in search["runs"]}
    spent: dict[tuple[int, int], list[Line]] = {}
    for row in lines_of(rows):
        tried = max((trials.get(run, 0) for run in row["ids"]), default=0)
        spent.setdefault((tried if row["tuning_runs"] else 0, row["tuning_runs"]), []).append(row)
    parts = []
    for (tried, runs), group in sorted(spent.items()):
        names = [row["decoder"] for row in group]
        who = words(names) if len(names) <= NAMED else counted(len(names), "row")
        what = [counted(tried, "trial")] if tried else []
        seconds = [row["tuning_seconds"] for row in group]
        times = dict.fromkeys(map(duration, (min(seconds), max(seconds))))
        what += [counted(runs, "run"), " to ".join(times) + (" each" if len(group) > 1 else "")]
        parts.append(f"{words(what) if runs else 'nothing'} for {who}")
    yield f"Spent on tuning: {'; '.join(parts)}."


def _ranges(knobs: Sequence[Knob]) -> str:
    """The names of the options; of several each with its range, as their sentence has no room."""
    if len(knobs) == 1:
        return symbols(knobs)[0]
    ranges = [
        f"{name} ({knob.low:g} to {knob.high:g}{', linear' if knob.scale == 'linear' else ''})"
        for name, knob in zip(symbols(knobs), knobs, strict=True)
    ]
    return f"{words(ranges)} together"


def _between(knobs: Sequence[Knob]) -> str:
    return f"between {knobs[0].low:g} and {knobs[0].high:g} " if len(knobs) == 1 else ""


def _spread(knobs: Sequence[Knob]) -> str:
    """How the first trials of a search are placed."""
    if len(knobs) > 1:
        return "by Sobol's sequence"
    return "evenly spaced" + (" in the logarithm" if knobs[0].scale == "log" else "")


def edges_of(search: Record) -> list[str]:
    """A sentence for each chosen value that is at an end of its range."""
    chosen = list(chosen_by(search))
    found = []
    for name, (knob, value) in zip(symbols([knob for knob, _ in chosen]), chosen, strict=True):
        place = knob.place(value)
        if not EDGE < place < 1 - EDGE:
            found.append(
                f"{name} = {value:g} is at the {'lower' if place < 0.5 else 'upper'} end of its "
                f"range ({knob.low:g} to {knob.high:g}), and a value beyond it may be better: "
                "widen the range"
            )
    return found


def _paper(rows: pd.DataFrame) -> Iterator[str]:
    tables = sorted(rows["published_table"].dropna().unique())
    if tables:
        yield (
            f"Paper: {words([f'Table {table}' for table in tables])} of arXiv 2006.13202 as "
            "printed; in brackets ours less the paper's."
        )


def _values(frame: pd.DataFrame, column: str, digits: int | None = None) -> str:
    """The values that a column takes, as `a`, `a or b`, `a, b or c`."""
    values = frame[column].dropna().unique().tolist() if column in frame else []
    return words(sorted((plain(value)[:digits] for value in values), key=natural), "or")
