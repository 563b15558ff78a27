"""What a reader must know to trust the table, in plain words."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from bench.metrics import metric_name
from bench.records.store import FAILED, Record
from bench.text import plain, words

if TYPE_CHECKING:
    import pandas as pd


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
    yield from _training(tests)
    yield from _likelihood(tests, rows)
    yield from _distance(tests, rows)
    yield from _selection(searches)
    yield (
        "Means over the n seeds that completed, ± half the width of the 95 % interval of the mean "
        "(Student's t over seeds); ±? where a single seed gives no interval, nothing where all "
        "seeds agree. Runs that diverged or failed are counted beside n and are in no mean."
        + (" Runs and time include the search." if searches else "")
    )
    yield _bold(rows)
    yield from _paper(rows)


def _bold(rows: pd.DataFrame) -> str:
    best = (
        "Bold (in a terminal a star): the best mean within a data set, a model and an evaluation "
        "protocol"
    )
    if not any(map(len, rows["tested"])):
        return f"{best}; no row shares two seeds with it, so that no ties can be tested."
    return (
        f"{best}, and its ties: rows whose difference from it a two-sided paired t-test over the "
        "seeds in common does not reject at 5 %, p corrected for the rows compared (Holm). A tie "
        "says that these seeds cannot tell, not that the rows are equal."
    )


def _training(tests: pd.DataFrame) -> Iterator[str]:
    if "run.training.epochs" in tests:
        yield (
            f"Training: {_values(tests, 'run.training.epochs')} epochs, batch "
            f"{_values(tests, 'run.training.batch')}, {_values(tests, 'run.training.optimizer')}, "
            f"learning rate {_values(tests, 'run.training.lr')}, "
            f"{_values(tests, 'run.training.precision')}."
        )


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
    if "bits_per_dim" in rows:
        yield (
            "bits/dim: the same bound on the 8-bit image, every decoder made a probability over "
            "256 values, so that all decoders compare."
        )
    if "calibration_error" in rows:
        yield (
            "calibration error: mean gap between the nominal and the observed coverage of p(x|z); "
            "0 is calibrated."
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
        for suffix, kind in (("sampled", "sampled"), ("reconstruction", "reconstructions")):
            if f"{metric}_{suffix}" in rows and f"{protocol}{kind}_are" in group:
                yield (
                    f"{metric_name(f'{metric}_{suffix}')}: the same of "
                    f"{_values(group, f'{protocol}{kind}_are')}."
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
            f"Paper: {words([f'Table {table}' for table in tables])} of arXiv 2006.13202 as "
            "printed; in brackets ours less the paper's."
        )


def _values(frame: pd.DataFrame, column: str, digits: int | None = None) -> str:
    """The values that a column takes, as `a`, `a or b`, `a, b or c`."""
    values = frame[column].dropna().unique().tolist() if column in frame else []
    return words([plain(value)[:digits] for value in sorted(values)], "or")
