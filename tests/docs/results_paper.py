"""What docs/results.md says of the grids beside the paper: table3, figure4, decoders-quick."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np

from bench.report.figures import information
from bench.report.figures.subset import subsets
from bench.report.paper import lookup
from tests.docs.claims import Claim, Says, Tabled, told
from tests.docs.records import (
    FD,
    Grid,
    Row,
    half_width,
    number,
    paired,
    rounded,
    spread,
    word,
)

table3, fashion = Grid("table3", "mnist"), Grid("table3", "fashion_mnist")
figure4, decoders = Grid("figure4"), Grid("decoders-quick")


def printed(row: Row) -> tuple[float, float]:
    """The paper's -log p and FID of a row of table3; of β the tuned one's."""
    name = row.line["family"]
    found = lookup("table3", "mnist", "conv_vae", name, "tuned" if name == "beta" else None)
    return (found.neg_log_p, found.fid) if found else (np.nan, np.nan)


def off(row: Row) -> float:
    """How far ours is from the paper's -log p, in percent."""
    return abs(row["neg_log_p"] / printed(row)[0] - 1) * 100


def of_table3() -> Iterator[Claim]:
    place = "Full MNIST and the paper"
    grid = table3
    width, latent = grid.setting("model.width"), grid.setting("model.latent")
    batch, epochs = grid.setting("training.batch"), grid.setting("training.epochs")
    yield Says(
        place,
        f"(width {width}, latent {latent}, batch {batch}, {epochs} epochs), **{grid.seeds}**, "
        f"trained in {grid.precision}",
    )
    yield Says(place, f"β is chosen by {word(trials_of(grid))} trials on validation images.")
    amd, intel = made_by(grid)
    yield Says(place, f"{amd} runs are from an AMD EPYC, {intel} from an Intel Xeon with AMX.")
    yield Says(place, f"FD uses {grid.setting('evaluation.samples')} samples;")
    yield Tabled(
        place,
        ("decoder", "-log p", "paper (Table 3)", "FD", "paper's FID", "bits/dim", "σ", *COSTS),
        [
            (row.name, *map(row.text, ("neg_log_p", "published_neg_log_p", FD)),
             "-" if np.isnan(fid := printed(row)[1]) else told(f"{fid:g}"),
             *map(row.text, ("bits_per_dim", "sigma")), *costs(row))
            for row in grid.rows()
        ],
    )  # fmt: skip
    gaussian, beta, per_pixel = map(grid.row, ("gaussian", "beta", "per_pixel"))
    shared, optimal, per_image = map(grid.row, ("shared", "optimal", "optimal_per_image"))
    yield Says(
        place,
        f"`gaussian` and `shared` are within {number(max(off(gaussian), off(shared)), 1)} % of the "
        "paper.",
    )
    yield Says(
        place,
        "The distances have the paper's order: `shared` and `bernoulli` best, then the tuned β, "
        "then σ = 1, and `per_pixel` far behind.",
        farther_by_group(grid, BEST, ["beta"], ["gaussian"], ["per_pixel"]),
    )
    yield from of_the_tuned(place, beta, shared)
    searched = beta["tuning_seconds"] / 60
    yield Says(
        place,
        f"higher. Its trials took {number(searched)} minutes, "
        f"{number(searched / minutes_of(shared), 1)} times one run of `shared` with all measures.",
    )
    ahead = shared.minus(beta, "bits_per_dim")
    yield Says(
        place,
        f"By bits per dimension the tuned β leads `shared`**, by {paired(ahead)}: its σ is wider,",
        ahead.min() > 0 and beta["sigma"] > shared["sigma"],
    )
    nats, fid = printed(beta)
    yield Says(
        place,
        f"The paper prints one tuned row ({number(nats, 1)}, FID {number(fid, 2)}) without its β; "
        f"ours is {number(nats - beta['neg_log_p'])} nats better.",
        nats > beta["neg_log_p"],
    )
    course = history(per_pixel)
    worst = max(course, key=lambda line: line["sigma"])
    best = min(line["loss"] for line in course)
    yield Says(
        place,
        f"`per_pixel` trains unsteadily: its seeds end at {spread(per_pixel.seeds('neg_log_p'))} "
        f"nats, the paper's at {number(printed(per_pixel)[0])}. In epoch "
        f"{number(worst['epoch'] + 1)} of seed "
        f"{number(per_pixel.records['run.seed'].min())} the mean loss was "
        f"{number(worst['loss'])} and the root mean variance, averaged over steps, "
        f"{rounded(worst['sigma'], 2)}; the best epoch had {number(best)}.",
    )
    scored = "`optimal_per_image` trains with a σ for each image and is scored with one: it"
    yield both_behind(place, scored, per_image, shared)
    away, rate = optimal.minus(shared, "neg_log_p"), optimal.minus(shared, "rate")
    yield Says(
        place,
        f"`optimal` has no MNIST row in the paper. It is {paired(away)} nats from `shared`, with "
        f"a rate {paired(rate)} nats larger",
    )


