"""Vision transformers as functions of their published weights, as DINOv2 and CLIP have them.

torch is imported where something is computed: this file is read where networks are only listed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from torch import Tensor

HEAD = 64
"""Numbers of a head of attention, in every published size."""


@dataclass(frozen=True)
class Names:
    """What a published file calls the parts of a transformer.

    Attributes:
        blocks: what stands before a block's number.
        parts: by part of a block, its name there. `scale1` and `scale2`, the factors on what
            attention and MLP add, are absent where there are none.
    """

    blocks: str
    parts: Mapping[str, str]


LINEAR = ("norm1", "qkv", "out", "norm2", "fc1", "fc2")
"""The parts of a block that have a weight and a bias, in the order in which they are used."""


@dataclass(frozen=True)
class Transformer:
    """Blocks of attention and MLP, each on normalised tokens and added to its input.

    Attributes:
        blocks: of each block the tensors by part: `qkv.weight` (3 W, W) and the like.
        epsilon: of the layer norms.
        activation: of the MLP, whose inner width is 4 W.
    """

    blocks: tuple[Mapping[str, Tensor], ...]
    epsilon: float
    activation: Callable[[Tensor], Tensor]

    def __call__(self, tokens: Tensor) -> Tensor:
        """Tokens (B, T, W) after all blocks."""
        for block in self.blocks:
            tokens = self._attend(tokens, block)
            inner = linear(normalised(tokens, block, "norm2", self.epsilon), block, "fc1")
            tokens = tokens + _scaled(linear(self.activation(inner), block, "fc2"), block, "scale2")
        return tokens

    def _attend(self, tokens: Tensor, block: Mapping[str, Tensor]) -> Tensor:
        from torch.nn.functional import scaled_dot_product_attention

        both = linear(normalised(tokens, block, "norm1", self.epsilon), block, "qkv")
        # (B, T, 3 W) to three times (B, heads, T, 64).
        query, key, value = both.unflatten(-1, (3, -1, HEAD)).permute(2, 0, 3, 1, 4)
        seen = scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)
        return tokens + _scaled(linear(seen, block, "out"), block, "scale1")


def linear(values: Tensor, weights: Mapping[str, Tensor], part: str) -> Tensor:
    """A linear layer of the part's weight and bias."""
    from torch.nn.functional import linear as multiply

    return multiply(values, weights[f"{part}.weight"], weights[f"{part}.bias"])


def normalised(values: Tensor, weights: Mapping[str, Tensor], part: str, epsilon: float) -> Tensor:
    """A layer norm over the last dimension with the part's weight and bias."""
    from torch.nn.functional import layer_norm

    scale, shift = weights[f"{part}.weight"], weights[f"{part}.bias"]
    return layer_norm(values, scale.shape, scale, shift, epsilon)


def _scaled(values: Tensor, block: Mapping[str, Tensor], part: str) -> Tensor:
    return values * block[part] if part in block else values


def depth_of(state: Mapping[str, Any], names: Names) -> int:
    """How many blocks a published file has.

    >>> depth_of({"blocks.0.norm1": 0, "blocks.1.norm1": 0, "norm": 0}, Names("blocks.", {}))
    2
    """
    first = len(names.blocks)
    numbers = {key[first:].partition(".")[0] for key in state if key.startswith(names.blocks)}
    return len(numbers)


def blocks_of(
    state: Mapping[str, Any], names: Names, width: int, device: torch.device
) -> tuple[Mapping[str, Tensor], ...]:
    """The blocks of a published file, float32 on `device`.

    Raises ValueError where a tensor is missing or has another shape than the width asks for.
    """
    if width % HEAD:
        raise ValueError(f"its width is {width}, no multiple of {HEAD}")
    shapes: dict[str, tuple[int, ...]] = {}
    inner = {"qkv": (3 * width, width), "fc1": (4 * width, width), "fc2": (width, 4 * width)}
    for part in LINEAR:
        shape = (width,) if part.startswith("norm") else inner.get(part, (width, width))
        shapes |= {f"{part}.weight": shape, f"{part}.bias": shape[:1]}
    shapes |= {part: (width,) for part in names.parts if part.startswith("scale")}

    def name_of(number: int, tensor: str) -> str:
        part, _, kind = tensor.partition(".")
        # CLIP joins its names by an underscore where DINOv2 has a dot.
        return f"{names.blocks}{number}.{names.parts[part]}{kind}"

    return tuple(
        {
            tensor: taken(state, name_of(number, tensor), shape, device)
            for tensor, shape in shapes.items()
        }
        for number in range(depth_of(state, names))
    )


def taken(
    state: Mapping[str, Any], name: str, shape: tuple[int, ...], device: torch.device
) -> Tensor:
    """A tensor of a published file, float32 on `device`.

    Raises ValueError where it is missing or has another shape.
    """
    if name not in state:
        raise ValueError(f"it has no {name}")
    tensor: Tensor = state[name]
    if tuple(tensor.shape) != shape:
        raise ValueError(f"{name} has the shape {tuple(tensor.shape)}, not {shape}")
    return tensor.detach().float().to(device)


def side_of(places: Tensor, what: str) -> int:
    """The side of the square grid of the places, (1 + side², W), whose first is the class token's.

    Raises ValueError where they are no square and one; `what` has them, for the message.
    """
    side = math.isqrt(len(places) - 1)
    if side**2 != len(places) - 1:
        raise ValueError(f"{what} has {len(places)} places, no square and one")
    return side


def per_channel(values: tuple[float, ...], device: torch.device) -> Tensor:
    """A number for each channel of images: (1, C, 1, 1) on `device`."""
    import torch

    return torch.tensor(values, device=device).view(1, -1, 1, 1)


def at_grid(places: Tensor, side: int, offset: float) -> Tensor:
    """Embeddings of places, (N, W) of a square grid, resized to side x side ones, (side², W).

    Bicubic, by the factor (side + offset) / √N, as DINOv2 does: with 0.1 its grid is shifted by a
    trifle against one that is resized to a size.

    >>> import torch
    >>> at_grid(torch.ones(37 * 37, 8), 16, 0.1).shape
    torch.Size([256, 8])
    """
    from torch.nn.functional import interpolate

    own = math.isqrt(len(places))
    if own == side:
        return places
    grid = places.T.reshape(1, -1, own, own)
    factor = (side + offset) / own
    return interpolate(grid, scale_factor=(factor, factor), mode="bicubic")[0].flatten(1).T
