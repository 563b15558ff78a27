from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from bench.report.findings import findings
from tests.bench.report.conftest import realistic

if TYPE_CHECKING:
    from bench.run import Features
    from tests.bench.report.conftest import Results


def said(results: Results, expected: int | None = None) -> dict[str, str]:
    told = findings(results.table(expected=expected))
    shows = " ".join(sentence for _, sentences in told.shows for sentence in sentences)
    return {
        "run": " ".join(told.run),
        "cost": " ".join(told.cost),
        "shows": shows.replace("\u00a0", " "),
        "cannot": " ".join(told.cannot),
    }


def test_a_reader_who_was_not_there_is_told_the_whole_story(results: Results) -> None:
    told = said(realistic(results))
    assert "7 decoders on 2 data sets (fashion_mnist and mnist5k)" in told["run"]
    assert "40 runs completed and 2 diverged" in told["run"]
    assert "of which the search took 12 runs and 4 min 00 s" in told["cost"]
    assert "Lowest -log p of the densities: per_pixel" in told["shows"]
    assert "Lowest bits/dim: categorical" in told["shows"]
    assert "beta (tuned, β=0.0096), after 6 tuning runs, 2 min 00 s" in told["shows"]
    assert "nats per image worse" in told["shows"]
    for limit in ("3 seeds", "fewer samples than features", "not FID", "probability", "2 runs div"):
        assert limit in told["cannot"]


def test_a_tie_is_told_as_one(results: Results) -> None:
    for seed, noise in enumerate((1.0, -2.0, 1.5)):
        results.add("shared", seed=seed, metrics={"neg_log_p": -900.0 + 7 * seed})
        results.add("optimal", seed=seed, metrics={"neg_log_p": -900.0 + 7 * seed + noise})
    assert "shared (-893 ± 17), not told apart from optimal" in said(results)["shows"]


@pytest.mark.parametrize(
    ("beta", "verdict"),
    [
        ((-920.0, -921.0, -919.5), "nats per image better in -log p (paired t-test over seeds, p"),
        ((-901.0, -899.0, -901.5), "no difference found"),
        ((-920.0,), "with one seed in common, which tests nothing"),
    ],
)
def test_whether_a_tuned_beta_beats_the_learned_sigma_is_said(
    results: Results, beta: tuple[float, ...], verdict: str
) -> None:
    for seed in range(3):
        results.add("shared", seed=seed, metrics={"neg_log_p": -900.0 - seed / 10})
    tuned = {"rule": "tuned", "search": "0" * 16}
    results.add_search(
        [
            results.add(
                {"name": "beta", "beta": 0.01},
                seed=seed,
                selection=tuned,
                metrics={"neg_log_p": value},
            )
            for seed, value in enumerate(beta)
        ],
        0.01,
    )
    assert verdict in said(results)["shows"]


def test_one_seed_of_one_decoder_shows_little_and_says_so(
    results: Results, inception: Features
) -> None:
    results.add(features=inception, metrics={"neg_log_p": 1.0, "fid": 3.0})
    told = said(results)
    assert told["shows"] == ""
    assert "One seed" in told["cannot"]
    assert "not FID" not in told["cannot"]
