from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from bench.errors import RequestError
from bench.files import write_checked
from bench.records.frame import frame
from bench.records.rows import rows
from bench.records.store import Store
from bench.report.layout import layout
from bench.report.tables import build

if TYPE_CHECKING:
    from bench.run import Features
    from tests.bench.report.conftest import Results

TUNED = {"rule": "tuned", "search": "0000000000000000"}


def beta(value: float) -> dict[str, object]:
    return {"name": "beta", "beta": value}


@settings(max_examples=8, deadline=None)
@given(st.lists(st.floats(-1e4, 1e4), min_size=2, max_size=6))
def test_the_interval_is_students_t_over_seeds(
    new_results: Callable[[], Results], values: list[float]
) -> None:
    results = new_results()
    for seed, value in enumerate(values):
        results.add(seed=seed, metrics={"neg_log_p": value})
    row = results.table().frame.iloc[0]
    error = float(stats.sem(values))
    assert row["neg_log_p"] == pytest.approx(np.mean(values), abs=1e-9)
    if error > 1e-6:
        low, high = stats.t.interval(0.95, len(values) - 1, np.mean(values), error)
        assert 2 * row["neg_log_p_half_width"] == pytest.approx(high - low)


def test_one_seed_has_no_interval(results: Results) -> None:
    results.add()
    row = results.table().frame.iloc[0]
    assert row["n"] == 1
    assert row["neg_log_p"] == -900
    assert math.isnan(row["neg_log_p_half_width"])


def test_hundreds_of_metrics_draw_no_warning(results: Results) -> None:
    """As many as runs on videos have; pandas warns of a frame that is put together column by
    column, and here warnings are errors."""
    for seed in range(2):
        results.add(seed=seed, metrics={f"iwae_{k}": -900.0 - seed for k in range(1, 200)})
    assert results.table().frame.iloc[0]["iwae_199"] == -900.5


def test_rows_differ_in_anything_but_the_seed(results: Results) -> None:
    for seed in range(3):
        results.add("shared", seed=seed)
        results.add({"name": "shared", "sigma_lr": 5.0}, seed=seed)
        results.add("optimal", seed=seed)
        results.add("shared", seed=seed, model={"name": "conv_vae", "width": 16})
    table = results.table().frame
    assert list(zip(table["model"], table["decoder"], table["n"], strict=True)) == [
        ("conv_vae", "shared", 3),
        ("conv_vae", "shared (sigma_lr=5)", 3),
        ("conv_vae", "optimal", 3),
        ("conv_vae (width=16)", "shared", 3),
    ]


def test_an_option_switched_off_is_not_its_default(results: Results) -> None:
    results.add("shared")
    results.add({"name": "shared", "min_log_sigma": None})
    labels = set(results.table().frame["decoder"])
    assert labels == {"shared", "shared (min_log_sigma=None)"}


def test_runs_under_other_settings_are_never_averaged(results: Results) -> None:
    results.add(metrics={"neg_log_p": 1.0}, training={"epochs": 2})
    results.add(metrics={"neg_log_p": 2.0}, training={"epochs": 10}, seed=1)
    results.add(metrics={"neg_log_p": 3.0}, training={"epochs": 10}, evaluation={"batch": 50})
    table = results.table().frame
    assert dict(zip(table["decoder"], table["neg_log_p"], strict=True)) == {
        "shared [epochs=2, evaluation.batch=100]": 1.0,
        "shared [epochs=10, evaluation.batch=100]": 2.0,
        "shared [epochs=10, evaluation.batch=50]": 3.0,
    }


def test_an_extractor_moved_to_another_path_is_the_same(
    results: Results, inception: Features
) -> None:
    results.add(features=inception)
    results.add(features=inception.model_copy(update={"source": "/elsewhere"}), seed=1)
    assert list(results.table().frame["n"]) == [2]


def test_another_extractor_is_another_row(results: Results, inception: Features) -> None:
    results.add(features=inception)
    results.add(features=inception.model_copy(update={"sha256": "ff" * 32}))
    results.add(features=None)
    assert list(results.table().frame["decoder"]) == [
        "shared [evaluation.features=inception, evaluation.features.sha256=6726825d]",
        "shared [evaluation.features=inception, evaluation.features.sha256=ffffffff]",
        "shared [evaluation.features=none, evaluation.features.sha256=none]",
    ]


