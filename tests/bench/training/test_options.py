"""Whole trainings with the options that are off by default."""

import itertools
import json
import math
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Generator, Tensor

from baselines.decoders.gaussian import FixedGaussian
from bench import data
from bench.grid.expand import Row
from bench.grid.read import read_grid
from bench.records.store import Store
from bench.records.validity import DIVERGED
from bench.run import Training
from bench.training.checkpoint import Epoch
from bench.training.step import Step
from bench.training.train import train
from bench.training.weights import load, save
from tests.bench.training.test_train import same, stopped_after
from tests.refusal import refused

Expand = Callable[..., list[Row]]

EVERYTHING: dict[str, Any] = {
    "steps": 11,
    "batch": 70,
    "optimizer": "adamw",
    "betas": [0.9, 0.9],
    "weight_decay": 0.01,
    "warm_up": 4,
    "schedule": "cosine",
    "clip": 250.0,
    "skip": 298.3,
    "ema": 0.9,
    "flips": True,
    "dequantise": True,
}
"""3 steps an epoch. With `optimal` the norm is about 298 at first, by batch, and falls to 218."""


@pytest.fixture
def images(tiny: Path) -> Tensor:
    return data.load(f"npz:{tiny}").train


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("steps", [(1,), (4,), (10,), (2, 0, 4), range(11)])
def test_a_stop_leaves_no_trace(
    expand: Expand, images: Tensor, tmp_path: Path, steps: Iterable[int], precision: str
) -> None:
    training = {**EVERYTHING, "precision": precision}
    run = expand(decoders=["optimal"], training=training)[0].runs[0]
    undisturbed = train(run, images, tmp_path / "one")
    assert undisturbed.divergence is None
    skipped = [line["skipped"] for line in undisturbed.history]
    assert 0 < sum(skipped) < 11
    stopped_after(steps, 11, run, images, tmp_path / "two")
    assert same(undisturbed, train(run, images, tmp_path / "two"))


def test_a_process_that_dies_before_it_evaluates_finds_the_average_again(
    expand: Expand, images: Tensor, tmp_path: Path
) -> None:
    run = expand(decoders=["optimal"], training=EVERYTHING)[0].runs[0]
    undisturbed = train(run, images, tmp_path / "one")
    with pytest.raises(RuntimeError):  # after the last checkpoint
        train(run, images, tmp_path / "two", on_epoch=lambda line: fail(line["epoch"] == 3))
    assert same(undisturbed, train(run, images, tmp_path / "two"))
    save(undisturbed, tmp_path / "one")
    assert same(undisturbed, load(run, tmp_path / "one", images))  # as a later evaluation does


def fail(when: bool) -> None:
    if when:
        raise RuntimeError


def test_steps_end_in_the_middle_of_an_epoch(
    expand: Expand, images: Tensor, tmp_path: Path
) -> None:
    """3 an epoch: 7 are two epochs and a step, and the first 6 are those of two epochs."""
    seven, six, epochs = (
        expand(training={**length, "batch": 70})[0].runs[0]
        for length in ({"steps": 7}, {"steps": 6}, {"epochs": 2})
    )
    calls = itertools.count()
    trained = train(seven, images, tmp_path / "seven", stop=lambda: next(calls) >= 7)
    assert next(calls) == 7
    assert [(line["epoch"], line["steps"]) for line in trained.history] == [(0, 3), (1, 6), (2, 7)]
    assert same(train(six, images, tmp_path / "six"), train(epochs, images, tmp_path / "epochs"))
    assert len({run.id for run in (seven, six, epochs)}) == 3


def test_what_is_scored_is_the_average_and_the_history_is_not_its(
    expand: Expand, images: Tensor, tmp_path: Path
) -> None:
    """A decay of 0 keeps the last weights alone, so a run with it is one without."""
    plain, none, half = (
        train(
            expand(decoders=["shared"], training={"epochs": 2, "batch": 70, **options})[0].runs[0],
            images,
            tmp_path / str(options),
        )
        for options in ({}, {"ema": 0.0}, {"ema": 0.9})
    )
    for name, weights in plain.vae.state_dict().items():
        torch.testing.assert_close(none.vae.state_dict()[name], weights)
    # σ falls at each step, so an average of it is above its last value. It is a parameter.
    log_sigmas = [t.vae.decoder.get_parameter("log_sigma").item() for t in (plain, half)]
    assert log_sigmas[0] < log_sigmas[1] < 0
    assert [line["loss"] for line in plain.history] == [line["loss"] for line in half.history]
    assert all(torch.equal(plain.state[name], half.state[name]) for name in plain.state)


