"""The β search: deterministic, resumed from records alone, and blind to the test split."""

import math
from collections.abc import Callable
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.interpolate import PchipInterpolator

from bench import tuning
from bench.errors import RequestError
from bench.files import write_checked
from bench.grid.expand import Row
from bench.grid.knob import Knob
from bench.grid.schema import Search
from bench.records.store import Record, Store
from bench.records.validity import COMPLETED, DIVERGED, FAILED
from bench.run import Run
from tests.bench.driven import answer, beta_of, drive, resumed, rounds_of

ROOT = Path(__file__).resolve().parents[2]
TUNE = {"low": 0.001, "high": 10, "trials": 8}


GP_BATCHES = pytest.mark.skipif(
    int(version("optuna").partition(".")[0]) < tuning.BATCHES,
    reason="this Optuna's gp places a round's trials at one value",
)


@pytest.fixture
def row(expand: Callable[..., list[Row]]) -> Callable[..., Row]:
    def make(**tune: object) -> Row:
        entry = {"name": "beta", "beta": {"tune": {**TUNE, **tune}}}
        return expand(decoders=[entry], seeds=[0, 1])[0]

    return make


def bowl(run: Run) -> Record:
    """Best at β = 0.03."""
    return answer(run, math.log(beta_of(run) / 0.03) ** 2)


@pytest.mark.parametrize("sampler", ["tpe", "random", "qmc", "gp"])
def test_a_search_finds_the_bottom_of_a_bowl(row: Callable[..., Row], sampler: str) -> None:
    choice, runs = drive(row(sampler=sampler, trials=12), bowl)
    assert choice.values is not None
    assert 0.01 < choice.values[0] < 0.09
    assert len(choice.trials) == len(runs) == 12
    assert all(0.001 <= beta_of(run) <= 10 for run in runs)
    best = min(choice.trials, key=lambda trial: trial.score or 0)
    assert choice.values == best.values


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
    beta = Knob(part="decoder", option="beta", low=low, high=low * ratio)
    values = [value for (value,) in Search(trials=trials).start([beta])]
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
    assert choice.values is not None
    assert 0.01 < choice.values[0] < 0.09


def test_a_value_that_diverges_on_one_seed_is_not_chosen(row: Callable[..., Row]) -> None:
    def score(run: Run) -> Record:
        # The best values of the bowl diverge on the second seed.
        bad = abs(math.log(beta_of(run) / 0.03)) < 2 and run.seed == 8
        return answer(run, None) if bad else bowl(run)

    choice, _ = drive(row(seeds=[7, 8]), score)
    assert choice.values is not None
    assert abs(math.log(choice.values[0] / 0.03)) >= 2
    assert {trial.status for trial in choice.trials} == {COMPLETED, DIVERGED}


def test_where_all_diverge_there_is_no_choice(row: Callable[..., Row]) -> None:
    searched = row()
    choice, _ = drive(searched, lambda run: answer(run, None))
    assert choice.values is None
    assert tuning.final_runs(searched, choice) == ()


@pytest.mark.parametrize("pruner", ["median", "wilcoxon"])
def test_a_pruner_spares_seeds_of_bad_values(row: Callable[..., Row], pruner: str) -> None:
    seeds = list(range(10, 22))
    choice, runs = drive(row(seeds=seeds, pruner=pruner, trials=8), bowl)
    assert len(runs) < 8 * len(seeds)
    assert choice.values is not None
    chosen = next(trial for trial in choice.trials if trial.values == choice.values)
    assert len(chosen.runs) == len(seeds)


def test_the_summary_counts_what_the_search_cost(row: Callable[..., Row]) -> None:
    searched = row(trials=4)
    choice, _ = drive(searched, bowl)
    summary = tuning.summary(searched, choice)
    assert summary["cost"] == {"runs": 4, "seconds": 8.0}
    assert summary["chosen"] == choice.values
    assert len(summary["runs"]) == 2
    finals = tuning.final_runs(searched, choice)
    assert {beta_of(run) for run in finals} == set(choice.values or ())
    assert all(run.evaluation.split == "test" for run in finals)


def test_a_search_is_known_by_what_decides_it(row: Callable[..., Row]) -> None:
    assert tuning.search_id(row()) == tuning.search_id(row())
    assert tuning.search_id(row()) != tuning.search_id(row(trials=9))
    assert tuning.search_id(row()) != tuning.search_id(row(sampler="random"))


# -- in batches --------------------------------------------------------------------------------