def test_a_tuned_row_is_its_searchs_runs_and_carries_its_cost(results: Results) -> None:
    results.add(beta(1.0))
    finals = [results.add(beta(0.0123), seed=seed, selection=TUNED) for seed in range(2)]
    search = results.add_search(finals, 0.0123)
    results.add(beta(5.0), seed=1000, evaluation={"split": "validation"}, selection=TUNED)
    table = results.table().frame.set_index("decoder")
    assert list(table.index) == ["beta (beta=1)", "beta (tuned, β=0.0123)"]
    assert list(table["n"]) == [1, 2]
    assert list(table["runs"]) == [1, 2 + search["cost"]["runs"]]
    assert list(table["seconds"]) == [60, 2 * 60 + search["cost"]["seconds"]]


def test_a_search_may_choose_a_value_that_is_also_given_by_hand(results: Results) -> None:
    by_hand = results.add(beta(0.1))
    results.add_search([by_hand], 0.1)
    assert list(results.table().frame["decoder"]) == ["beta (beta=0.1)", "beta (tuned, β=0.1)"]


def test_two_searches_with_one_choice_are_told_apart(results: Results) -> None:
    run = results.add(beta(0.1), selection=TUNED)
    results.add_search([run], 0.1)
    results.add_search([run], 0.1)
    labels = list(results.table().frame["decoder"])
    assert len(set(labels)) == 2


def test_a_search_without_a_result_has_a_row(results: Results) -> None:
    results.add_search([], None)
    table = results.table().frame.set_index("decoder")
    row = table.loc["beta (tuned, no value worked)"]
    assert (row["n"], row["runs"], row["seconds"]) == (0, 6, 120)


def test_a_tuned_run_without_its_searchs_summary_is_shown(results: Results) -> None:
    results.add(beta(0.5), selection=TUNED)
    assert list(results.table().frame["decoder"]) == ["beta (tuned, β=0.5)"]


def test_diverged_and_failed_runs_are_counted_and_in_no_mean(results: Results) -> None:
    results.add(seed=0, metrics={"neg_log_p": -5.0})
    results.add(seed=1, status="diverged")
    results.add(seed=2, status="failed")
    results.add("optimal", status="diverged")
    table = results.table().frame.set_index("decoder")
    assert list(table.loc["shared", ["n", "diverged", "failed", "neg_log_p"]]) == [1, 1, 1, -5]
    assert list(table.loc["optimal", ["n", "diverged"]]) == [0, 1]


def test_only_tuning_trials_make_no_table(results: Results) -> None:
    results.add(evaluation={"split": "validation"})
    with pytest.raises(RequestError, match="tuning trials only"):
        results.table()


@pytest.mark.parametrize(
    ("grid", "expected"),
    [
        ("table1", (-3333, 22.25, 1)),
        ("table2-svhn", (-3349, 22.25, 2)),
        ("mine", (-3349, 22.25, 2)),
    ],
)
def test_the_published_sigma_vae_is_that_of_the_grids_table(
    results: Results, inception: Features, grid: str, expected: tuple[float, float, int]
) -> None:
    results.add(dataset="svhn", features=inception, metrics={"neg_log_p": -3000, "fid": 30.0})
    row = results.table(grid).frame.iloc[0]
    columns = ["published_neg_log_p", "published_fid", "published_table"]
    assert tuple(row[columns]) == expected


def test_a_published_beta_matches_by_value_or_by_being_tuned(results: Results) -> None:
    results.add(beta(0.1), dataset="svhn")
    results.add(beta(0.2), dataset="svhn")
    results.add_search([results.add(beta(0.003), dataset="svhn", selection=TUNED)], 0.003)
    table = results.table("table1").frame.set_index("decoder")
    assert table.loc["beta (beta=0.1)", "published_neg_log_p"] == -1223
    assert math.isnan(table.loc["beta (beta=0.2)", "published_neg_log_p"])
    assert table.loc["beta (tuned, β=0.003)", "published_neg_log_p"] == -3186
    assert table["published_fid"].isna().all()  # ours is not FID


