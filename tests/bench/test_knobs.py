"""Any option is tuned, several by one search, and what an older version tuned is still read."""

import doctest
import math
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Literal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench import tuning
from bench.files import write_checked
from bench.grid import knob
from bench.grid.expand import Row
from bench.grid.knob import Knob
from bench.grid.read import read_grid
from bench.records import searches
from bench.records.searches import chosen_by
from bench.records.store import Record, Store
from bench.run import Run
from tests.bench.driven import answer, beta_of, drive, resumed

ROOT = Path(__file__).resolve().parents[2]
LR = {"low": 1e-4, "high": 1e-1}
SEVERAL = {"trials": 12, "sampler": "tpe"}


@pytest.fixture
def joint(expand: Callable[..., list[Row]]) -> Callable[..., Row]:
    """A row that tunes β and the learning rate at once."""

    def make(**settings: object) -> Row:
        return expand(
            decoders=[{"name": "beta", "beta": {"tune": {"low": 0.001, "high": 10}}}],
            training={"epochs": 2, "batch": 70, "lr": {"tune": LR}},
            search={**SEVERAL, **settings},
            seeds=[0, 1],
        )[0]

    return make


def valley(run: Run) -> Record:
    """Best at β = 0.03 with a learning rate of 0.003, the one's best depending on the other."""
    beta, lr = math.log(beta_of(run) / 0.03), math.log(run.training.lr / 0.003)
    return answer(run, beta**2 + lr**2 + beta * lr)


@pytest.mark.parametrize("sampler", ["tpe", "random", "qmc", "gp"])
def test_two_options_are_set_by_one_search(joint: Callable[..., Row], sampler: str) -> None:
    row = joint(sampler=sampler, trials=16)
    assert [knob.name for knob in row.knobs] == ["beta", "training.lr"]
    choice, runs = drive(row, valley)
    assert len(choice.trials) == len(runs) == 16
    assert choice.values is not None
    best = min(choice.trials, key=lambda trial: trial.score or 0.0)
    assert choice.values == best.values
    # The start alone, eight even points over four and three decades, is within this of the best.
    assert best.score is not None
    assert best.score < math.log(10) ** 2
    finals = tuning.final_runs(row, choice)
    assert {(beta_of(run), run.training.lr) for run in finals} == {choice.values}
    assert {run.evaluation.split for run in finals} == {"test"}
    assert {run.seed for run in finals} == {0, 1}


def test_a_model_of_both_options_finds_the_bottom(joint: Callable[..., Row]) -> None:
    """A Gaussian process over both comes closer to the bottom than the even start."""
    choice, _ = drive(joint(sampler="gp", trials=16), valley)
    start = min(trial.score for trial in choice.trials[:8] if trial.score is not None)
    assert min(t.score for t in choice.trials if t.score is not None) < min(0.1, start)


@pytest.mark.parametrize("sampler", ["tpe", "gp"])
def test_a_joint_search_resumes_from_any_of_its_records(
    joint: Callable[..., Row], sampler: str
) -> None:
    row = joint(sampler=sampler, trials=9 if sampler == "tpe" else 6, seeds=[10, 11])
    choice, runs = drive(row, valley)
    draws = np.random.default_rng(0)
    for share in (0.2, 0.6, 0.9) if sampler == "tpe" else (0.4,):
        there = {run.id for run in runs if draws.random() < share}
        found, computed = resumed(row, valley, there)
        assert found == (choice, runs)
        assert computed == [run.id for run in runs if run.id not in there]


def test_the_start_of_a_joint_search_has_every_part_of_each_range_once(
    joint: Callable[..., Row],
) -> None:
    row = joint(trials=16)
    assert len(row.start) == 8
    for place, tuned in enumerate(row.knobs):
        parts = sorted(int(tuned.place(values[place]) * 8) for values in row.start)
        assert parts == list(range(8))
    assert len(joint(trials=12).start) == 4  # the largest power of two within half of them
    assert len(joint(trials=12, startup=6).start) == 6
    assert len(joint(trials=3).start) == 3


