"""`evaluation.ood`: which data it may be, and that a run without it is what it was."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from bench.execution.messages import Task
from bench.execution.supplies import needed
from bench.execution.worker import Worker
from bench.grid.expand import Row, expand, trial_run
from bench.grid.read import read_grid
from bench.metrics import find, heading
from bench.records.store import Store
from bench.report.run_pages import command
from bench.run import out_of_distribution
from tests.refusal import refused


def saved(path: Path, *shape: int) -> str:
    images = np.random.default_rng(1).integers(0, 256, (60, *shape))
    np.savez(path, images=images.astype(np.uint8))
    return f"npz:{path}"


@pytest.fixture
def noise(tmp_path: Path) -> str:
    return saved(tmp_path / "noise.npz", 28, 28)


def rows(path: Path, *, prepare: bool = True) -> list[Row]:
    return expand(read_grid(str(path)), device="cpu", features=None, prepare=prepare)


def evaluation(*ood: str) -> dict[str, object]:
    return {"samples": 0, "iwae": 0, "features": "none", "ood": list(ood)}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("mnist5k", "ood_auroc_mnist5k"),
        ("fashion_mnist[:5000]", "ood_auroc_fashion_mnist_5000"),
        ("npz:/data/my faces.npz", "ood_auroc_my_faces.npz"),
        ("folder:photos/@64", "ood_auroc_64"),
    ],
)
def test_names_of_data_are_names_of_measures(name: str, expected: str) -> None:
    assert out_of_distribution(name) == expected
    metric = find(expected)
    assert metric is not None
    assert metric.name == "ood_auroc_<dataset>"
    assert heading("ood_auroc_my_faces") == "OOD AUROC, my faces"


def test_data_that_are_not_there_or_twice_are_refused(
    write_grid: Callable[..., Path], noise: str
) -> None:
    def wrong(*ood: str) -> str:
        return refused(lambda: read_grid(str(write_grid(evaluation=evaluation(*ood)))))

    message = wrong("minst5k")
    assert "evaluation.ood" in message
    assert "mnist5k" in message
    assert "keep one" in wrong(noise, noise)


def test_data_of_another_shape_are_refused(write_grid: Callable[..., Path], tmp_path: Path) -> None:
    colour = saved(tmp_path / "colour.npz", 28, 28, 3)
    path = write_grid(evaluation=evaluation(colour))
    message = refused(lambda: rows(path))
    assert "images of 3x28x28, while" in message
    assert "has images of 1x28x28" in message


def test_a_run_without_any_says_nothing_and_one_with_them_is_of_the_same_training(
    write_grid: Callable[..., Path], noise: str, tiny: Path
) -> None:
    unprepared = rows(write_grid(evaluation=evaluation(noise)), prepare=False)[0].runs[0]
    assert unprepared.content is None
    own = f"npz:{tiny}"
    plain, more, same = (
        rows(write_grid(evaluation=evaluation(*ood)))[0].runs[0]
        for ood in ((), (noise, own), (own,))
    )
    assert "ood" not in plain.identity["evaluation"]
    (listed,) = more.identity["evaluation"]["ood"]
    assert (listed["name"], len(listed["content"])) == (noise, 64)
    assert more.training_id == plain.training_id
    assert more.id != plain.id
    # Its own data are nobody's outsiders.
    assert same == plain


def test_no_trial_of_a_search_has_them(write_grid: Callable[..., Path], noise: str) -> None:
    tune = {"low": 0.01, "high": 1, "trials": 4}
    decoders = [{"name": "beta", "beta": {"tune": tune}}]
    (row,) = rows(write_grid(decoders=decoders, evaluation=evaluation(noise)))
    assert row.runs[0].evaluation.ood
    assert trial_run(row, (0.1,), 1000).evaluation.ood == ()


def test_a_run_finds_noise_unlikely_and_its_command_asks_for_it_again(
    write_grid: Callable[..., Path], noise: str, tmp_path: Path
) -> None:
    path = write_grid(decoders=["optimal"], evaluation=evaluation(noise))
    (row,) = rows(path)
    task = Task(row.runs[0], {})
    assert Task.read(task.dump()) == task
    assert [supply.name for supply in needed(task)] == [row.runs[0].dataset, noise]
    store = Store.open(tmp_path / "small", "small")
    ended = Worker("cpu").attempt(task, store, lambda message: None)
    assert ended.kind == "record", ended.content
    record = ended.content
    assert record["metrics"]["ood_auroc_noise.npz"] == 1
    assert record["run"]["evaluation"]["ood"][0]["name"] == noise
    assert f'evaluation.ood=["{noise}"]' in command(record["run"], "small", None)
    grid = read_grid(str(path))
    assert "ood" not in command(record["run"], str(path), grid)
    bare = {**record["run"], "evaluation": {**record["run"]["evaluation"]}}
    del bare["evaluation"]["ood"]
    assert "evaluation.ood=[]" in command(bare, str(path), grid)
