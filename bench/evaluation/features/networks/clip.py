"""CLIP ViT-L/14 at 336 pixels, whose image embeddings CMMD compares."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.evaluation.features.network import Fetched, loading, script_loaded, state_dict_of
from bench.evaluation.features.vit import (
    Names,
    Transformer,
    blocks_of,
    normalised,
    per_channel,
    side_of,
    taken,
)

if TYPE_CHECKING:
    import torch
    from torch import Tensor

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


class Clip(Fetched):
    """Features are the embeddings of images, as long as the network makes them."""

    name = "clip"
    words = ("clip", "clip:PATH")
    metric_name = "fd_clip"
    automatic = False
    place = 4
    dimension = 768
    variable = "SIGMA_BENCH_CLIP"
    file = "ViT-L-14-336px.pt"
    # The published weights, 0.9 GB (Radford et al. 2021, arXiv 2103.00020).
    sha256 = "3035c92b350959924f9f00213499208652fc7ea050643e8b385c2dac08641f02"
    url = f"https://openaipublic.azureedge.net/clip/models/{sha256}/{file}"
    expected = "CLIP's weights"

    def load(self, weights: Path, device: torch.device) -> Callable[[Tensor], Tensor]:
        """Any vision transformer of CLIP is read, at the size of its grid of places.

        Raises `RequestError` where the file is unreadable or holds something else.
        """
        import torch
        from torch.nn import functional

        state = _state_of(weights)
        with loading(weights, self.expected):
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
            size = side_of(places, "it") * patch
            projection = take("visual.proj", (width, *state["visual.proj"].shape[1:]))
            norms = {
                f"{name}.{kind}": take(f"visual.{name}.{kind}", (width,))
                for name in ("ln_pre", "ln_post")
                for kind in ("weight", "bias")
            }
            blocks = blocks_of(state, NAMES, width, device)
        # A cheaper curve than the Gaussian's, as CLIP was trained with.
        transform = Transformer(blocks, EPSILON, lambda values: values * (1.702 * values).sigmoid())
        mean, deviation = per_channel(MEAN, device), per_channel(DEVIATION, device)

        def features(images: Tensor) -> Tensor:
            # CMMD's own code resizes without antialias and does not clip.
            resized = functional.interpolate(images.float() / 255, (size, size), mode="bicubic")
            inputs = (resized - mean) / deviation
            patches = functional.conv2d(inputs, kernel, stride=patch).flatten(2).mT
            tokens = torch.cat([first.expand(len(patches), 1, -1), patches], 1) + places
            seen = transform(normalised(tokens, norms, "ln_pre", EPSILON))[:, 0]
            return normalised(seen, norms, "ln_post", EPSILON) @ projection

        return features


def _state_of(weights: Path) -> dict[str, Any]:
    """The tensors in a file: published as TorchScript, or written by torch.save."""
    with loading(weights, Clip.expected):
        scripted = zipfile.is_zipfile(weights) and any(
            name.endswith("constants.pkl") for name in zipfile.ZipFile(weights).namelist()
        )
    if not scripted:
        return state_dict_of(weights)
    with loading(weights, Clip.expected):
        found: dict[str, Any] = script_loaded(weights, "cpu").state_dict()
        return found
