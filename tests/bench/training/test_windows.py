"""Training on videos: windows at random places, from a stream of their own, resumed to the bit."""

from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from baselines.decoders.gaussian import OptimalGaussian
from baselines.models.base import Context, Draw, SequenceModel
from baselines.state import State
from baselines.vae import Vae
from bench import data
from bench.grid.expand import Row
from bench.run import Training
from bench.training.optimiser import Optimiser
from bench.training.step import Step
from bench.training.train import train
from tests.bench.training.test_train import same, stopped_after

COUNT, FRAMES, PAST, FUTURE, BATCH = 12, 9, 2, 3, 4
SVG = {"name": "svg", "width": 2, "features": 4, "hidden": 6, "latent": 2, "past": 2, "future": 3}


class Probe(SequenceModel):
    """Keeps what it is given, and predicts grey."""

    def setup(self) -> None:
        self.level = torch.nn.Parameter(torch.tensor(0.5))
        self.seen: list[Tensor] = []

    def encode(self, images: Tensor, state: State, *, training: bool) -> tuple[Context, State]:
        self.seen.append(images)
        return (images,), {}

    def draw(self, context: Context, noise: Tensor, state: State, *, training: bool) -> Draw:
        output = self.level.expand_as(self.target(context[0]))
        zero = torch.zeros(len(noise), self.frames - 1)
        return Draw(output, zero, zero.sum(1), {})


@pytest.fixture
def videos(tmp_path: Path) -> Path:
    """60 videos of 32x32, 8 frames: a bright square that moves a pixel a frame."""
    rng = np.random.default_rng(0)
    frames = np.zeros((60, 8, 32, 32), np.uint8)
    for video, (row, column) in zip(frames, rng.integers(0, 18, (60, 2)), strict=True):
        for t, frame in enumerate(video):
            frame[row : row + 6, column + t : column + t + 6] = 200
    path = tmp_path / "videos.npz"
    np.savez(path, videos=frames[..., None])
    return path


def numbered() -> Tensor:
    """Frame t of video i is 10 i + t everywhere."""
    levels = 10 * torch.arange(COUNT)[:, None] + torch.arange(FRAMES)
    return levels.to(torch.uint8)[:, :, None, None, None].expand(-1, -1, 1, 2, 2).contiguous()


@pytest.mark.parametrize("flips", [False, True])
def test_a_step_sees_a_window_of_each_chosen_video(flips: bool) -> None:
    model = Probe(channels=1, resolution=2, latent=1, past=PAST, future=FUTURE)
    vae, settings = Vae(model, OptimalGaussian(link="identity")), Training(batch=BATCH, flips=flips)
    state = vae.initial_state()
    step = Step(vae, state, Optimiser(vae, settings, 10), numbered(), settings)
    chosen, start = torch.tensor([7, 0, 7, 11]), torch.tensor([4, 0, 1, 3])
    assert step.start is not None
    step.chosen.copy_(chosen)
    step.start.copy_(start)
    step()
    expected = 10 * chosen[:, None] + start[:, None] + torch.arange(PAST + FUTURE)
    levels = (model.seen[0] * 255).round().long()
    assert model.seen[0].shape == (BATCH, PAST + FUTURE, 1, 2, 2)
    assert levels.equal(expected[:, :, None, None, None].expand_as(levels))


def test_windows_begin_everywhere_and_are_the_same_for_every_decoder(
    expand: Callable[..., list[Row]],
    videos: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of 8 frames a window of 5 begins at one of 4 places, with equal probability."""
    frames = data.load(f"npz:{videos}").train
    found: list[list[int]] = []

    class Seeing(Step):
        def __call__(self) -> None:
            assert self.start is not None
            found[-1].extend(self.start.tolist())
            super().__call__()

    monkeypatch.setattr("bench.training.train.Step", Seeing)
    rows = expand(
        datasets=[f"npz:{videos}"],
        models=[SVG],
        decoders=["optimal", "per_pixel"],
        training={"epochs": 8, "batch": 14},
    )
    for number, row in enumerate(rows):
        found.append([])
        train(row.runs[0], frames, tmp_path / str(number))
    assert found[0] == found[1]
    counts = np.bincount(found[0], minlength=4)
    assert len(counts) == 4
    # 42 windows an epoch, 8 epochs: 84 are expected of each place, with a deviation of 8.
    assert len(found[0]) == 336
    assert abs(counts - 84).max() < 32
    assert found[0][:42] != found[0][42:84]


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("steps", [(1,), (3, 0, 2), range(8)])
def test_a_stopped_training_on_videos_resumes_to_the_bit(
    expand: Callable[..., list[Row]],
    videos: Path,
    tmp_path: Path,
    steps: Iterable[int],
    precision: str,
) -> None:
    """3 steps an epoch."""
    frames = data.load(f"npz:{videos}").train
    run = expand(
        datasets=[f"npz:{videos}"],
        models=[SVG],
        decoders=["optimal"],
        training={"steps": 8, "batch": 14, "precision": precision, "flips": True},
    )[0].runs[0]
    undisturbed = train(run, frames, tmp_path / "one")
    assert stopped_after(steps, 8, run, frames, tmp_path / "two") > 0
    assert same(undisturbed, train(run, frames, tmp_path / "two"))
