"""`evaluation.sampler`: what it may be, and that a run without it is what it was."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from bench.evaluation.features.base import resolve
from bench.execution.messages import Task
from bench.execution.worker import Worker
from bench.grid.expand import Row, expand, trial_run
from bench.grid.read import read_grid
from bench.metrics import find, heading
from bench.records.store import Record, Store
from bench.run import Evaluation, Features
from tests.refusal import refused

FEATURES = Features(name="torchscript", metric="fd_mine", sha256="0" * 64)


@pytest.mark.parametrize("value", [["prior", "prior"], ["posterior"], "prior"])
def test_what_is_no_list_of_samplers_is_refused(
    write_grid: Callable[..., Path], value: Any
) -> None:
    message = refused(lambda: read_grid(str(write_grid()), [f"evaluation.sampler={value}"]))
    assert "evaluation.sampler" in message


def test_the_prior_is_always_among_them_and_their_order_is_no_other_experiment() -> None:
    asked = Evaluation(sampler=("second_stage", "gaussian_mixture"))
    assert asked.sampler == ("prior", "gaussian_mixture", "second_stage")
    assert asked == Evaluation(sampler=("gaussian_mixture", "prior", "second_stage"))


def rows(path: Path, features: Features | None = FEATURES) -> list[Row]:
    return expand(read_grid(str(path)), device="cpu", features=features, prepare=True)


def test_a_run_without_any_says_nothing_and_one_with_them_is_of_the_same_training(
    write_grid: Callable[..., Path],
) -> None:
    plain, more, bare = (
        rows(write_grid(evaluation={"samples": 20, **evaluation}), features)[0].runs[0]
        for evaluation, features in (
            ({}, FEATURES),
            ({"sampler": ["gaussian_mixture"]}, FEATURES),
            ({"sampler": ["gaussian_mixture"]}, None),
        )
    )
    assert "sampler" not in plain.identity["evaluation"]
    listed = {"sampler": ["prior", "gaussian_mixture"]}
    assert more.identity["evaluation"] == {**plain.identity["evaluation"], **listed}
    assert more.id != plain.id
    assert more.training_id == plain.training_id
    assert more.evaluation.compared == plain.evaluation.compared + 20
    # Without features there is no distance, so there is nothing to ask for.
    assert "sampler" not in bare.identity["evaluation"]


def test_no_trial_of_a_search_has_them(write_grid: Callable[..., Path]) -> None:
    tune = {"low": 0.01, "high": 1, "trials": 4, "objective": "fd_mine"}
    path = write_grid(
        decoders=[{"name": "beta", "beta": {"tune": tune}}],
        evaluation={"samples": 20, "sampler": ["gaussian_mixture"]},
    )
    (row,) = rows(path)
    assert row.runs[0].evaluation.sampler == ("prior", "gaussian_mixture")
    assert trial_run(row, (0.1,), 1000).evaluation.sampler == ("prior",)


@pytest.mark.parametrize("name", ["gaussian_mixture", "second_stage"])
def test_their_distances_are_known(name: str) -> None:
    metric = find(f"fd_a_b_{name}")
    assert metric is not None
    assert (metric.name, metric.compares) == (f"fd_<extractor>_{name}", name)
    assert heading(f"fd_a_b_{name}").startswith("FD a b, ")


class Corners(nn.Module):
    """The first column of the first channel, for features."""

    def forward(self, images: Tensor) -> Tensor:
        return images[:, 0, :8, 0].float()


def test_an_earlier_runs_weights_are_measured_and_nothing_is_trained(
    write_grid: Callable[..., Path], tmp_path: Path
) -> None:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r".*torch\.jit\.script")
        torch.jit.script(Corners()).save(str(tmp_path / "corners.pt"))
    features = resolve(str(tmp_path / "corners.pt"))
    assert features is not None
    store = Store.open(tmp_path / "small", "small")
    found: list[Record] = []
    for more in ({}, {"sampler": ["gaussian_mixture"]}):
        evaluation = {"samples": 24, "iwae": 0, "distances": ["means"], **more}
        path = write_grid(decoders=["optimal"], evaluation=evaluation)
        task = Task(rows(path, features)[0].runs[0], {})
        ended = Worker("cpu").attempt(task, store, lambda message: None)
        assert ended.kind == "record", ended.content
        found.append(ended.content)
    plain, record = found
    assert record["status"] == "completed"
    assert record["protocol"]["training"] == {"weights_of": plain["id"]}
    name = f"{features.metric}_gaussian_mixture"
    assert record["metrics"].keys() == plain["metrics"].keys() | {name}
    assert {k: v for k, v in record["metrics"].items() if k != name} == plain["metrics"]
    # 210 codes of 3 dimensions: a component for each 30, so seven.
    assert record["protocol"]["sampler"]["gaussian_mixture"]["components"] == 7
