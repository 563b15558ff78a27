"""Training: a resume continues bit-equally, a divergence is told, streams do not shift."""

import itertools
import json
import logging
import math
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from baselines.decoders.gaussian import FixedGaussian
from bench import data
from bench.errors import Stopped
from bench.grid.expand import Row
from bench.run import Run
from bench.training.checkpoint import Checkpoint, Trained
from bench.training.train import build, train


@pytest.fixture
def images(tiny: Path) -> torch.Tensor:
    return data.load(f"npz:{tiny}").train


def stop_at(*steps: int) -> Callable[[], bool]:
    """Says True when it is asked before one of these steps, counted from 0 over its life."""
    asked = itertools.count()
    return lambda: next(asked) in steps


def stopped_after(
    steps: Iterable[int], total: int, run: Run, images: torch.Tensor, folder: Path
) -> int:
    """Stop a training of `total` steps after each of `steps`; returns how many it has done.

    Each counts from where the call before it stopped.
    """
    done = 0
    for step in steps:
        if done + step >= total:
            break
        with pytest.raises(Stopped):
            train(run, images, folder, stop=stop_at(step))
        done += step
    return done


class Killed(Exception):
    pass


def kill_after(count: int) -> Callable[[dict[str, float]], None]:
    def on_epoch(line: dict[str, float]) -> None:
        if line["epoch"] + 1 == count:
            raise Killed

    return on_epoch


def same(one: Trained, other: Trained) -> bool:
    """To the bit, which is promised for one machine and one number of threads."""
    weights, others = one.vae.state_dict(), other.vae.state_dict()
    terms = [
        [{k: v for k, v in line.items() if "second" not in k} for line in trained.history]
        for trained in (one, other)
    ]
    return (
        all(torch.equal(weights[name], others[name]) for name in weights)
        and all(torch.equal(one.state[name], other.state[name]) for name in one.state)
        and terms[0] == terms[1]
    )


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("model", [{"name": "conv_vae", "width": 2, "latent": 3},
                                   {"name": "conv_vae_tf", "width": 2, "latent": 3}])  # fmt: skip
def test_a_resume_continues_bit_equally(
    expand: Callable[..., list[Row]],
    images: torch.Tensor,
    tmp_path: Path,
    precision: str,
    model: dict[str, object],
) -> None:
    training = {"epochs": 4, "batch": 70, "precision": precision}
    run = expand(decoders=["optimal"], models=[model], training=training)[0].runs[0]
    undisturbed = train(run, images, tmp_path / "one")
    with pytest.raises(Killed):
        train(run, images, tmp_path / "two", kill_after(1))
    with pytest.raises(Killed):
        train(run, images, tmp_path / "two", kill_after(3))
    resumed = train(run, images, tmp_path / "two")
    assert same(undisturbed, resumed)
    lines = (tmp_path / "two" / "history.jsonl").read_text().splitlines()
    assert [json.loads(line)["epoch"] for line in lines] == [0, 1, 2, 3]