def test_a_joint_search_is_remembered_and_known_by_all_that_decides_it(
    joint: Callable[..., Row], tmp_path: Path
) -> None:
    searched, store = joint(), Store.open(tmp_path, "small")
    choice, runs = drive(searched, valley)
    for run in runs:
        write_checked(store.run_folder(run) / "record.json", valley(run))
    write_checked(tuning.summary_path(searched, store), tuning.summary(searched, choice))
    assert tuning.recall(searched, store) == choice
    others = [joint(trials=9), joint(sampler="gp"), joint(seeds=[7])]
    assert len({tuning.search_id(one) for one in (searched, *others)}) == 4
    assert tuning.search_id(joint()) == tuning.search_id(searched)


def test_whole_numbers_stay_whole_and_are_tried_once_at_the_start(
    expand: Callable[..., list[Row]],
) -> None:
    models = [{"name": "conv_vae", "width": 2, "latent": {"tune": {"low": 2, "high": 5}}}]
    (row,) = expand(models=models, decoders=["optimal"], search={"trials": 10, "sampler": "tpe"})
    assert row.start == ((2,), (3,), (4,), (5,))

    def score(run: Run) -> Record:
        latent = run.model.options["latent"]
        assert type(latent) is int
        return answer(run, abs(latent - 4))

    choice, runs = drive(row, score)
    assert choice.values == (4,)
    assert len(choice.trials) == 10
    # Four values are all there are: a trial that repeats one costs nothing more.
    distinct = {run.id for run in runs}
    assert len(distinct) == 4
    assert tuning.summary(row, choice)["cost"] == {"runs": 4, "seconds": 8.0}


def test_a_range_that_touches_zero_is_linear(expand: Callable[..., list[Row]]) -> None:
    tune = {"low": 0, "high": 0.1, "trials": 4}
    training = {"epochs": 2, "batch": 70, "optimizer": "adamw", "weight_decay": {"tune": tune}}
    (row,) = expand(decoders=["optimal"], training=training)
    assert row.knobs[0].scale == "linear"
    assert [value for (value,) in row.start] == pytest.approx([0.0125, 0.0375, 0.0625, 0.0875])
    said = {**tune, "low": 0.02, "scale": "linear"}
    (row,) = expand(decoders=["optimal"], training={**training, "weight_decay": {"tune": said}})
    assert [value for (value,) in row.start] == pytest.approx([0.03, 0.05, 0.07, 0.09])


@given(
    low=st.floats(1e-6, 10),
    width=st.floats(1e-3, 1e4),
    scale=st.sampled_from(["log", "linear"]),
    share=st.floats(0, 1),
)
def test_a_place_in_a_range_and_its_value_are_one(
    low: float, width: float, scale: Literal["log", "linear"], share: float
) -> None:
    knob = Knob(part="training", option="lr", low=low, high=low + width, scale=scale)
    value = knob.at(share)
    assert knob.low <= value <= knob.high
    # Four digits are kept.
    slack = 1e-3 * value / (value * math.log(knob.high / low) if scale == "log" else width)
    assert knob.place(value) == pytest.approx(share, abs=slack)


@pytest.mark.parametrize("module", [knob, searches])
def test_examples_in_docstrings_run(module: ModuleType) -> None:
    assert doctest.testmod(module).failed == 0


def test_a_summary_of_a_version_that_tuned_one_option_is_read_as_it_was_meant() -> None:
    store = Store(ROOT / "results" / "reference" / "quick")
    (search,) = store.searches()
    ((knob, value),) = chosen_by(search)
    assert (knob.part, knob.option, knob.low, knob.high, knob.scale) == (
        *("decoder", "beta", 0.001, 10, "log"),
    )
    assert [value] in [trial["values"] for trial in search["trials"]]
    run = store.record_of(search["runs"][0])
    assert run is not None
    assert run["run"]["decoder"]["beta"] == value


def test_the_committed_search_is_the_one_that_its_grid_asks_for_today() -> None:
    """Its id was written by a version that could tune one option of a decoder only."""
    grid = read_grid("quick")
    entry = next(entry for entry in grid.decoders if entry.search)
    store = Store(ROOT / "results" / "reference" / "quick")
    (search,) = store.searches()
    record = store.record_of(search["runs"][0])
    assert record is not None
    run = Run.read(record["run"]).model_copy(update={"decoder": entry.spec})
    assert tuning.search_id(Row((run,), entry.knobs, entry.search)) == search["id"]
