"""The journal of searches, as Optuna itself reads it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import optuna
import pytest

from bench.errors import RequestError
from bench.files import write_checked
from bench.records.frame import load
from bench.records.store import Record, Store
from bench.report import pages
from bench.report.journal import name

if TYPE_CHECKING:
    from tests.bench.report.conftest import Results

ROOT = Path(__file__).resolve().parents[3]
COMPLETE, PRUNED, FAIL = (
    optuna.trial.TrialState.COMPLETE,
    optuna.trial.TrialState.PRUNED,
    optuna.trial.TrialState.FAIL,
)


def studies(journal: Path) -> dict[str, optuna.Study]:
    backend = optuna.storages.journal.JournalFileBackend(str(journal))
    storage = optuna.storages.JournalStorage(backend)
    names = optuna.get_all_study_names(storage)
    return {name: optuna.load_study(study_name=name, storage=storage) for name in names}


def a_trial(value: float, scores: Sequence[float | None]) -> dict[str, Any]:
    known = [score for score in scores if score is not None]
    whole = len(known) == len(scores)
    return {
        "value": value,
        "runs": [f"{round(value * 1000):08x}{seed:08x}" for seed in range(len(scores))],
        "scores": list(scores),
        "score": sum(known) / len(known) if whole else None,
        "seconds": 3.0 * len(scores),
        "status": "completed" if whole else "diverged",
    }


def summary(trials: Sequence[Mapping[str, Any]], **changes: Any) -> Record:
    scored = [trial for trial in trials if trial["score"] is not None]
    best = min(scored, key=lambda trial: trial["score"], default=None)
    return {
        "schema": 2,
        "id": "5ea4c40000000000",
        "dataset": "mnist5k",
        "model": {"name": "conv_vae"},
        "decoder": {"name": "beta", "beta": 0.01},
        "option": "beta",
        "search": {
            "low": 0.01, "high": 1.0, "trials": len(trials), "objective": "neg_log_p",
            "seeds": [1000, 1001], "startup": 3, "sampler": "gp", "pruner": "median",
            "sampler_seed": 0, **changes,
        },
        "trials": list(trials),
        "chosen": best["value"] if best else None,
        "runs": [],
        "cost": {"runs": sum(len(t["runs"]) for t in trials), "seconds": 12.0},
    }  # fmt: skip


def written(results: Results, out: Path, *searches: Record) -> dict[str, optuna.Study]:
    results.add("shared")
    for search in searches:
        write_checked(results.folder / "searches" / f"{search['id']}.json", search)
    (path,) = pages.write("grid", [results.folder], out, ["optuna"]).paths
    assert path == out / "grid" / "searches.journal"
    return studies(path)


@pytest.mark.parametrize("grid", ["quick", "hierarchical-quick"])
def test_optuna_finds_the_choice_of_committed_searches(grid: str, tmp_path: Path) -> None:
    folder = ROOT / "results" / "reference" / grid
    (path,) = pages.write(grid, [folder], tmp_path, ["optuna"]).paths
    read = studies(path)
    searches = list(Store(folder).searches())
    assert set(read) == {name(search) for search in searches}
    for search in searches:
        study = read[name(search)]
        assert study.direction == optuna.study.StudyDirection.MINIMIZE
        assert study.metric_names == ["neg_log_p"]
        assert [*study.best_params.values()] == search["chosen"]
        assert set(study.user_attrs["final runs"]) == set(search["runs"])
        for trial, told in zip(study.trials, search["trials"], strict=True):
            (run,) = trial.user_attrs["runs"]
            record = json.loads((Store(folder).folder_of(run) / "record.json").read_text())
            assert told["values"] == [trial.params["beta"]] == [record["run"]["decoder"]["beta"]]
            assert trial.value == record["metrics"]["neg_log_p"]
            assert trial.duration is not None
            assert trial.duration.total_seconds() == pytest.approx(told["seconds"], abs=1e-3)
            assert trial.datetime_complete is not None
            if finished := record["cost"].get("finished"):
                ended = trial.datetime_complete.astimezone(UTC)
                assert ended == datetime.fromisoformat(finished)


def test_lost_and_pruned_trials_keep_their_states(results: Results, tmp_path: Path) -> None:
    search = summary([a_trial(0.1, [5.0, 7.0]), a_trial(0.5, [9.0]), a_trial(0.9, [4.0, None])])
    (study,) = written(results, tmp_path, search).values()
    assert [trial.state for trial in study.trials] == [COMPLETE, PRUNED, FAIL]
    assert [trial.value for trial in study.trials] == [6.0, 9.0, None]
    assert study.trials[0].intermediate_values == {0: 5.0, 1: 7.0}
    assert study.trials[1].user_attrs["seeds"] == [1000]
    assert (study.best_params, study.best_value) == ({"beta": 0.1}, 6.0)


def test_an_objective_that_is_better_when_larger_is_maximised(
    results: Results, tmp_path: Path
) -> None:
    """A summary holds its negative, as the search minimises it."""
    search = summary([a_trial(0.1, [-0.8, -0.6]), a_trial(0.5, [-0.9, -0.9])], objective="iwae_5")
    (study,) = written(results, tmp_path, search).values()
    assert study.direction == optuna.study.StudyDirection.MAXIMIZE
    assert study.best_value == pytest.approx(0.9)
    assert study.best_params == {"beta": search["chosen"]}


def test_two_searches_of_one_decoder_are_two_studies_and_none_works_is_no_error(
    results: Results, tmp_path: Path
) -> None:
    lost = {**summary([a_trial(0.1, [None])]), "id": "5ea4c40000000001"}
    read = written(results, tmp_path, summary([a_trial(0.1, [1.0, 1.0])]), lost)
    assert len(read) == 2
    study = read[name(lost)]
    assert study.user_attrs["chosen"] is None
    assert [trial.state for trial in study.trials] == [FAIL]


def test_several_knobs_keep_their_names_and_ranges(results: Results, tmp_path: Path) -> None:
    old = summary([a_trial(0.1, [5.0, 7.0]), a_trial(0.2, [8.0, 8.0])])
    rate = {"part": "training", "option": "lr", "low": 1e-4, "high": 1e-2, "scale": "log"}
    width = {"part": "model", "option": "width", "low": 8, "high": 32, "scale": "linear"}
    tried = [[0.001, 16], [0.003, 24]]
    search = {
        **{key: value for key, value in old.items() if key != "option"},
        "knobs": [{**rate, "whole": False}, {**width, "whole": True}],
        "search": {k: v for k, v in old["search"].items() if k not in ("low", "high")},
        "trials": [
            {"values": values, **{k: v for k, v in trial.items() if k != "value"}}
            for values, trial in zip(tried, old["trials"], strict=True)
        ],
        "chosen": tried[0],
    }
    (study,) = written(results, tmp_path, search).values()
    assert study.best_params == {"training.lr": 0.001, "model.width": 16}
    assert study.best_trial.distributions == {
        "training.lr": optuna.distributions.FloatDistribution(1e-4, 1e-2, log=True),
        "model.width": optuna.distributions.IntDistribution(8, 32),
    }
    assert study.user_attrs["chosen"] == study.best_params


def test_a_second_report_replaces_the_journal(results: Results, tmp_path: Path) -> None:
    search = summary([a_trial(0.1, [5.0, 7.0])])
    written(results, tmp_path, search)
    (study,) = written(results, tmp_path, search).values()
    assert len(study.trials) == 1


def test_a_grid_without_a_search_is_one_line(results: Results, tmp_path: Path) -> None:
    results.add("shared")
    with pytest.raises(RequestError, match="--format optuna: grid has no finished search"):
        pages.write("grid", [results.folder], tmp_path, ["optuna"])
    assert not load([results.folder])[1]