@pytest.mark.parametrize("steps", [(0,), (1,), (3,), (4,), (11,), (2, 0, 4), range(12)])
def test_a_stop_between_any_two_steps_leaves_no_trace(
    expand: Callable[..., list[Row]], images: torch.Tensor, tmp_path: Path, steps: Iterable[int]
) -> None:
    """3 steps an epoch."""
    run = expand(decoders=["optimal"], training={"epochs": 4, "batch": 70})[0].runs[0]
    undisturbed = train(run, images, tmp_path / "one")
    done = stopped_after(steps, 12, run, images, tmp_path / "two")
    told: list[float] = []
    resumed = train(run, images, tmp_path / "two", on_epoch=lambda line: told.append(line["epoch"]))
    assert same(undisturbed, resumed)
    assert told == list(range(done // 3, 4))


def test_a_stop_and_a_kill_together(
    expand: Callable[..., list[Row]], images: torch.Tensor, tmp_path: Path
) -> None:
    """The checkpoint of an epoch's end replaces that of a stop inside it."""
    run = expand(decoders=["shared"], training={"epochs": 4, "batch": 70})[0].runs[0]
    undisturbed = train(run, images, tmp_path / "one")
    with pytest.raises(Stopped):
        train(run, images, tmp_path / "two", stop=stop_at(4))
    with pytest.raises(Killed):
        train(run, images, tmp_path / "two", kill_after(3))
    with pytest.raises(Stopped):
        train(run, images, tmp_path / "two", stop=stop_at(2))
    assert same(undisturbed, train(run, images, tmp_path / "two"))


def test_the_seconds_before_a_stop_count(
    expand: Callable[..., list[Row]],
    images: torch.Tensor,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A clock that ticks a second a look: the epoch's own looks are its start and its end."""
    run = expand(training={"epochs": 1, "batch": 70})[0].runs[0]
    monkeypatch.setattr("time.perf_counter", map(float, itertools.count()).__next__)
    assert train(run, images, tmp_path / "one").history[0]["seconds"] == 1
    with pytest.raises(Stopped):
        train(run, images, tmp_path / "two", stop=stop_at(2))
    assert train(run, images, tmp_path / "two").history[0]["seconds"] == 2


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "emptied": lambda content: b"",
    "not an archive": lambda content: b"PK\x03\x04 not an archive",
    "truncated": lambda content: content[:2000],
    "short of a byte": lambda content: content[:-1],
    "without its checksum": lambda content: content[32:],
}
"""What happens to a checkpoint, the bits that flip left out."""


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_torn_checkpoint_is_set_aside(
    expand: Callable[..., list[Row]],
    images: torch.Tensor,
    tmp_path: Path,
    damage: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    run = expand(decoders=["shared"])[0].runs[0]
    undisturbed = train(run, images, tmp_path / "one")
    with pytest.raises(Stopped):
        train(run, images, tmp_path / "two", stop=stop_at(4))
    path = tmp_path / "two" / "checkpoint.pt"
    path.write_bytes(DAMAGES[damage](path.read_bytes()))
    with caplog.at_level(logging.WARNING):
        resumed = train(run, images, tmp_path / "two")
    assert same(undisturbed, resumed)
    assert "is torn: set aside" in caplog.text
    assert (tmp_path / "two" / "checkpoint.pt.bad").exists()


def test_no_flipped_bit_of_a_checkpoint_is_believed(
    expand: Callable[..., list[Row]], images: torch.Tensor, tmp_path: Path
) -> None:
    """Read by torch alone, most flips are a parameter that is a little different."""
    run = expand(decoders=["shared"], training={"epochs": 1, "batch": 210})[0].runs[0]
    train(run, images, tmp_path)
    path = tmp_path / "checkpoint.pt"
    checkpoint, content = Checkpoint(path, run.id), path.read_bytes()
    whole = checkpoint.read()
    assert whole is not None
    assert len(whole["history"]) == 1
    for place in np.random.default_rng(0).integers(0, 8 * len(content), 200).tolist():
        flipped = bytearray(content)
        flipped[place // 8] ^= 1 << place % 8
        path.write_bytes(flipped)
        assert checkpoint.read() is None


def test_another_runs_checkpoint_is_not_believed(
    expand: Callable[..., list[Row]], images: torch.Tensor, tmp_path: Path
) -> None:
    one, two = (row.runs[0] for row in expand(decoders=["gaussian", {"name": "beta", "beta": 0.1}]))
    train(one, images, tmp_path)
    resumed = train(two, images, tmp_path)
    assert len(resumed.history) == two.training.epochs
    assert resumed.history[0]["sigma"] == pytest.approx(0.05**0.5)


@pytest.mark.parametrize(
    ("step", "stops"),
    [(0, ()), (0, (2,)), (2, ()), (2, (1, 1)), (3, ()), (3, (3,)), (3, (1, 3)), (5, (4, 1))],
)
def test_a_planted_nan_is_reported_at_its_step(
    expand: Callable[..., list[Row]],
    images: torch.Tensor,
    tmp_path: Path,
    step: int,
    stops: tuple[int, ...],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """3 steps an epoch; a stop before the NaN, at it, after it or none changes nothing."""
    run = expand(training={"epochs": 2, "batch": 70})[0].runs[0]
    calls: list[None] = []
    original = FixedGaussian.forward

    def forward(self: FixedGaussian, output: torch.Tensor, *rest: Any) -> object:
        calls.append(None)
        if len(calls) == step + 1:
            output = output * torch.nan
        return original(self, output, *rest)

    monkeypatch.setattr(FixedGaussian, "forward", forward)
    for stop in stops:
        with pytest.raises(Stopped):
            train(run, images, tmp_path, stop=stop_at(stop))
    divergence = train(run, images, tmp_path).divergence
    assert divergence is not None
    assert divergence.step == step
    assert divergence.what == "distortion"
    assert (divergence.last == {}) == (step == 0)
    assert all(abs(value) < 1e6 for value in divergence.last.values())


def test_an_infinite_learning_rate_diverges_and_does_not_crash(
    expand: Callable[..., list[Row]], images: torch.Tensor, tmp_path: Path
) -> None:
    run = expand(decoders=["per_pixel"], training={"epochs": 3, "batch": 70, "lr": 1e30})[0].runs[0]
    divergence = train(run, images, tmp_path).divergence
    assert divergence is not None
    assert divergence.step >= 1
    assert "loss" in divergence.last


@pytest.mark.parametrize("seed", [0, 1])
def test_constant_pixels_end_an_unclipped_variance_with_a_reason(
    expand: Callable[..., list[Row]], tmp_path: Path, seed: int
) -> None:
    """The likelihood of a pixel that never changes has no bound; the soft clip is one."""
    rng = np.random.default_rng(0)
    framed = np.zeros((300, 28, 28), np.uint8)
    framed[:, 8:20, 8:20] = rng.integers(0, 256, (300, 12, 12))
    path = tmp_path / "framed.npz"
    np.savez(path, images=framed)
    rows = expand(
        datasets=[f"npz:{path}"],
        decoders=[{"name": "per_pixel", "min_log_sigma": None}, "per_pixel"],
        models=[{"name": "linear_vae", "latent": 3}],
        training={"epochs": 10, "batch": 70, "lr": 0.1},
        seeds=[seed],
    )
    images = data.load(f"npz:{path}").train
    unclipped, clipped = (train(row.runs[0], images, tmp_path / row.runs[0].id) for row in rows)
    assert unclipped.divergence is not None
    assert unclipped.divergence.what == "distortion"
    assert unclipped.divergence.step > 0
    assert clipped.divergence is None
    assert len(clipped.history) == 10


def test_decoders_of_one_seed_share_initial_model_weights(
    expand: Callable[..., list[Row]],
) -> None:
    """The comparison between decoders is paired: only the decoder differs."""
    one, two = (row.runs[0] for row in expand(decoders=["gaussian", "shared"]))
    first, second = build(one, 1, 28), build(two, 1, 28)
    for name, value in first.model.state_dict().items():
        assert torch.equal(value, second.model.state_dict()[name])
    other = build(one.model_copy(update={"seed": 1}), 1, 28)
    assert not torch.equal(
        other.model.state_dict()["head.weight"], first.model.get_parameter("head.weight")
    )


def learned_log_sigma(trained: Trained) -> float:
    return trained.vae.decoder.get_parameter("log_sigma").item()


def test_sigma_has_its_learning_rate(
    expand: Callable[..., list[Row]], images: torch.Tensor, tmp_path: Path
) -> None:
    """One Adam step moves ln σ by lr·sigma_lr."""
    rows = expand(
        decoders=["shared", {"name": "shared", "sigma_lr": 20}],
        training={"epochs": 1, "batch": 210},
    )
    moved = [
        abs(learned_log_sigma(train(row.runs[0], images, tmp_path / row.runs[0].id)))
        for row in rows
    ]
    assert moved == pytest.approx([1e-3, 20e-3], rel=1e-3)


def test_training_begins_where_the_data_put_sigma(
    expand: Callable[..., list[Row]], images: torch.Tensor, tmp_path: Path
) -> None:
    """And a resumed run goes on from its checkpoint, not from the data."""
    decoders = [{"name": "shared", "initial_log_sigma": "data"}]
    training = {"epochs": 2, "batch": 70, "lr": 1e-3}
    run = expand(decoders=decoders, training=training)[0].runs[0]
    undisturbed = train(run, images, tmp_path / "one")
    values = images.double() / 255
    deviation = float((values - values.mean(0)).square().mean().sqrt())
    moved = learned_log_sigma(undisturbed) - math.log(deviation)
    assert 0 < abs(moved) < 6 * 1.1e-3  # at most a learning rate at each of six steps
    with pytest.raises(Stopped):
        train(run, images, tmp_path / "two", stop=stop_at(4))
    assert same(undisturbed, train(run, images, tmp_path / "two"))