def of_fashion() -> Iterator[Claim]:
    place = "Full Fashion-MNIST"
    grid = fashion
    yield Says(place, f"does not have, **{grid.seeds}**, trained in {grid.precision}")
    amd, intel = made_by(grid)
    yield Says(
        place,
        f"{intel} runs are from an Intel Xeon with AMX, {amd} trials from an AMD EPYC, "
        "which is slower.",
    )
    yield Tabled(
        place,
        ("decoder", "-log p", "FD", "bits/dim", "σ", "rate", "CRPS", *COSTS),
        [
            (row.name, *map(row.text, ("neg_log_p", FD, "bits_per_dim", "sigma", "rate", "crps")),
             *costs(row))
            for row in grid.rows()
        ],
    )  # fmt: skip
    gaussian, beta, per_pixel = map(grid.row, ("gaussian", "beta", "per_pixel"))
    shared, optimal, per_image = map(grid.row, ("shared", "optimal", "optimal_per_image"))
    yield from of_the_tuned(place, beta, shared)
    trial, run = trial_minutes(grid, "Intel(R)"), minutes_of(shared)
    yield Says(
        place,
        f"A trial takes {number(trial)} minutes on the Xeon and a run of `shared` with all "
        f"measures {number(run)}, so the search costs {number(trials_of(grid) * trial / run, 1)} "
        "such runs.",
    )
    ahead = shared.minus(beta, "bits_per_dim")
    yield Says(
        place,
        f"By bits per dimension the tuned β leads `shared` again, by {paired(ahead)},",
        ahead.min() > 0 and beta["sigma"] > shared["sigma"],
    )
    yield Says(
        place,
        "The distances have the order of the digits: `shared` and `bernoulli` best, then the two "
        "analytic σ, the tuned β, σ = 1, and `per_pixel`.",
        all(
            farther_by_group(
                one, BEST, ["optimal", "optimal_per_image"], ["beta"], ["gaussian"], ["per_pixel"]
            )
            for one in (table3, grid)
        ),
    )
    yield Says(
        place,
        f"`per_pixel` trains steadily here ({spread(per_pixel.seeds('neg_log_p'))} nats). It has "
        f"the lowest -log p and bits/dim, {rounded(per_pixel['mse'] / shared['mse'], 2)} times "
        "the squared error of `shared`, and the highest distance.",
        per_pixel["neg_log_p"] < shared["neg_log_p"]
        and per_pixel["bits_per_dim"] < beta["bits_per_dim"]
        and per_pixel[FD] > gaussian[FD],
    )
    away, rate, off_by = (optimal.minus(shared, name) for name in ("neg_log_p", "rate", FD))
    yield Says(
        place,
        f"`optimal` is {paired(away)} nats from `shared`, its rate {paired(rate)} nats larger and "
        f"its FD {paired(off_by)} higher.",
        off_by.min() > 0,
    )
    yield both_behind(place, "`optimal_per_image`", per_image, shared)
    pairs = [(one.row("beta"), one.row("shared")) for one in (table3, grid)]
    above = [tuned["beta_effective"] / learned["beta_effective"] for tuned, learned in pairs]
    yield Says(place, f"Both searches end at {spread(above, 1)} times the learned 2σ².")


BEST = ("shared", "bernoulli")
"""The decoders of the lowest distances on both data sets."""


def farther_by_group(grid: Grid, *groups: Sequence[str]) -> bool:
    """Whether all distances of a group of decoders are above those of the group before it."""
    distances = [sorted(grid.row(name)[FD] for name in group) for group in groups]
    return all(near[-1] <= far[0] for near, far in pairwise(distances))