@pytest.mark.parametrize(
    ("decoder", "changes", "told"),
    [
        ("shared", {}, []),
        ("shared", {"model": {"name": "conv_vae", "width": 8}}, ["width 8 against 32"]),
        ({"name": "shared", "sigma_lr": 20.0}, {}, ["sigma_lr 20 against 1"]),
        ({"name": "optimal", "over": "pixel"}, {}, ["over pixel against batch"]),
        ({"name": "shared", "link": "identity"}, {}, ["link identity against sigmoid"]),
        (
            "shared",
            {"training": {"epochs": 1, "batch": 64, "precision": "bfloat16"}},
            ["epochs 1 against 10, batch 64 against 128"],
        ),
        (
            "shared",
            {"training": {"steps": 500, "ema": 0.99}},
            ["epochs none against 10, steps 500 against none, ema 0.99 against none"],
        ),
    ],
)
def test_a_row_in_another_setting_than_the_papers_is_said_to_be(
    results: Results, decoder: dict[str, object] | str, changes: dict[str, Any], told: list[str]
) -> None:
    results.add(decoder, dataset="svhn", **changes)
    notes = results.table("table2-svhn").frame["notes"][0]
    assert [note.text for note in notes] == [f"not the paper's setting: {text}" for text in told]
    assert {note.column for note in notes} <= {"published_neg_log_p"}


HVAE = "stands in for the paper's HVAE, whose size is unpublished"


def test_a_model_that_stands_in_is_said_to_and_its_size_is_not_compared(results: Results) -> None:
    model = {"name": "hierarchical", "size": "small"}
    results.add({"name": "shared", "sigma_lr": 10.0}, dataset="cifar10", model=model)
    notes = results.table("table2-cifar10").frame["notes"][0]
    assert [note.text for note in notes] == [HVAE, "not the paper's setting: sigma_lr 10 against 1"]


@pytest.mark.parametrize(("constant", "impossible"), [(2918.0, True), (7200.0, False)])
def test_a_published_sigma_of_1_that_cannot_be_is_told_with_the_arithmetic(
    results: Results, constant: float, impossible: bool
) -> None:
    """3072 / 2 ln 2π = 2823 nats are the least that σ = 1 costs; the paper prints 7186."""
    results.add(
        "gaussian",
        dataset="cifar10",
        model={"name": "hierarchical"},
        metrics={"neg_log_p": 2900.0, "unit_sigma_constant": constant},
    )
    texts = [note.text for note in results.table("table2-cifar10").frame["notes"][0]]
    assert texts[0] == HVAE
    assert len(texts) == 1 + impossible
    if impossible:
        assert "from 2823 nats" in texts[1]
        assert "to 2918 " in texts[1]


@pytest.mark.parametrize(
    ("decoder", "learned", "moving"),
    [
        ("shared", 0.31, True),
        ("shared", 0.18, False),
        # Right for the training images, where the model overfits.
        ("shared", 0.14, False),
        ("per_pixel", 0.31, False),
    ],
)
def test_a_shared_sigma_far_above_the_fitted_one_is_warned_of(
    results: Results, decoder: str, learned: float, moving: bool
) -> None:
    results.add(decoder, metrics={"neg_log_p": 1.0, "sigma": learned, "sigma_fitted": 0.17})
    notes = results.table().frame["notes"][0]
    assert [note.column for note in notes] == (["sigma"] if moving else [])
    assert not moving or "learned 0.31, the data ask for 0.17" in notes[0].text


@pytest.mark.parametrize(
    ("metrics", "noted"),
    [
        ({"iwae_16": 900.0, "iwae_16_ess": 1.2}, ["iwae_16"]),
        ({"iwae_16": 900.0, "iwae_16_ess": 3.4}, []),
        # One draw has an effective sample size of 1, and an old record states none.
        ({"iwae_1": 900.0}, []),
        # Of two draws, 1.5 is not few.
        ({"iwae_2": 900.0, "iwae_2_ess": 1.5}, []),
    ],
)
def test_a_bound_that_one_draw_dominates_has_a_footnote(
    results: Results, metrics: dict[str, float], noted: list[str]
) -> None:
    results.add(metrics={"neg_log_p": -890.0, **metrics})
    notes = results.table().frame["notes"][0]
    assert [note.column for note in notes] == noted
    assert not noted or "of 16 draws" in notes[0].text


