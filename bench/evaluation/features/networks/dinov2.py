"""DINOv2 ViT-L/14, whose features FD-DINOv2 compares."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from bench.evaluation.features.network import Fetched, loading, state_dict_of
from bench.evaluation.features.vit import (
    Names,
    Transformer,
    at_grid,
    blocks_of,
    normalised,
    per_channel,
    side_of,
    taken,
)

if TYPE_CHECKING:
    import torch
    from torch import Tensor

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


class DinoV2(Fetched):
    """Features are the normalised class token, at 224x224 (Stein et al. 2023, arXiv 2306.04675)."""

    name = "dinov2"
    words = ("dinov2", "dinov2:PATH")
    metric_name = "fd_dinov2"
    automatic = False
    place = 3
    dimension = 1024
    variable = "SIGMA_BENCH_DINOV2"
    file = "dinov2_vitl14_pretrain.pth"
    url = f"https://dl.fbaipublicfiles.com/dinov2/dinov2_vitl14/{file}"
    # The published weights, 1,217,586,395 bytes (Oquab et al. 2023, arXiv 2304.07193).
    sha256 = "d5383ea8f4877b2472eb973e0fd72d557c7da5d3611bd527ceeb1d7162cbf428"
    expected = "DINOv2's weights"

    def load(self, weights: Path, device: torch.device) -> Callable[[Tensor], Tensor]:
        """Any size without registers and with a plain MLP is read: S, B and L.

        Raises `RequestError` where the file is unreadable or holds something else.
        """
        import torch
        from torch.nn import functional

        state = state_dict_of(weights)
        with loading(weights, self.expected):
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
            side_of(places, "pos_embed")
            last = {f"norm.{kind}": take(f"norm.{kind}", (width,)) for kind in ("weight", "bias")}
            blocks = blocks_of(state, NAMES, width, device)
        transform = Transformer(blocks, EPSILON, functional.gelu)
        grid = at_grid(places[1:], SIZE // patch, OFFSET)
        mean, deviation = per_channel(MEAN, device), per_channel(DEVIATION, device)

        def features(images: Tensor) -> Tensor:
            resized = functional.interpolate(
                images.float(), (SIZE, SIZE), mode="bicubic", antialias=True
            )
            inputs = (resized.clamp(0, 255) / 255 - mean) / deviation
            patches = functional.conv2d(inputs, kernel, bias, stride=patch).flatten(2).mT + grid
            tokens = torch.cat([(first[0] + places[:1]).expand(len(patches), -1, -1), patches], 1)
            return normalised(transform(tokens)[:, 0], last, "norm", EPSILON)

        return features
