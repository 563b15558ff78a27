"""DINOv2 ViT-L/14, whose features FD-DINOv2 compares."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from bench.data.download import Progress, download
from bench.evaluation.features.network import (
    Network,
    found_by,
    hub_checkpoint,
    loading,
    state_dict_of,
)
from bench.evaluation.features.vit import (
    Names,
    Transformer,
    at_grid,
    blocks_of,
    normalised,
    taken,
)
from bench.run import Features

if TYPE_CHECKING:
    import torch
    from torch import Tensor

VARIABLE = "SIGMA_BENCH_DINOV2"
FILE = "dinov2_vitl14_pretrain.pth"
URL = f"https://dl.fbaipublicfiles.com/dinov2/dinov2_vitl14/{FILE}"

SHA256 = "d5383ea8f4877b2472eb973e0fd72d557c7da5d3611bd527ceeb1d7162cbf428"
"""Of the published weights, 1,217,586,395 bytes (Oquab et al. 2023, arXiv 2304.07193)."""

SIZE, EPSILON, OFFSET = 224, 1e-6, 0.1
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of ImageNet's channels, in [0, 1]."""

NAMES = Names(
    "blocks.",
    {
        "norm1": "norm1.",
        "qkv": "attn.qkv.",
        "out": "attn.proj.",
        "scale1": "ls1.gamma",
        "norm2": "norm2.",
        "fc1": "mlp.fc1.",
        "fc2": "mlp.fc2.",
        "scale2": "ls2.gamma",
    },
)


class DinoV2(Network):
    """Features are the normalised class token, at 224x224 (Stein et al. 2023, arXiv 2306.04675)."""

    name = "dinov2"
    words = ("dinov2", "dinov2:PATH")
    metric_name = "fd_dinov2"
    automatic = False
    place = 3
    dimension = 1024
    fetchable = True

    def find(self, word: str) -> Features | None:
        return found_by(self, word, VARIABLE, hub_checkpoint(FILE), "DINOv2's weights")

    def is_here(self) -> bool:
        return bool(os.environ.get(VARIABLE)) or hub_checkpoint(FILE).is_file()

    def metric(self, weights: Path, sha256: str) -> str:
        return self.metric_name if sha256 == SHA256 else f"{self.metric_name}_{sha256[:8]}"

    def load(self, weights: Path, device: torch.device) -> Callable[[Tensor], Tensor]:
        """Any size without registers and with a plain MLP is read: S, B and L.

        Raises `RequestError` where the file is unreadable or holds something else.
        """
        import torch
        from torch.nn import functional

        state = state_dict_of(weights)
        with loading(weights, "DINOv2's weights"):
            if "patch_embed.proj.weight" not in state:
                raise ValueError("it has no patch_embed.proj.weight")
            if "register_tokens" in state:
                raise ValueError("it has registers, which other features come from")
            width, _, patch, _ = state["patch_embed.proj.weight"].shape
            take = partial(taken, state, device=device)
            kernel = take("patch_embed.proj.weight", (width, 3, patch, patch))
            bias = take("patch_embed.proj.bias", (width,))
            first = take("cls_token", (1, 1, width))
            places = take("pos_embed", (1, *state["pos_embed"].shape[1:2], width))[0]
            if math.isqrt(len(places) - 1) ** 2 != len(places) - 1:
                raise ValueError(f"pos_embed has {len(places)} places, no square and one")
            last = {f"norm.{kind}": take(f"norm.{kind}", (width,)) for kind in ("weight", "bias")}
            blocks = blocks_of(state, NAMES, width, device)
        transform = Transformer(blocks, EPSILON, functional.gelu)
        grid = at_grid(places[1:], SIZE // patch, OFFSET)
        mean, deviation = (
            torch.tensor(values, device=device).view(1, 3, 1, 1) for values in (MEAN, DEVIATION)
        )

        def features(images: Tensor) -> Tensor:
            resized = functional.interpolate(
                images.float(), (SIZE, SIZE), mode="bicubic", antialias=True
            )
            inputs = (resized.clamp(0, 255) / 255 - mean) / deviation
            patches = functional.conv2d(inputs, kernel, bias, stride=patch).flatten(2).mT + grid
            tokens = torch.cat([(first[0] + places[:1]).expand(len(patches), -1, -1), patches], 1)
            return normalised(transform(tokens)[:, 0], last, "norm", EPSILON)

        return features

    def fetch(self, progress: Progress | None = None) -> Path:
        """Download the published weights (1.1 GiB) to torch.hub's cache, whole or not at all."""
        return download([URL], hub_checkpoint(FILE), sha256=SHA256, progress=progress)