def plant_nan(monkeypatch: pytest.MonkeyPatch, *steps: int) -> None:
    """The output of the network is NaN at these calls of the decoder, counted from 0."""
    calls, original = itertools.count(), FixedGaussian.forward

    def forward(self: FixedGaussian, output: Tensor, *rest: Any) -> object:
        return original(self, output * (torch.nan if next(calls) in steps else 1), *rest)

    monkeypatch.setattr(FixedGaussian, "forward", forward)


@pytest.mark.parametrize("step", [0, 2, 4, 10])
def test_a_nan_is_told_as_its_step_where_none_is_skipped(
    expand: Expand, images: Tensor, tmp_path: Path, step: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = expand(training={**EVERYTHING, "skip": None})[0].runs[0]
    plant_nan(monkeypatch, step)
    divergence = train(run, images, tmp_path).divergence
    assert divergence is not None
    assert (divergence.step, divergence.what) == (step, "distortion")


def test_a_nan_is_skipped_and_counted(
    expand: Expand, images: Tensor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No norm is large: what is skipped is what is not finite."""
    run = expand(training={**EVERYTHING, "skip": 1e9})[0].runs[0]
    plant_nan(monkeypatch, 0, 4, 5, 10)
    trained = train(run, images, tmp_path)
    assert trained.divergence is None
    assert [line["skipped"] for line in trained.history] == [1, 2, 0, 1]
    assert all(math.isfinite(value) for line in trained.history for value in line.values())
    assert all(value.isfinite().all() for value in trained.vae.state_dict().values())
    written = [json.loads(line) for line in (tmp_path / "history.jsonl").read_text().splitlines()]
    assert written == trained.history


@pytest.mark.parametrize("length", [{"epochs": 4}, {"steps": 11}, {"steps": 2}])
def test_a_run_that_skips_every_step_has_diverged(
    expand: Expand, images: Tensor, tmp_path: Path, length: dict[str, int]
) -> None:
    """No gradient is as small as that."""
    run = expand(training={**length, "batch": 70, "skip": 1e-6})[0].runs[0]
    divergence = train(run, images, tmp_path).divergence
    assert divergence is not None
    assert (divergence.step, divergence.what, divergence.last) == (0, "every step skipped", {})
    assert "steps were all skipped" in divergence.reason
    assert "above 1e-06" in divergence.reason


def test_a_run_that_skips_from_a_step_on_has_diverged_there(
    expand: Expand, images: Tensor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """150 steps an epoch. 100 in a row are too many at its end, 99 are not, nor 140 within it."""
    short = images[:150].contiguous()
    settings = {"epochs": 2, "batch": 1, "skip": 1e9}
    run = expand(training=settings, models=[{"name": "linear_vae", "latent": 2}])[0].runs[0]
    for skipped, step in ((range(50, 150), 50), (range(51, 150), None), (range(5, 145), None)):
        with monkeypatch.context() as patch:
            plant_nan(patch, *skipped)
            divergence = train(run, short, tmp_path / str(skipped)).divergence
        assert (None if divergence is None else divergence.step) == step
        assert divergence is None or divergence.last.keys() == {
            "loss", "distortion", "rate", "sigma"
        }  # fmt: skip


def test_a_last_epoch_of_few_steps_may_skip_them_all(
    expand: Expand, images: Tensor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has no mean of any term, so its line is JSON."""
    settings = {"steps": 4, "batch": len(images) // 3, "skip": 1e9}
    run = expand(training=settings, models=[{"name": "linear_vae", "latent": 2}])[0].runs[0]
    plant_nan(monkeypatch, 3)
    told: list[Epoch] = []
    trained = train(run, images, tmp_path, told.append)
    assert trained.divergence is None
    assert told == trained.history
    assert "loss" in told[0]
    assert told[1].keys() == {"epoch", "steps", "skipped", "seconds", "images_per_second"}
    assert told[1]["skipped"] == 1
    json.dumps(told, allow_nan=False)


def test_half_of_the_images_are_mirrored_anew_in_each_epoch(
    expand: Expand, images: Tensor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All images are dark on the left, so that what was mirrored is bright there."""
    dark = torch.zeros_like(images)
    dark[..., 14:] = 255
    seen: list[Tensor] = []
    original = FixedGaussian.forward

    def forward(self: FixedGaussian, output: Tensor, *rest: Any) -> object:
        seen.append(rest[1][:, 0, 0, 0] > 0.5)
        return original(self, output, *rest)

    monkeypatch.setattr(FixedGaussian, "forward", forward)
    train(expand(training={"epochs": 4, "batch": 70, "flips": True})[0].runs[0], dark, tmp_path)
    epochs = torch.cat(seen).view(4, 210)
    assert abs(epochs.float().mean().item() - 0.5) < 5 * 0.5 / math.sqrt(840)
    assert not torch.equal(epochs[0], epochs[1])


def dithers(monkeypatch: pytest.MonkeyPatch, *, level: float | None = None) -> list[Tensor]:
    """What dequantises each batch, as the decoder's target shows it; all `level` where given."""
    seen: list[Tensor] = []
    original, draw = FixedGaussian.forward, Step.draw

    def forward(self: FixedGaussian, output: Tensor, *rest: Any) -> object:
        seen.append((rest[1].double() * 255).add(0.5).remainder(1))
        return original(self, output, *rest)

    def drawn(self: Step, noises: Generator, dithers: Generator) -> None:
        draw(self, noises, dithers)
        if level is not None and self.dither is not None:
            self.dither.fill_(level)

    monkeypatch.setattr(FixedGaussian, "forward", forward)
    monkeypatch.setattr(Step, "draw", drawn)
    return seen


@pytest.mark.parametrize("flips", [False, True])
def test_each_batch_is_dequantised_anew(
    expand: Expand,
    images: Tensor,
    tmp_path: Path,
    flips: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Uniform on a level, whatever the images: 12 batches of 54,880 values."""
    seen = dithers(monkeypatch)
    training = {"epochs": 4, "batch": 70, "flips": flips, "dequantise": True}
    train(expand(training=training)[0].runs[0], images, tmp_path)
    values = torch.stack(seen).flatten(1)
    assert len(values.unique(dim=0)) == 12
    correlations = torch.corrcoef(values) - torch.eye(12).double()
    assert correlations.abs().max() < 5 / math.sqrt(values.shape[1])
    shares = torch.histc(values, 20, 0, 1) / values.numel()
    assert (shares - 1 / 20).abs().max() < 5 * math.sqrt(1 / 20 / values.numel())


def test_noise_of_half_a_level_is_none(
    expand: Expand, images: Tensor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To the bit: x + (½ - ½)/255 is x, and the option changes nothing else of a training."""
    plain, dequantised = (
        expand(training={"epochs": 2, "batch": 70, "flips": True, "dequantise": on})[0].runs[0]
        for on in (False, True)
    )
    undisturbed = train(plain, images, tmp_path / "plain")
    assert not same(undisturbed, train(dequantised, images, tmp_path / "dequantised"))
    dithers(monkeypatch, level=0.5)
    assert same(undisturbed, train(dequantised, images, tmp_path / "centred"))


@pytest.mark.parametrize("decoder", ["categorical", "bitwise_categorical", "logistic_mixture"])
def test_decoders_of_levels_take_no_dequantised_data(
    write_grid: Callable[..., Path], decoder: str
) -> None:
    """`bernoulli` does: its loss is linear in the data, whose mean over the noise they are."""
    on = {"training": {"epochs": 2, "batch": 70, "dequantise": True}}
    read_grid(str(write_grid(decoders=["optimal", "bernoulli"], **on)))
    message = refused(lambda: read_grid(str(write_grid(decoders=["optimal", decoder], **on))))
    assert "small.yaml:" in message
    assert f"decoder '{decoder}' scores 8-bit levels" in message


def test_an_option_that_is_off_moves_no_id(expand: Expand) -> None:
    plain = expand(training={"epochs": 2, "batch": 70})[0].runs[0]
    said = Training(
        **{"epochs": 2, "batch": 70, "precision": "float32", "betas": (0.9, 0.999), "warm_up": 0,
           "weight_decay": 0.0, "schedule": "constant", "clip": None, "skip": None, "ema": None,
           "flips": False, "dequantise": False, "steps": None}
    )  # fmt: skip
    assert plain.training.model_dump().keys() == {"epochs", "batch", "optimizer", "lr", "precision"}
    assert plain.model_copy(update={"training": said}).id == plain.id
    ids = {
        expand(training={"epochs": 2, "batch": 70, **option})[0].runs[0].id
        for option in (
            {"optimizer": "adamw"}, {"betas": [0.9, 0.99]}, {"warm_up": 1}, {"clip": 1.0},
            {"schedule": "cosine"}, {"skip": 1.0}, {"ema": 0.9}, {"flips": True},
            {"dequantise": True}, {"optimizer": "adamw", "weight_decay": 0.1},
        )
    }  # fmt: skip
    assert len(ids - {plain.id}) == 10


@pytest.mark.parametrize(
    ("training", "said"),
    [
        ({"epochs": 2, "steps": 20}, "expected `epochs` or `steps`, one of the two"),
        ({"epochs": None}, "expected `epochs` or `steps`, one of the two"),
        ({"weight_decay": 0.1}, "`weight_decay` needs `optimizer: adamw`"),
        ({"steps": 20, "warm_up": 20}, "`warm_up` must be below `steps`"),
        ({"optimizer": "sgd"}, "input should be 'adam' or 'adamw', not 'sgd'"),
        ({"steps": 0}, "input should be greater than or equal to 1, not 0"),
        ({"betas": [0.9, 1]}, "input should be less than 1, not 1"),
        ({"betas": 0.9}, "expected a list, not 0.9"),
        ({"ema": 1}, "input should be less than 1, not 1"),
        ({"clip": 0}, "input should be greater than 0, not 0"),
        ({"skip": -1}, "input should be greater than 0, not -1"),
        ({"flips": 1}, "input should be a valid boolean, not 1"),
        ({"dequantise": "uniform"}, "input should be a valid boolean, not 'uniform'"),
        ({"schedule": "linear"}, "input should be 'constant' or 'cosine', not 'linear'"),
    ],
)
def test_what_cannot_be_trained_is_refused(
    write_grid: Callable[..., Path], training: dict[str, Any], said: str
) -> None:
    path = write_grid(training=training)
    message = refused(lambda: read_grid(str(path)))
    assert "small.yaml:" in message
    assert said in message


def test_a_warm_up_as_long_as_the_training_is_refused(expand: Expand) -> None:
    """Two epochs of three steps."""
    expand(training={"epochs": 2, "batch": 70, "warm_up": 5})
    message = refused(lambda: expand(training={"epochs": 2, "batch": 70, "warm_up": 6}))
    assert "training.warm_up 6 is not below the 6 steps" in message


def test_records_tell_what_was_skipped(
    write_grid: Callable[..., Path], tmp_path: Path, call: Callable[..., tuple[int, str, str]]
) -> None:
    """The gradient of `gaussian` has a norm of 6, that of `optimal` one of 300."""
    grid = write_grid(training={"steps": 7, "batch": 70, "skip": 100.0, "ema": 0.9})
    code, _, err = call("run", grid, "--results", tmp_path, "--device", "cpu")
    assert code == 0, err
    assert "diverged at step 0: the last 3 steps were all skipped" in err
    records = {
        record["run"]["decoder"]["name"]: record for record in Store(tmp_path / "small").records()
    }
    assert records["gaussian"]["cost"]["skipped_steps"] == 0
    assert records["optimal"]["status"] == DIVERGED
    assert records["optimal"]["divergence"]["what"] == "every step skipped"
    assert "epochs" not in records["gaussian"]["run"]["training"]
