"""What docs/speed.md says of the committed measurements of `sigma-bench speed`."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

from bench.speed.table import seconds
from tests.docs.claims import Claim, Says, Tabled, told
from tests.docs.records import REFERENCE, number, rounded

Row = dict[str, Any]

PLACE = "Speed and memory"
HEADS = ("row", "the usual way", "ours", "ratio (lowest to highest)")


def rows(name: str) -> dict[str, Row]:
    """The rows of a committed measurement, by name."""
    read = json.loads((REFERENCE / f"{name}.json").read_text())
    return {row["name"]: row for row in read["rows"]}


def ratio(row: Row) -> str:
    return f"{row['ratio']:.2f} ({row['lowest']:.2f} to {row['highest']:.2f})"


def tabled(measured: dict[str, Row]) -> Sequence[Sequence[str]]:
    lines = []
    for name, row in measured.items():
        if "ratio" not in row:
            continue
        sides = [seconds(row[f"{side}_seconds"]) for side in ("baseline", "ours")]
        if name.startswith("arithmetic"):
            facts = row["facts"]
            rates = (facts["peak_flop_per_second"], facts["flop_per_second"])
            sides = [f"{rate / 1e9:.0f} GFLOP/s" for rate in rates]
        lines.append((name, *map(told, sides), told(ratio(row))))
    return lines


def of_speed() -> Iterator[Claim]:
    free, held, half = rows("speed"), rows("speed-avx2"), rows("speed-bfloat16")
    yield Tabled(PLACE, HEADS, tabled(free))
    facts = {name: row["facts"] for name, row in free.items()}
    inception, lite = (facts[f"features, {name}"] for name in ("inception", "efficientnet_lite0"))
    yield Says(
        PLACE,
        f"With our features Inception's distance to other images is {off(inception)} % off what "
        f"pytorch-fid's give, EfficientNet's {off(lite)} %.",
    )
    whole, ray = facts["overhead"], facts["engine ray"]
    yield Says(
        PLACE,
        f"A run takes {rounded(whole['seconds_per_run'], 1)} s beyond training and measuring, "
        f"which is {number(whole['share_of_quick'] * 100, 1)} % of one of `quick`; a worker's "
        f"imports take {number(whole['seconds_of_imports'], 1)} s once.",
    )
    costs = [
        [number(ray[f"seconds_{what}_{name}"], digits) for name in ("ray", "local")]
        for what, digits in (("per_run", 3), ("before_the_first", 1))
    ]
    yield Says(
        PLACE,
        f"A run costs {costs[0][0]} s on Ray and {costs[0][1]} s on local processes, beyond "
        f"training and measuring, and the first one waits {costs[1][0]} s and {costs[1][1]} s.",
    )
    one = facts["arithmetic, 1 thread"]
    shares = [
        number(one[f"share_{part}"] * 100)
        for part in (
            "convolutions_and_products",
            "element-wise,_sums_and_copies",
            "optimiser",
        )
    ]
    yield Says(
        PLACE,
        f"Of the time of a step of `conv_vae` {shares[0]} % goes into convolutions and products, "
        f"{shares[1]} % into element-wise work, sums and copies, {shares[2]} % into Adam.",
    )
    models = [facts[f"training, {name}, 1 thread"] for name in ("hierarchical", "svg")]
    rates = [number(model["flop_per_second"] / 1e9) for model in models]
    yield Says(PLACE, f"The steps of `hierarchical` and `svg` reach {' and '.join(rates)} GFLOP/s:")
    yield Tabled(PLACE, ("held to AVX2", *HEADS[1:]), tabled(held))
    yield Tabled(PLACE, ("in bfloat16", *HEADS[1:]), tabled(half))
    parts = facts["evaluation"]
    (bound,) = (name for name in parts if name.startswith("seconds_of_bound_of_"))
    draws = number(int(bound.split("_")[4]))
    taken = [
        number(parts[name], 1)
        for name in (
            "seconds_of_likelihoods",
            bound,
            "seconds_of_features",
            "seconds_of_samples_and_distances",
        )
    ]
    yield Says(
        PLACE,
        f"Of the {number(parts['seconds'], 1)} s that measuring a run of `quick` takes here, the "
        f"likelihoods take {taken[0]} s, the bound of {draws} draws {taken[1]} s, the feature "
        f"network {taken[2]} s, samples and distances {taken[3]} s.",
    )
    training = free["training, 1 thread"]["ratio"]
    share = free["arithmetic, 1 thread"]["ratio"]
    yield Says(
        "In float32",
        f"a step that took {number(share, 2)} of the peak and was {number(training, 2)} times as "
        f"fast as a tutorial's could become {number(training / share, 1)} times as fast at the "
        "peak itself",
    )


def off(facts: dict[str, float]) -> str:
    return rounded(facts["relative_difference"] * 100, 1)
