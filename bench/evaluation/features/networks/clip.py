"""CLIP ViT-L/14 at 336 pixels, whose image embeddings CMMD compares."""

from __future__ import annotations

import math
import os
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.data.download import Progress, download
from bench.evaluation.features.network import (
    Network,
    found_by,
    hub_checkpoint,
    loading,
    script_loaded,
    state_dict_of,
)
from bench.evaluation.features.vit import Names, Transformer, blocks_of, normalised, taken
from bench.run import Features

if TYPE_CHECKING:
    import torch
    from torch import Tensor

VARIABLE = "SIGMA_BENCH_CLIP"
FILE = "ViT-L-14-336px.pt"

SHA256 = "3035c92b350959924f9f00213499208652fc7ea050643e8b385c2dac08641f02"
"""Of the published weights (Radford et al. 2021, arXiv 2103.00020)."""

URL = f"https://openaipublic.azureedge.net/clip/models/{SHA256}/{FILE}"

EPSILON = 1e-5
MEAN, DEVIATION = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
"""Of the channels that CLIP was trained on, in [0, 1]."""

NAMES = Names(
    "visual.transformer.resblocks.",
    {
        "norm1": "ln_1.",
        "qkv": "attn.in_proj_",
        "out": "attn.out_proj.",
        "norm2": "ln_2.",
        "fc1": "mlp.c_fc.",
        "fc2": "mlp.c_proj.",
    },
)


class Clip(Network):
    """Features are the embeddings of images, as long as the network makes them."""

    name = "clip"
    words = ("clip", "clip:PATH")
    metric_name = "fd_clip"
    automatic = False
    place = 4
    dimension = 768
    fetchable = True

    def find(self, word: str) -> Features | None:
        return found_by(self, word, VARIABLE, hub_checkpoint(FILE), "CLIP's weights")

    def is_here(self) -> bool:
        return bool(os.environ.get(VARIABLE)) or hub_checkpoint(FILE).is_file()

    def metric(self, weights: Path, sha256: str) -> str:
        return self.metric_name if sha256 == SHA256 else f"{self.metric_name}_{sha256[:8]}"

    def load(self, weights: Path, device: torch.device) -> Callable[[Tensor], Tensor]:
        """Any vision transformer of CLIP is read, at the size of its grid of places.

        Raises `RequestError` where the file is unreadable or holds something else.
        """
        import torch
        from torch.nn import functional

        state = _state_of(weights)
        with loading(weights, "CLIP's weights"):
            if "visual.conv1.weight" not in state or "visual.proj" not in state:
                raise ValueError("it has no visual.conv1.weight or no visual.proj")
            width, _, patch, _ = state["visual.conv1.weight"].shape
            take = partial(taken, state, device=device)
            kernel = take("visual.conv1.weight", (width, 3, patch, patch))
            first = take("visual.class_embedding", (width,))
            places = take(
                "visual.positional_embedding",
                (*state["visual.positional_embedding"].shape[:1], width),
            )
            side = math.isqrt(len(places) - 1)
            if side**2 != len(places) - 1:
                raise ValueError(f"it has {len(places)} places, no square and one")
            projection = take("visual.proj", (width, *state["visual.proj"].shape[1:]))
            norms = {
                f"{name}.{kind}": take(f"visual.{name}.{kind}", (width,))
                for name in ("ln_pre", "ln_post")
                for kind in ("weight", "bias")
            }
            blocks = blocks_of(state, NAMES, width, device)
        # A cheaper curve than the Gaussian's, as CLIP was trained with.
        transform = Transformer(blocks, EPSILON, lambda values: values * (1.702 * values).sigmoid())
        mean, deviation = (
            torch.tensor(values, device=device).view(1, 3, 1, 1) for values in (MEAN, DEVIATION)
        )
        size = side * patch

        def features(images: Tensor) -> Tensor:
            # CMMD's own code resizes without antialias and does not clip.
            resized = functional.interpolate(images.float() / 255, (size, size), mode="bicubic")
            inputs = (resized - mean) / deviation
            patches = functional.conv2d(inputs, kernel, stride=patch).flatten(2).mT
            tokens = torch.cat([first.expand(len(patches), 1, -1), patches], 1) + places
            seen = transform(normalised(tokens, norms, "ln_pre", EPSILON))[:, 0]
            return normalised(seen, norms, "ln_post", EPSILON) @ projection

        return features

    def fetch(self, progress: Progress | None = None) -> Path:
        """Download the published weights (0.9 GB) to torch.hub's cache, whole or not at all."""
        return download([URL], hub_checkpoint(FILE), sha256=SHA256, progress=progress)


def _state_of(weights: Path) -> dict[str, Any]:
    """The tensors in a file: published as TorchScript, or written by torch.save."""
    with loading(weights, "CLIP's weights"):
        scripted = zipfile.is_zipfile(weights) and any(
            name.endswith("constants.pkl") for name in zipfile.ZipFile(weights).namelist()
        )
    if not scripted:
        return state_dict_of(weights)
    with loading(weights, "CLIP's weights"):
        found: dict[str, Any] = script_loaded(weights, "cpu").state_dict()
        return found
