"""Fréchet distances of videos from the features of their frames."""

import torch
from torch import Tensor

from bench.evaluation.fid import Moments, distance_between


def by_horizon(made: Tensor, real: Tensor) -> list[float]:
    """The Fréchet distance of frames of each horizon, of features (n, H, F) and (N, H, F)."""
    return [_distance(made[:, at], real[:, at]) for at in range(made.shape[1])]


def of_videos(features: Tensor) -> Tensor:
    """Features of whole videos, (N, 2F), from those of their frames f, (N, H, F), H at least 2.

    The mean over frames of f, then that of |f' - f| of neighbouring frames: what is seen, and how
    much it changes. The order of the frames counts in the second half alone.

    >>> of_videos(torch.tensor([[[1.0], [2.0], [0.0]]]))
    tensor([[1.0000, 1.5000]])
    """
    return torch.cat([features.mean(1), features.diff(dim=1).abs().mean(1)], dim=1)


def video_distance(made: Tensor, real: Tensor) -> tuple[float, int]:
    """The Fréchet distance of videos' features (n, F) and (N, F), and in how many directions.

    Both are projected on the leading principal components of the real ones, at most half as many
    as the smaller set has videos: of more directions its covariance would be singular, or nearly,
    and the distance would grow with their number. Directions in which the real ones do not vary
    are left out.
    """
    one, other = made.double(), real.double()
    centre = other.mean(0)
    _, spread, directions = torch.linalg.svd(other - centre, full_matrices=False)
    least = spread[0] * max(other.shape) * torch.finfo(other.dtype).eps
    count = min(int((spread > least).sum()), len(one) // 2, len(other) // 2)
    basis = directions[:count].T
    return _distance((one - centre) @ basis, (other - centre) @ basis), count


def _distance(one: Tensor, other: Tensor) -> float:
    return distance_between(Moments.of(one), Moments.of(other))
