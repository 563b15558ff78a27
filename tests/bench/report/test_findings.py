from __future__ import annotations

import math
from typing import TYPE_CHECKING

import pytest

from bench.records.searches import current
from bench.report.captions import edges_of
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
        ((-920.0, -921.0, -919.5), "search: 20.1 nats per image better in -log p."),
        ((-901.0, -899.0, -901.5), "search: not told apart (0.4 nats per image better"),
        ((-920.0,), "one of them with a single seed, which tells nothing"),
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


def test_a_row_with_one_seed_is_named_as_not_compared(results: Results) -> None:
    for seed in range(2):
        results.add("shared", seed=seed, metrics={"neg_log_p": -900.0 - seed})
        results.add("gaussian", seed=seed, metrics={"neg_log_p": 740.0 - seed})
    results.add("optimal", metrics={"neg_log_p": -1000.0})
    shows = said(results)["shows"]
    assert "Lowest -log p: shared (-900.5 ± 6.4); not compared, with one seed: optimal." in shows


@pytest.mark.parametrize(
    ("chosen", "end"), [(0.0014, "lower"), (7.0, "upper"), (0.002, ""), (6.0, "")]
)
def test_a_choice_at_the_end_of_its_range_is_said_everywhere(
    results: Results, chosen: float, end: str
) -> None:
    tuned = {"rule": "tuned", "search": "0" * 16}
    run = results.add({"name": "beta", "beta": chosen}, selection=tuned)
    search = results.add_search([run], chosen)
    told = f"at the {end} end of its range (0.001 to 10)"
    table = results.table()
    notes = [note.text for note in table.frame["notes"][0] if note.column == "decoder"]
    assert [told in note for note in notes] == ([True] if end else [])
    assert (told in said(results)["shows"]) == bool(end)
    sentences = edges_of(current(search))
    assert [told in sentence for sentence in sentences] == ([True] if end else [])


def test_a_row_in_another_setting_is_not_held_against_the_paper(results: Results) -> None:
    results.add({"name": "shared", "sigma_lr": 20.0}, dataset="mnist", metrics={"neg_log_p": 1.0})
    assert "Against the paper" not in said(results)["shows"]
    results.add("gaussian", dataset="mnist", metrics={"neg_log_p": 741.5})
    assert "-log p (1 row) ours is 1 away" in said(results)["shows"]


def test_the_learned_beta_is_placed_at_the_bend_that_the_data_show(results: Results) -> None:
    for beta in (1e-4, 1e-3, 0.01, 0.1, 1.0, 10.0):
        nats = 5 + 9 * max(0.0, math.log(0.01 / beta))
        metrics = {"rate": nats, "mutual_information": 4.9, "marginal_kl": nats - 4.9}
        results.add({"name": "beta", "beta": beta}, metrics={**metrics, "beta_effective": beta})
    results.add("shared", metrics={**metrics, "beta_effective": 0.1})
    told = said(results)["shows"]
    assert "where the marginal KL bends: it is known at 4 of 6 values of β only" in told
    assert "The rate bends at β = 0.01 (" in told
    assert "shared learned β = 0.1, 10 times above this bend." in told
