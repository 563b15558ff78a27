"""What a reader must know to trust the table, in plain words."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from bench.records import FAILED, Record

if TYPE_CHECKING:
    import pandas as pd


NAMES = {
    "neg_log_p": "-log p",
    "neg_log_p_fitted_sigma": "-log p, fitted σ",
    "fid": "FID",
    "mse": "MSE",
    "sigma": "σ",
    "beta_effective": "2σ²",
}


def metric_name(metric: str) -> str:
    """A metric as the table's heading and caption call it."""
    if re.fullmatch(r"(iwae|fd)_\w+", metric):
        kind, _, rest = metric.partition("_")
        return f"{kind.upper()} {rest.replace('_', ' ')}"
    return NAMES.get(metric, metric.replace("_", " "))


def caption(
    tests: pd.DataFrame, searches: Sequence[Record], rows: pd.DataFrame, expected: int | None = None
) -> tuple[str, ...]:
    """The protocol of a table, a sentence each; values that differ between rows are all named.

    Arguments:
        tests: the frame of records behind the table (the test split's).
        rows: the table's frame.
        expected: how many runs the grid has; a grid with fewer records is called partial.
    """
    return tuple(_sentences(tests, searches, rows, expected))


def _sentences(
    tests: pd.DataFrame, searches: Sequence[Record], rows: pd.DataFrame, expected: int | None
) -> Iterator[str]:
    settled = int((tests["status"] != FAILED).sum())
    if expected is not None and settled < expected:
        yield f"Partial: {settled} of {expected} runs are done."
    yield (
        f"Training: {_values(tests, 'run.training.epochs')} epochs, batch "
        f"{_values(tests, 'run.training.batch')}, {_values(tests, 'run.training.optimizer')}, "
        f"learning rate {_values(tests, 'run.training.lr')}, "
        f"{_values(tests, 'run.training.precision')}."
    )
    yield from _likelihood(tests, rows)
    yield from _distance(tests, rows)
    yield from _selection(searches)
    yield (
        "Means over the n seeds that completed, ± half the width of the 95 % interval of the mean "
        "(Student's t over seeds); ±? where a single seed gives no interval, nothing where all "
        "seeds agree. Runs that diverged or failed are counted beside n and are in no mean. "
        "Runs and time include the search."
    )
    yield from _paper(rows)


def _likelihood(tests: pd.DataFrame, rows: pd.DataFrame) -> Iterator[str]:
    protocol = "protocol.likelihood."
    if f"{protocol}split" not in tests:
        return
    yield (
        f"-log p: negative ELBO in nats per image on data in [0, 1], one posterior draw, on "
        f"{_values(tests, f'{protocol}images')} images of the "
        f"{_values(tests, f'{protocol}split')} split, {_values(tests, f'{protocol}precision')}; "
        f"σ is {_values(tests, f'{protocol}sigma')}, and β means σ² = β/2."
    )
    if any(column.startswith("iwae_") for column in rows):
        yield (
            "IWAE K: importance-weighted lower bound on log p with K draws "
            "(its sign is log p's: higher is better)."
        )
    if "neg_log_p_fitted_sigma" in rows:
        yield (
            "-log p, fitted σ: the same with the one σ that fits the "
            f"{_values(tests, f'{protocol}fitted_sigma_images')} training images."
        )


def _distance(tests: pd.DataFrame, rows: pd.DataFrame) -> Iterator[str]:
    protocol = "protocol.distance."
    if f"{protocol}metric" not in tests:
        return
    for metric, group in tests.groupby(f"{protocol}metric"):
        yield (
            f"{metric_name(metric)}: Fréchet distance between "
            f"{_values(group, f'{protocol}samples')} samples "
            f"({_values(group, f'{protocol}samples_are')}) and "
            f"{_values(group, f'{protocol}real_images')} real images "
            f"({_values(group, f'{protocol}real_split')} split) on the "
            f"{_values(group, f'{protocol}dimension')} features of "
            f"{_values(group, f'{protocol}extractor')} (weights sha256 "
            f"{_values(group, f'{protocol}weights_sha256', digits=8)}), batch "
            f"{_values(group, f'{protocol}batch')}, {_values(group, f'{protocol}precision')}"
            + ("." if metric == "fid" else "; it is not FID and does not compare with FID.")
        )


def _selection(searches: Sequence[Record]) -> Iterator[str]:
    told = set()
    for search in searches:
        how, option = search["search"], {"beta": "β"}.get(search["option"], search["option"])
        best = "highest" if how["objective"].startswith("iwae_") else "lowest"
        pruner = "" if how["pruner"] == "none" else f", pruner {how['pruner']}"
        seeds = ", ".join(str(seed) for seed in how["seeds"])
        sentence = (
            f"Tuned {option}: {best} {how['objective']} on the validation split among "
            f"{how['trials']} trials between {how['low']:g} and {how['high']:g} (the first "
            f"{how['startup']} evenly spaced in the logarithm, then {how['sampler']}{pruner}), "
            "trial seed"
            f"{'s' if len(how['seeds']) > 1 else ''} {seeds}."
        )
        if sentence not in told:
            told.add(sentence)
            yield sentence


def _paper(rows: pd.DataFrame) -> Iterator[str]:
    tables = sorted(rows["published_table"].dropna().unique())
    if tables:
        yield (
            f"Paper: {_words([f'Table {table}' for table in tables], 'and')} of arXiv 2006.13202 "
            "as printed."
        )


def _values(frame: pd.DataFrame, column: str, digits: int | None = None) -> str:
    """The values that a column takes, as `a`, `a or b`, `a, b or c`."""
    values = frame[column].dropna().unique().tolist() if column in frame else []
    return _words([plain(value)[:digits] for value in sorted(values)], "or")


def plain(value: Any) -> str:
    """A setting's value as a person writes it: a whole number has no decimals."""
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() else f"{value:g}"
    return str(value)


def _words(values: Sequence[str], joint: str) -> str:
    return f" {joint} ".join([*([", ".join(values[:-1])] if values[:-1] else []), *values[-1:]])