def of_the_tuned(place: str, beta: Row, shared: Row) -> Iterator[Claim]:
    """How far the tuned β is behind, and what is left of it where β is a weight and σ is fitted."""
    worse, farther = beta.minus(shared, "neg_log_p"), beta.minus(shared, FD)
    yield Says(
        place,
        f"The search chose β = {beta.at('beta_effective', 3)}; `shared` learns 2σ² = "
        f"{shared.at('beta_effective', 4)}. With the tuned β -log p is {paired(worse)} nats "
        f"worse, seed by seed, and FD {paired(farther)} higher.",
        worse.min() > 0 and farther.min() > 0,
    )
    left, rate = beta.minus(shared, "neg_log_p_fitted_sigma"), beta.minus(shared, "rate")
    yield Says(
        place,
        f"With a σ fitted to validation images afterwards the tuned β is still {paired(left)} nats "
        f"worse, at the same rate (it differs by {paired(rate)} nats): the network itself is "
        "worse.",
        left.min() > 0 and abs(rate.mean()) < half_width(rate),
    )


def both_behind(place: str, opening: str, row: Row, shared: Row) -> Claim:
    """By how much a row is worse than `shared` in both, every seed of it."""
    behind, off_by = row.minus(shared, "neg_log_p"), row.minus(shared, FD)
    return Says(
        place,
        f"{opening} is {paired(behind)} nats worse than `shared`, and its FD {paired(off_by)} "
        "higher.",
        behind.min() > 0 and off_by.min() > 0,
    )


def made_by(grid: Grid) -> tuple[str, str]:
    """How many of a grid's runs are from an AMD EPYC, and from an Intel Xeon."""
    makers = grid.everything["environment.device"].str.split().str[0].value_counts()
    return number(makers["AMD"]), number(makers["Intel(R)"])


def trials_of(grid: Grid) -> int:
    """The trials of each search."""
    (count,) = {len(search["trials"]) for search in grid.searches}
    return count


def trial_minutes(grid: Grid, maker: str) -> float:
    """The mean minutes of a grid's trials on the processors of a maker."""
    ran = grid.everything[grid.everything["environment.device"].str.startswith(maker)]
    trials = ran[ran["run.evaluation.split"] == "validation"]
    return float(trials["cost.seconds"].mean()) / 60


COSTS = ("minutes a run", "minutes of tuning")


def costs(row: Row) -> tuple[str, str]:
    """Minutes of a final run, and of the search before it."""
    searched = number(row["tuning_seconds"] / 60) if row["tuning_runs"] else "-"
    return number(minutes_of(row)), searched


def minutes_of(row: Row) -> float:
    """A final run's minutes, training and measuring, the mean over seeds."""
    return (row["seconds"] - row["tuning_seconds"]) / row["n"] / 60


def history(row: Row) -> list[dict[str, float]]:
    """The epochs of a row's first seed."""
    path = Path(row.column("folder").iloc[0]) / "history.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()]