@pytest.mark.parametrize(("samples", "singular"), [(1000, True), (1280, True), (5000, False)])
def test_fewer_samples_than_features_are_warned_of(
    results: Results, samples: int, singular: bool
) -> None:
    metrics = {"neg_log_p": 1.0, "fd_efficientnet_lite0": 12.0}
    results.add(metrics=metrics, evaluation={"samples": samples})
    notes = results.table().frame["notes"][0]
    assert [note.column for note in notes] == (["fd_efficientnet_lite0"] if singular else [])
    assert not singular or notes[0].text.startswith(f"{samples} samples ≤ 1280 features")


def test_beside_a_singular_covariance_the_distance_without_one_is_named(results: Results) -> None:
    sliced = {"md_efficientnet_lite0": 3.0, "md_efficientnet_lite0_floor": 1.0}
    results.add(metrics={"neg_log_p": 1.0, "fd_efficientnet_lite0": 12.0} | sliced)
    (note,) = results.table().frame["notes"][0]
    assert note.text.endswith("within this table only; MD efficientnet lite0 needs none")


def test_a_decoder_without_a_likelihood_has_a_blank_and_a_reason(results: Results) -> None:
    results.add("mse", metrics={"mse": 0.01})
    results.add("shared")
    row = results.table().frame.iloc[0]
    assert math.isnan(row["neg_log_p"])
    assert [note.column for note in row["notes"]] == ["neg_log_p"]


def test_a_decoder_of_another_version_keeps_all_its_options(results: Results) -> None:
    results.add()
    records = list(Store(results.folder).records())
    records[0]["run"]["decoder"] = {"name": "departed", "scale": 2.0}
    assert list(rows(frame(records), []).table["decoder"]) == ["departed (scale=2)"]


def test_the_caption_tells_the_options_of_training_that_are_on(results: Results) -> None:
    on = {"steps": 500, "batch": 64, "optimizer": "adamw", "betas": (0.9, 0.9), "ema": 0.999}
    results.add(training={**on, "weight_decay": 0.01, "warm_up": 100, "clip": 200.0})
    results.add("optimal", training={**on, "schedule": "cosine", "skip": 400.0, "flips": True})
    results.add("shared", training={**on, "dequantise": True})
    (told,) = [text for text in results.table().caption if text.startswith("Training: ")]
    assert told == (
        "Training: 500 steps, batch 64, adamw, learning rate 0.001, float32; betas (0.9, 0.9), "
        "weight decay 0.01 (not in all rows), warm-up over 100 steps (not in all rows), "
        "cosine schedule (not in all rows), gradient norm clipped at 200 (not in all rows), "
        "steps with a norm above 400 skipped (not in all rows), scored with averages of the "
        "weights (decay 0.999), half of the images mirrored (not in all rows), "
        "uniform noise of one level on the images, in scoring too (not in all rows)."
    )


def test_the_caption_tells_the_protocol(results: Results) -> None:
    results.add(metrics={"neg_log_p": -1.0, "iwae_64": 2.0, "fd_efficientnet_lite0": 3.0})
    finals = [results.add(beta(0.1), selection=TUNED, metrics={"neg_log_p": 1.0})]
    results.add_search(finals, 0.1)
    caption = " ".join(results.table(expected=6).caption)
    for fact in (
        "Partial: 2 of 6 runs",
        "10 epochs, batch 128, adam, learning rate 0.001, float32",
        "1000 images of the test split",
        "frozen from the training split",
        "1280 features of efficientnet_lite0 (weights sha256 ab12cd34)",
        "it is not FID",
        "6 trials between 0.001 and 10",
        "trial seed 1000",
        "Student's t",
    ):
        assert fact in caption
    assert "Paper" not in caption
    assert "Partial" not in " ".join(results.table(expected=2).caption)


