"""What docs/results.md says of what was tuned, of a stuck seed and of precision."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd

from tests.docs.claims import Claim, Says, Tabled
from tests.docs.records import FD, REFERENCE, Grid, half_width, interval, number, paired, spread

quick, rates, balances, regression = (
    Grid("quick"), Grid("quick-lr"), Grid("balance-quick"), Grid("regression"),
)  # fmt: skip


def of_learning_rates() -> Iterator[Claim]:
    place = "A learning rate for every decoder"
    yield Says(
        place,
        f"{rates.runs} runs, {rates.minutes} minutes of computing, trained in {rates.precision}.",
    )
    pairs = [(quick.row(row.line["family"]), row) for row in rates.rows()]
    before = number(quick.everything["run.training.lr"].unique().item(), 3)
    yield Says(place, f"with the learning rate {before}. Does that favour one?")
    yield Says(place, f"is told apart from itself at {before}. The shared")
    heads = "decoder,-log p in `quick`,tuned,difference,FD in `quick`,tuned"
    yield Tabled(
        place,
        heads.split(","),
        [
            (
                tuned.name, usual.text("neg_log_p"), tuned.text("neg_log_p"),
                paired(tuned.minus(usual, "neg_log_p")), usual.text(FD), tuned.text(FD),
            )
            for usual, tuned in pairs
        ],
    )  # fmt: skip
    own = [(usual, tuned) for usual, tuned in pairs if tuned.line["family"] != "beta"]
    orders = [
        [
            [pair[side].line["family"] for pair in sorted(own, key=lambda pair: pair[side][metric])]
            for side in (0, 1)
        ]
        for metric in ("neg_log_p", FD)
    ]
    yield Says(
        place,
        "**The order of the decoders with no other knob does not change**, in -log p",
        orders[0][0] == orders[0][1],
    )
    beta = next(tuned for _, tuned in pairs if tuned.line["family"] == "beta")
    worse = beta.minus(quick.row("beta"), "neg_log_p").mean()
    yield Says(
        place,
        f"`beta` with both ends at β = {beta.at('beta_effective', 2)} and {number(worse)} nats "
        "worse than with β alone.",
        worse > 0,
    )
    image = rates.row("optimal_per_image")
    (search,) = [one for one in rates.searches if one["decoder"]["name"] == "optimal_per_image"]
    best = min(trial["score"] for trial in search["trials"] if trial.get("score") is not None)
    rate = image.column("run.training.lr").iloc[0]
    half = image.text("neg_log_p").split(" ± ")[1]
    yield Says(
        place,
        f"{number(rate, 3)} for `optimal_per_image` won the search ({number(best)}) and left one "
        f"of three seeds without training, hence ± {half}.",
    )


def of_balances() -> Iterator[Claim]:
    place = "Eight ways to balance"
    grid, metric = balances, "neg_log_p_fitted_sigma"
    yield Says(
        place,
        f"{grid.runs} runs, MNIST-5k, width {grid.setting('model.width')}, "
        f"{grid.setting('training.epochs')} epochs, {grid.seeds}, {grid.minutes} minutes of "
        f"computing, trained in {grid.precision}.",
    )
    shared = grid.row("shared (sigma_lr=20)")
    heads = (
        "decoder and rule,tuning runs,weight of the rate,-log p; fitted σ,"
        "minus `shared`; by seed,rate,MSE,FD (Lite0)"
    )
    yield Tabled(
        place,
        [head.replace(";", ",") for head in heads.split(",")],
        [
            (
                row.name, number(row["tuning_runs"]), row.text("balance_weight"), row.text(metric),
                "" if row.name == shared.name else paired(row.minus(shared, metric)),
                *map(row.text, ("rate", "mse", FD)),
            )
            for row in grid.rows()
        ],
    )  # fmt: skip
    fixed = [row for row in grid.rows() if row.line["family"] in ("beta", "gaussian")]
    losses = [row.minus(shared, metric) for row in fixed]
    distances = [row.minus(shared, FD) for row in fixed]
    means = [one.mean() for one in distances]
    halves = [half_width(one) for one in distances]
    yield Says(
        place,
        "Each of the three ways to find the weight of a fixed σ is "
        f"{spread([one.mean() for one in losses])} nats worse, each interval on one side, and "
        f"{spread(means)} worse in Fréchet distance (± {spread(halves)} by seed), for six runs "
        "more.",
        all(map(away, losses)),
    )
    on_top = [row for row in grid.rows() if row.name.startswith("`shared (sigma_lr=20) +")]
    told_ = [interval(row.minus(shared, metric), 0) for row in on_top]
    yield Says(
        place,
        f"changes anything here**: {told_[0]}, {told_[1]} and {told_[2]} nats.",
        not any(away(row.minus(shared, metric)) for row in on_top),
    )
    floor = on_top[2].column("run.balance.floor").iloc[0]
    yield Says(
        place, f"and a floor ({number(floor)} nats) far below the rate ({shared.at('rate', 0)})"
    )
    geco, control = (
        next(row for row in fixed if row.line["balance"] == name) for name in ("geco", "control")
    )
    yield Says(
        place,
        f"end at {geco.at('rate', 1)} and {control.at('rate', 1)} nats, `shared` at "
        f"{shared.at('rate', 1)}. At that rate their error is "
        f"{number((geco['mse'] / shared['mse'] - 1) * 100)} and "
        f"{number((control['mse'] / shared['mse'] - 1) * 100)} % larger.",
    )
    yield Says(
        place,
        f"GECO's goal of {number(geco.column('run.balance.goal').iloc[0], 3)} is not where it ends "
        f"(a root mean squared error of {number(geco['mse'] ** 0.5, 3)})",
    )
    yield Says(
        place,
        f"(`shared`: {shared.at('neg_log_p_train', 0)} nats on training images, "
        f"{shared.at('neg_log_p', 0)} on test images)",
    )


def away(values: pd.Series[float]) -> bool:
    """Whether the interval of a mean leaves 0 out."""
    return abs(float(values.mean())) > half_width(values)


def of_a_stuck_seed() -> Iterator[Claim]:
    row = regression.row("optimal", model="conv_vae (latent=10, width=4)")
    seeds = row.seeds("neg_log_p")
    stuck, others = seeds.idxmax(), seeds.drop(seeds.idxmax())
    yield Says(
        "A stuck seed",
        f"Seed {number(float(stuck))} of `optimal` in `regression` (`conv_vae` of width "
        f"{number(row.column('run.model.width').iloc[0])}, eight epochs) ends at "
        f"{number(seeds.max(), 1)} nats, the other seven at {number(others.max())} to "
        f"{number(others.min())}.",
    )
    gaussian = regression.row("gaussian", model="conv_vae (latent=10, width=4)")
    yield Says(
        "A stuck seed",
        f"`gaussian` stays on it with seed {number(float(stuck))} of the committed records: rate "
        f"{number(gaussian.seeds('rate')[stuck], 1)}, "
        f"{number(gaussian.seeds('neg_log_p')[stuck])} nats.",
    )


def of_precision() -> Iterator[Claim]:
    heads = "grid,runs,precision,device,commit"
    lines = []
    for folder in sorted(path for path in REFERENCE.iterdir() if path.is_dir()):
        records = Grid(folder.name).everything
        places = [
            sorted(records[f"environment.{name}"].unique()) for name in ("precision", "device")
        ]
        commits = sorted({str(commit)[:7] for commit in records["environment.commit"]})
        # A device's name may hold a comma.
        texts = ["; ".join(values) for values in (*places, [f"`{one}`" for one in commits])]
        lines.append((f"`{folder.name}`", str(len(records)), *texts))
    yield Tabled("Numbers that depend on the CPU", heads.split(","), lines)