def of_figure4() -> Iterator[Claim]:
    place = "The learned β"
    grid = figure4
    fixed = grid.rows(family="beta")
    shared, optimal = grid.row("shared"), grid.row("optimal")
    yield Says(
        place,
        f"MNIST-5k, width {grid.setting('model.width')}, {grid.setting('training.epochs')} epochs, "
        f"{word(len(fixed))} fixed β, **{grid.seeds}**, trained in {grid.precision}",
    )
    best = min(fixed, key=lambda row: row["neg_log_p"])
    yield Says(
        place,
        f"Both σ-VAEs learn β = {spread([r['beta_effective'] for r in (shared, optimal)], 3)}. No "
        f"fixed β of the ten has a better mean -log p: {best.text('neg_log_p')} at β = "
        f"{best.at('beta_effective', 2)}, against {shared.text('neg_log_p')} for `shared` and "
        f"{optimal.text('neg_log_p')} for `optimal`.",
        best["neg_log_p"] > max(shared["neg_log_p"], optimal["neg_log_p"]),
    )
    by_beta = {row.line["decoder"]: row for row in fixed}
    low = [row for row in fixed if row["beta_effective"] < 0.5]
    ten, three, one, third = (by_beta[f"beta (beta={beta})"] for beta in ("10", "3", "1", "0.3"))
    yield Says(
        place,
        f"known](protocol.md#information) at β = {ten.at('beta_effective', 0)} and "
        f"{three.at('beta_effective', 0)} alone. From β = {one.at('beta_effective', 0)} down",
    )
    ceiling = grid.everything["protocol.information.bound"].dropna().unique()
    yield Says(place, f"the estimate ends at ln N = {number(ceiling.item(), 1)} nats")
    bend = bend_of(grid)
    factor = shared["beta_effective"] / bend[0]
    yield Says(
        place,
        f"bends at β = {number(bend[0], 4)} (95 % interval {number(bend[1], 4)} to "
        f"{number(bend[2], 4)}): two lines in ln β fit it best. The learned β is "
        f"{number(factor)} times above that.",
    )
    known = ("mutual_information", "mutual_information_upper")
    threes, ones = ([v for name in known for v in row.seeds(name)] for row in (three, one))
    beta = {row.line["decoder"]: row.at("beta_effective", 0) for row in (ten, three, one)}
    at = [beta[row.line["decoder"]] for row in (ten, three, one)]
    yield Says(
        place,
        f"The mutual information is {spread(threes, 1)} nats at β = {at[1]} and {spread(ones, 1)} "
        f"at β = {at[2]}; from β = {third.at('beta_effective', 1)} down the rate is the lesser "
        f"upper bound. `effective_latents` is {three.at('effective_latents', 1)} at β = {at[1]}, "
        f"{one.at('effective_latents', 0)} at β = {at[2]} and above "
        f"{number(np.floor(min(r['effective_latents'] for r in low)))} from β = "
        f"{third.at('beta_effective', 1)} down. `active_units` counts "
        f"{one.at('active_units', 0)} up to β = {at[2]}, {three.at('active_units', 1)} "
        f"at β = {at[1]} and {ten.at('active_units', 0)} at β = {at[0]}.",
        all(row["active_units"] == one["active_units"] for row in low)
        and all((row.seeds("rate") < row.seeds("mutual_information_upper")).all() for row in low),
    )
    yield Says(place, f"nats at β = {at[2]} (measured: {one.at('rate', 1)})")
    yield Says(place, f"(measured: {three.at('rate', 1)}). The rate falls to zero")


def bend_of(grid: Grid) -> tuple[float, float, float]:
    """Where the rate of figure4 bends, and the ends of the interval."""
    (part,) = subsets(grid.table, ())
    (sweep,) = information.measured(part.completed)
    found = information.verdict(sweep).bend
    assert found is not None
    return found.beta, found.low, found.high


def of_decoders() -> Iterator[Claim]:
    place = "Every decoder on one scale"
    grid = decoders
    yield Says(
        place,
        f"{grid.minutes} minutes of computing for {grid.seeds}, trained in {grid.precision}",
    )
    heads = "decoder,-log p,bits/dim,FD (Lite0),CRPS,calibration error,variance of (x-μ)/σ"
    columns = ("bits_per_dim", FD, "crps", "calibration_error", "z_variance")
    yield Tabled(
        place,
        heads.split(","),
        [(row.name, likelihood(row), *map(row.text, columns)) for row in grid.rows()],
    )
    samples = grid.setting("evaluation.samples")
    features = number(grid.everything["protocol.distance.dimension"].dropna().unique().item())
    yield Says(
        place, f"FD: {samples} samples on {features} features, so the covariance is singular;"
    )
    student = grid.row("student_t")
    densities = [r for r in grid.rows() if not r.line["discrete"] and r["neg_log_p"] < 1e9]
    second = sorted(row["neg_log_p"] for row in densities)[1]
    yield Says(
        place,
        f"`student_t` leads by {rounded(second - student['neg_log_p'], 1)} nats, and its samples "
        "do not show it.",
        student["neg_log_p"] == min(row["neg_log_p"] for row in densities),
    )
    faithful, gaussian = grid.row("faithful"), grid.row("gaussian")
    yield Says(
        place,
        f"`faithful` has the samples, rate ({faithful.at('rate', 1)} nats) and mean of `gaussian`, "
        f"with a likelihood {rounded(gaussian['neg_log_p'] - faithful['neg_log_p'], 2)} nats "
        "better.",
    )
    ranked = sorted((row for row in grid.rows() if row["crps"] >= 0), key=lambda row: row["crps"])
    yield Says(
        place,
        f"The lowest CRPS are those of `bitwise_categorical` ({ranked[0].at('crps', 3)}) and "
        f"`shared` ({ranked[1].at('crps', 3)}); `gaussian` has the highest.",
        [ranked[i].line["family"] for i in (0, 1)] == ["bitwise_categorical", "shared"],
    )


def likelihood(row: Row) -> str:
    """-log p, marked where it is a probability."""
    mark = " †" if row.line["discrete"] and row.text("neg_log_p") != "-" else ""
    return row.text("neg_log_p") + mark