def test_the_caption_tells_what_real_images_have(results: Results, inception: Features) -> None:
    for seed in (0, 1):
        lite = {"fd_efficientnet_lite0": 90.0 + seed, "fd_efficientnet_lite0_floor": 12.34}
        results.add(seed=seed, metrics=lite, distance={"training_images": 500})
    lite["fd_efficientnet_lite0_floor"] = 30.0
    results.add(dataset="photos", metrics=lite, distance={"training_images": 700})
    results.add(features=inception, metrics={"fid": 80.0})
    told = [text for text in results.table().caption if "training images in place" in text]
    assert told == [
        "FD efficientnet lite0 of training images in place of samples: 12.3 on mnist5k (500 "
        "images) and 30 on photos (700 images); a perfect model could expect as much."
    ]
    assert "fd_efficientnet_lite0_floor" not in results.table().metrics
    assert "fd_efficientnet_lite0_floor" in results.table().available


def test_the_caption_warns_of_a_data_set_that_proves_little(results: Results) -> None:
    results.add(dataset="mnist5k")
    assert "seven photographs" not in " ".join(results.table().caption)
    results.add(dataset="photos[:500]")
    assert "photos[:500]: tiles of seven photographs" in " ".join(results.table().caption)


def test_the_best_row_and_its_ties_are_known_by_metric(results: Results) -> None:
    for seed, (near, far) in enumerate([(1.0, 9.0), (-1.2, 9.1), (0.4, 9.2)]):
        metrics = {"neg_log_p": 7.0 * seed, "mse": 0.5, "rate": 3.0}
        results.add("shared", seed=seed, metrics=metrics)
        results.add("optimal", seed=seed, metrics=metrics | {"neg_log_p": 7.0 * seed + near})
        results.add("gaussian", seed=seed, metrics=metrics | {"neg_log_p": 7.0 * (seed + far)})
    table = results.table()
    best = table.frame.set_index("decoder")["best"]
    assert [("neg_log_p" in best[d]) for d in ("shared", "optimal", "gaussian")] == [True, True, 0]
    assert all("mse" in metrics for metrics in best)
    assert not any("rate" in metrics for metrics in best)  # neither direction is better
    assert "3 standard errors of the difference" in " ".join(table.caption)


def test_densities_of_dequantised_data_are_apart_from_those_of_levels(results: Results) -> None:
    for seed, better in enumerate((-905.0, -900.0, -895.0)):
        results.add("shared", seed=seed, metrics={"neg_log_p": better})
        worse = {"neg_log_p": better + 500}
        results.add("shared", seed=seed, metrics=worse, training={"dequantise": True})
    assert list(results.table().frame["tested"]) == [(), ()]


def test_with_one_seed_nothing_is_bold(results: Results) -> None:
    results.add("shared", metrics={"neg_log_p": 1.0})
    results.add("optimal", metrics={"neg_log_p": 1.0001})
    table = results.table()
    assert not any(table.frame["best"])
    assert "Nothing is bold" in " ".join(table.caption)


def test_rows_of_other_protocols_or_places_are_not_compared(results: Results) -> None:
    results.add(metrics={"neg_log_p": 1.0})
    results.add(metrics={"neg_log_p": 2.0}, evaluation={"batch": 50})
    results.add(metrics={"neg_log_p": 3.0}, dataset="mnist")
    assert not any(results.table().frame["best"])


def test_the_number_of_weighted_draws_keeps_no_rows_apart(results: Results) -> None:
    for seed in range(2):
        few, many = {"iwae": 16}, {"iwae": 64}
        results.add(seed=seed, metrics={"neg_log_p": 1.0 + seed}, evaluation=few)
        results.add(seed=seed, metrics={"neg_log_p": 20.0 + seed}, evaluation=many)
    assert list(results.table().frame["best"]) == [("neg_log_p",), ()]