@pytest.mark.parametrize("sampler", [pytest.param("gp", marks=GP_BATCHES), "tpe", "random", "qmc"])
def test_a_round_after_the_start_has_several_trials_at_different_values(
    row: Callable[..., Row], sampler: str
) -> None:
    choice, rounds = rounds_of(row(trials=12, startup=5, together=3, sampler=sampler), bowl)
    assert list(map(len, rounds)) == [5, 3, 3, 1]
    assert len(choice.trials) == 12
    for some in rounds:
        values = sorted(map(beta_of, some))
        assert all(b / a > 1.01 for a, b in pairwise(values))


def test_one_at_a_time_is_the_search_that_says_nothing_of_it(row: Callable[..., Row]) -> None:
    plain, single, several = row(), row(together=1), row(together=2)
    assert tuning.search_id(plain) == tuning.search_id(single) != tuning.search_id(several)
    assert tuning.search_id(several) != tuning.search_id(row(together=3))
    choice, _ = drive(plain, bowl)
    assert "together" not in tuning.summary(plain, choice)["search"]
    assert tuning.summary(several, choice)["search"]["together"] == 2


@pytest.mark.parametrize("pruner", ["none", "median", "wilcoxon"])
def test_a_search_in_batches_resumes_from_any_of_its_records(
    row: Callable[..., Row], pruner: str
) -> None:
    """Whichever records a kill left, the rest of the same runs is asked for."""
    seeds = list(range(10, 20)) if pruner != "none" else [10, 11]
    searched = row(trials=9, startup=4, together=3, sampler="tpe", seeds=seeds, pruner=pruner)
    choice, runs = drive(searched, bowl)
    draws = np.random.default_rng(0)
    for share in (0.2, 0.5, 0.9):
        there = {run.id for run in runs if draws.random() < share}
        found, computed = resumed(searched, bowl, there)
        assert found == (choice, runs)
        assert computed == [run.id for run in runs if run.id not in there]


@pytest.mark.parametrize("pruner", ["median", "wilcoxon"])
def test_a_pruner_judges_the_trials_of_a_round_seed_by_seed(
    row: Callable[..., Row], pruner: str
) -> None:
    seeds = list(range(10, 22))
    choice, rounds = rounds_of(
        row(seeds=seeds, pruner=pruner, trials=8, together=4, sampler="tpe"), bowl
    )
    assert len(rounds) <= 2 * len(seeds)
    for some in rounds:
        assert len(some) <= 4
        assert len({run.seed for run in some}) == 1
    assert sum(map(len, rounds)) < 8 * len(seeds)
    chosen = next(trial for trial in choice.trials if trial.values == choice.values)
    assert len(chosen.runs) == len(seeds)


def test_an_optuna_that_cannot_place_a_round_is_refused(
    row: Callable[..., Row], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("optuna.__version__", "4.9.0")
    with pytest.raises(RequestError, match=r"`together: 2` with the sampler gp needs Optuna 5\.0"):
        drive(row(together=2), bowl)
    assert drive(row(together=2, sampler="tpe"), bowl)[0].values is not None
    assert drive(row(), bowl)[0].values is not None


@pytest.mark.parametrize(
    ("sampler", "seed"), [pytest.param("gp", 0, marks=GP_BATCHES), *(("tpe", n) for n in range(4))]
)
def test_a_search_in_batches_finds_as_good_a_value_in_fewer_rounds(
    row: Callable[..., Row], sampler: str, seed: int
) -> None:
    """On -log p against β as the grid `quick` has measured it, with the scatter of its seeds."""
    store = Store(ROOT / "results" / "reference" / "quick")
    (search,) = store.searches()
    points = sorted((math.log(trial["values"][0]), trial["score"]) for trial in search["trials"])
    curve = PchipInterpolator(*zip(*points, strict=True))
    finals = [store.record_of(identity) for identity in search["runs"]]
    noise = float(np.std([r["metrics"]["neg_log_p"] for r in finals if r is not None], ddof=1))

    def measured(run: Run) -> Record:
        scatter = np.random.default_rng(int(run.id, 16)).normal(0, noise)
        return answer(run, float(curve(math.log(beta_of(run)))) + scatter)

    found, count = {}, {}
    low, high = (math.exp(point[0]) for point in (points[0], points[-1]))
    for together in (1, 4):
        choice, rounds = rounds_of(
            row(low=low, high=high, trials=12, startup=4, together=together, sampler=sampler,
                sampler_seed=seed),
            measured,
        )  # fmt: skip
        assert choice.values is not None
        found[together] = float(curve(math.log(choice.values[0])))
        count[together] = len(rounds)
    assert count == {1: 9, 4: 3}
    assert abs(found[4] - found[1]) < 2 * noise
    assert max(found.values()) < min(score for _, score in points) + 3 * noise
