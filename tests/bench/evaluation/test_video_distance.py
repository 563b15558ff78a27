"""Distances of videos from features whose Gaussians are known."""

import pytest
import torch
from torch import Tensor

from bench.evaluation.video_distance import by_horizon, of_videos, video_distance


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_the_order_of_frames_counts_in_the_changes_alone() -> None:
    frames = normal(5, 6, 3)
    order = torch.tensor([0, 3, 1, 4, 2, 5])
    one, other = of_videos(frames), of_videos(frames[:, order])
    torch.testing.assert_close(one[:, :3], other[:, :3])
    assert not torch.allclose(one[:, 3:], other[:, 3:])
    torch.testing.assert_close(of_videos(frames.flip(1)), one)  # time has no arrow in it


def test_still_videos_have_no_changes() -> None:
    still = normal(5, 1, 3).expand(-1, 4, -1)
    torch.testing.assert_close(of_videos(still), torch.cat([still[:, 0], torch.zeros(5, 3)], 1))


def test_a_shift_along_the_real_variation_is_its_square() -> None:
    real = normal(100, 4) * torch.tensor([3.0, 2.0, 1.0, 0.0])
    shift = torch.tensor([0.5, 0.0, 0.0, 0.0])
    distance, count = video_distance(real + shift, real)
    assert count == 3  # nothing varies in the last direction
    assert distance == pytest.approx(0.25, rel=1e-5)
    assert video_distance(real + shift.flip(0), real)[0] == pytest.approx(0, abs=1e-9)


def test_there_are_half_as_many_directions_as_videos_of_the_smaller_set() -> None:
    real = normal(12, 50)
    assert video_distance(normal(40, 50, seed=1), real)[1] == 6
    assert video_distance(normal(7, 50, seed=1), real)[1] == 3
    assert video_distance(real, real)[0] == pytest.approx(0, abs=1e-9)


def test_another_basis_of_features_changes_nothing() -> None:
    made, real = normal(40, 6, seed=1), normal(60, 6) * torch.arange(1.0, 7)
    rotation = torch.linalg.qr(normal(6, 6, seed=2).double()).Q
    expected = video_distance(made, real)[0]
    turned = (of.double() @ rotation for of in (made, real))
    assert video_distance(*turned)[0] == pytest.approx(expected, rel=1e-9)


def test_by_horizon_each_place_is_compared_with_its_own() -> None:
    """A mean that moves by h is h² per feature away from standing still."""
    real = normal(30, 4, 3)
    moved = real + torch.arange(4.0).view(-1, 1)
    assert by_horizon(moved, real) == pytest.approx([3 * h**2 for h in range(4)], abs=1e-6)
