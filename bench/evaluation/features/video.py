"""The network of the Fréchet video distance: an I3D of the user's own, as a TorchScript file.

torch is imported where something is computed: a grid resolves without it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from bench.evaluation.features.base import refuse_channels
from bench.evaluation.features.network import hash_of, script_of
from bench.run import Features, Precision

if TYPE_CHECKING:
    import torch
    from torch import Tensor

SIZE = 224


def resolve_video(path: str) -> Features:
    """The network that a grid's `fvd` names, found without torch.

    Raises `RequestError` where the file cannot be read.
    """
    file = Path(path).expanduser()
    sha256 = hash_of(file, "`fvd` names the TorchScript file of an I3D network")
    return Features(name="i3d", metric="fvd", sha256=sha256, source=str(file))


@dataclass(frozen=True)
class VideoExtractor:
    """An I3D on a device: 8-bit videos (B, T, C, H, W) in, float32 features (B, F) out.

    The network is called as the published one (Unterthiner et al. 2018, arXiv 1812.01717, as
    TorchScript): with floats (B, 3, T, 224, 224) in [-1, 1] and the keywords `rescale=False`,
    `resize=False` and `return_features=True`. Frames are resized bilinearly.

    Attributes:
        features: what a run says of the network.
        network: takes such floats, and says what they are where it fails.
    """

    features: Features
    network: Callable[[Tensor, str], Tensor]
    device: torch.device
    precision: Precision = "float32"

    def __call__(self, videos: Tensor) -> Tensor:
        """The features (B, F) of 8-bit videos; a single channel is repeated to 3.

        Raises `RequestError` for another number of channels and for videos that the network fails
        on: an I3D needs about ten frames.
        """
        import torch

        refuse_channels(videos.shape[2], "evaluation.fvd to null")
        with torch.inference_mode():
            frames = videos.to(self.device).flatten(0, 1).float()
            resized = torch.nn.functional.interpolate(frames, (SIZE, SIZE), mode="bilinear")
            scaled = resized.mul_(2 / 255).sub_(1).unflatten(0, videos.shape[:2])
            whole = scaled.movedim(1, 2).expand(-1, 3, -1, -1, -1)
            return self.network(whole.contiguous(), "videos in [-1, 1]").float()


def build_video(features: Features, device: str | torch.device) -> VideoExtractor:
    """Load the network that a run chose on `device`.

    Raises `RequestError` where the file is unreadable or holds something else.
    """
    import torch

    target = torch.device(device)
    options = {"rescale": False, "resize": False, "return_features": True}
    return VideoExtractor(features, script_of(Path(features.source), target, **options), target)
