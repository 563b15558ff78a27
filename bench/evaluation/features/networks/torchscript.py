"""A feature network of the user's own, as a TorchScript file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from bench.evaluation.features.network import Network, script_of
from bench.run import Features

if TYPE_CHECKING:
    import torch
    from torch import Tensor

SUFFIXES = (".pt", ".ts", ".torchscript", ".jit")


class TorchScript(Network):
    """It is given float images (B, 3, H, W) in [0, 1] at their own size and returns (B, F)."""

    name = "torchscript"
    words = tuple(f"PATH{suffix}" for suffix in SUFFIXES)
    metric_name = "fd_<file>"
    place = 20
    automatic = False

    def find(self, word: str) -> Features | None:
        if not word.endswith(SUFFIXES):
            return None
        return self.of(Path(word).expanduser(), "expected a TorchScript file")

    def metric(self, weights: Path, sha256: str) -> str:
        return f"fd_{weights.stem}"

    def load(self, weights: Path, device: torch.device) -> Callable[[Tensor], Tensor]:
        script = script_of(weights, device)
        return lambda images: script(images.float() / 255, "images in [0, 1]")
