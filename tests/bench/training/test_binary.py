"""Training and scoring on binarised images."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from baselines.decoders.discrete import BernoulliDecoder
from bench import data
from bench.evaluation.evaluate import evaluate
from bench.grid.expand import Row
from bench.run import Run
from bench.training.train import build, train
from tests.bench.training.test_train import same, stopped_after
from tests.refusal import refused

Expand = Callable[..., list[Row]]


@pytest.fixture
def run_on(expand: Expand, tiny: Path) -> Callable[..., Run]:
    def run(how: str, decoder: Any = "bernoulli", **changes: Any) -> Run:
        (row,) = expand(datasets=[f"npz:{tiny}@{how}"], decoders=[decoder], **changes)
        return row.runs[0]

    return run


def batches(monkeypatch: pytest.MonkeyPatch) -> list[Tensor]:
    """What each training batch was."""
    seen: list[Tensor] = []
    original = BernoulliDecoder.forward

    def forward(self: BernoulliDecoder, output: Tensor, *rest: Any) -> object:
        if len(rest) > 1 and rest[1] is not None:
            seen.append(rest[1].clone())
        return original(self, output, *rest)

    monkeypatch.setattr(BernoulliDecoder, "forward", forward)
    return seen


@pytest.mark.parametrize(("how", "draws"), [("static", 210), ("resampled", 3 * 210)])
def test_training_images_are_drawn_once_or_at_each_epoch(
    run_on: Callable[..., Run],
    tmp_path: Path,
    how: str,
    draws: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen = batches(monkeypatch)
    run = run_on(how, training={"epochs": 3, "batch": 70})
    images = data.load(run.place).train
    train(run, images, tmp_path)
    drawn = torch.cat(seen)
    assert drawn.shape[0] == 3 * 210
    assert set(drawn.unique().tolist()) == {0, 1}
    assert len(drawn.flatten(1).unique(dim=0)) == draws
    assert drawn.mean().item() == pytest.approx(images.double().mean().item() / 255, abs=0.005)


def test_a_stop_leaves_no_trace(run_on: Callable[..., Run], tmp_path: Path) -> None:
    run = run_on("resampled", training={"epochs": 3, "batch": 70})
    images = data.load(run.place).train
    undisturbed = train(run, images, tmp_path / "one")
    assert stopped_after((2, 3), 9, run, images, tmp_path / "two") == 5
    assert same(undisturbed, train(run, images, tmp_path / "two"))


@pytest.mark.parametrize("how", ["static", "resampled"])
def test_the_bernoulli_is_a_likelihood_in_nats_and_bits(
    run_on: Callable[..., Run], tmp_path: Path, how: str
) -> None:
    run = run_on(how, evaluation={"samples": 0, "iwae": 4, "features": "none"})
    dataset = data.load(run.place)
    metrics, protocol, _ = evaluate(run, train(run, dataset.train, tmp_path), dataset, None)
    assert protocol["likelihood"]["of"] == "probability"
    assert protocol["likelihood"]["data"] == f"black and white: {how}"
    assert "absent" not in protocol["likelihood"]
    bits = metrics["neg_log_p"] / (784 * math.log(2))
    assert metrics["bits_per_dim"] == pytest.approx(bits, rel=1e-6)
    # A fair coin for each value is one bit; six steps of training are no better.
    assert 0.9 < bits < 1.1
    assert metrics["neg_log_p"] == pytest.approx(metrics["distortion"] + metrics["rate"], rel=1e-6)
    assert -metrics["iwae_4"] == pytest.approx(metrics["neg_log_p"], abs=1)
    assert 0 < metrics["calibration_error"] < 0.2
    assert metrics["crps"] == pytest.approx(0.25, abs=0.01)  # of a fair coin


def test_a_categorical_can_say_no_more_than_a_coin_does(run_on: Callable[..., Run]) -> None:
    """A softmax with all of its mass on levels 0 and 255 has the Bernoulli's likelihood."""
    coin = build(run_on("static"), 1, 28).decoder
    softmax = build(run_on("static", "categorical"), 1, 28).decoder
    logit = torch.randn(3, 1, 28, 28)
    images = torch.randint(0, 2, (3, 1, 28, 28)).float()
    levels = torch.full((3, 1, 28, 28, 256), -1e4)
    levels[..., 0], levels[..., 255] = 0, logit
    output = levels.movedim(-1, -3).flatten(1, 2)
    expected = softmax(output, {}).log_prob(images)
    torch.testing.assert_close(coin(logit, {}).log_prob(images), expected)
    assert coin.is_likelihood
    assert coin.is_discrete


def test_it_is_part_of_a_run_and_of_no_other_runs_id(run_on: Callable[..., Run]) -> None:
    run = run_on("resampled")
    fields = json.loads(run.model_dump_json())
    assert fields["binarised"] == "resampled"
    assert Run.read(fields).id == run.id
    plain = run.model_copy(update={"binarised": None})
    assert "binarised" not in plain.model_dump()
    assert plain.id != run.id
    assert not build(plain, 1, 28).decoder.is_likelihood


def test_dequantised_black_and_white_is_refused(run_on: Callable[..., Run]) -> None:
    training = {"epochs": 1, "batch": 70, "dequantise": True}
    told = refused(lambda: run_on("static", "gaussian", training=training))
    assert "is black and white, which `training.dequantise` makes continuous" in told
