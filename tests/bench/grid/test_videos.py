"""Videos and images are not mistaken for each other, and a model gets the frames that it needs."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from bench.errors import RequestError
from bench.grid.expand import Row, trial_run

SVG = {"name": "svg", "width": 2, "features": 4, "hidden": 6, "latent": 2, "past": 2, "future": 3}


@pytest.fixture
def videos(tmp_path: Path) -> str:
    """20 videos of 32x32, 6 frames."""
    path = tmp_path / "videos.npz"
    np.savez(path, videos=np.random.default_rng(0).integers(0, 256, (20, 6, 32, 32, 1), np.uint8))
    return f"npz:{path}"


@pytest.mark.parametrize(
    ("model", "data", "words"),
    [
        ("conv_vae", "videos", "a model of images, and these are videos of 6 frames"),
        ({**SVG}, "mnist5k@32", "a model of videos, and these are images"),
        ({**SVG, "past": 4}, "videos", "past 4 and future 3 need 7 frames, and these videos have"),
        ({**SVG, "horizon": 5}, "videos", "future 3 or horizon 5 need 7 frames"),
        ({**SVG}, "smmnist5k@28", "takes images of 32x32 or 64x64, not of 28x28"),
    ],
)
def test_what_does_not_fit_is_told_before_training(
    expand: Callable[..., list[Row]], videos: str, model: object, data: str, words: str
) -> None:
    place = videos if data == "videos" else data
    with pytest.raises(RequestError, match=words):
        expand(models=[model], datasets=[place], training={"batch": 4})


def test_a_grid_says_what_is_predicted_and_a_trial_predicts_nothing(
    expand: Callable[..., list[Row]], videos: str
) -> None:
    rows = expand(
        models=[SVG],
        datasets=[videos],
        decoders=[{"name": "beta", "beta": {"tune": {"low": 0.01, "high": 1, "trials": 2}}}],
        training={"batch": 4},
        evaluation={"rollouts": 3, "clips": 2, "samples": 0, "features": "none"},
    )
    final = rows[0].runs[0].evaluation
    assert (final.rollouts, final.clips) == (3, 2)
    assert trial_run(rows[0], [0.1], 1000).evaluation.rollouts == 0


def test_images_keep_their_ids(expand: Callable[..., list[Row]]) -> None:
    """What is off is in no record: runs on images are those of before there were videos."""
    run = expand(datasets=["mnist5k"])[0].runs[0]
    assert not {"rollouts", "clips", "fvd"} & run.model_dump(mode="json")["evaluation"].keys()
