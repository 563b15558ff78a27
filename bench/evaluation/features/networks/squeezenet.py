"""SqueezeNet 1.1, whose weights are part of a Python package, as a pickle of NumPy arrays."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.evaluation.features.network import Packaged, loading
from bench.evaluation.features.vit import per_channel

if TYPE_CHECKING:
    import numpy as np
    import torch
    from torch import Tensor

SIZE = 227

MEAN = (104.006, 116.669, 122.679)
"""What is subtracted from blue, green and red, as in Caffe, where it was trained."""

FIRES = {2: 16, 3: 16, 4: 32, 5: 32, 6: 48, 7: 48, 8: 64, 9: 64}
"""By number of a fire module, the channels that it squeezes to; it expands to 8 times as many."""

Layers = dict[str, tuple["np.ndarray[Any, Any]", "np.ndarray[Any, Any]"]]
"""By layer, its kernel (height, width, inputs, outputs) and its bias (outputs,)."""


class SqueezeNet(Packaged):
    """Trained on ImageNet (Iandola et al. 2016, arXiv 1602.07360); its features are the mean over
    the last map before the classifier, at 227x227."""

    name = "squeezenet"
    words = ("squeezenet",)
    metric_name = "fd_squeezenet"
    place = 2
    dimension = 512
    package = "ndf"
    inside = ("example_models", "weights", "squeezenet_weights.pkl")

    def is_here(self) -> bool:
        weights = self.weights()
        return weights is not None and weights.is_file()

    def load(self, weights: Path, device: torch.device) -> Callable[[Tensor], Tensor]:
        import torch
        from torch.nn import functional

        layers = {
            # torch has (outputs, inputs, height, width).
            name: (
                torch.from_numpy(kernel.transpose(3, 2, 0, 1).copy()).to(
                    device=device, memory_format=torch.channels_last
                ),
                torch.from_numpy(bias.copy()).to(device),
            )
            for name, (kernel, bias) in layers_of(weights).items()
        }
        mean = per_channel(MEAN, device)

        def convolve(maps: Tensor, name: str, stride: int = 1, padding: int = 0) -> Tensor:
            kernel, bias = layers[name]
            return functional.conv2d(maps, kernel, bias, stride, padding).relu_()

        def features(images: Tensor) -> Tensor:
            # Where the channels share memory they are equal: one is resized for all three.
            planes = images[:, :1] if images.stride(1) == 0 else images.flip(1)
            resized = functional.interpolate(
                planes.float(), (SIZE, SIZE), mode="bilinear", antialias=True
            )
            inputs = (resized - mean).contiguous(memory_format=torch.channels_last)
            maps = functional.max_pool2d(convolve(inputs, "conv1", stride=2, padding=1), 3, 2)
            for number in FIRES:
                squeezed = convolve(maps, f"fire{number}/squeeze1x1")
                narrow = convolve(squeezed, f"fire{number}/expand1x1")
                wide = convolve(squeezed, f"fire{number}/expand3x3", padding=1)
                maps = torch.cat([narrow, wide], 1)
                if number in (3, 5):
                    maps = functional.max_pool2d(maps, 3, 2)
            return maps.float().mean((2, 3))

        return features


def layers_of(weights: Path) -> Layers:
    """The layers in a file of weights, float32, the classifier not among them.

    The file may hold dictionaries, lists, texts, numbers and NumPy arrays. Raises `RequestError`
    for one that is unreadable, names anything else, or has other layers or shapes.
    """
    import numpy as np

    with loading(weights, "SqueezeNet 1.1's weights as a pickle of NumPy arrays"):
        with weights.open("rb") as file:
            held = _Arrays(file).load()
        layers: Layers = {}
        for name, shape in shapes().items():
            if name not in held:
                raise KeyError(f"it has no layer {name}")
            kernel, bias = held[name]
            if kernel.shape != shape or bias.shape != shape[-1:]:
                raise ValueError(f"layer {name} has the shapes {kernel.shape} and {bias.shape}")
            if not {kernel.dtype, bias.dtype} <= {np.dtype("f4"), np.dtype("f8")}:
                raise TypeError(f"layer {name} holds no floating-point numbers")
            layers[name] = (kernel.astype("f4"), bias.astype("f4"))
        return layers


def shapes() -> dict[str, tuple[int, int, int, int]]:
    """The shape of each layer's kernel, by its name in the file.

    >>> shapes()["fire2/expand3x3"]
    (3, 3, 16, 64)
    """
    found, inputs = {"conv1": (3, 3, 3, 64)}, 64
    for number, squeezed in FIRES.items():
        half = 4 * squeezed
        found[f"fire{number}/squeeze1x1"] = (1, 1, inputs, squeezed)
        found[f"fire{number}/expand1x1"] = (1, 1, squeezed, half)
        found[f"fire{number}/expand3x3"] = (3, 3, squeezed, half)
        inputs = 2 * half
    return found


class _Arrays(pickle.Unpickler):
    """Reads NumPy arrays and plain containers; whatever else a pickle names is refused unread."""

    def find_class(self, module: str, name: str) -> Any:
        import numpy as np

        # NumPy 2 has renamed the module in which it pickles arrays.
        allowed: dict[tuple[str, str], Any] = {
            ("numpy", "ndarray"): np.ndarray,
            ("numpy", "dtype"): np.dtype,
            ("numpy.core.multiarray", "_reconstruct"): _empty,
            ("numpy._core.multiarray", "_reconstruct"): _empty,
        }
        if (module, name) not in allowed:
            raise pickle.UnpicklingError(f"{module}.{name} is no array")
        return allowed[module, name]


def _empty(kind: Any, shape: tuple[int, ...], code: bytes) -> Any:
    """The array without values that a pickle begins with; its state is set afterwards."""
    import numpy as np

    if kind is not np.ndarray or shape != (0,):
        raise pickle.UnpicklingError("an array begins empty")
    return np.ndarray(shape, np.dtype("b"))
