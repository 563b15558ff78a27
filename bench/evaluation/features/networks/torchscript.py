"""A feature network of the user's own, as a TorchScript file."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from bench.devices import out_of_memory
from bench.errors import RequestError
from bench.evaluation.features.network import Network, loading
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
        import torch

        with loading(weights, "a TorchScript file"), warnings.catch_warnings():
            # Deprecated for programs that write such files, while this one reads a user's.
            warnings.filterwarnings("ignore", r".*torch\.jit\.load")
            network = torch.jit.load(weights, map_location=device)
            network.eval()

        def features(images: Tensor) -> Tensor:
            try:
                output = network(images.float() / 255)
            except RuntimeError as error:
                if out_of_memory(error):
                    raise
                reason = str(error).strip().splitlines()[-1]
                raise RequestError(
                    f"{weights}: failed on float images {tuple(images.shape)} in [0, 1]: {reason}"
                ) from error
            if not isinstance(output, torch.Tensor) or output.shape[:-1] != images.shape[:1]:
                shape = tuple(output.shape) if isinstance(output, torch.Tensor) else type(output)
                raise RequestError(
                    f"{weights}: expected features (B, F) for images {tuple(images.shape)}, "
                    f"got {shape}"
                )
            return output

        return features