def test_temperatures_keep_no_rows_apart_and_are_told(results: Results) -> None:
    for seed in range(2):
        results.add(seed=seed, metrics={"neg_log_p": 1.0 + seed})
        metrics = {"neg_log_p": 20.0 + seed, "fd_efficientnet_lite0": 3.0}
        metrics |= {"fd_efficientnet_lite0_t0.7": 2.0, "fd_efficientnet_lite0_t0.85": 2.5}
        record = results.add(seed=seed, metrics=metrics, evaluation={"temperatures": (0.7, 0.85)})
        record["protocol"]["distance"]["tempered_are"] = "draws times t"
        write_checked(Store(results.folder).folder_of(record["id"]) / "record.json", record)
    table = results.table()
    assert ("neg_log_p",) in list(table.frame["best"])
    assert not [name for name in table.metrics if "_t0" in name]
    caption = " ".join(table.caption)
    lite = "FD efficientnet lite0"
    assert f"{lite} at t = 0.7 and {lite} at t = 0.85: the same of draws times t." in caption
    assert f"No t was chosen by its distance; {lite} has t = 1." in caption


def test_counts_that_agree_by_chance_are_no_certainty(results: Results) -> None:
    """Two and three of 250 images are precise, in both seeds: chance, unlike 75 of 250."""
    for seed in range(2):
        for decoder, share in (("shared", 0.012), ("optimal", 0.008)):
            error = np.sqrt(share * (1 - share) / 250)
            results.add(decoder, seed=seed, metrics={"precision": share, "precision_se": error})
    assert list(results.table().frame["best"]) == [("precision",), ("precision",)]
    for seed in range(2):
        metrics = {"precision": 0.3, "precision_se": 0.029}
        results.add("gaussian", seed=seed, metrics=metrics)
    best = results.table().frame.set_index("decoder")["best"]
    assert best.to_dict() == {"gaussian": ("precision",), "shared": (), "optimal": ()}


def test_a_probability_is_best_only_where_no_density_stands(results: Results) -> None:
    def add(decoder: str, value: float) -> None:
        for seed in range(2):
            value += seed / 10
            metrics = {"neg_log_p": value, "bits_per_dim": value}
            results.add(decoder, seed=seed, metrics=metrics)

    add("categorical", 1.0)
    add("bitwise_categorical", 2.0)
    assert list(results.table().frame["best"]) == [("neg_log_p", "bits_per_dim"), ()]
    add("shared", 5.0)
    add("optimal", 6.0)
    best = results.table().frame.set_index("decoder")["best"]
    assert best["shared"] == ("neg_log_p",)
    assert best["categorical"] == ("bits_per_dim",)


def test_columns_can_be_chosen_and_a_slip_is_met_with_a_suggestion(results: Results) -> None:
    results.add(metrics={"neg_log_p": 1.0, "rate": 2.0})
    store = Store(results.folder)
    records = frame(store.records())
    assert build(records, [], "grid", columns=["rate", "runs"]).columns == ("rate", "runs")
    with pytest.raises(RequestError, match=r"--columns rat: did you mean 'rate'\?"):
        build(records, [], "grid", columns=["rat"])


def test_a_table_and_its_caption_have_what_tuning_each_row_took(results: Results) -> None:
    results.add("gaussian")
    tuned = {"rule": "tuned", "search": "0" * 16}
    run = results.add({"name": "beta", "beta": 0.02}, selection=tuned)
    trial = {"value": 0.02, "runs": ["a"], "scores": [1.0], "score": 1.0, "seconds": 20.0,
             "status": "completed"}  # fmt: skip
    results.add_search([run], 0.02, trials=[trial] * 6)
    table = results.table()
    shown = layout(table)
    places = [shown.columns.index(name) for name in ("tuning_runs", "tuning_seconds")]
    assert [str(shown.headers[place]) for place in places] == ["tuning runs", "tuning time"]
    assert [[str(line[place]) for place in places] for line in shown.lines] == [
        ["", ""],
        ["6", "2 min 00 s"],
    ]
    assert (
        "Spent on tuning: nothing for gaussian; 6 trials, 6 runs and 2 min 00 s for beta (tuned, "
        "β=0.02)."
    ) in table.caption


def test_a_table_of_untuned_rows_says_nothing_of_tuning(results: Results) -> None:
    results.add("gaussian")
    table = results.table()
    assert "tuning_runs" not in layout(table).columns
    assert not any("tuning" in sentence for sentence in table.caption)
