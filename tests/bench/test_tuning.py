"""The β search: deterministic, resumed from records alone, and blind to the test split."""

import math
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench import tuning
from bench.files import write_checked
from bench.grid.expand import Row
from bench.grid.schema import Search
from bench.records.store import Record, Store, new_record
from bench.records.validity import COMPLETED, DIVERGED, FAILED
from bench.run import Run

TUNE = {"low": 0.001, "high": 10, "trials": 8}


@pytest.fixture
def row(expand: Callable[..., list[Row]]) -> Callable[..., Row]:
    def make(**tune: object) -> Row:
        entry = {"name": "beta", "beta": {"tune": {**TUNE, **tune}}}
        return expand(decoders=[entry], seeds=[0, 1])[0]

    return make


def beta_of(run: Run) -> float:
    beta: float = run.decoder.options["beta"]
    return beta


def answer(run: Run, score: float | None, objective: str = "neg_log_p") -> Record:
    record = new_record(run, {"rule": "trial"})
    record["cost"] = {"seconds": 2.0}
    if score is None:
        record["status"] = DIVERGED
    else:
        record["metrics"] = {objective: score}
    return record


def drive(row: Row, score: Callable[[Run], Record]) -> tuple[tuning.Choice, list[Run]]:
    steps, seen = tuning.search(row), []
    asked = next(steps)
    while True:
        seen += asked
        try:
            asked = steps.send([score(run) for run in asked])
        except StopIteration as stop:
            return stop.value, seen


def bowl(run: Run) -> Record:
    """Best at β = 0.03."""
    return answer(run, math.log(beta_of(run) / 0.03) ** 2)


@pytest.mark.parametrize("sampler", ["tpe", "random", "qmc", "gp"])
def test_a_search_finds_the_bottom_of_a_bowl(row: Callable[..., Row], sampler: str) -> None:
    choice, runs = drive(row(sampler=sampler, trials=12), bowl)
    assert choice.value is not None
    assert 0.01 < choice.value < 0.09
    assert len(choice.trials) == len(runs) == 12
    assert all(0.001 <= beta_of(run) <= 10 for run in runs)
    best = min(choice.trials, key=lambda trial: trial.score or 0)
    assert choice.value == best.value


def test_the_same_search_asks_for_the_same_runs(row: Callable[..., Row]) -> None:
    first, second = (drive(row(), bowl)[1] for _ in range(2))
    assert [run.id for run in first] == [run.id for run in second]


def test_trials_score_validation_with_their_own_seeds(row: Callable[..., Row]) -> None:
    _, runs = drive(row(seeds=[7, 8], trials=3), bowl)
    assert len(runs) == 6
    assert {run.seed for run in runs} == {7, 8}
    for run in runs:
        assert run.evaluation.split == "validation"
        assert run.evaluation.iwae == run.evaluation.samples == 0
        assert run.evaluation.features is None


@given(low=st.floats(1e-6, 1), ratio=st.floats(1.1, 1e6), trials=st.integers(1, 40))
def test_starting_points_are_evenly_spaced_in_the_logarithm(
    low: float, ratio: float, trials: int
) -> None:
    values = Search(low=low, high=low * ratio, trials=trials).evenly_spaced
    assert len(values) == min(trials, max(4, math.ceil(trials / 2)))
    logs = [math.log(value / low) for value in values]
    expected = [math.log(ratio) * (i + 0.5) / len(values) for i in range(len(values))]
    assert logs == pytest.approx(expected, abs=1e-3)
    assert all(low <= value <= low * ratio for value in values)


def test_a_search_resumes_from_records_alone(row: Callable[..., Row]) -> None:
    """Told the records that exist, it asks for the rest of an undisturbed search's runs."""
    searched = row(trials=6)
    choice, runs = drive(searched, bowl)
    for known in range(len(runs) + 1):
        there = {run.id: bowl(run) for run in runs[:known]}
        computed: list[str] = []

        def look(
            run: Run, there: dict[str, Record] = there, computed: list[str] = computed
        ) -> Record:
            if run.id not in there:
                computed.append(run.id)
            return there.get(run.id) or bowl(run)

        again, _ = drive(searched, look)
        assert again == choice
        assert computed == [run.id for run in runs[known:]]


def test_a_summary_is_believed_while_its_records_are_there(
    row: Callable[..., Row], tmp_path: Path
) -> None:
    searched, store = row(), Store.open(tmp_path, "small")
    choice, runs = drive(searched, bowl)
    assert tuning.recall(searched, store) is None
    write_checked(tuning.summary_path(searched, store), tuning.summary(searched, choice))
    assert tuning.recall(searched, store) is None
    for run in runs:
        write_checked(store.run_folder(run) / "record.json", bowl(run))
    assert tuning.recall(searched, store) == choice
    write_checked(store.run_folder(runs[0]) / "record.json", {**bowl(runs[0]), "status": FAILED})
    assert tuning.recall(searched, store) is None


def test_a_bound_is_maximised(row: Callable[..., Row]) -> None:
    def score(run: Run) -> Record:
        assert run.evaluation.iwae == 5
        return answer(run, -(math.log(beta_of(run) / 0.03) ** 2), "iwae_5")

    choice, _ = drive(row(objective="iwae_5", trials=12), score)
    assert choice.value is not None
    assert 0.01 < choice.value < 0.09


def test_a_value_that_diverges_on_one_seed_is_not_chosen(row: Callable[..., Row]) -> None:
    def score(run: Run) -> Record:
        # The best values of the bowl diverge on the second seed.
        bad = abs(math.log(beta_of(run) / 0.03)) < 2 and run.seed == 8
        return answer(run, None) if bad else bowl(run)

    choice, _ = drive(row(seeds=[7, 8]), score)
    assert choice.value is not None
    assert abs(math.log(choice.value / 0.03)) >= 2
    assert {trial.status for trial in choice.trials} == {COMPLETED, DIVERGED}


def test_where_all_diverge_there_is_no_choice(row: Callable[..., Row]) -> None:
    searched = row()
    choice, _ = drive(searched, lambda run: answer(run, None))
    assert choice.value is None
    assert tuning.final_runs(searched, choice) == ()


@pytest.mark.parametrize("pruner", ["median", "wilcoxon"])
def test_a_pruner_spares_seeds_of_bad_values(row: Callable[..., Row], pruner: str) -> None:
    seeds = list(range(10, 22))
    choice, runs = drive(row(seeds=seeds, pruner=pruner, trials=8), bowl)
    assert len(runs) < 8 * len(seeds)
    assert choice.value is not None
    chosen = next(trial for trial in choice.trials if trial.value == choice.value)
    assert len(chosen.runs) == len(seeds)


def test_the_summary_counts_what_the_search_cost(row: Callable[..., Row]) -> None:
    searched = row(trials=4)
    choice, _ = drive(searched, bowl)
    summary = tuning.summary(searched, choice)
    assert summary["cost"] == {"runs": 4, "seconds": 8.0}
    assert summary["chosen"] == choice.value
    assert len(summary["runs"]) == 2
    finals = tuning.final_runs(searched, choice)
    assert {beta_of(run) for run in finals} == {choice.value}
    assert all(run.evaluation.split == "test" for run in finals)


def test_a_search_is_known_by_what_decides_it(row: Callable[..., Row]) -> None:
    assert tuning.search_id(row()) == tuning.search_id(row())
    assert tuning.search_id(row()) != tuning.search_id(row(trials=9))
    assert tuning.search_id(row()) != tuning.search_id(row(sampler="random"))
