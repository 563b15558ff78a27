"""A feature network of the user's own, as a TorchScript file."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from bench.devices import out_of_memory
from bench.errors import RequestError
from bench.evaluation.features.loading import loading

if TYPE_CHECKING:
    import torch
    from torch import Tensor


TORCHSCRIPT_SUFFIXES = (".pt", ".ts", ".torchscript", ".jit")


def load_torchscript(path: Path, device: torch.device) -> Callable[[Tensor], Tensor]:
    import torch

    with loading(path, "a TorchScript file"), warnings.catch_warnings():
        # Deprecated for programs that write such files; reading a user's is what is asked here.
        warnings.filterwarnings("ignore", r".*torch\.jit\.load")
        network = torch.jit.load(path, map_location=device)
        network.eval()

    def features(images: Tensor) -> Tensor:
        try:
            output = network(images.float() / 255)
        except RuntimeError as error:
            if out_of_memory(error):
                raise
            reason = str(error).strip().splitlines()[-1]
            raise RequestError(
                f"{path}: failed on float images {tuple(images.shape)} in [0, 1]: {reason}"
            ) from error
        if not isinstance(output, torch.Tensor) or output.shape[:-1] != images.shape[:1]:
            shape = tuple(output.shape) if isinstance(output, torch.Tensor) else type(output)
            raise RequestError(
                f"{path}: expected features (B, F) for images {tuple(images.shape)}, got {shape}"
            )
        return output

    return features
