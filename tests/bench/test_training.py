"""Training: a resume continues bit-equally, a divergence is told, streams do not shift."""

import json
import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from baselines.decoders import FixedGaussian
from bench import data
from bench.grid import Row
from bench.training import Trained, build, train


@pytest.fixture
def images(tiny: Path) -> torch.Tensor:
    return data.load(f"npz:{tiny}").train


class Stopped(Exception):
    pass


def stop_after(count: int) -> Callable[[dict[str, float]], None]:
    def on_epoch(line: dict[str, float]) -> None:
        if line["epoch"] + 1 == count:
            raise Stopped

    return on_epoch


def same(one: Trained, other: Trained) -> bool:
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
    with pytest.raises(Stopped):
        train(run, images, tmp_path / "two", stop_after(1))
    with pytest.raises(Stopped):
        train(run, images, tmp_path / "two", stop_after(3))
    resumed = train(run, images, tmp_path / "two")
    assert same(undisturbed, resumed)
    lines = (tmp_path / "two" / "history.jsonl").read_text().splitlines()
    assert [json.loads(line)["epoch"] for line in lines] == [0, 1, 2, 3]


@pytest.mark.parametrize("damage", [b"", b"PK\x03\x04 not an archive", None])
def test_a_torn_checkpoint_is_set_aside(
    expand: Callable[..., list[Row]],
    images: torch.Tensor,
    tmp_path: Path,
    damage: bytes | None,
    caplog: pytest.LogCaptureFixture,
) -> None:
    run = expand(decoders=["shared"])[0].runs[0]
    undisturbed = train(run, images, tmp_path / "one")
    with pytest.raises(Stopped):
        train(run, images, tmp_path / "two", stop_after(1))
    path = tmp_path / "two" / "checkpoint.pt"
    path.write_bytes(path.read_bytes()[:2000] if damage is None else damage)
    with caplog.at_level(logging.WARNING):
        resumed = train(run, images, tmp_path / "two")
    assert same(undisturbed, resumed)
    assert "is torn: set aside" in caplog.text
    assert (tmp_path / "two" / "checkpoint.pt.bad").exists()


def test_another_runs_checkpoint_is_not_believed(
    expand: Callable[..., list[Row]], images: torch.Tensor, tmp_path: Path
) -> None:
    one, two = (row.runs[0] for row in expand(decoders=["gaussian", {"name": "beta", "beta": 0.1}]))
    train(one, images, tmp_path)
    resumed = train(two, images, tmp_path)
    assert len(resumed.history) == two.training.epochs
    assert resumed.history[0]["sigma"] == pytest.approx(0.05**0.5)


@pytest.mark.parametrize("step", [0, 2, 4])
def test_a_planted_nan_is_reported_at_its_step(
    expand: Callable[..., list[Row]],
    images: torch.Tensor,
    tmp_path: Path,
    step: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run = expand(training={"epochs": 2, "batch": 70})[0].runs[0]
    calls = []
    original = FixedGaussian.forward

    def forward(self: FixedGaussian, output: torch.Tensor, *rest: object) -> object:
        calls.append(None)
        if len(calls) == step + 1:
            output = output * torch.nan
        return original(self, output, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(FixedGaussian, "forward", forward)
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
    assert not torch.equal(other.model.state_dict()["head.weight"], first.model.head.weight)


def test_sigma_has_its_learning_rate(
    expand: Callable[..., list[Row]], images: torch.Tensor, tmp_path: Path
) -> None:
    """One Adam step moves ln σ by lr·sigma_lr."""
    rows = expand(
        decoders=["shared", {"name": "shared", "sigma_lr": 20}],
        training={"epochs": 1, "batch": 210},
    )
    moved = [
        abs(train(row.runs[0], images, tmp_path / row.runs[0].id).vae.decoder.log_sigma.item())
        for row in rows
    ]
    assert moved == pytest.approx([1e-3, 20e-3], rel=1e-3)
