from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Any

import pytest

from bench.grid.expand import expand, trial_run
from bench.grid.knob import with_values
from bench.grid.read import read_grid
from bench.records.store import Store
from bench.records.validity import DIVERGED
from bench.report import run_pages
from bench.run import Run

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.bench.report.conftest import Results


def repeated(command: str) -> list[Run]:
    """The runs that a command line would make."""
    words = shlex.split(command)
    assert words[:2] == ["sigma-bench", "run"]
    options = [words[index : index + 2] for index in range(3, len(words), 2)]
    only = [value for option, value in options if option == "--only"]
    changed = [value for option, value in options if option == "--set"]
    grid = read_grid(words[2], changed)
    rows = expand(grid, device="cpu", features=None, only=only, prepare=True)
    return [run for row in rows for run in row.runs]


DECODERS = [
    "optimal",
    {"name": "beta", "beta": 0.1},
    {"name": "beta", "beta": 1.0},
    {"name": "shared", "min_log_sigma": None, "sigma_lr": 5.0},
]


@pytest.mark.parametrize("known", [True, False])
def test_the_command_makes_the_run_and_no_other(
    write_grid: Callable[..., Path], expand: Callable[..., list[Any]], known: bool
) -> None:
    models = [{"name": "conv_vae", "width": 2, "latent": 3}, {"name": "linear_vae", "latent": 2}]
    rows = expand(decoders=DECODERS, models=models, seeds=[0, 3])
    path = write_grid(decoders=DECODERS, models=models, seeds=[0, 3])
    grid = read_grid(str(path)) if known else None
    for run in [run for row in rows for run in row.runs]:
        command = run_pages.command(run.model_dump(mode="json"), str(path), grid)
        assert [again.id for again in repeated(command)] == [run.id]


def test_temperatures_are_said_and_taken_back(
    write_grid: Callable[..., Path], expand: Callable[..., list[Any]]
) -> None:
    plain = {"samples": 0, "iwae": 2, "features": "none"}
    evaluations = (plain, {**plain, "temperatures": [0.7, 2]})
    for own, other in (evaluations, evaluations[::-1]):
        run = expand(evaluation=own)[0].runs[0]
        path = write_grid(evaluation=other)
        command = run_pages.command(run.model_dump(mode="json"), str(path), read_grid(str(path)))
        assert "--set 'evaluation.temperatures=" in command or "temperatures=[]" in command
        assert [again.id for again in repeated(command)] == [run.id]


def test_settings_that_the_grid_has_not_are_said(
    write_grid: Callable[..., Path], expand: Callable[..., list[Any]]
) -> None:
    run = expand(training={"epochs": 7, "batch": 70, "precision": "float32"})[0].runs[0]
    path = write_grid()
    command = run_pages.command(run.model_dump(mode="json"), str(path), read_grid(str(path)))
    assert "--set training.epochs=7" in command
    assert "--set training.batch" not in command
    assert [again.id for again in repeated(command)] == [run.id]


STEPS = {"steps": 5, "batch": 70, "optimizer": "adamw", "betas": [0.9, 0.9], "ema": 0.9}


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize(
    ("run_has", "grid_has"), [(STEPS, {}), ({"epochs": 2, "batch": 70}, STEPS), (STEPS, STEPS)]
)
def test_options_that_the_grid_has_and_the_run_not_are_taken_out(
    write_grid: Callable[..., Path],
    expand: Callable[..., list[Any]],
    run_has: dict[str, Any],
    grid_has: dict[str, Any],
    known: bool,
) -> None:
    run = expand(training=run_has)[0].runs[0]
    path = write_grid(training=grid_has or {"epochs": 2, "batch": 70})
    if not known and grid_has:
        return  # nothing says what to take out
    grid = read_grid(str(path)) if known else None
    command = run_pages.command(run.model_dump(mode="json"), str(path), grid)
    assert [again.id for again in repeated(command)] == [run.id]


def test_a_tuned_run_is_repeated_without_its_search(
    write_grid: Callable[..., Path], expand: Callable[..., list[Any]]
) -> None:
    decoders = [{"name": "beta", "beta": {"tune": {"low": 0.01, "high": 1.0, "trials": 4}}}]
    path = write_grid(decoders=decoders)
    row = expand(decoders=decoders)[0]
    final = with_values(row.runs[0], row.knobs, [0.05])
    command = run_pages.command(final.model_dump(mode="json"), str(path), read_grid(str(path)))
    assert [again.id for again in repeated(command)] == [final.id]
    assert trial_run(row, [0.05], 1000).id != final.id


def test_a_run_page_tells_what_was_measured_and_how(results: Results) -> None:
    record = results.add(
        seed=2, losses=[5.0, 3.0, 4.0], images=True, metrics={"neg_log_p": 1.5, "neg_log_p_se": 0.1}
    )
    told = run_pages.content(Store(results.folder).folder_of(record["id"]), "quick", None)
    assert told["metrics"] == [("-log p", "1.500", "0.1000")]
    assert told["curves"][0].label.startswith("training loss")
    assert (told["curves"][0].low, told["curves"][0].high) == ("3.000", "5.000")
    assert len(told["pictures"]) == 2
    assert ("versions.torch", "2.6") in dict(told["sections"])["Environment"]
    assert told["command"].startswith("sigma-bench run quick ")


def test_how_a_run_was_lost_is_told(results: Results) -> None:
    diverged = results.add(status=DIVERGED)
    assert run_pages.outcome(diverged) == "diverged at step 17: distortion was not finite"
    assert "OutOfMemoryError" in run_pages.outcome(results.add(seed=1, status="failed"))


HISTORY = b'{"epoch": 0, "loss": 9.5, "sigma": 0.5}\n{"epoch": 1, "loss": 8.5, "sigma": 0.25}\n'


@pytest.mark.parametrize(
    "damaged",
    [HISTORY[:-9], HISTORY.replace(b"0.5", b"0\xff5"), HISTORY.replace(b"sigma", b"sigmc"), b"7\n"],
)
def test_a_torn_history_is_told_and_draws_no_curve(
    damaged: bytes, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "history.jsonl"
    assert run_pages.history(tmp_path) == []
    path.write_bytes(HISTORY)
    assert [line["loss"] for line in run_pages.history(tmp_path)] == [9.5, 8.5]
    assert not caplog.records
    path.write_bytes(damaged)
    assert run_pages.history(tmp_path) == []
    assert f"{path} is torn" in caplog.text


@pytest.mark.parametrize(("choice", "count"), [("auto", 2), ("all", 3), ("none", 0)])
def test_the_rule_says_which_runs_have_a_page(
    results: Results, monkeypatch: pytest.MonkeyPatch, choice: str, count: int
) -> None:
    monkeypatch.setattr(run_pages, "AUTOMATIC", 2)
    for seed in range(3):
        results.add(seed=seed)
    table = results.table()
    assert len(run_pages.chosen(table, choice)) == count
    told = {"auto": "first 2 of 3", "all": "Every run", "none": "No run"}[choice]
    assert told in run_pages.rule(table, choice)
