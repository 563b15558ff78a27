"""A training under each balance: it resumes bit-equally, and its history has the weight."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from baselines.options import BALANCES
from bench import data
from bench.errors import Stopped
from bench.grid.expand import Row
from bench.training.train import train
from bench.training.weights import load, save
from tests.baselines.test_balances import NEEDED
from tests.bench.training.test_train import same, stop_at
from tests.specs import balance_spec


@pytest.fixture
def images(tiny: Path) -> torch.Tensor:
    return data.load(f"npz:{tiny}").train


@pytest.mark.parametrize("name", BALANCES)
def test_a_stop_inside_an_epoch_leaves_no_trace(
    expand: Callable[..., list[Row]], images: torch.Tensor, tmp_path: Path, name: str
) -> None:
    """3 steps an epoch; stopped after 4 and again after 3 more, with a clip that skips none."""
    training = {"epochs": 4, "batch": 70, "skip": 1e9}
    plain = expand(decoders=["gaussian"], training=training)[0].runs[0]
    balance = balance_spec(name, **NEEDED.get(name, {}))
    run = plain.model_copy(update={"balance": balance})
    undisturbed = train(run, images, tmp_path / "one")
    for steps in (4, 3):
        with pytest.raises(Stopped):
            train(run, images, tmp_path / "two", stop=stop_at(steps))
    resumed = train(run, images, tmp_path / "two")
    assert same(undisturbed, resumed)
    lines = (tmp_path / "two" / "history.jsonl").read_text().splitlines()
    assert all(("weight" in json.loads(line)) == (name != "elbo") for line in lines)
    save(resumed, tmp_path / "two")
    assert same(load(run, tmp_path / "two", images), resumed)


def test_the_history_has_the_mean_weight_of_each_epoch(
    expand: Callable[..., list[Row]], images: torch.Tensor, tmp_path: Path
) -> None:
    """Two epochs of three steps; the rise takes all of them: 1/6 … 6/6."""
    plain = expand(training={"epochs": 2, "batch": 70})[0].runs[0]
    run = plain.model_copy(update={"balance": balance_spec("warm_up", share=1)})
    history = train(run, images, tmp_path).history
    assert [line["weight"] for line in history] == pytest.approx([2 / 6, 5 / 6])


def test_a_step_that_is_skipped_does_not_count(
    expand: Callable[..., list[Row]], images: torch.Tensor, tmp_path: Path
) -> None:
    """As for the warm-up of the learning rate."""
    plain = expand(training={"epochs": 2, "batch": 70, "skip": 1e-9})[0].runs[0]
    run = plain.model_copy(update={"balance": balance_spec("warm_up")})
    trained = train(run, images, tmp_path)
    assert trained.divergence is not None
    assert trained.state["balance.step"] == 0
